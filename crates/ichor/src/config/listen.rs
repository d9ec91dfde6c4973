//! `[listen]` and `[[source]]`: where instances arrive, and from whom.

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
    /// `host:port` where peers of this source take commitment reports once their association has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) report_address: Option<String>,
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
        if let Some(address) = &self.report_address {
            let port =
                address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return fault("source.report_address", format!("{address:?} is not host:port"));
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
