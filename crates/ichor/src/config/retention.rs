//! `[retention]`: which files are no longer kept. Absent: nothing is ever deleted.

use std::time::Duration;

use ichor_pipeline::retain::{RetentionOptions, RetentionRule, SpaceRule};
use ichor_store::{FileKind, Follower, Settled};
use serde::{Deserialize, Serialize};

use super::rule::OutcomeName;
use super::{Durations, Fault, fault, names_differ, seconds};

/// Longest age that can be asked for, in days: a hundred years.
const MOST_DAYS: f64 = 36_525.0;

/// `[retention]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetentionConfig {
    /// Between two sweeps, in seconds.
    pub(crate) interval_s: f64,
    /// Most files removed in a second.
    pub(crate) files_per_s: u32,
    /// With less free space than this, received files of the oldest studies go, in MiB; 0: never.
    pub(crate) free_below_mib: u64,
    /// Until so much is free, in MiB.
    pub(crate) free_until_mib: u64,
    /// What is younger does not go for free space, in days.
    pub(crate) free_after_days: f64,
    /// Events of no study are deleted after so many days; 0: never.
    pub(crate) events_days: f64,
    /// By age and outcome.
    #[serde(rename = "rule")]
    pub(crate) rules: Vec<RetentionRuleConfig>,
}

/// `[[retention.rule]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionRuleConfig {
    /// Name, unique; stands in the job log.
    pub(crate) name: String,
    /// Outcomes of which the study has one; empty: any.
    #[serde(default)]
    pub(crate) verdicts: Vec<OutcomeName>,
    /// What goes.
    pub(crate) files: Vec<FileName>,
    /// So many days after anything last happened to the study.
    pub(crate) after_days: f64,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileName {
    /// What was received.
    Received,
    /// Result objects.
    Results,
}

impl From<FileName> for FileKind {
    fn from(name: FileName) -> Self {
        match name {
            FileName::Received => Self::Received,
            FileName::Results => Self::Results,
        }
    }
}

const fn settled(name: OutcomeName) -> Settled {
    match name {
        OutcomeName::Positive => Settled::Positive,
        OutcomeName::Negative => Settled::Negative,
        OutcomeName::NotAnalysed => Settled::NotAnalysed,
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            interval_s: 3600.0,
            files_per_s: 200,
            free_below_mib: 0,
            free_until_mib: 0,
            free_after_days: 7.0,
            events_days: 0.0,
            rules: Vec::new(),
        }
    }
}

impl RetentionConfig {
    pub(super) fn check(&self, min_free_mib: u64) -> Result<(), Fault> {
        if self.interval_s < 1.0 {
            return fault("retention.interval_s", format!("{} is less than 1 second", self.interval_s));
        }
        if self.files_per_s == 0 {
            return fault("retention.files_per_s", "0 would remove nothing".to_owned());
        }
        let days = |key: &str, days: f64| {
            if (0.0..=MOST_DAYS).contains(&days) {
                Ok(())
            } else {
                fault(key, format!("{days} is not between 0 and {MOST_DAYS} days"))
            }
        };
        days("retention.free_after_days", self.free_after_days)?;
        days("retention.events_days", self.events_days)?;
        if self.free_below_mib > 0 && self.free_until_mib < self.free_below_mib {
            let text = format!("{} is less than free_below_mib ({})", self.free_until_mib, self.free_below_mib);
            return fault("retention.free_until_mib", text);
        }
        if self.free_below_mib > 0 && self.free_below_mib <= min_free_mib {
            let text = format!(
                "{} is not more than store.min_free_mib ({min_free_mib}): instances would be refused before anything goes",
                self.free_below_mib
            );
            return fault("retention.free_below_mib", text);
        }
        names_differ("retention.rule.name", self.rules.iter().map(|rule| &rule.name))?;
        for rule in &self.rules {
            days(&format!("retention.rule {:?} after_days", rule.name), rule.after_days)?;
            if rule.files.is_empty() {
                return fault(&format!("retention.rule {:?} files", rule.name), "name at least one kind".to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn durations(&self) -> Durations {
        vec![("retention.interval_s".to_owned(), self.interval_s)]
    }

    /// What the pipeline does; `followers` are the channels that must have heard.
    pub(crate) fn options(&self, followers: Vec<Follower>) -> RetentionOptions {
        let rule = |rule: &RetentionRuleConfig| RetentionRule {
            name: rule.name.clone(),
            outcomes: rule.verdicts.iter().copied().map(settled).collect(),
            files: rule.files.iter().copied().map(FileKind::from).collect(),
            after: days(rule.after_days),
        };
        RetentionOptions {
            rules: self.rules.iter().map(rule).collect(),
            space: (self.free_below_mib > 0).then(|| SpaceRule {
                below: self.free_below_mib.saturating_mul(1 << 20),
                until: self.free_until_mib.saturating_mul(1 << 20),
                after: days(self.free_after_days),
            }),
            events_after: (self.events_days > 0.0).then(|| days(self.events_days)),
            interval: seconds(self.interval_s),
            files_per_second: self.files_per_s,
            followers,
        }
    }
}

fn days(days: f64) -> Duration {
    seconds(days * 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        let of = |edit: fn(&mut RetentionConfig)| {
            let mut config = RetentionConfig::default();
            edit(&mut config);
            config.check(512).map_err(|(key, message)| format!("{key}: {message}"))
        };
        assert_eq!(of(|_| {}), Ok(()));
        type Edit = fn(&mut RetentionConfig);
        fn rule(files: &[FileName], after_days: f64) -> Vec<RetentionRuleConfig> {
            vec![RetentionRuleConfig {
                name: "old".to_owned(),
                verdicts: Vec::new(),
                files: files.to_vec(),
                after_days,
            }]
        }
        let cases: [(Edit, &str); 8] = [
            (|c| c.interval_s = 0.0, "retention.interval_s"),
            (|c| c.files_per_s = 0, "retention.files_per_s"),
            (|c| c.events_days = -1.0, "retention.events_days"),
            (|c| c.free_after_days = f64::NAN, "retention.free_after_days"),
            (|c| c.free_below_mib = 100, "retention.free_until_mib"),
            (|c| (c.free_below_mib, c.free_until_mib) = (512, 600), "retention.free_below_mib"),
            (|c| c.rules = rule(&[], 30.0), "files"),
            (|c| c.rules = rule(&[FileName::Results], 40_000.0), "after_days"),
        ];
        for (edit, key) in cases {
            let error = of(edit).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn nothing_goes_by_default() {
        let options = RetentionConfig::default().options(Vec::new());
        assert!(options.rules.is_empty() && options.space.is_none() && options.events_after.is_none());
    }
}
