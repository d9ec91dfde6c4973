//! `[[task_list]]`: worklists of other systems whose workitems we perform (UPS-RS).

use std::collections::BTreeSet;
use std::path::Path;

use ichor_core::AeTitle;
use ichor_pipeline::tasks::{Code, Ours};
use serde::{Deserialize, Serialize};

use super::keys::{WebEndpoint, with_place_keys, with_web_keys};
use super::{Durations, Endpoint, Fault, at_least_one, fault, none_is_set};

with_web_keys! {
    /// `[[task_list]]`
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct TaskListConfig {
        /// Name, unique, of the form of an AE title; what is fetched has it where a calling AE title stands.
        pub(crate) name: AeTitle,
        /// Base URL of the service, without `/workitems`.
        pub(crate) url: String,
        /// The title under which we perform and subscribe; absent: the listener's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) ae_title: Option<AeTitle>,
        /// Scheduled Workitem Codes of which a workitem has one, as `value` or `value^scheme`.
        #[serde(default)]
        pub(crate) workitem_codes: Vec<String>,
        /// Scheduled Station Name Codes of which it has one.
        #[serde(default)]
        pub(crate) station_names: Vec<String>,
        /// Its Worklist Label.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) worklist_label: Option<String>,
        /// Pause between two looks at the list, in seconds.
        #[serde(default = "default::poll_s")]
        pub(crate) poll_s: f64,
        /// Whether we subscribe, and hear events over a WebSocket.
        #[serde(default)]
        pub(crate) events: bool,
        /// Tasks under way at once.
        #[serde(default = "default::at_once")]
        pub(crate) at_once: usize,
        /// Tasks whose end the list does not take, or that are refused, until nothing more is claimed.
        #[serde(default = "default::most_stuck")]
        pub(crate) most_stuck: usize,
        /// Most workitems that are taken of an answer.
        #[serde(default = "default::max_found")]
        pub(crate) max_found: usize,
        /// Longest answer, in MiB.
        #[serde(default = "default::max_answer_mib")]
        pub(crate) max_answer_mib: usize,
        /// Largest input that is fetched with one request, in MiB.
        #[serde(default = "default::max_input_mib")]
        pub(crate) max_input_mib: u64,
        /// Time for an answer, and without a byte of an input, in seconds.
        #[serde(default = "default::timeout_s")]
        pub(crate) timeout_s: f64,
        /// After that a claimed workitem whose input is not to be had is given back, in seconds.
        #[serde(default = "default::give_up_after_s")]
        pub(crate) give_up_after_s: f64,
        /// So many refusals for good of our claim or last word are outlasted before somebody has to decide.
        #[serde(default = "default::most_refusals")]
        pub(crate) most_refusals: u32,
        /// For so long the list is asked again that does not take them, before somebody has to decide, in seconds.
        #[serde(default = "default::tell_within_s")]
        pub(crate) tell_within_s: f64,
        /// Quiet period after which a study that was fetched closes, in seconds.
        #[serde(default = "default::quiet_period_s")]
        pub(crate) quiet_period_s: f64,
        /// First wait after a failure, in seconds; doubles up to the longest, with jitter.
        #[serde(default = "default::first_backoff_s")]
        pub(crate) first_backoff_s: f64,
        /// Longest wait, in seconds.
        #[serde(default = "default::max_backoff_s")]
        pub(crate) max_backoff_s: f64,
        /// Services that inputs may be fetched from; none: this one alone.
        #[serde(default, rename = "source", skip_serializing_if = "Vec::is_empty")]
        pub(crate) sources: Vec<TaskSourceConfig>,
    }
}

with_place_keys! {
    /// `[[task_list.source]]`
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct TaskSourceConfig {
        /// How inputs come from there.
        #[serde(default)]
        pub(crate) kind: TaskSourceKind,
    }
}

/// How inputs come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TaskSourceKind {
    /// Fetched by DICOMweb, WADO-RS.
    #[default]
    WadoRs,
    /// Sent here by a peer that is asked to, C-MOVE.
    CMove,
}

impl TaskSourceConfig {
    /// The service or peer.
    ///
    /// # Errors
    /// A sentence about the key that is missing, belongs to the other kind, or cannot be right.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, String> {
        let place = self.place_keys();
        match self.kind {
            TaskSourceKind::WadoRs => {
                none_is_set(&place.of_dimse(), "wado-rs")?;
                place.dicomweb("wado-rs")
            }
            TaskSourceKind::CMove => {
                none_is_set(&place.of_web(), "c-move")?;
                place.dimse("c-move")
            }
        }
    }

    /// What it is called in faults, and what no two may have in common.
    fn place_name(&self) -> Option<&str> {
        self.url.as_deref().or(self.ae_title.as_ref().map(AeTitle::as_str))
    }
}

impl TaskListConfig {
    /// The service.
    ///
    /// # Errors
    /// A sentence about the key that cannot be right.
    pub(crate) fn endpoint(&self) -> Result<WebEndpoint, String> {
        self.web_keys().endpoint(&self.url)
    }

    /// Which workitems are ours.
    pub(crate) fn ours(&self) -> Ours {
        Ours {
            workitem_codes: self.workitem_codes.iter().map(|text| code(text)).collect(),
            station_names: self.station_names.iter().map(|text| code(text)).collect(),
            worklist_label: self.worklist_label.clone(),
        }
    }

    fn own_key(&self, key: &str) -> String {
        format!("task_list {:?} {key}", self.name.as_str())
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.resolve_web_keys(folder);
        self.sources.iter_mut().for_each(|source| source.resolve_web_keys(folder));
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        for (key, value) in [
            ("at_once", self.at_once),
            ("most_stuck", self.most_stuck),
            ("max_found", self.max_found),
            ("max_answer_mib", self.max_answer_mib),
            ("max_input_mib", usize::from(self.max_input_mib > 0)),
            ("most_refusals", self.most_refusals as usize),
        ] {
            at_least_one(&self.own_key(key), value)?;
        }
        for (key, seconds) in [("poll_s", self.poll_s), ("timeout_s", self.timeout_s)] {
            if seconds < 0.1 {
                return fault(&self.own_key(key), format!("{seconds} is less than 0.1 seconds"));
            }
        }
        if self.workitem_codes.is_empty() && self.station_names.is_empty() && self.worklist_label.is_none() {
            let message = "give workitem_codes, station_names or worklist_label: without any, every workitem would be claimed, \
                           those for people too";
            return fault(&self.own_key("workitem_codes"), message.to_owned());
        }
        for (key, codes) in [("workitem_codes", &self.workitem_codes), ("station_names", &self.station_names)] {
            if let Some(bad) = codes.iter().find(|text| !is_code(text)) {
                return fault(&self.own_key(key), format!("{bad:?} is neither value nor value^scheme"));
            }
        }
        self.endpoint().map_err(|message| (self.own_key("url"), message))?;
        let mut places = BTreeSet::new();
        for source in &self.sources {
            source.endpoint().map_err(|message| (self.own_key("source"), message))?;
            let place = source.place_name().unwrap_or_default();
            if !places.insert(place) {
                return fault(&self.own_key("source"), format!("{place:?} stands twice"));
            }
        }
        Ok(())
    }

    pub(super) fn durations(&self) -> Durations {
        [
            ("poll_s", self.poll_s),
            ("timeout_s", self.timeout_s),
            ("give_up_after_s", self.give_up_after_s),
            ("tell_within_s", self.tell_within_s),
            ("quiet_period_s", self.quiet_period_s),
            ("first_backoff_s", self.first_backoff_s),
            ("max_backoff_s", self.max_backoff_s),
        ]
        .into_iter()
        .map(|(key, value)| (self.own_key(key), value))
        .collect()
    }
}

fn is_code(text: &str) -> bool {
    let parts: Vec<&str> = text.split('^').collect();
    (1..=2).contains(&parts.len()) && parts.iter().all(|part| !part.trim().is_empty() && part.len() <= 64)
}

fn code(text: &str) -> Code {
    match text.split_once('^') {
        Some((value, scheme)) => Code { value: value.trim().to_owned(), scheme: Some(scheme.trim().to_owned()) },
        None => Code { value: text.trim().to_owned(), scheme: None },
    }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn poll_s() -> f64 {
        10.0
    }
    pub(super) const fn at_once() -> usize {
        4
    }
    pub(super) const fn most_stuck() -> usize {
        20
    }
    pub(super) const fn max_found() -> usize {
        100
    }
    pub(super) const fn max_answer_mib() -> usize {
        16
    }
    pub(super) const fn max_input_mib() -> u64 {
        4096
    }
    pub(super) const fn timeout_s() -> f64 {
        30.0
    }
    pub(super) const fn give_up_after_s() -> f64 {
        3600.0
    }
    pub(super) const fn most_refusals() -> u32 {
        5
    }
    pub(super) const fn tell_within_s() -> f64 {
        259_200.0
    }
    pub(super) const fn quiet_period_s() -> f64 {
        2.0
    }
    pub(super) const fn first_backoff_s() -> f64 {
        1.0
    }
    pub(super) const fn max_backoff_s() -> f64 {
        60.0
    }
}
