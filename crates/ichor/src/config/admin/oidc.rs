//! `[admin.oidc]`: login by an OpenID provider.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::{Fault, fault};

/// `[admin.oidc]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OidcConfig {
    /// Issuer, exactly as the provider names itself.
    pub(crate) issuer: String,
    /// What ichor is called there.
    pub(crate) client_id: String,
    /// File with the client's secret; absent: a public client, which proves itself by PKCE alone.
    pub(crate) client_secret_file: Option<PathBuf>,
    /// What is asked for beside `openid`.
    #[serde(default = "default::scopes")]
    pub(crate) scopes: Vec<String>,
    /// The claim of the ID token that holds the user's name.
    #[serde(default = "default::name_claim")]
    pub(crate) name_claim: String,
    /// The claim of the ID token that says what they may do.
    #[serde(default = "default::role_claim")]
    pub(crate) role_claim: String,
    /// Words of that claim that make a viewer.
    #[serde(default)]
    pub(crate) viewers: Vec<String>,
    /// Words of that claim that make an operator.
    #[serde(default)]
    pub(crate) operators: Vec<String>,
    /// Words of that claim that make an admin.
    #[serde(default)]
    pub(crate) admins: Vec<String>,
    /// What the login page calls the provider.
    #[serde(default = "default::label")]
    pub(crate) label: String,
    /// Whether the login page shows passwords only to those who ask for them.
    #[serde(default)]
    pub(crate) hide_local_login: bool,
    /// Authorities of which one must have issued the provider's certificate, PEM; absent: the system's.
    pub(crate) tls_ca_file: Option<PathBuf>,
    /// Time for each question to the provider, in seconds.
    #[serde(default = "default::timeout_s")]
    pub(crate) timeout_s: f64,
    /// How long what the provider says of itself is believed before it is asked again, in seconds.
    #[serde(default = "default::discovery_s")]
    pub(crate) discovery_s: f64,
    /// Least time between two questions for keys that tokens bring about, and after a question that came to nothing, in seconds.
    #[serde(default = "default::keys_pause_s")]
    pub(crate) keys_pause_s: f64,
    /// Whether logging out here logs out at the provider, too, where it offers that.
    #[serde(default = "default::logs_out")]
    pub(crate) logs_out: bool,
}

impl OidcConfig {
    /// `url`: where people reach the service.
    pub(super) fn check(&self, url: Option<&str>) -> Result<(), Fault> {
        if url.is_none() {
            let what = "give admin.url: the provider sends browsers back to it, at /oidc/callback".to_owned();
            return fault("admin.oidc", what);
        }
        let is_near = ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|near| {
            self.issuer.strip_prefix(near).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        });
        if !is_near && !self.issuer.starts_with("https://") {
            return fault("admin.oidc.issuer", format!("{:?} is not https://", self.issuer));
        }
        if is_near && self.tls_ca_file.is_some() {
            return fault("admin.oidc.tls_ca_file", "does nothing with an http:// issuer".to_owned());
        }
        for (key, value) in [
            ("admin.oidc.client_id", &self.client_id),
            ("admin.oidc.name_claim", &self.name_claim),
            ("admin.oidc.role_claim", &self.role_claim),
            ("admin.oidc.label", &self.label),
        ] {
            if value.trim().is_empty() {
                return fault(key, "is empty".to_owned());
            }
        }
        if self.words().next().is_none() {
            let what = "name who may come in, in viewers, operators or admins: nobody could".to_owned();
            return fault("admin.oidc.viewers", what);
        }
        if self.words().any(|word| word.trim().is_empty()) {
            return fault("admin.oidc.viewers", "a word of viewers, operators or admins is empty".to_owned());
        }
        Ok(())
    }

    fn words(&self) -> impl Iterator<Item = &String> {
        self.viewers.iter().chain(&self.operators).chain(&self.admins)
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.client_secret_file, &mut self.tls_ca_file].into_iter().flatten() {
            *path = folder.join(&path);
        }
    }
}

/// The defaults of single keys.
mod default {
    pub(super) fn scopes() -> Vec<String> {
        vec!["profile".to_owned()]
    }
    pub(super) fn name_claim() -> String {
        "preferred_username".to_owned()
    }
    pub(super) fn role_claim() -> String {
        "groups".to_owned()
    }
    pub(super) fn label() -> String {
        "the hospital's login".to_owned()
    }
    pub(super) const fn timeout_s() -> f64 {
        10.0
    }
    pub(super) const fn discovery_s() -> f64 {
        3_600.0
    }
    pub(super) const fn keys_pause_s() -> f64 {
        10.0
    }
    pub(super) const fn logs_out() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let whole = "issuer = 'https://login.example'\nclient_id = 'ichor'\nadmins = ['it']\n";
        let check = |text: &str, url| toml::from_str::<OidcConfig>(text).unwrap().check(url);
        check(whole, Some("https://ichor")).unwrap();
        assert_eq!(check(whole, None).unwrap_err().0, "admin.oidc");
        for (was, is, key) in [
            ("https://login", "http://login", "admin.oidc.issuer"),
            ("https://login.example", "http://localhost.evil.example", "admin.oidc.issuer"),
            ("'ichor'", "' '", "admin.oidc.client_id"),
            ("['it']", "[]", "admin.oidc.viewers"),
            ("['it']", "['']", "admin.oidc.viewers"),
        ] {
            assert_eq!(check(&whole.replace(was, is), Some("https://ichor")).unwrap_err().0, key, "{is}");
        }
        check(&whole.replace("https://login.example", "http://127.0.0.1:9000"), Some("https://ichor")).unwrap();
    }
}
