//! The four stages: ingest, assemble, analyse, deliver.
