//! `[[destination]]`: where results go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::{AeTitle, IpNetwork, Zone};
use ichor_dimse::tls::ClientTls;
use ichor_pipeline::analyse::{DestinationObjects, ObjectKind};
use ichor_pipeline::deliver::{Flow, Hours};
use ichor_pipeline::forward::System;
use serde::{Deserialize, Serialize};

use super::keys::{Key, WebEndpoint, named, resolve, with_place_keys};
use super::objects::{
    CaptureConfig, KeyObjectsConfig, ObjectName, ObjectSettings, ReportConfig, SegmentationConfig, default_objects,
    object_kinds,
};
use super::proof::ProofConfig;
use super::{Durations, Fault, none_is_set, seconds};

with_place_keys! {
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
        /// AE titles and names under which this system sends to us, besides `ae_title`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub(crate) sends_as: Vec<AeTitle>,
        /// Addresses or networks from which it sends to us, and nobody else.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub(crate) sends_from: Vec<String>,
        /// Folder: where to; it must be there.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) path: Option<PathBuf>,
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
            idle_s: default::idle_s(),
            failures: default::failures(),
            propose_again_s: default::propose_again_s(),
            per_minute: 0,
            hours: None,
            path: None,
            kind: DestinationKind::CStore,
            address: Some(address.to_string()),
            ae_title: Some(ae_title),
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
        named(&self.name)?;
        let place = self.place_keys();
        let folder_keys = [("path", self.path.is_some())];
        let foreign: [&[Key]; 3] = match self.kind {
            DestinationKind::CStore => [&place.of_web(), &folder_keys, &[]],
            DestinationKind::StowRs => [&place.of_dimse(), &folder_keys, &[]],
            DestinationKind::Folder => [&place.of_dimse(), &place.of_web(), &self.tls_files().keys()],
        };
        let kind = self.kind.as_str();
        foreign.into_iter().try_for_each(|keys| none_is_set(keys, kind))?;
        match self.kind {
            DestinationKind::CStore => place.dimse(kind),
            DestinationKind::StowRs => place.dicomweb(kind),
            DestinationKind::Folder => {
                self.path.clone().map(Endpoint::Folder).ok_or_else(|| "kind folder needs the key path".to_owned())
            }
        }
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
        self.resolve_web_keys(folder);
        resolve([&mut self.path], folder);
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
