//! The stages of ichor: [`ingest`] → [`assemble`] → [`analyse`] → [`deliver`], [`triage`] of what is still arriving,
//! [`prove`] of what was delivered, [`commit`], which tells peers what is kept, [`tell`], which tells those who read what came of it, and
//! [`retain`], which gives up files that are no longer kept, and [`lookup`], which asks peers about what is arriving. [`audit`] tells a repository who did what.
//! [`models`] says which model is active, and in the [`shadow`] others look on.
//! [`tasks`] performs workitems of others: what it fetches comes in like everything else.
//!
//! Architecture Invariant: a stage's only input and output is the store. Wake-ups are hints: a stage that misses
//! every one of them still finds its work by polling, and a stage that is killed at any moment leaves its work in
//! the store for the next start.

pub mod analyse;
pub mod assemble;
pub mod audit;
pub mod backoff;
pub mod clock;
pub mod commit;
pub mod deliver;
pub mod forward;
pub mod ingest;
pub mod lookup;
pub mod models;
pub mod order;
pub mod peer;
pub mod prove;
pub mod retain;
pub mod route;
pub mod shadow;
pub mod tasks;
pub mod telemetry;
pub mod tell;
pub mod traffic;
pub mod triage;
pub mod worklist;

pub use clock::now;

/// Settings of a stage that may be replaced while it works: it looks at them before each piece of work.
pub type Live<T> = tokio::sync::watch::Receiver<std::sync::Arc<T>>;
