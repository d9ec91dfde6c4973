//! `[dicomweb]`: where instances arrive by STOW-RS and are searched and retrieved, and by whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::{AeTitle, InvalidNetwork, IpNetwork, TrustedProxies};
use ichor_dicomweb::server::Right;
use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one, fault, proxies};

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
    /// Networks of proxies that are believed when they say whom they speak for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trusted_proxies: Vec<String>,
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
    /// What URLs in answers begin with, up to the prefix; absent: as the request says.
    pub(crate) url: Option<String>,
    /// Whether patients are shown beyond loopback without TLS, because a proxy encrypts.
    #[serde(default)]
    pub(crate) allow_clear_text: bool,
    /// Origins of pages whose scripts may read answers.
    #[serde(default)]
    pub(crate) cors_origins: Vec<String>,
    /// Searches and retrievals at once.
    #[serde(default = "default::max_readings")]
    pub(crate) max_readings: usize,
    /// Most results of a search.
    #[serde(default = "default::max_results")]
    pub(crate) max_results: usize,
    /// Most headers that are read for one search.
    #[serde(default = "default::max_examined")]
    pub(crate) max_examined: usize,
    /// Most instances of one answer.
    #[serde(default = "default::max_instances")]
    pub(crate) max_instances: usize,
    /// Most frames that are asked for at once.
    #[serde(default = "default::max_frames")]
    pub(crate) max_frames: usize,
    /// Most parameters of a query.
    #[serde(default = "default::max_parameters")]
    pub(crate) max_parameters: usize,
    /// Largest instance that is transcoded, uncompressed, in MiB.
    #[serde(default = "default::max_transcoded_mib")]
    pub(crate) max_transcoded_mib: u64,
    /// Who may do what.
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
    /// What it may do.
    #[serde(default = "default::may")]
    pub(crate) may: Vec<ClientRight>,
    /// Subscribers of the worklist that it alone may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) subscriber_ae_titles: Vec<AeTitle>,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientRight {
    /// Send instances (STOW-RS).
    Store,
    /// Search what is kept (QIDO-RS).
    Search,
    /// Retrieve it (WADO-RS).
    Retrieve,
    /// See and change workitems (UPS-RS).
    Worklist,
}

impl ClientRight {
    pub(crate) const fn right(self) -> Right {
        match self {
            Self::Store => Right::Store,
            Self::Search => Right::Search,
            Self::Retrieve => Right::Retrieve,
            Self::Worklist => Right::Worklist,
        }
    }
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
        at_least_one("dicomweb.max_readings", self.max_readings)?;
        at_least_one("dicomweb.max_results", self.max_results)?;
        at_least_one("dicomweb.max_examined", self.max_examined)?;
        at_least_one("dicomweb.max_instances", self.max_instances)?;
        at_least_one("dicomweb.max_frames", self.max_frames)?;
        at_least_one("dicomweb.max_parameters", self.max_parameters)?;
        at_least_one("dicomweb.max_transcoded_mib", usize::from(self.max_transcoded_mib > 0))?;
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
        self.trusted_proxies().or_else(|error| fault("dicomweb.trusted_proxies", error.to_string()))?;
        self.check_reading()?;
        let mut names: Vec<&str> = self.clients.iter().map(|client| client.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return fault("dicomweb.client.name", format!("{:?} stands twice", twice[0]));
        }
        let mut titles: Vec<&AeTitle> =
            self.clients.iter().flat_map(|client| client.subscriber_ae_titles.iter()).collect();
        titles.sort_unstable();
        if let Some(twice) = titles.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("{:?} stands twice: a subscriber is one client's", twice[0].as_str());
            return fault("dicomweb.client.subscriber_ae_titles", message);
        }
        self.clients.iter().try_for_each(DicomWebClientConfig::check)
    }

    /// Proxies that are believed.
    pub(crate) fn trusted_proxies(&self) -> Result<TrustedProxies, InvalidNetwork> {
        proxies(&self.trusted_proxies)
    }

    /// Whether anybody may see what is kept.
    pub(crate) fn shows_patients(&self) -> bool {
        self.clients.iter().any(|client| client.may.iter().any(|right| *right != ClientRight::Store))
    }

    fn check_reading(&self) -> Result<(), Fault> {
        let is_encrypted = self.tls_certificate_file.is_some() || self.allow_clear_text;
        if self.shows_patients() && !is_encrypted && !self.address.ip().is_loopback() {
            let message = "a client may see patients beyond loopback, and nothing encrypts: give tls_certificate_file \
                           and tls_key_file, or set allow_clear_text where a proxy encrypts";
            return fault("dicomweb.client.may", message.to_owned());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-._~:[]".contains(c);
        let is_origin = |url: &str| {
            let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.ends_with('/') && host.chars().all(is_plain))
        };
        if let Some(url) = self.url.as_deref().filter(|url| !is_origin(url)) {
            return fault("dicomweb.url", format!("{url:?} is no http:// or https:// URL without a slash at its end"));
        }
        let has_path = |origin: &str| origin.matches('/').count() > 2;
        if let Some(origin) = self.cors_origins.iter().find(|origin| !is_origin(origin) || has_path(origin)) {
            let message = format!("{origin:?} is no origin, such as https://viewer.example");
            return fault("dicomweb.cors_origins", message);
        }
        Ok(())
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
        if self.may.is_empty() {
            return fault("dicomweb.client.may", format!("{} may do nothing: store, search, retrieve?", self.name));
        }
        if !self.subscriber_ae_titles.is_empty() && !self.may.contains(&ClientRight::Worklist) {
            let message = format!("{} may not use the worklist, of which these would be subscribers", self.name);
            return fault("dicomweb.client.subscriber_ae_titles", message);
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
    pub(super) fn may() -> Vec<super::ClientRight> {
        vec![super::ClientRight::Store]
    }
    pub(super) const fn max_readings() -> usize {
        16
    }
    pub(super) const fn max_results() -> usize {
        1_000
    }
    pub(super) const fn max_examined() -> usize {
        10_000
    }
    pub(super) const fn max_instances() -> usize {
        20_000
    }
    pub(super) const fn max_frames() -> usize {
        2_000
    }
    pub(super) const fn max_parameters() -> usize {
        100
    }
    pub(super) const fn max_transcoded_mib() -> u64 {
        512
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
            ("max_results = 0", "max_results"),
            ("url = \"pacs.example\"", "url"),
            ("url = \"https://a\\r\\nX: b\"", "url"),
            ("cors_origins = [\"*\"]", "cors_origins"),
            ("cors_origins = [\"https://viewer.example/ohif\"]", "cors_origins"),
            ("[[client]]\nname = \"A\"\ntoken_file = \"t\"\nmay = []", "may"),
            ("[[client]]\nname = \"A\"\ntoken_file = \"t\"\nmay = [\"delete\"]", "delete"),
        ] {
            let error = check(&format!("{address}{keys}")).unwrap_err();
            assert!(error.contains(word), "{keys}: {error}");
        }
    }

    #[test]
    fn patients_are_shown_behind_tls_only() {
        let client = "[[client]]\nname = \"A\"\ntoken_file = \"t\"\n";
        let reader = format!("{client}may = [\"search\", \"retrieve\"]");
        assert_eq!(check(&format!("address = \"127.0.0.1:8080\"\n{reader}")), Ok(()));
        let open = "address = \"0.0.0.0:8080\"\n";
        assert!(check(&format!("{open}{reader}")).unwrap_err().contains("nothing encrypts"));
        assert_eq!(check(&format!("{open}allow_clear_text = true\n{reader}")), Ok(()));
        let tls = "tls_certificate_file = \"c\"\ntls_key_file = \"k\"\n";
        assert_eq!(check(&format!("{open}{tls}{reader}")), Ok(()));
        // As before there was anything to be shown.
        assert_eq!(check(&format!("{open}{client}")), Ok(()));
        let config: DicomWebConfig = toml::from_str(&format!("{open}{client}")).unwrap();
        assert!(!config.shows_patients());
    }
}
