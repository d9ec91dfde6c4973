//! `[[rule]]`: who gets which results, and how soon.

use std::collections::BTreeMap;

use ichor_core::AeTitle;
use ichor_pipeline::route::{Outcome, Pattern, Rule, is_keyword};
use serde::{Deserialize, Serialize};

use super::objects::ObjectName;
use super::{Fault, fault};

/// `[[rule]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// Name, unique; stands in the job log.
    pub(crate) name: String,
    /// AE titles of which one sent the study.
    #[serde(default)]
    pub(crate) sources: Vec<AeTitle>,
    /// Keywords of attributes, with patterns for their values.
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
    /// Outcomes.
    #[serde(default)]
    pub(crate) verdicts: Vec<OutcomeName>,
    /// Codes of the reason why a study was not analysed.
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
    /// Hours in UTC, such as `19:00-06:30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hours_utc: Option<String>,
    /// Which destinations get results; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destinations: Option<Vec<String>>,
    /// Which objects they get of those that they ask for; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<Vec<ObjectName>>,
    /// How soon; absent: positive findings first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<PriorityName>,
}

/// What a study came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OutcomeName {
    /// Hemorrhage.
    Positive,
    /// None detected.
    Negative,
    /// Nothing in it may be analysed.
    NotAnalysed,
}

impl From<OutcomeName> for Outcome {
    fn from(name: OutcomeName) -> Self {
        match name {
            OutcomeName::Positive => Self::Positive,
            OutcomeName::Negative => Self::Negative,
            OutcomeName::NotAnalysed => Self::NotAnalysed,
        }
    }
}

/// How soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PriorityName {
    /// Before others, and at any hour.
    Urgent,
    /// With others.
    Routine,
}

impl RuleConfig {
    /// What the pipeline asks.
    ///
    /// # Errors
    /// A key, and what is wrong with it.
    pub(crate) fn rule(&self) -> Result<Rule, Fault> {
        let key = |name: &str| format!("rule {:?} {name}", self.name);
        if let Some(unknown) = self.tags.keys().find(|keyword| !is_keyword(keyword)) {
            return fault(&key("tags"), format!("{unknown:?} is no keyword of an attribute (PS3.6)"));
        }
        let hours = self.hours_utc.as_deref().map(str::parse).transpose();
        let names = |objects: &Vec<ObjectName>| objects.iter().map(|object| object.as_str().to_owned()).collect();
        Ok(Rule {
            name: self.name.clone(),
            sources: self.sources.clone(),
            tags: self.tags.iter().map(|(keyword, text)| (keyword.clone(), Pattern::new(text))).collect(),
            outcomes: self.verdicts.iter().map(|name| (*name).into()).collect(),
            reasons: self.reasons.clone(),
            hours: hours.map_err(|message: String| (key("hours_utc"), message))?,
            destinations: self.destinations.clone(),
            objects: self.objects.as_ref().map(names),
            urgent: self.priority.map(|priority| priority == PriorityName::Urgent),
        })
    }

    /// Checks what the types cannot say; `destinations` are the names of those that are configured.
    pub(super) fn check(&self, destinations: &[&str]) -> Result<(), Fault> {
        let key = format!("rule {:?} destinations", self.name);
        let known = |name: &&String| !destinations.contains(&name.as_str());
        if let Some(unknown) = self.destinations.iter().flatten().find(known) {
            return fault(&key, format!("there is no destination {unknown:?}"));
        }
        self.rule().map(drop)
    }
}
