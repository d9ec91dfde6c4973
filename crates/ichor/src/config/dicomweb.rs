//! `[dicomweb]`: where instances arrive by STOW-RS, and from whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::{AeTitle, IpNetwork};
use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one, fault};

/// `[dicomweb]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DicomWebConfig {
    /// Address and port of the HTTP service.
    pub(crate) address: SocketAddr,
    /// Path before `/studies`.
    #[serde(default = "default::prefix")]
    pub(crate) prefix: String,
    /// PEM file with the certificate chain; with it, HTTPS instead of HTTP.
    pub(crate) tls_certificate_file: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub(crate) tls_key_file: Option<PathBuf>,
    /// Connections at once.
    #[serde(default = "default::max_connections")]
    pub(crate) max_connections: usize,
    /// Requests at once.
    #[serde(default = "default::max_requests")]
    pub(crate) max_requests: usize,
    /// Longest header of a request, in KiB.
    #[serde(default = "default::max_header_kib")]
    pub(crate) max_header_kib: usize,
    /// Longest body of a request, in MiB.
    #[serde(default = "default::max_body_mib")]
    pub(crate) max_body_mib: u64,
    /// Longest part of a body, in MiB; absent: as `listen.max_instance_mib`.
    pub(crate) max_part_mib: Option<u64>,
    /// Most parts of a body.
    #[serde(default = "default::max_parts")]
    pub(crate) max_parts: usize,
    /// Time for a request's header, and for a TLS handshake, in seconds.
    #[serde(default = "default::header_timeout_s")]
    pub(crate) header_timeout_s: f64,
    /// Time without a byte of a body, in seconds.
    #[serde(default = "default::body_idle_timeout_s")]
    pub(crate) body_idle_timeout_s: f64,
    /// Fewest bytes a second of a body.
    #[serde(default = "default::min_bytes_per_second")]
    pub(crate) min_bytes_per_second: u64,
    /// Time to hear an answer and to begin another request, in seconds.
    #[serde(default = "default::answer_timeout_s")]
    pub(crate) answer_timeout_s: f64,
    /// What the answer 503 asks a sender to wait, in seconds.
    #[serde(default = "default::retry_after_s")]
    pub(crate) retry_after_s: f64,
    /// Time that open requests have to finish when the daemon stops, in seconds.
    #[serde(default = "default::drain_timeout_s")]
    pub(crate) drain_timeout_s: f64,
    /// Who may send.
    #[serde(default, rename = "client")]
    pub(crate) clients: Vec<DicomWebClientConfig>,
}

/// `[[dicomweb.client]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DicomWebClientConfig {
    /// Name, unique; it has the form of an AE title, and stands where one stands.
    pub(crate) name: AeTitle,
    /// File with the bearer token that the client shows; absent: its address is enough.
    pub(crate) token_file: Option<PathBuf>,
    /// Networks in CIDR notation; empty: any address, which needs a token.
    #[serde(default)]
    pub(crate) networks: Vec<String>,
    /// Quiet period after which a study of this client closes, in seconds.
    #[serde(default = "default::quiet_period_s")]
    pub(crate) quiet_period_s: f64,
}

impl DicomWebConfig {
    pub(super) fn resolve(&mut self, folder: &Path) {
        let tokens = self.clients.iter_mut().map(|client| &mut client.token_file);
        for path in [&mut self.tls_certificate_file, &mut self.tls_key_file].into_iter().chain(tokens).flatten() {
            *path = folder.join(&path);
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("dicomweb.max_connections", self.max_connections)?;
        at_least_one("dicomweb.max_requests", self.max_requests)?;
        at_least_one("dicomweb.max_parts", self.max_parts)?;
        at_least_one("dicomweb.max_body_mib", usize::from(self.max_body_mib > 0))?;
        at_least_one("dicomweb.max_part_mib", usize::from(self.max_part_mib != Some(0)))?;
        if !(8..=1024).contains(&self.max_header_kib) {
            return fault("dicomweb.max_header_kib", format!("{} is not between 8 and 1024", self.max_header_kib));
        }
        let timeouts = self.durations();
        if let Some((key, _)) = timeouts.iter().find(|(key, value)| key.ends_with("timeout_s") && *value == 0.0) {
            return fault(key, "0 would stop everything".to_owned());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        let prefix = &self.prefix;
        if !(prefix.is_empty() || prefix.starts_with('/')) || prefix.ends_with('/') || !prefix.chars().all(is_plain) {
            return fault(
                "dicomweb.prefix",
                format!("{prefix:?} is no path that starts, and does not end, with a slash"),
            );
        }
        if self.tls_certificate_file.is_some() != self.tls_key_file.is_some() {
            return fault("dicomweb.tls_certificate_file", "give it together with tls_key_file".to_owned());
        }
        let mut names: Vec<&str> = self.clients.iter().map(|client| client.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return fault("dicomweb.client.name", format!("{:?} stands twice", twice[0]));
        }
        self.clients.iter().try_for_each(DicomWebClientConfig::check)
    }

    pub(super) fn durations(&self) -> Durations {
        let own = [
            ("header_timeout_s", self.header_timeout_s),
            ("body_idle_timeout_s", self.body_idle_timeout_s),
            ("answer_timeout_s", self.answer_timeout_s),
            ("retry_after_s", self.retry_after_s),
            ("drain_timeout_s", self.drain_timeout_s),
        ];
        let clients = self.clients.iter().map(|client| ("client.quiet_period_s", client.quiet_period_s));
        own.into_iter().chain(clients).map(|(key, value)| (format!("dicomweb.{key}"), value)).collect()
    }
}

impl DicomWebClientConfig {
    fn check(&self) -> Result<(), Fault> {
        for network in &self.networks {
            if let Err(error) = network.parse::<IpNetwork>() {
                return fault("dicomweb.client.networks", error.to_string());
            }
        }
        if self.token_file.is_none() && self.networks.is_empty() {
            let message = format!("{} has neither token_file nor networks: anybody could send", self.name);
            return fault("dicomweb.client", message);
        }
        Ok(())
    }
}

/// The defaults of single keys.
mod default {
    pub(super) fn prefix() -> String {
        "/dicom-web".to_owned()
    }
    pub(super) const fn max_connections() -> usize {
        64
    }
    pub(super) const fn max_requests() -> usize {
        16
    }
    pub(super) const fn max_header_kib() -> usize {
        64
    }
    pub(super) const fn max_body_mib() -> u64 {
        16_384
    }
    pub(super) const fn max_parts() -> usize {
        10_000
    }
    pub(super) const fn header_timeout_s() -> f64 {
        10.0
    }
    pub(super) const fn body_idle_timeout_s() -> f64 {
        30.0
    }
    pub(super) const fn min_bytes_per_second() -> u64 {
        1024
    }
    pub(super) const fn answer_timeout_s() -> f64 {
        30.0
    }
    pub(super) const fn retry_after_s() -> f64 {
        10.0
    }
    pub(super) const fn drain_timeout_s() -> f64 {
        10.0
    }
    pub(super) const fn quiet_period_s() -> f64 {
        10.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: DicomWebConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn what_is_refused() {
        let address = "address = \"127.0.0.1:8080\"\n";
        assert_eq!(check(address), Ok(()));
        assert_eq!(check(&format!("{address}prefix = \"\"")), Ok(()));
        for (keys, word) in [
            ("prefix = \"dicom-web\"", "prefix"),
            ("prefix = \"/dicom-web/\"", "prefix"),
            ("prefix = \"/a b\"", "prefix"),
            ("max_requests = 0", "max_requests"),
            ("max_part_mib = 0", "max_part_mib"),
            ("max_header_kib = 4", "max_header_kib"),
            ("body_idle_timeout_s = 0.0", "body_idle_timeout_s"),
            ("tls_key_file = \"key.pem\"", "tls_certificate_file"),
            ("[[client]]\nname = \"A\"", "anybody"),
            ("[[client]]\nname = \"A\"\nnetworks = [\"10.0.0.1/8\"]", "networks"),
            ("[[client]]\nname = \"LONGER THAN AN AE TITLE\"\ntoken_file = \"t\"", "name"),
            ("[[client]]\nname = \"A\"\ntoken_file = \"t\"\n[[client]]\nname = \"A\"\ntoken_file = \"u\"", "twice"),
        ] {
            let error = check(&format!("{address}{keys}")).unwrap_err();
            assert!(error.contains(word), "{keys}: {error}");
        }
    }
}
