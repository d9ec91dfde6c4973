//! One module a command.

pub(crate) mod care;
pub(crate) mod commitments;
pub(crate) mod config;
pub(crate) mod deliveries;
pub(crate) mod demo;
pub(crate) mod echo;
pub(crate) mod explain;
mod job_log;
pub(crate) mod manual;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod peer;
pub(crate) mod phantom;
pub(crate) mod retention;
pub(crate) mod route;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod studies;
pub(crate) mod tasks;
mod witness;
