//! Synthetic head CT with known bleeds, written as DICOM.
//!
//! A seed is a patient: head, brain, mimics, bleeds, scanner and noise all come from it, and the same seed with the
//! same options gives the same bytes. The anatomy is a set of analytic surfaces in the head's own axes, so one head can
//! be imaged at any matrix, spacing and gantry tilt. Nothing here stands for a real person.
//!
//! ```
//! use ichor_phantom::{Phantom, PhantomOptions};
//!
//! let options = PhantomOptions::random(7, Some(true)).with_matrix(64).with_slices(12);
//! let phantom = Phantom::generate(7, &options)?;
//! assert_eq!(phantom.slices.len(), 12);
//! # Ok::<(), ichor_phantom::PhantomError>(())
//! ```
//!
//! Architecture Invariant: no tensor library, no network; masks and labels are the generator's own knowledge, and
//! nothing that analyses a study may ask for them.

mod bleed;
mod brain;
mod companions;
mod dicom;
mod error;
mod extras;
mod geometry;
mod head;
mod identity;
mod implant;
mod mimic;
mod noise;
mod options;
mod outside;
mod phantom;
mod plan;
mod render;
mod scanner;
mod scene;
mod study;

pub use companions::Companions;
pub use dicom::write_dicom;
pub use error::PhantomError;
pub use extras::Extras;
pub use identity::DicomIdentity;
pub use implant::{HeadSlice, Implanted, RealHead};
pub use options::{BleedPlan, BleedRanges, BleedSpec, COVERAGE_MM, Difficulty, Padding, PhantomOptions, Storage};
pub use phantom::{Bleed, Phantom, PhantomSlice};
pub use scene::Scene;
pub use study::{WriteOptions, WrittenSlice, WrittenStudy, write_study, write_study_with};
