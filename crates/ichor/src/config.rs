//! The configuration file: one TOML document, unknown keys refused with their line, every key documented in
//! `deploy/ichor.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ichor_core::AeTitle;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where studies and the job log are kept.
    pub(crate) store: StoreConfig,
    /// Where instances arrive.
    pub(crate) listen: ListenConfig,
    /// Who may send.
    #[serde(default, rename = "source")]
    pub(crate) sources: Vec<SourceConfig>,
    /// Which series are analysed.
    #[serde(default)]
    pub(crate) gate: GateConfig,
    /// The analysis.
    #[serde(default)]
    pub(crate) analysis: AnalysisConfig,
    /// The model.
    pub(crate) model: ModelConfig,
    /// Where results go.
    #[serde(default, rename = "destination")]
    pub(crate) destinations: Vec<DestinationConfig>,
    /// Logging.
    #[serde(default)]
    pub(crate) log: LogConfig,
}

/// `[store]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreConfig {
    /// SQLite database file.
    pub(crate) database: PathBuf,
    /// Folder of received instances and result objects.
    pub(crate) blobs: PathBuf,
    /// Below this much free space instances are refused with 0xA700, in MiB.
    #[serde(default = "default::min_free_mib")]
    pub(crate) min_free_mib: u64,
}

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
}

/// `[gate]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GateConfig {
    /// Fewest slices of an eligible series.
    pub(crate) min_slices: usize,
    /// Largest angle between the slices' normal and the patient's axis, in degrees (gantry tilt).
    pub(crate) max_tilt_degrees: f64,
}

/// `[analysis]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AnalysisConfig {
    /// Attempts before a study is marked failed.
    pub(crate) attempts: u32,
    /// Wait before the second attempt, in seconds; doubles after each.
    pub(crate) first_backoff_s: f64,
    /// Lesions below this volume are dropped from the mask, in millilitres.
    pub(crate) min_lesion_ml: f64,
}

/// `[model]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// The `.safetensors` file; its manifest lies beside it.
    pub(crate) weights: PathBuf,
    /// `auto`, `cpu` or `cuda:N`.
    #[serde(default = "default::device")]
    pub(crate) device: String,
    /// Threads of libtorch on the CPU; 0: as many as there are cores.
    #[serde(default)]
    pub(crate) threads: usize,
    /// Slices classified at once.
    #[serde(default = "default::batch")]
    pub(crate) batch: usize,
}

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

/// `[log]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `ichor_dimse=debug,info`.
    pub(crate) level: String,
    /// `text` or `json`.
    pub(crate) format: LogFormat,
}

/// Form of the log lines on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
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
}

impl Default for GateConfig {
    fn default() -> Self {
        Self { min_slices: 5, max_tilt_degrees: 35.0 }
    }
}

impl Default for AnalysisConfig {
    fn default() -> Self {
        Self { attempts: 3, first_backoff_s: 10.0, min_lesion_ml: 0.1 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn min_free_mib() -> u64 {
        512
    }
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
    pub(super) fn device() -> String {
        "auto".to_owned()
    }
    pub(super) const fn batch() -> usize {
        8
    }
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

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind; the text carries line and column.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// A value that cannot work.
    #[error("{path}: {key}: {message}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Config {
    /// Reads, parses and checks a file. Relative paths in it are relative to the file's own folder.
    ///
    /// # Errors
    /// [`ConfigError`] with the line or the key.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text).map_err(|error: toml::de::Error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        config.check().map_err(|(key, message)| ConfigError::Value { path: path.to_owned(), key, message })?;
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.store.database, &mut self.store.blobs, &mut self.model.weights] {
            *path = folder.join(&path);
        }
        for destination in &mut self.destinations {
            for path in [&mut destination.bearer_token_file, &mut destination.password_file].into_iter().flatten() {
                *path = folder.join(&path);
            }
        }
    }

    /// Checks what the types cannot say.
    fn check(&self) -> Result<(), (String, String)> {
        let refuse = |key: &str, message: String| Err((key.to_owned(), message));
        for (key, seconds) in self.durations() {
            if seconds.is_nan() || !(0.0..=31_536_000.0).contains(&seconds) {
                return refuse(&key, format!("{seconds} is not between 0 and 31536000 seconds"));
            }
        }
        if !(4_096..=131_072).contains(&self.listen.max_pdu) {
            return refuse("listen.max_pdu", format!("{} is not between 4096 and 131072 bytes", self.listen.max_pdu));
        }
        for (key, value) in [
            ("listen.max_associations", self.listen.max_associations),
            ("model.batch", self.model.batch),
            ("analysis.attempts", self.analysis.attempts as usize),
            ("gate.min_slices", self.gate.min_slices),
        ] {
            if value == 0 {
                return refuse(key, "0 would stop everything".to_owned());
            }
        }
        for (key, value, most) in [
            ("gate.max_tilt_degrees", self.gate.max_tilt_degrees, 90.0),
            ("analysis.min_lesion_ml", self.analysis.min_lesion_ml, 1000.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return refuse(key, format!("{value} is not between 0 and {most}"));
            }
        }
        for source in &self.sources {
            for network in &source.networks {
                if let Err(error) = network.parse::<ichor_dimse::IpNetwork>() {
                    return refuse("source.networks", error.to_string());
                }
            }
        }
        let mut names: Vec<&str> = self.destinations.iter().map(|d| d.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse("destination.name", format!("{:?} stands twice", twice[0]));
        }
        for destination in &self.destinations {
            destination.endpoint().map_err(|message| (format!("destination {:?}", destination.name), message))?;
        }
        self.model
            .device
            .parse::<ichor_model::DeviceChoice>()
            .map_err(|e| ("model.device".to_owned(), e.to_string()))?;
        Ok(())
    }

    /// Every duration with its key, in seconds.
    fn durations(&self) -> Vec<(String, f64)> {
        let mut all = vec![
            ("listen.artim_timeout_s".to_owned(), self.listen.artim_timeout_s),
            ("listen.idle_timeout_s".to_owned(), self.listen.idle_timeout_s),
            ("listen.pdu_timeout_s".to_owned(), self.listen.pdu_timeout_s),
            ("listen.instance_timeout_s".to_owned(), self.listen.instance_timeout_s),
            ("listen.drain_timeout_s".to_owned(), self.listen.drain_timeout_s),
            ("analysis.first_backoff_s".to_owned(), self.analysis.first_backoff_s),
        ];
        all.extend(self.sources.iter().map(|s| ("source.quiet_period_s".to_owned(), s.quiet_period_s)));
        for destination in &self.destinations {
            let key = |name: &str| format!("destination {:?} {name}", destination.name);
            all.push((key("first_backoff_s"), destination.first_backoff_s));
            all.push((key("max_backoff_s"), destination.max_backoff_s));
            all.push((key("timeout_s"), destination.timeout_s));
        }
        all
    }
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
}

/// Seconds of a configuration value that [`Config::load`] has checked.
#[must_use]
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}
