//! The server against raw HTTP over TCP: what is said, in which order, and what the handler is given.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod archive;
mod peers;
mod retrieving;
mod searching;
mod storing;
mod support;
