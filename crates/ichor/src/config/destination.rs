//! `[[destination]]`: where results go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::{AeTitle, IpNetwork, Zone};
use ichor_dimse::tls::{ClientTls, IdentityFiles};
use ichor_pipeline::analyse::{DestinationObjects, ObjectKind};
use ichor_pipeline::deliver::{Flow, Hours};
use ichor_pipeline::forward::System;
use serde::{Deserialize, Serialize};

use super::objects::{
    CaptureConfig, KeyObjectsConfig, ObjectName, ObjectSettings, ReportConfig, SegmentationConfig, default_objects,
    object_kinds,
};
use super::proof::ProofConfig;
use super::web_endpoint::{WebEndpoint, WebKeys};
use super::{Durations, Fault, host_and_port, none_is_set, seconds};

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
    /// How long an association is kept that has nothing to do, in seconds.
    #[serde(default = "default::idle_s")]
    pub(crate) idle_s: f64,
    /// Failures in a row that hold the queue as if nobody were there; 0: none do.
    #[serde(default = "default::failures")]
    pub(crate) failures: u32,
    /// After how long a presentation context is proposed again that was not accepted, in seconds.
    #[serde(default = "default::propose_again_s")]
    pub(crate) propose_again_s: f64,
    /// Most objects a minute; 0: as fast as it goes.
    #[serde(default)]
    pub(crate) per_minute: u32,
    /// Hours in which others than positive findings go out, in the site's zone, such as `19:00-06:30`; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hours: Option<String>,
    /// `c-store`, `stow-rs` or `folder`.
    pub(crate) kind: DestinationKind,
    /// C-STORE: `host:port`.
    pub(crate) address: Option<String>,
    /// C-STORE: called AE title.
    pub(crate) ae_title: Option<AeTitle>,
    /// C-STORE: calling AE title; absent: the listener's own.
    pub(crate) calling_ae_title: Option<AeTitle>,
    /// AE titles and names under which this system sends to us, besides `ae_title`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sends_as: Vec<AeTitle>,
    /// Addresses or networks from which it sends to us, and nobody else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sends_from: Vec<String>,
    /// C-STORE: TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tls: bool,
    /// C-STORE with TLS, STOW-RS: authorities of which one must have issued the peer's certificate, PEM; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_ca_file: Option<PathBuf>,
    /// C-STORE with TLS, STOW-RS: own certificate with its chain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_certificate_file: Option<PathBuf>,
    /// C-STORE with TLS, STOW-RS: its private key, PEM, not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key_file: Option<PathBuf>,
    /// C-STORE with TLS: name in the peer's certificate; absent: the host of `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_server_name: Option<String>,
    /// C-STORE with TLS: whether that name must stand there; absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_check_name: Option<bool>,
    /// Folder: where to; it must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
    /// STOW-RS: base URL of the DICOMweb service, without `/studies`.
    pub(crate) url: Option<String>,
    /// STOW-RS: file that holds a bearer token.
    pub(crate) bearer_token_file: Option<PathBuf>,
    /// STOW-RS: user of HTTP basic authentication.
    pub(crate) user: Option<String>,
    /// STOW-RS: file that holds the user's password.
    pub(crate) password_file: Option<PathBuf>,
    /// Which result objects it gets.
    #[serde(default = "default_objects")]
    pub(crate) objects: Vec<ObjectName>,
    /// What is asked for besides its answer; absent: nothing.
    #[serde(default)]
    pub(crate) proof: ProofConfig,
    /// The form of its Segmentation; absent: the default's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segmentation: Option<SegmentationConfig>,
    /// On what it gets a report; absent: the default's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<ReportConfig>,
    /// What its Key Object Selection selects; absent: the default's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_objects: Option<KeyObjectsConfig>,
    /// How its Secondary Captures look; absent: the default's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capture: Option<CaptureConfig>,
}

/// The ways to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DestinationKind {
    /// DIMSE C-STORE.
    CStore,
    /// DICOMweb STOW-RS.
    StowRs,
    /// Files in a folder.
    Folder,
}

impl DestinationKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CStore => "c-store",
            Self::StowRs => "stow-rs",
            Self::Folder => "folder",
        }
    }
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
        /// TLS, if it is to be spoken.
        tls: Option<ClientTls>,
    },
    /// DICOMweb STOW-RS.
    StowRs(WebEndpoint),
    /// Files in a folder.
    Folder(PathBuf),
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
        Self { address: Some(address.to_string()), ae_title: Some(ae_title), ..Self::nowhere(name) }
    }

    /// The defaults, without a place.
    #[must_use]
    pub(super) fn nowhere(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            first_backoff_s: default::first_backoff_s(),
            max_backoff_s: default::max_backoff_s(),
            attempts: 0,
            timeout_s: default::delivery_timeout_s(),
            idle_s: default::idle_s(),
            failures: default::failures(),
            propose_again_s: default::propose_again_s(),
            per_minute: 0,
            hours: None,
            path: None,
            kind: DestinationKind::CStore,
            address: None,
            ae_title: None,
            calling_ae_title: None,
            sends_as: Vec::new(),
            sends_from: Vec::new(),
            tls: false,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            tls_server_name: None,
            tls_check_name: None,
            url: None,
            bearer_token_file: None,
            user: None,
            password_file: None,
            objects: default_objects(),
            proof: ProofConfig::default(),
            segmentation: None,
            report: None,
            key_objects: None,
            capture: None,
        }
    }

    /// Which result objects it gets, in which form.
    ///
    /// # Errors
    /// A sentence about the key that cannot be right.
    pub(crate) fn objects(&self) -> Result<DestinationObjects, String> {
        let Self { segmentation, report, key_objects, capture, .. } = *self;
        let settings = ObjectSettings { segmentation, report, key_objects, capture };
        let objects: Vec<ObjectKind> = object_kinds(&self.objects, settings)?;
        let report_on = self.report.unwrap_or_default().into();
        Ok(DestinationObjects { name: self.name.clone(), objects, report_on })
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
            ("tls", self.tls),
            ("tls_server_name", self.tls_server_name.is_some()),
            ("tls_check_name", self.tls_check_name.is_some()),
        ];
        let stow_rs_keys = [
            ("url", self.url.is_some()),
            ("bearer_token_file", self.bearer_token_file.is_some()),
            ("user", self.user.is_some()),
            ("password_file", self.password_file.is_some()),
        ];
        let tls_keys = [
            ("tls_ca_file", self.tls_ca_file.is_some()),
            ("tls_certificate_file", self.tls_certificate_file.is_some()),
            ("tls_key_file", self.tls_key_file.is_some()),
        ];
        let folder_keys = [("path", self.path.is_some())];
        let foreign: [&[(&str, bool)]; 3] = match self.kind {
            DestinationKind::CStore => [&stow_rs_keys, &folder_keys, &[]],
            DestinationKind::StowRs => [&c_store_keys, &folder_keys, &[]],
            DestinationKind::Folder => [&c_store_keys, &stow_rs_keys, &tls_keys],
        };
        foreign.into_iter().try_for_each(|keys| none_is_set(keys, self.kind.as_str()))?;
        match self.kind {
            DestinationKind::CStore => self.c_store_endpoint(),
            DestinationKind::StowRs => self.stow_rs_endpoint(),
            DestinationKind::Folder => {
                self.path.clone().map(Endpoint::Folder).ok_or_else(|| "kind folder needs the key path".to_owned())
            }
        }
    }

    fn c_store_endpoint(&self) -> Result<Endpoint, String> {
        let address = self.address.clone().ok_or("kind c-store needs the key address")?;
        let ae_title = self.ae_title.clone().ok_or("kind c-store needs the key ae_title")?;
        host_and_port(&address)?;
        let (calling_ae_title, tls) = (self.calling_ae_title.clone(), self.client_tls()?);
        Ok(Endpoint::CStore { address, ae_title, calling_ae_title, tls })
    }

    fn client_tls(&self) -> Result<Option<ClientTls>, String> {
        let identity = match (&self.tls_certificate_file, &self.tls_key_file) {
            (None, None) => None,
            (Some(certificate_file), Some(key_file)) => {
                Some(IdentityFiles { certificate_file: certificate_file.clone(), key_file: key_file.clone() })
            }
            _ => return Err("give tls_certificate_file and tls_key_file together".to_owned()),
        };
        let has_key = self.tls_ca_file.is_some() || self.tls_server_name.is_some() || self.tls_check_name.is_some();
        match self.tls {
            false if has_key || identity.is_some() => Err("keys of TLS do nothing without tls = true".to_owned()),
            false => Ok(None),
            true => Ok(Some(ClientTls {
                ca_file: self.tls_ca_file.clone(),
                identity,
                server_name: self.tls_server_name.clone(),
                check_name: self.tls_check_name.unwrap_or(true),
            })),
        }
    }

    fn stow_rs_endpoint(&self) -> Result<Endpoint, String> {
        let url = self.url.clone().ok_or("kind stow-rs needs the key url")?;
        let keys = WebKeys {
            url: &url,
            bearer_token_file: &self.bearer_token_file,
            user: &self.user,
            password_file: &self.password_file,
            tls_ca_file: &self.tls_ca_file,
            tls_certificate_file: &self.tls_certificate_file,
            tls_key_file: &self.tls_key_file,
        };
        keys.endpoint().map(Endpoint::StowRs)
    }

    /// When and how fast it is sent to; its hours are those of a zone.
    ///
    /// # Errors
    /// A sentence about the key that cannot be right.
    pub(crate) fn flow(&self, zone: &Zone) -> Result<Flow, String> {
        let hours = self.hours.as_deref().map(|text| Hours::parse(text, zone)).transpose();
        Ok(Flow {
            idle: seconds(self.idle_s),
            failures: self.failures,
            propose_again: seconds(self.propose_again_s),
            per_minute: self.per_minute,
            hours: hours.map_err(|message| format!("hours: {message}"))?,
        })
    }

    /// How it is known when it sends to us itself.
    ///
    /// # Errors
    /// A sentence about the key that cannot be right.
    pub(crate) fn system(&self) -> Result<System, String> {
        let networks = self.sends_from.iter().map(|network| network.parse::<IpNetwork>());
        let networks = networks.collect::<Result<Vec<_>, _>>().map_err(|error| format!("sends_from: {error}"))?;
        let titles = self.ae_title.iter().chain(&self.sends_as).cloned().collect();
        Ok(System { destination: self.name.clone(), titles, networks })
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        let files = [
            &mut self.bearer_token_file,
            &mut self.password_file,
            &mut self.tls_ca_file,
            &mut self.tls_certificate_file,
            &mut self.tls_key_file,
            &mut self.path,
        ];
        for path in files.into_iter().flatten() {
            *path = folder.join(&path);
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        let checked = self
            .endpoint()
            .and_then(|_| self.objects())
            .and_then(|_| self.proof.check(self.kind))
            .and_then(|()| self.flow(&Zone::UTC).map(drop))
            .and_then(|()| self.system().map(drop));
        checked.map_err(|message| (format!("destination {:?}", self.name), message))
    }

    pub(super) fn durations(&self) -> Durations {
        let key = |name: &str| format!("destination {:?} {name}", self.name);
        let mut durations = vec![
            (key("first_backoff_s"), self.first_backoff_s),
            (key("max_backoff_s"), self.max_backoff_s),
            (key("timeout_s"), self.timeout_s),
            (key("idle_s"), self.idle_s),
            (key("propose_again_s"), self.propose_again_s),
        ];
        durations.extend(self.proof.durations(&self.name));
        durations
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
    pub(super) const fn idle_s() -> f64 {
        2.0
    }
    pub(super) const fn failures() -> u32 {
        3
    }
    pub(super) const fn propose_again_s() -> f64 {
        600.0
    }
    pub(super) const fn delivery_timeout_s() -> f64 {
        30.0
    }
}
