//! The cases, one file a stage.

pub(crate) mod analyse;
pub(crate) mod assemble;
pub(crate) mod audit_feed;
pub(crate) mod commitment;
pub(crate) mod deliver;
pub(crate) mod destination;
pub(crate) mod figures;
pub(crate) mod forward;
pub(crate) mod held;
pub(crate) mod latency;
pub(crate) mod lookup;
pub(crate) mod maps;
pub(crate) mod marks;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod order;
pub(crate) mod proof;
pub(crate) mod query;
pub(crate) mod receive;
pub(crate) mod recovery;
pub(crate) mod retention;
pub(crate) mod shadow;
pub(crate) mod tasks;
pub(crate) mod triage;
pub(crate) mod worklist;
