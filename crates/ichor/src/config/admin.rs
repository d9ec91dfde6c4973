//! `[admin]`: the API and the pages, health and metrics.

mod oidc;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::{InvalidNetwork, TrustedProxies};
use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one, fault, proxies};
pub(crate) use oidc::OidcConfig;

/// `[admin]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminConfig {
    /// Address and port of the HTTP service.
    pub(crate) address: SocketAddr,
    /// Where people reach it; links begin with it. Absent: by the address.
    pub(crate) url: Option<String>,
    /// Certificate followed by those that lead to its authority, PEM.
    pub(crate) tls_certificate_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub(crate) tls_key_file: Option<PathBuf>,
    /// Whether patients are shown in the clear beyond loopback.
    #[serde(default)]
    pub(crate) allow_clear_text: bool,
    /// Networks of proxies that are believed when they say whom they speak for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trusted_proxies: Vec<String>,
    /// Connections at once.
    #[serde(default = "default::max_connections")]
    pub(crate) max_connections: usize,
    /// Longest wait for a request, in seconds.
    #[serde(default = "default::timeout_s")]
    pub(crate) timeout_s: f64,
    /// Longest event stream, in seconds.
    #[serde(default = "default::stream_s")]
    pub(crate) stream_s: f64,
    /// Longest session, in seconds.
    #[serde(default = "default::session_s")]
    pub(crate) session_s: f64,
    /// How long a one-time link is good, in seconds.
    #[serde(default = "default::invitation_s")]
    pub(crate) invitation_s: f64,
    /// Failed logins from one address before the next is refused.
    #[serde(default = "default::login_attempts")]
    pub(crate) login_attempts: u32,
    /// For how long they count, in seconds.
    #[serde(default = "default::login_window_s")]
    pub(crate) login_window_s: f64,
    /// Pictures of slices drawn at once.
    #[serde(default = "default::max_pictures")]
    pub(crate) max_pictures: usize,
    /// Login by an OpenID provider; absent: by password only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oidc: Option<OidcConfig>,
}

impl AdminConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("admin.max_connections", self.max_connections)?;
        at_least_one("admin.max_pictures", self.max_pictures)?;
        at_least_one("admin.login_attempts", self.login_attempts as usize)?;
        self.trusted_proxies().or_else(|error| fault("admin.trusted_proxies", error.to_string()))?;
        if self.tls_certificate_file.is_some() != self.tls_key_file.is_some() {
            return fault("admin.tls_certificate_file", "give it together with tls_key_file".to_owned());
        }
        if let Some(url) = &self.url
            && (!url.starts_with("http://") && !url.starts_with("https://") || url.ends_with('/'))
        {
            return fault(
                "admin.url",
                format!("{url:?} is not http:// or https:// and a host, without a slash at its end"),
            );
        }
        self.oidc.iter().try_for_each(|oidc| oidc.check(self.url.as_deref()))
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.tls_certificate_file, &mut self.tls_key_file].into_iter().flatten() {
            *path = folder.join(&path);
        }
        self.oidc.iter_mut().for_each(|oidc| oidc.resolve(folder));
    }

    pub(super) fn durations(&self) -> Durations {
        let provider = self.oidc.iter().flat_map(|oidc| {
            [
                ("admin.oidc.timeout_s".to_owned(), oidc.timeout_s),
                ("admin.oidc.discovery_s".to_owned(), oidc.discovery_s),
                ("admin.oidc.keys_pause_s".to_owned(), oidc.keys_pause_s),
            ]
        });
        let own = [
            ("admin.timeout_s".to_owned(), self.timeout_s),
            ("admin.stream_s".to_owned(), self.stream_s),
            ("admin.session_s".to_owned(), self.session_s),
            ("admin.invitation_s".to_owned(), self.invitation_s),
            ("admin.login_window_s".to_owned(), self.login_window_s),
        ];
        own.into_iter().chain(provider).collect()
    }

    /// Proxies that are believed.
    pub(crate) fn trusted_proxies(&self) -> Result<TrustedProxies, InvalidNetwork> {
        proxies(&self.trusted_proxies)
    }

    /// Whether what shows a patient is served: on loopback, behind TLS, or where the site says so.
    pub(crate) fn serves_patients(&self) -> bool {
        self.address.ip().is_loopback() || self.tls_certificate_file.is_some() || self.allow_clear_text
    }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn max_connections() -> usize {
        64
    }
    pub(super) const fn timeout_s() -> f64 {
        15.0
    }
    pub(super) const fn stream_s() -> f64 {
        3600.0
    }
    pub(super) const fn session_s() -> f64 {
        43_200.0
    }
    pub(super) const fn invitation_s() -> f64 {
        86_400.0
    }
    pub(super) const fn login_attempts() -> u32 {
        10
    }
    pub(super) const fn login_window_s() -> f64 {
        900.0
    }
    pub(super) const fn max_pictures() -> usize {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> AdminConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn patients_are_not_shown_in_the_clear() {
        assert!(of("address = '127.0.0.1:9110'").serves_patients());
        assert!(of("address = '[::1]:9110'").serves_patients());
        let open = "address = '0.0.0.0:9110'\n";
        assert!(!of(open).serves_patients());
        assert!(of(&format!("{open}tls_certificate_file = 'c'\ntls_key_file = 'k'")).serves_patients());
        assert!(of(&format!("{open}allow_clear_text = true")).serves_patients());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (line, key) in [
            ("tls_key_file = 'k'", "admin.tls_certificate_file"),
            ("trusted_proxies = ['the proxy']", "admin.trusted_proxies"),
            ("trusted_proxies = ['10.0.0.1/8']", "admin.trusted_proxies"),
            ("max_pictures = 0", "admin.max_pictures"),
            ("login_attempts = 0", "admin.login_attempts"),
            ("url = 'ichor.example'", "admin.url"),
            ("url = 'https://ichor.example/'", "admin.url"),
        ] {
            let refused = of(&format!("address = '127.0.0.1:9110'\n{line}")).check().unwrap_err();
            assert_eq!(refused.0, key);
        }
    }
}
