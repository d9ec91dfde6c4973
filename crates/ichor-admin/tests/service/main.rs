//! The service, asked without a network: who may do what, what it answers, what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

mod access;
mod actions;
mod audited;
mod bodies;
mod destinations;
mod invite;
mod listener;
mod lists;
mod lookups;
mod maps;
mod marks;
mod models;
mod support;
mod tasks;
