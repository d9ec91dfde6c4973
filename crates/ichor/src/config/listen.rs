//! `[listen]`, `[listen.tls]` and `[[source]]`: where instances arrive, and from whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::AeTitle;
use serde::{Deserialize, Serialize};

use ichor_dimse::tls::{ClientAuth, IdentityFiles, ServerTlsOptions};

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
    /// Associations at once from one address.
    #[serde(default = "default::max_associations_per_peer")]
    pub(crate) max_associations_per_peer: usize,
    /// Connections at once that have no association yet, from addresses of a source.
    #[serde(default = "default::max_handshakes")]
    pub(crate) max_handshakes: usize,
    /// The same from other addresses.
    #[serde(default = "default::max_strangers")]
    pub(crate) max_strangers: usize,
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
    /// Time for each PDU of a data set, and for the rest of a command, in seconds.
    #[serde(default = "default::pdu_timeout_s")]
    pub(crate) pdu_timeout_s: f64,
    /// Time for a whole instance, in seconds.
    #[serde(default = "default::instance_timeout_s")]
    pub(crate) instance_timeout_s: f64,
    /// Fewest bytes a second of a data set; 0: no bound.
    #[serde(default = "default::min_bytes_per_s")]
    pub(crate) min_bytes_per_s: u64,
    /// Waiting for a peer over which that is judged, in seconds.
    #[serde(default = "default::throughput_window_s")]
    pub(crate) throughput_window_s: f64,
    /// Transfer syntaxes that storage is accepted in, by UID, the preferred one first; absent: all that ichor knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transfer_syntaxes: Option<Vec<String>>,
    /// Whose order of transfer syntaxes counts.
    #[serde(default)]
    pub(crate) prefer: Prefer,
    /// Time that open associations have to finish when the daemon stops, in seconds.
    #[serde(default = "default::drain_timeout_s")]
    pub(crate) drain_timeout_s: f64,
    /// A second port, for TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsConfig>,
}

/// Whose order of transfer syntaxes counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Prefer {
    /// The peer's.
    #[default]
    Peer,
    /// That of `transfer_syntaxes`.
    Own,
}

/// `[listen.tls]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    /// Address and port on which everybody speaks TLS.
    pub(crate) address: SocketAddr,
    /// Certificate with its chain, PEM.
    pub(crate) certificate_file: PathBuf,
    /// Private key, PEM, not encrypted.
    pub(crate) key_file: PathBuf,
    /// Authorities of which one must have issued a peer's certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Whether peers must show a certificate; absent: they must where `client_ca_file` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_auth: Option<ClientAuthMode>,
    /// How often the files are looked at for changes, in seconds; 0: on SIGHUP only.
    #[serde(default = "default::reload_interval_s")]
    pub(crate) reload_interval_s: f64,
}

/// What is asked of a peer's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientAuthMode {
    /// Not asked for.
    None,
    /// May be shown.
    Optional,
    /// Must be shown.
    Required,
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
    /// User that it must name in the association request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// File that holds the user's passcode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) passcode_file: Option<PathBuf>,
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
            max_associations_per_peer: default::max_associations_per_peer(),
            max_handshakes: default::max_handshakes(),
            max_strangers: default::max_strangers(),
            max_pdu: default::max_pdu(),
            max_instance_mib: default::max_instance_mib(),
            artim_timeout_s: default::artim_timeout_s(),
            idle_timeout_s: default::idle_timeout_s(),
            pdu_timeout_s: default::pdu_timeout_s(),
            instance_timeout_s: default::instance_timeout_s(),
            min_bytes_per_s: default::min_bytes_per_s(),
            throughput_window_s: default::throughput_window_s(),
            transfer_syntaxes: None,
            prefer: Prefer::Peer,
            drain_timeout_s: default::drain_timeout_s(),
            tls: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        if !(4_096..=131_072).contains(&self.max_pdu) {
            return fault("listen.max_pdu", format!("{} is not between 4096 and 131072 bytes", self.max_pdu));
        }
        at_least_one("listen.max_associations", self.max_associations)?;
        at_least_one("listen.max_associations_per_peer", self.max_associations_per_peer)?;
        at_least_one("listen.max_handshakes", self.max_handshakes)?;
        self.chosen_syntaxes().map(drop).or_else(|message| fault("listen.transfer_syntaxes", message))?;
        match &self.tls {
            Some(tls) => tls.check(),
            None => Ok(()),
        }
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Some(tls) = &mut self.tls {
            tls.resolve(folder);
        }
    }

    /// The transfer syntaxes for storage, in order.
    ///
    /// # Errors
    /// A sentence about one that is not known or stands twice, or about none at all.
    pub(crate) fn chosen_syntaxes(&self) -> Result<Vec<&'static str>, String> {
        let known = ichor_dimse::uids::TRANSFER_SYNTAXES;
        let Some(listed) = &self.transfer_syntaxes else { return Ok(known.to_vec()) };
        let mut chosen = Vec::with_capacity(listed.len());
        for syntax in listed {
            let Some(found) = known.iter().find(|known| *known == syntax) else {
                return Err(format!("{syntax:?} is no transfer syntax that ichor can read"));
            };
            if chosen.contains(found) {
                return Err(format!("{syntax} stands twice"));
            }
            chosen.push(*found);
        }
        if chosen.is_empty() { Err("an empty list would refuse every instance".to_owned()) } else { Ok(chosen) }
    }

    pub(super) fn durations(&self) -> Durations {
        vec![
            ("listen.artim_timeout_s".to_owned(), self.artim_timeout_s),
            ("listen.idle_timeout_s".to_owned(), self.idle_timeout_s),
            ("listen.pdu_timeout_s".to_owned(), self.pdu_timeout_s),
            ("listen.instance_timeout_s".to_owned(), self.instance_timeout_s),
            ("listen.throughput_window_s".to_owned(), self.throughput_window_s),
            ("listen.tls.reload_interval_s".to_owned(), self.tls.as_ref().map_or(0.0, |tls| tls.reload_interval_s)),
            ("listen.drain_timeout_s".to_owned(), self.drain_timeout_s),
        ]
    }
}

impl TlsConfig {
    fn check(&self) -> Result<(), Fault> {
        self.options().map(drop).or_else(|message| fault("listen.tls.client_auth", message))
    }

    fn resolve(&mut self, folder: &Path) {
        let authorities = self.client_ca_file.as_mut();
        for path in [&mut self.certificate_file, &mut self.key_file].into_iter().chain(authorities) {
            *path = folder.join(&path);
        }
    }

    /// The files and what is asked of peers.
    ///
    /// # Errors
    /// A sentence, if authorities and `client_auth` contradict each other.
    pub(crate) fn options(&self) -> Result<ServerTlsOptions, String> {
        let client_auth = match (self.client_auth, &self.client_ca_file) {
            (None | Some(ClientAuthMode::None), None) => ClientAuth::None,
            (Some(ClientAuthMode::None), Some(_)) => {
                return Err("\"none\" makes no use of client_ca_file; leave one of them out".to_owned());
            }
            (Some(ClientAuthMode::Optional), Some(file)) => ClientAuth::Optional(file.clone()),
            (None | Some(ClientAuthMode::Required), Some(file)) => ClientAuth::Required(file.clone()),
            (Some(ClientAuthMode::Optional | ClientAuthMode::Required), None) => {
                return Err("certificates of peers can be checked with client_ca_file only".to_owned());
            }
        };
        let identity =
            IdentityFiles { certificate_file: self.certificate_file.clone(), key_file: self.key_file.clone() };
        Ok(ServerTlsOptions { identity, client_auth })
    }
}

impl SourceConfig {
    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Some(path) = &mut self.passcode_file {
            *path = folder.join(&path);
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        match (&self.user, &self.passcode_file) {
            (Some(user), Some(_)) if user.is_empty() || user.len() > 64 || !user.is_ascii() => {
                return fault("source.user", "must have 1 to 64 characters of ASCII".to_owned());
            }
            (Some(_), Some(_)) | (None, None) => {}
            _ => return fault("source.user", "give user and passcode_file together".to_owned()),
        }
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
    pub(super) const fn max_associations_per_peer() -> usize {
        32
    }
    pub(super) const fn max_handshakes() -> usize {
        64
    }
    pub(super) const fn max_strangers() -> usize {
        8
    }
    pub(super) const fn min_bytes_per_s() -> u64 {
        1024
    }
    pub(super) const fn throughput_window_s() -> f64 {
        30.0
    }
    pub(super) const fn reload_interval_s() -> f64 {
        10.0
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
