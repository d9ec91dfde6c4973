//! DICOMweb: STOW-RS over HTTP.
