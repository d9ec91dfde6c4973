//! The configuration file: one TOML document, unknown keys refused with their line, every key documented in
//! `deploy/ichor.toml`. A section lives in the module that is named after what it is about.

mod admin;
mod analysis;
mod audit;
mod channel;
mod commitment;
mod decoder;
mod destination;
mod dicomweb;
mod diff;
mod forward;
mod gate;
mod keys;
mod limits;
mod listen;
mod lookup;
mod objects;
mod place;
mod proof;
mod retention;
mod rule;
mod task_list;
mod telemetry;
mod urgent;
mod worklist;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ichor_core::{InvalidNetwork, TrustedProxies, Zone};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use admin::{AdminConfig, OidcConfig};
pub(crate) use analysis::{AlertConfig, AnalysisConfig, ShadowConfig};
pub use analysis::{AlsoConfig, ModelConfig};
pub(crate) use audit::AuditConfig;
pub(crate) use channel::{ChannelConfig, ChannelEnd};
pub(crate) use commitment::CommitmentConfig;
pub(crate) use decoder::DecoderConfig;
pub(crate) use destination::{DestinationConfig, Endpoint};
pub(crate) use dicomweb::{DicomWebClientConfig, DicomWebConfig};
pub(crate) use diff::{Difference, diff};
pub(crate) use forward::ForwardConfig;
pub(crate) use gate::GateConfig;
pub(crate) use keys::{CredentialFiles, HttpTls, WebEndpoint};
pub(crate) use limits::LimitsConfig;
pub(crate) use listen::{ListenConfig, Prefer, SourceConfig, TlsConfig};
pub(crate) use lookup::{LookupConfig, LookupKind};
pub(crate) use retention::RetentionConfig;
pub(crate) use rule::{OutcomeName, RuleConfig};
pub(crate) use task_list::TaskListConfig;
pub(crate) use telemetry::TelemetryConfig;
pub(crate) use urgent::UrgentConfig;
pub(crate) use worklist::WorklistConfig;

/// A key and what is wrong with its value.
pub(crate) type Fault = (String, String);

/// Keys with their durations, in seconds.
type Durations = Vec<(String, f64)>;

/// The whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whose hours and days are meant wherever the configuration or a page speaks of them.
    #[serde(default)]
    pub(crate) time_zone: Zone,
    /// Where studies and the job log are kept.
    pub(crate) store: StoreConfig,
    /// Where instances arrive.
    pub(crate) listen: ListenConfig,
    /// Who may send.
    #[serde(default, rename = "source")]
    pub(crate) sources: Vec<SourceConfig>,
    /// How large things may be.
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
    /// Where instances arrive by STOW-RS; absent: nowhere.
    pub(crate) dicomweb: Option<DicomWebConfig>,
    /// Workitems (UPS-RS), at the address of `[dicomweb]`; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worklist: Option<WorklistConfig>,
    /// The API and the pages, health and metrics; absent: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<AdminConfig>,
    /// The audit repository that is told who did what; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<AuditConfig>,
    /// Which series are analysed.
    #[serde(default)]
    pub(crate) gate: GateConfig,
    /// The analysis.
    #[serde(default)]
    pub(crate) analysis: AnalysisConfig,
    /// Decoding of compressed slices.
    #[serde(default)]
    pub(crate) decoder: DecoderConfig,
    /// The alert that does not wait for the study.
    #[serde(default)]
    pub(crate) alert: AlertConfig,
    /// The model, and those beside it.
    pub(crate) model: ModelConfig,
    /// What those beside it do.
    #[serde(default)]
    pub(crate) shadow: ShadowConfig,
    /// Where results go.
    #[serde(default, rename = "destination")]
    pub(crate) destinations: Vec<DestinationConfig>,
    /// Who gets which results; empty: everybody what they ask for.
    #[serde(default, rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub(crate) rules: Vec<RuleConfig>,
    /// Which studies are analysed before others; empty: those of an alert only.
    #[serde(default, rename = "urgent", skip_serializing_if = "Vec::is_empty")]
    pub(crate) urgent: Vec<UrgentConfig>,
    /// What is forwarded as it was received; empty: nothing.
    #[serde(default, rename = "forward", skip_serializing_if = "Vec::is_empty")]
    pub(crate) forwards: Vec<ForwardConfig>,
    /// Who is asked about studies that arrive; empty: nobody.
    #[serde(default, rename = "lookup", skip_serializing_if = "Vec::is_empty")]
    pub(crate) lookups: Vec<LookupConfig>,
    /// Who is told what happens to studies.
    #[serde(default, rename = "channel")]
    pub(crate) channels: Vec<ChannelConfig>,
    /// Whose workitems we perform; empty: nobody's.
    #[serde(default, rename = "task_list", skip_serializing_if = "Vec::is_empty")]
    pub(crate) task_lists: Vec<TaskListConfig>,
    /// Storage commitment.
    #[serde(default)]
    pub(crate) commitment: CommitmentConfig,
    /// Which files are no longer kept; absent: nothing is ever deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention: Option<RetentionConfig>,
    /// Traces for OpenTelemetry; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) telemetry: Option<TelemetryConfig>,
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

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
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
    #[error("{path}{}: {key}: {message}", line.map_or_else(String::new, |line| format!(", line {line}")))]
    Value {
        /// The file.
        path: PathBuf,
        /// Its line, or that of its table; absent if neither is in the file.
        line: Option<usize>,
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
            message: match place::unknown_at_the_top::<Self>(&text) {
                Some((line, words)) => format!("line {line}: {words}"),
                None => with_new_name(error.to_string().trim_end()),
            },
        })?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        config.check().map_err(|(key, message)| {
            let line = place::line_of(&text, &key, &message);
            ConfigError::Value { path: path.to_owned(), line, key, message }
        })?;
        Ok(config)
    }

    /// This configuration with what of another comes in force without a restart.
    ///
    /// # Errors
    /// A key, and why its value does not fit what stays.
    pub(crate) fn with_live_parts_of(&self, new: &Self) -> Result<Self, Fault> {
        let mut config = Self {
            time_zone: new.time_zone.clone(),
            sources: new.sources.clone(),
            destinations: new.destinations.clone(),
            rules: new.rules.clone(),
            urgent: new.urgent.clone(),
            forwards: new.forwards.clone(),
            channels: new.channels.clone(),
            lookups: new.lookups.clone(),
            task_lists: new.task_lists.clone(),
            retention: new.retention.clone(),
            audit: new.audit.clone(),
            telemetry: new.telemetry.clone(),
            ..self.clone()
        };
        config.log.level.clone_from(&new.log.level);
        config.analysis.longest_overtaken_s = new.analysis.longest_overtaken_s;
        config.check()?;
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.store.database, &mut self.store.blobs] {
            *path = folder.join(&path);
        }
        self.listen.resolve(folder);
        for source in &mut self.sources {
            source.resolve(folder);
        }
        self.model.resolve(folder);
        self.dicomweb.iter_mut().for_each(|dicomweb| dicomweb.resolve(folder));
        self.admin.iter_mut().for_each(|admin| admin.resolve(folder));
        self.audit.iter_mut().for_each(|audit| audit.resolve(folder));
        for destination in &mut self.destinations {
            destination.resolve(folder);
        }
        for channel in &mut self.channels {
            channel.resolve(folder);
        }
        self.telemetry.iter_mut().for_each(|telemetry| telemetry.resolve(folder));
        for lookup in &mut self.lookups {
            lookup.resolve(folder);
        }
        self.task_lists.iter_mut().for_each(|list| list.resolve(folder));
    }

    /// Checks what the types cannot say.
    fn check(&self) -> Result<(), Fault> {
        for (key, seconds) in self.durations() {
            if seconds.is_nan() || !(0.0..=31_536_000.0).contains(&seconds) {
                return fault(&key, format!("{seconds} is not between 0 and 31536000 seconds"));
            }
        }
        self.listen.check()?;
        self.sources.iter().try_for_each(SourceConfig::check)?;
        self.limits.check()?;
        self.dicomweb.iter().try_for_each(DicomWebConfig::check)?;
        self.worklist.iter().try_for_each(|worklist| worklist.check(self.dicomweb.is_some()))?;
        self.admin.iter().try_for_each(AdminConfig::check)?;
        self.audit.iter().try_for_each(AuditConfig::check)?;
        self.gate.check()?;
        self.commitment.check()?;
        self.analysis.check()?;
        self.decoder.check()?;
        self.alert.check()?;
        self.model.check()?;
        self.shadow.check()?;
        names_differ("destination.name", self.destinations.iter().map(|destination| &destination.name))?;
        names_differ("rule.name", self.rules.iter().map(|rule| &rule.name))?;
        let names: Vec<&str> = self.destinations.iter().map(|destination| destination.name.as_str()).collect();
        self.rules.iter().try_for_each(|rule| rule.check(&names))?;
        names_differ("urgent.name", self.urgent.iter().map(|rule| &rule.name))?;
        self.urgent.iter().try_for_each(UrgentConfig::check)?;
        names_differ("forward.name", self.forwards.iter().map(|rule| &rule.name))?;
        self.forwards.iter().try_for_each(|rule| rule.check(&names))?;
        self.each_destination_gets_something()?;
        names_differ("channel.name", self.channels.iter().map(|channel| &channel.name))?;
        self.channels.iter().try_for_each(ChannelConfig::check)?;
        names_differ("lookup.name", self.lookups.iter().map(|lookup| &lookup.name))?;
        self.lookups.iter().try_for_each(LookupConfig::check)?;
        names_differ("task_list.name", self.task_lists.iter().map(|list| &list.name))?;
        self.task_lists.iter().try_for_each(TaskListConfig::check)?;
        self.retention.iter().try_for_each(|retention| retention.check(self.store.min_free_mib))?;
        self.telemetry.iter().try_for_each(TelemetryConfig::check)?;
        self.destinations.iter().try_for_each(DestinationConfig::check)
    }

    /// Refuses a destination that asks for no object and that nothing is forwarded to: it would be silent for ever.
    fn each_destination_gets_something(&self) -> Result<(), Fault> {
        let is_idle = |destination: &&DestinationConfig| {
            let is_named = self.forwards.iter().any(|forward| forward.destinations.contains(&destination.name));
            destination.objects.is_empty() && !is_named
        };
        match self.destinations.iter().find(is_idle) {
            Some(idle) => fault(
                &format!("destination {:?} objects", idle.name),
                "at least one kind, or a [[forward]] that names the destination".to_owned(),
            ),
            None => Ok(()),
        }
    }

    /// Every duration with its key, in seconds.
    fn durations(&self) -> Durations {
        let mut all = self.listen.durations();
        all.extend(self.sources.iter().flat_map(SourceConfig::durations));
        all.extend(self.dicomweb.iter().flat_map(DicomWebConfig::durations));
        all.extend(self.admin.iter().flat_map(AdminConfig::durations));
        all.extend(self.audit.iter().flat_map(AuditConfig::durations));
        all.extend(self.analysis.durations());
        all.extend(self.shadow.durations());
        all.extend(self.decoder.durations());
        all.extend(self.commitment.durations());
        all.extend(self.destinations.iter().flat_map(DestinationConfig::durations));
        all.extend(self.channels.iter().flat_map(ChannelConfig::durations));
        all.extend(self.lookups.iter().flat_map(LookupConfig::durations));
        all.extend(self.task_lists.iter().flat_map(TaskListConfig::durations));
        all.extend(self.retention.iter().flat_map(RetentionConfig::durations));
        all.extend(self.telemetry.iter().flat_map(TelemetryConfig::durations));
        all
    }
}

/// A parser's words, and how a key is called now that they call unknown because it was renamed, or where it belongs.
fn with_new_name(words: &str) -> String {
    if words.contains("unknown field `hours_utc`") {
        return format!(
            "{words}\nhours_utc is now called hours, and hours are those of time_zone: a key at the top of the file, such as \
             time_zone = \"Europe/Berlin\". Left out it is UTC, as before"
        );
    }
    if words.contains("unknown field `time_zone`") {
        return format!(
            "{words}\ntime_zone is a key of the whole file: it stands at its top, before the first section"
        );
    }
    words.to_owned()
}

/// Refuses the value of a key.
fn fault<T>(key: &str, message: String) -> Result<T, Fault> {
    Err((key.to_owned(), message))
}

/// Proxies that are believed when they say whom they speak for.
fn proxies(networks: &[String]) -> Result<TrustedProxies, InvalidNetwork> {
    networks.iter().map(|network| network.parse()).collect::<Result<_, _>>().map(TrustedProxies::new)
}

/// Refuses keys that belong to another kind: each with whether it is set.
fn none_is_set(foreign: &[(&str, bool)], kind: &str) -> Result<(), String> {
    match foreign.iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(format!("the key {key} does not belong to kind {kind}")),
        None => Ok(()),
    }
}

/// Refuses what is not `host:port`.
fn host_and_port(address: &str) -> Result<(), String> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => Ok(()),
        _ => Err(format!("address {address:?} is not host:port")),
    }
}

fn names_differ<N: Copy + Ord + std::fmt::Debug>(key: &str, names: impl Iterator<Item = N>) -> Result<(), Fault> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return fault(key, format!("{name:?} stands twice"));
        }
    }
    Ok(())
}

fn at_least_one(key: &str, value: usize) -> Result<(), Fault> {
    if value == 0 { fault(key, "0 would stop everything".to_owned()) } else { Ok(()) }
}

/// From 0 to `most`.
fn between(key: &str, value: f64, most: f64) -> Result<(), Fault> {
    if (0.0..=most).contains(&value) { Ok(()) } else { fault(key, format!("{value} is not between 0 and {most}")) }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn min_free_mib() -> u64 {
        512
    }
}

/// Seconds of a configuration value that [`Config::load`] has checked.
#[must_use]
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}
