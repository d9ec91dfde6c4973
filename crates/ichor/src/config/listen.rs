//! `[listen]`, `[[source]]` and `[limits]`: where instances arrive, from whom, and how large they may be.

use std::net::SocketAddr;

use ichor_core::AeTitle;
use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one, fault};

/// `[listen]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenConfig {
    /// Address and port of the Storage SCP.
    pub(crate) address: SocketAddr,
    /// Own AE title.
    pub(crate) ae_title: AeTitle,
    /// Whether peers that call another title are rejected.
    #[serde(default)]
    pub(crate) check_called_ae: bool,
    /// Associations at once.
    #[serde(default = "default::max_associations")]
    pub(crate) max_associations: usize,
    /// Largest PDU accepted and announced, in bytes.
    #[serde(default = "default::max_pdu")]
    pub(crate) max_pdu: u32,
    /// Largest instance, in MiB.
    #[serde(default = "default::max_instance_mib")]
    pub(crate) max_instance_mib: u64,
    /// Time for the association request to arrive, in seconds.
    #[serde(default = "default::artim_timeout_s")]
    pub(crate) artim_timeout_s: f64,
    /// Time without any PDU before an association is aborted, in seconds.
    #[serde(default = "default::idle_timeout_s")]
    pub(crate) idle_timeout_s: f64,
    /// Time for each PDU inside a message, in seconds.
    #[serde(default = "default::pdu_timeout_s")]
    pub(crate) pdu_timeout_s: f64,
    /// Time for a whole instance, in seconds.
    #[serde(default = "default::instance_timeout_s")]
    pub(crate) instance_timeout_s: f64,
    /// Time that open associations have to finish when the daemon stops, in seconds.
    #[serde(default = "default::drain_timeout_s")]
    pub(crate) drain_timeout_s: f64,
}

/// `[[source]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceConfig {
    /// Calling AE title; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ae_title: Option<AeTitle>,
    /// Networks in CIDR notation; empty: any address.
    #[serde(default)]
    pub(crate) networks: Vec<String>,
    /// Quiet period after which a study of this source closes, in seconds.
    #[serde(default = "default::quiet_period_s")]
    pub(crate) quiet_period_s: f64,
}

/// `[limits]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// Instances of one study.
    pub(crate) study_instances: u32,
    /// Depth of nested sequences in a data set.
    pub(crate) nesting: u32,
    /// Elements and items of a data set, all levels together.
    pub(crate) elements: u64,
    /// What a deflated data set may inflate to, in MiB.
    pub(crate) inflated_mib: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { study_instances: 20_000, nesting: 32, elements: 2_000_000, inflated_mib: 4096 }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("limits.study_instances", self.study_instances as usize)?;
        at_least_one("limits.elements", usize::try_from(self.elements).unwrap_or(usize::MAX))?;
        at_least_one("limits.inflated_mib", usize::try_from(self.inflated_mib).unwrap_or(usize::MAX))?;
        // Parsers behind the walk follow the nesting with their stack.
        if self.nesting > 256 {
            return fault("limits.nesting", format!("{} is not between 0 and 256", self.nesting));
        }
        Ok(())
    }
}

impl ListenConfig {
    /// Defaults on an address.
    #[must_use]
    pub(crate) fn on(address: SocketAddr, ae_title: AeTitle) -> Self {
        Self {
            address,
            ae_title,
            check_called_ae: false,
            max_associations: default::max_associations(),
            max_pdu: default::max_pdu(),
            max_instance_mib: default::max_instance_mib(),
            artim_timeout_s: default::artim_timeout_s(),
            idle_timeout_s: default::idle_timeout_s(),
            pdu_timeout_s: default::pdu_timeout_s(),
            instance_timeout_s: default::instance_timeout_s(),
            drain_timeout_s: default::drain_timeout_s(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        if !(4_096..=131_072).contains(&self.max_pdu) {
            return fault("listen.max_pdu", format!("{} is not between 4096 and 131072 bytes", self.max_pdu));
        }
        at_least_one("listen.max_associations", self.max_associations)
    }

    pub(super) fn durations(&self) -> Durations {
        vec![
            ("listen.artim_timeout_s".to_owned(), self.artim_timeout_s),
            ("listen.idle_timeout_s".to_owned(), self.idle_timeout_s),
            ("listen.pdu_timeout_s".to_owned(), self.pdu_timeout_s),
            ("listen.instance_timeout_s".to_owned(), self.instance_timeout_s),
            ("listen.drain_timeout_s".to_owned(), self.drain_timeout_s),
        ]
    }
}

impl SourceConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        for network in &self.networks {
            if let Err(error) = network.parse::<ichor_dimse::IpNetwork>() {
                return fault("source.networks", error.to_string());
            }
        }
        Ok(())
    }

    pub(super) fn durations(&self) -> Durations {
        vec![("source.quiet_period_s".to_owned(), self.quiet_period_s)]
    }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn max_associations() -> usize {
        64
    }
    pub(super) const fn max_pdu() -> u32 {
        131_072
    }
    pub(super) const fn max_instance_mib() -> u64 {
        2048
    }
    pub(super) const fn artim_timeout_s() -> f64 {
        30.0
    }
    pub(super) const fn idle_timeout_s() -> f64 {
        60.0
    }
    pub(super) const fn pdu_timeout_s() -> f64 {
        30.0
    }
    pub(super) const fn instance_timeout_s() -> f64 {
        3600.0
    }
    pub(super) const fn drain_timeout_s() -> f64 {
        10.0
    }
    pub(super) const fn quiet_period_s() -> f64 {
        10.0
    }
}
