//! The service, asked without a network: who may do what, what it answers, what it refuses.

mod access;
mod actions;
mod lists;
mod support;
