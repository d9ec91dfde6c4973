//! `[[rule]]`: who gets which results, and how soon.

use std::collections::BTreeMap;

use ichor_core::{AeTitle, Zone};
use ichor_pipeline::deliver::Hours;
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
    /// Hours in the site's zone, such as `19:00-06:30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hours: Option<String>,
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

/// When a rule fires, of whichever section: everything but what the study came to.
pub(super) struct When<'a> {
    /// The section, for faults.
    pub(super) section: &'static str,
    pub(super) name: &'a str,
    pub(super) sources: &'a [AeTitle],
    pub(super) tags: &'a BTreeMap<String, String>,
    pub(super) hours: Option<&'a str>,
}

impl When<'_> {
    /// How a fault names one of its keys.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{} {:?} {name}", self.section, self.name)
    }

    /// Whether it holds of every study.
    pub(super) fn is_always(&self) -> bool {
        self.sources.is_empty() && self.tags.is_empty() && self.hours.is_none()
    }

    /// A rule of the pipeline with these conditions, and nothing that it asks for; its hours are those of a zone.
    ///
    /// # Errors
    /// A key, and what is wrong with it.
    pub(super) fn rule(&self, zone: &Zone) -> Result<Rule, Fault> {
        if let Some(unknown) = self.tags.keys().find(|keyword| !is_keyword(keyword)) {
            return fault(&self.key("tags"), format!("{unknown:?} is no keyword of an attribute (PS3.6)"));
        }
        let hours = self.hours.map(|text| Hours::parse(text, zone)).transpose();
        Ok(Rule {
            name: self.name.to_owned(),
            sources: self.sources.to_vec(),
            tags: self.tags.iter().map(|(keyword, text)| (keyword.clone(), Pattern::new(text))).collect(),
            outcomes: Vec::new(),
            reasons: Vec::new(),
            hours: hours.map_err(|message| (self.key("hours"), message))?,
            destinations: None,
            objects: None,
            urgent: None,
        })
    }

    /// Refuses destinations that are not among those that are configured.
    pub(super) fn check_destinations(&self, named: &[String], configured: &[&str]) -> Result<(), Fault> {
        match named.iter().find(|name| !configured.contains(&name.as_str())) {
            Some(unknown) => fault(&self.key("destinations"), format!("there is no destination {unknown:?}")),
            None => Ok(()),
        }
    }
}

impl RuleConfig {
    fn when(&self) -> When<'_> {
        let Self { name, sources, tags, hours, .. } = self;
        When { section: "rule", name, sources, tags, hours: hours.as_deref() }
    }

    /// What the pipeline asks; hours are those of a zone.
    ///
    /// # Errors
    /// A key, and what is wrong with it.
    pub(crate) fn rule(&self, zone: &Zone) -> Result<Rule, Fault> {
        let names = |objects: &Vec<ObjectName>| objects.iter().map(|object| object.as_str().to_owned()).collect();
        Ok(Rule {
            outcomes: self.verdicts.iter().map(|name| (*name).into()).collect(),
            reasons: self.reasons.clone(),
            destinations: self.destinations.clone(),
            objects: self.objects.as_ref().map(names),
            urgent: self.priority.map(PriorityName::is_urgent),
            ..self.when().rule(zone)?
        })
    }

    /// Checks what the types cannot say; `destinations` are the names of those that are configured.
    pub(super) fn check(&self, destinations: &[&str]) -> Result<(), Fault> {
        self.when().check_destinations(self.destinations.as_deref().unwrap_or_default(), destinations)?;
        self.rule(&Zone::UTC).map(drop)
    }
}

impl PriorityName {
    /// Whether it goes before others.
    pub(super) fn is_urgent(self) -> bool {
        self == Self::Urgent
    }
}
