//! The store from outside: the conformance suite over each backend, random histories, `kill -9`, a full disk.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod backup;
mod child;
mod conformance;
mod full_disk;
mod kill;
mod kill_retention;
mod properties;
mod suite;
mod support;
