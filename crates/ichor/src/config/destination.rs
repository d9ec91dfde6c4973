//! `[[destination]]`: where results go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::AeTitle;
use serde::{Deserialize, Serialize};

use super::{Durations, Fault};

/// `[[destination]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DestinationConfig {
    /// Name, unique; stands in the job log.
    pub(crate) name: String,
    /// First wait after a failure, in seconds; doubles up to the longest, with jitter.
    #[serde(default = "default::first_backoff_s")]
    pub(crate) first_backoff_s: f64,
    /// Longest wait, in seconds.
    #[serde(default = "default::max_backoff_s")]
    pub(crate) max_backoff_s: f64,
    /// Attempts before a delivery is given up as dead; 0: never.
    #[serde(default)]
    pub(crate) attempts: u32,
    /// Time for connecting, and for each answer, in seconds.
    #[serde(default = "default::delivery_timeout_s")]
    pub(crate) timeout_s: f64,
    /// `c-store` or `stow-rs`.
    pub(crate) kind: DestinationKind,
    /// C-STORE: `host:port`.
    pub(crate) address: Option<String>,
    /// C-STORE: called AE title.
    pub(crate) ae_title: Option<AeTitle>,
    /// C-STORE: calling AE title; absent: the listener's own.
    pub(crate) calling_ae_title: Option<AeTitle>,
    /// STOW-RS: base URL of the DICOMweb service, without `/studies`.
    pub(crate) url: Option<String>,
    /// STOW-RS: file that holds a bearer token.
    pub(crate) bearer_token_file: Option<PathBuf>,
    /// STOW-RS: user of HTTP basic authentication.
    pub(crate) user: Option<String>,
    /// STOW-RS: file that holds the user's password.
    pub(crate) password_file: Option<PathBuf>,
}

/// The two ways to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DestinationKind {
    /// DIMSE C-STORE.
    CStore,
    /// DICOMweb STOW-RS.
    StowRs,
}

/// A destination's kind together with the keys that belong to it.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    /// DIMSE C-STORE.
    CStore {
        /// `host:port`.
        address: String,
        /// Called AE title.
        ae_title: AeTitle,
        /// Calling AE title, if another than the listener's.
        calling_ae_title: Option<AeTitle>,
    },
    /// DICOMweb STOW-RS.
    StowRs {
        /// Base URL.
        url: String,
        /// Who we say we are.
        credentials: Option<CredentialFiles>,
    },
}

/// Where a STOW-RS destination's secrets lie.
#[derive(Clone, Debug)]
pub(crate) enum CredentialFiles {
    /// A bearer token.
    Bearer(PathBuf),
    /// User, and the file of the password.
    Basic(String, PathBuf),
}

impl DestinationConfig {
    /// A C-STORE destination with defaults.
    #[must_use]
    pub(crate) fn c_store(name: &str, address: SocketAddr, ae_title: AeTitle) -> Self {
        Self {
            name: name.to_owned(),
            first_backoff_s: default::first_backoff_s(),
            max_backoff_s: default::max_backoff_s(),
            attempts: 0,
            timeout_s: default::delivery_timeout_s(),
            kind: DestinationKind::CStore,
            address: Some(address.to_string()),
            ae_title: Some(ae_title),
            calling_ae_title: None,
            url: None,
            bearer_token_file: None,
            user: None,
            password_file: None,
        }
    }

    /// The kind together with its keys.
    ///
    /// # Errors
    /// A sentence about the key that is missing, belongs to the other kind, or cannot be right.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, String> {
        if self.name.is_empty() || self.name.len() > 64 {
            return Err("the name must have 1 to 64 characters".to_owned());
        }
        let c_store_keys = [
            ("address", self.address.is_some()),
            ("ae_title", self.ae_title.is_some()),
            ("calling_ae_title", self.calling_ae_title.is_some()),
        ];
        let stow_rs_keys = [
            ("url", self.url.is_some()),
            ("bearer_token_file", self.bearer_token_file.is_some()),
            ("user", self.user.is_some()),
            ("password_file", self.password_file.is_some()),
        ];
        let (foreign, kind) = match self.kind {
            DestinationKind::CStore => (&stow_rs_keys[..], "c-store"),
            DestinationKind::StowRs => (&c_store_keys[..], "stow-rs"),
        };
        if let Some((key, _)) = foreign.iter().find(|(_, is_set)| *is_set) {
            return Err(format!("the key {key} does not belong to kind {kind}"));
        }
        match self.kind {
            DestinationKind::CStore => self.c_store_endpoint(),
            DestinationKind::StowRs => self.stow_rs_endpoint(),
        }
    }

    fn c_store_endpoint(&self) -> Result<Endpoint, String> {
        let address = self.address.clone().ok_or("kind c-store needs the key address")?;
        let ae_title = self.ae_title.clone().ok_or("kind c-store needs the key ae_title")?;
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => {
                Ok(Endpoint::CStore { address, ae_title, calling_ae_title: self.calling_ae_title.clone() })
            }
            _ => Err(format!("address {address:?} is not host:port")),
        }
    }

    fn stow_rs_endpoint(&self) -> Result<Endpoint, String> {
        let url = self.url.clone().ok_or("kind stow-rs needs the key url")?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("url {url:?} does not start with http:// or https://"));
        }
        let credentials = match (&self.bearer_token_file, &self.user, &self.password_file) {
            (None, None, None) => None,
            (Some(file), None, None) => Some(CredentialFiles::Bearer(file.clone())),
            (None, Some(user), Some(file)) => Some(CredentialFiles::Basic(user.clone(), file.clone())),
            _ => return Err("give bearer_token_file, or user and password_file together".to_owned()),
        };
        Ok(Endpoint::StowRs { url, credentials })
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.bearer_token_file, &mut self.password_file].into_iter().flatten() {
            *path = folder.join(&path);
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        self.endpoint().map(drop).map_err(|message| (format!("destination {:?}", self.name), message))
    }

    pub(super) fn durations(&self) -> Durations {
        let key = |name: &str| format!("destination {:?} {name}", self.name);
        vec![
            (key("first_backoff_s"), self.first_backoff_s),
            (key("max_backoff_s"), self.max_backoff_s),
            (key("timeout_s"), self.timeout_s),
        ]
    }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn first_backoff_s() -> f64 {
        2.0
    }
    pub(super) const fn max_backoff_s() -> f64 {
        300.0
    }
    pub(super) const fn delivery_timeout_s() -> f64 {
        30.0
    }
}
