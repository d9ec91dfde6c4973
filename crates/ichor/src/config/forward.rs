//! `[[forward]]`: received instances that go on as they are.

use std::collections::BTreeMap;

use ichor_core::AeTitle;
use ichor_pipeline::route::Rule;
use serde::{Deserialize, Serialize};

use super::Fault;
use super::rule::{PriorityName, RuleConfig};

/// `[[forward]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardConfig {
    /// Name, unique; stands in the job log.
    pub(crate) name: String,
    /// AE titles of which one sent the study.
    #[serde(default)]
    pub(crate) sources: Vec<AeTitle>,
    /// Keywords of attributes, with patterns for their values.
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
    /// Hours in UTC, such as `19:00-06:30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hours_utc: Option<String>,
    /// Where to.
    pub(crate) destinations: Vec<String>,
    /// How soon; absent: with others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<PriorityName>,
}

impl ForwardConfig {
    /// The same as a rule without verdict.
    fn as_rule(&self) -> RuleConfig {
        RuleConfig {
            name: self.name.clone(),
            sources: self.sources.clone(),
            tags: self.tags.clone(),
            verdicts: Vec::new(),
            reasons: Vec::new(),
            hours_utc: self.hours_utc.clone(),
            destinations: Some(self.destinations.clone()),
            objects: None,
            priority: self.priority,
        }
    }

    /// What the pipeline asks.
    ///
    /// # Errors
    /// A key, and what is wrong with it.
    pub(crate) fn rule(&self) -> Result<Rule, Fault> {
        self.as_rule().rule()
    }

    /// Checks what the types cannot say.
    pub(super) fn check(&self, destinations: &[&str]) -> Result<(), Fault> {
        self.as_rule().check(destinations)
    }
}
