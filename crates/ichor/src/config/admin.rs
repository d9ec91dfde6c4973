//! `[admin]`: health and metrics.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one};

/// `[admin]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminConfig {
    /// Address and port of the HTTP service.
    pub(crate) address: SocketAddr,
    /// Connections at once.
    #[serde(default = "default::max_connections")]
    pub(crate) max_connections: usize,
    /// Longest life of a connection, in seconds.
    #[serde(default = "default::timeout_s")]
    pub(crate) timeout_s: f64,
}

impl AdminConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("admin.max_connections", self.max_connections)
    }

    pub(super) fn durations(&self) -> Durations {
        vec![("admin.timeout_s".to_owned(), self.timeout_s)]
    }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn max_connections() -> usize {
        32
    }
    pub(super) const fn timeout_s() -> f64 {
        15.0
    }
}
