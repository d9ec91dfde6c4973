//! `[audit]`: the repository that is told who did what.

use std::path::Path;

use ichor_dimse::tls::ClientTls;
use serde::{Deserialize, Serialize};

use super::keys::with_tls_files;
use super::{Durations, Fault, fault, host_and_port};

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuditTransport {
    /// Syslog over TLS (RFC 5425).
    Tls,
    /// Syslog over UDP (RFC 5426).
    Udp,
}

with_tls_files! {
    /// `[audit]`
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct AuditConfig {
        /// `host:port` of the repository.
        pub(crate) address: String,
        /// How messages travel.
        #[serde(default = "default::transport")]
        pub(crate) transport: AuditTransport,
        /// What this system is called in messages.
        #[serde(default = "default::source_id")]
        pub(crate) source_id: String,
        /// What the site is called in messages; absent: it is not named.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) site: Option<String>,
        /// Name that the repository's certificate must have; absent: the host of `address`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) tls_server_name: Option<String>,
        /// Whether the certificate must have that name; absent: yes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) tls_check_name: Option<bool>,
        /// Time to connect, and for the repository to take what is sent, in seconds.
        #[serde(default = "default::timeout_s")]
        pub(crate) timeout_s: f64,
        /// Wait after the first failure, in seconds.
        #[serde(default = "default::first_backoff_s")]
        pub(crate) first_backoff_s: f64,
        /// Longest wait, in seconds.
        #[serde(default = "default::max_backoff_s")]
        pub(crate) max_backoff_s: f64,
    }
}

impl AuditConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        host_and_port(&self.address).or_else(|message| fault("audit.address", message))?;
        for (key, text) in [("audit.source_id", Some(&self.source_id)), ("audit.site", self.site.as_ref())] {
            if text.is_some_and(|text| text.trim().is_empty() || text.len() > 64 || text.chars().any(char::is_control))
            {
                return fault(key, "1 to 64 characters".to_owned());
            }
        }
        if self.timeout_s < 0.1 {
            return fault("audit.timeout_s", format!("{} is less than 0.1 seconds", self.timeout_s));
        }
        self.tls_files().identity().or_else(|message| fault("audit.tls_certificate_file", message))?;
        self.client_tls()
            .map(drop)
            .or_else(|_| fault("audit.transport", "keys of TLS do nothing with transport = \"udp\"".to_owned()))
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.resolve_tls_files(folder);
    }

    pub(super) fn durations(&self) -> Durations {
        vec![
            ("audit.timeout_s".to_owned(), self.timeout_s),
            ("audit.first_backoff_s".to_owned(), self.first_backoff_s),
            ("audit.max_backoff_s".to_owned(), self.max_backoff_s),
        ]
    }

    /// How TLS is spoken; `None`: not.
    pub(crate) fn tls(&self) -> Option<ClientTls> {
        // What cannot be was refused when the file was read.
        self.client_tls().ok().flatten()
    }

    fn client_tls(&self) -> Result<Option<ClientTls>, String> {
        let is_spoken = self.transport == AuditTransport::Tls;
        self.tls_files().client(is_spoken, self.tls_server_name.as_deref(), self.tls_check_name)
    }

    /// Whether messages travel in the clear to another machine, as far as the address says.
    pub(crate) fn is_exposed(&self) -> bool {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let is_near = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.transport == AuditTransport::Udp && !is_near
    }
}

/// The defaults of single keys.
mod default {
    use super::AuditTransport;

    pub(super) const fn transport() -> AuditTransport {
        AuditTransport::Tls
    }
    pub(super) fn source_id() -> String {
        "ichor".to_owned()
    }
    pub(super) const fn timeout_s() -> f64 {
        10.0
    }
    pub(super) const fn first_backoff_s() -> f64 {
        1.0
    }
    pub(super) const fn max_backoff_s() -> f64 {
        60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> AuditConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(of("address = 'arr:6514'").check().is_ok());
        for (lines, key) in [
            ("address = 'arr'", "audit.address"),
            ("address = 'arr:6514'\nsource_id = ''", "audit.source_id"),
            ("address = 'arr:6514'\nsite = \"a\\nb\"", "audit.site"),
            ("address = 'arr:6514'\ntimeout_s = 0", "audit.timeout_s"),
            ("address = 'arr:6514'\ntls_key_file = 'k'", "audit.tls_certificate_file"),
            ("address = '127.0.0.1:514'\ntransport = 'udp'\ntls_ca_file = 'c'", "audit.transport"),
        ] {
            assert_eq!(of(lines).check().unwrap_err().0, key, "{lines}");
        }
        assert!(toml::from_str::<AuditConfig>("address = 'a:1'\nverify = false").is_err(), "an unknown key");
    }

    #[test]
    fn udp_to_another_machine_is_told_apart() {
        let udp = |host: &str| of(&format!("address = '{host}:514'\ntransport = 'udp'")).is_exposed();
        assert!(udp("10.1.2.3") && udp("arr.example"));
        assert!(!udp("127.0.0.1") && !udp("localhost") && !udp("[::1]"));
        assert!(!of("address = '10.1.2.3:6514'").is_exposed());
    }
}
