//! Pictures for people: a slice in its window, a map in colours with its legend, a mask, contours, words, as PNG.
//!
//! Architecture Invariant: no DICOM, no model, no clock. It takes flat arrays; the same arrays give the same bytes.

mod color;
mod contour;
mod image;
mod raster;
mod words;

pub use color::{Color, heat_color, map_color};
pub use contour::Contour;
pub use image::{Image, PictureError, Window};
pub use raster::Raster;
pub use words::{Font, wrapped};
