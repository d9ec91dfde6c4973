//! `[[lookup]]`: who is asked about studies that arrive.

use std::path::Path;

use ichor_core::AeTitle;
use ichor_pipeline::lookup::{Count, MatchBy};
use serde::{Deserialize, Serialize};

use super::keys::{Key, named, with_place_keys};
use super::{Durations, Endpoint, Fault, fault, none_is_set};

with_place_keys! {
    /// `[[lookup]]`
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct LookupConfig {
        /// Name, unique; stands in the job log.
        pub(crate) name: String,
        /// `mwl`, `c-find` or `qido-rs`.
        pub(crate) kind: LookupKind,
        /// Senders whose studies it is asked about; empty: everybody's.
        #[serde(default)]
        pub(crate) sources: Vec<AeTitle>,
        /// Whether it is asked for the accession number of studies that came without.
        #[serde(default = "default::yes")]
        pub(crate) accession: bool,
        /// C-FIND, QIDO-RS: which numbers of instances it is asked for; absent: those of series.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) count: Option<CountName>,
        /// Modalities of series whose instances are waited for; empty: all.
        #[serde(default = "default::modalities")]
        pub(crate) modalities: Vec<String>,
        /// For how long after its quiet period a study waits for instances that are missing, in seconds.
        #[serde(default = "default::wait_for_missing_s")]
        pub(crate) wait_for_missing_s: f64,
        /// Whether a study that is complete closes before its quiet period has passed.
        #[serde(default)]
        pub(crate) close_when_complete: bool,
        /// For how long the same numbers must have been told, and nothing have arrived, before that, in seconds.
        #[serde(default = "default::stable_s")]
        pub(crate) stable_s: f64,
        /// For how long nothing has arrived before it is asked for numbers, in seconds.
        #[serde(default = "default::settle_s")]
        pub(crate) settle_s: f64,
        /// How soon it is asked again while a study is open, in seconds.
        #[serde(default = "default::interval_s")]
        pub(crate) interval_s: f64,
        /// Most questions about one version of a study.
        #[serde(default = "default::most_questions")]
        pub(crate) most_questions: u32,
        /// Most questions a minute; 0: as fast as it goes.
        #[serde(default = "default::per_minute")]
        pub(crate) per_minute: u32,
        /// Most matches of one answer; more are an error.
        #[serde(default = "default::max_matches")]
        pub(crate) max_matches: usize,
        /// Time for one question with all its answers, in seconds.
        #[serde(default = "default::timeout_s")]
        pub(crate) timeout_s: f64,
        /// Wait after a question that brought nothing, in seconds; doubles up to the longest.
        #[serde(default = "default::first_backoff_s")]
        pub(crate) first_backoff_s: f64,
        /// Longest wait, in seconds.
        #[serde(default = "default::max_backoff_s")]
        pub(crate) max_backoff_s: f64,
        /// Questions in a row that bring nothing before it is not asked any more about a study.
        #[serde(default = "default::attempts")]
        pub(crate) attempts: u32,
        /// MWL: `study` or `patient`; absent: by the study.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) match_by: Option<MatchName>,
        /// MWL: Scheduled Station AE Title that is asked for; absent: any.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) scheduled_ae_title: Option<AeTitle>,
    }
}

/// The ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LookupKind {
    /// Modality worklist.
    Mwl,
    /// Study Root, C-FIND.
    CFind,
    /// DICOMweb QIDO-RS.
    QidoRs,
}

impl LookupKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Mwl => "mwl",
            Self::CFind => "c-find",
            Self::QidoRs => "qido-rs",
        }
    }
}

/// Which numbers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CountName {
    /// None.
    None,
    /// That of the study.
    Study,
    /// Those of its series.
    Series,
}

/// By what a step of the worklist is a study's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MatchName {
    /// Study Instance UID.
    Study,
    /// Patient ID.
    Patient,
}

impl LookupConfig {
    /// Which numbers are asked for.
    pub(crate) const fn counting(&self) -> Count {
        match (self.kind, self.count) {
            (LookupKind::Mwl, _) | (_, Some(CountName::None)) => Count::Nothing,
            (_, Some(CountName::Study)) => Count::Study,
            (_, Some(CountName::Series) | None) => Count::Series,
        }
    }

    /// By what a step of the worklist is a study's.
    pub(crate) const fn matching(&self) -> MatchBy {
        match self.match_by {
            Some(MatchName::Patient) => MatchBy::Patient,
            Some(MatchName::Study) | None => MatchBy::Study,
        }
    }

    /// Where the peer is.
    ///
    /// # Errors
    /// A sentence about the key that is missing, belongs to another kind, or cannot be right.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, String> {
        named(&self.name)?;
        let place = self.place_keys();
        let worklist_keys =
            [("match_by", self.match_by.is_some()), ("scheduled_ae_title", self.scheduled_ae_title.is_some())];
        let count_keys = [("count", self.count.is_some()), ("close_when_complete", self.close_when_complete)];
        let foreign: [&[Key]; 2] = match self.kind {
            LookupKind::Mwl => [&place.of_web(), &count_keys],
            LookupKind::CFind => [&place.of_web(), &worklist_keys],
            LookupKind::QidoRs => [&place.of_dimse(), &worklist_keys],
        };
        let kind = self.kind.as_str();
        foreign.into_iter().try_for_each(|keys| none_is_set(keys, kind))?;
        match self.kind {
            LookupKind::Mwl | LookupKind::CFind => place.dimse(kind),
            LookupKind::QidoRs => place.dicomweb(kind),
        }
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        let key = |name: &str| format!("lookup {:?} {name}", self.name);
        self.endpoint().map_err(|message| (format!("lookup {:?}", self.name), message))?;
        if !self.accession && self.counting() == Count::Nothing {
            return fault(
                &key("accession"),
                "it would be asked for nothing: neither accession numbers nor counts".into(),
            );
        }
        for (name, value) in [("most_questions", self.most_questions), ("attempts", self.attempts)] {
            if value == 0 {
                return fault(&key(name), "0 would ask nothing".into());
            }
        }
        if self.max_matches == 0 || self.max_matches > 10_000 {
            return fault(&key("max_matches"), format!("{} is not between 1 and 10000", self.max_matches));
        }
        if self.timeout_s < 0.1 || self.interval_s < 0.1 {
            return fault(&key("timeout_s, interval_s"), "at least 0.1 seconds each".into());
        }
        if self.close_when_complete && self.stable_s < 1.0 {
            let why = "at least 1 second: a number that was told once may be growing";
            return fault(&key("stable_s"), why.into());
        }
        Ok(())
    }

    pub(super) fn durations(&self) -> Durations {
        let key = |name: &str| format!("lookup {:?} {name}", self.name);
        vec![
            (key("wait_for_missing_s"), self.wait_for_missing_s),
            (key("stable_s"), self.stable_s),
            (key("settle_s"), self.settle_s),
            (key("interval_s"), self.interval_s),
            (key("timeout_s"), self.timeout_s),
            (key("first_backoff_s"), self.first_backoff_s),
            (key("max_backoff_s"), self.max_backoff_s),
        ]
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        self.resolve_web_keys(folder);
    }
}

/// The defaults of single keys.
mod default {
    pub(super) const fn yes() -> bool {
        true
    }
    pub(super) fn modalities() -> Vec<String> {
        vec!["CT".to_owned()]
    }
    pub(super) const fn wait_for_missing_s() -> f64 {
        30.0
    }
    pub(super) const fn stable_s() -> f64 {
        5.0
    }
    pub(super) const fn settle_s() -> f64 {
        2.0
    }
    pub(super) const fn interval_s() -> f64 {
        3.0
    }
    pub(super) const fn most_questions() -> u32 {
        100
    }
    pub(super) const fn per_minute() -> u32 {
        120
    }
    pub(super) const fn max_matches() -> usize {
        100
    }
    pub(super) const fn timeout_s() -> f64 {
        5.0
    }
    pub(super) const fn first_backoff_s() -> f64 {
        2.0
    }
    pub(super) const fn max_backoff_s() -> f64 {
        60.0
    }
    pub(super) const fn attempts() -> u32 {
        8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: LookupConfig =
            toml::from_str(&format!("name = \"x\"\n{text}")).map_err(|error| error.to_string())?;
        config.check().map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn kinds_have_their_keys() {
        let mwl = "kind = \"mwl\"\naddress = \"ris:104\"\nae_title = \"RIS\"\n";
        let find = "kind = \"c-find\"\naddress = \"pacs:104\"\nae_title = \"PACS\"\n";
        let web = "kind = \"qido-rs\"\nurl = \"https://pacs/dicom-web\"\n";
        for good in [mwl, find, web] {
            check(good).unwrap();
        }
        for (base, more, word) in [
            (mwl, "count = \"study\"", "the key count does not belong to kind mwl"),
            (mwl, "url = \"http://x\"", "url"),
            (mwl, "accession = false", "asked for nothing"),
            (find, "match_by = \"patient\"", "match_by"),
            (find, "count = \"none\"\naccession = false", "asked for nothing"),
            (find, "tls_server_name = \"x\"", "without tls = true"),
            (find, "user = \"x\"", "user"),
            (find, "close_when_complete = true\nstable_s = 0.5", "stable_s"),
            (find, "attempts = 0", "attempts"),
            (find, "max_matches = 0", "max_matches"),
            (find, "interval_s = 0.0", "interval_s"),
            (web, "address = \"x:1\"", "address"),
            (web, "user = \"x\"", "password_file together"),
            ("kind = \"mwl\"\nae_title = \"RIS\"\n", "", "kind mwl needs the key address"),
            ("kind = \"qido-rs\"\n", "", "needs the key url"),
            ("kind = \"qido-rs\"\nurl = \"pacs\"\n", "", "http://"),
            ("kind = \"c-find\"\naddress = \"pacs\"\nae_title = \"PACS\"\n", "", "host:port"),
            ("kind = \"hl7\"\n", "", "unknown variant"),
        ] {
            let error = check(&format!("{base}{more}")).unwrap_err();
            assert!(error.contains(word), "{base}{more}: {error}");
        }
    }
}
