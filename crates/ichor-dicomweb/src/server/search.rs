//! QIDO-RS (PS3.18 10.6): what is asked, and which of what is held fits.

mod attributes;
mod engine;
mod matching;
pub(super) mod query;

pub(super) use engine::{Found, Limits, search};
pub(super) use matching::{DateRange, TimeRange, full_time, is_date};
