//! `[[urgent]]`: which studies are analysed before others.

use std::collections::BTreeMap;

use ichor_core::AeTitle;
use ichor_pipeline::route::Rule;
use serde::{Deserialize, Serialize};

use super::rule::RuleConfig;
use super::{Fault, fault};

/// `[[urgent]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UrgentConfig {
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
}

impl UrgentConfig {
    /// What the pipeline asks.
    ///
    /// # Errors
    /// A key, and what is wrong with it.
    pub(crate) fn rule(&self) -> Result<Rule, Fault> {
        let as_rule = RuleConfig {
            name: self.name.clone(),
            sources: self.sources.clone(),
            tags: self.tags.clone(),
            verdicts: Vec::new(),
            reasons: Vec::new(),
            hours_utc: self.hours_utc.clone(),
            destinations: None,
            objects: None,
            priority: None,
        };
        as_rule.rule().map_err(|(key, message)| (key.replacen("rule", "urgent", 1), message))
    }

    /// Checks what the types cannot say.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.sources.is_empty() && self.tags.is_empty() && self.hours_utc.is_none() {
            let key = format!("urgent {:?}", self.name);
            return fault(&key, "a rule without a condition would make every study urgent".to_owned());
        }
        self.rule().map(drop)
    }
}
