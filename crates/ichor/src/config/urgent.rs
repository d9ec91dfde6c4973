//! `[[urgent]]`: which studies are analysed before others.

use std::collections::BTreeMap;

use ichor_core::{AeTitle, Zone};
use ichor_pipeline::route::Rule;
use serde::{Deserialize, Serialize};

use super::rule::When;
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
    /// Hours in the site's zone, such as `19:00-06:30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hours: Option<String>,
}

impl UrgentConfig {
    fn when(&self) -> When<'_> {
        let Self { name, sources, tags, hours } = self;
        When { section: "urgent", name, sources, tags, hours: hours.as_deref() }
    }

    /// What the pipeline asks; hours are those of a zone.
    ///
    /// # Errors
    /// A key, and what is wrong with it.
    pub(crate) fn rule(&self, zone: &Zone) -> Result<Rule, Fault> {
        self.when().rule(zone)
    }

    /// Checks what the types cannot say.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.when().is_always() {
            let key = format!("urgent {:?}", self.name);
            return fault(&key, "a rule without a condition would make every study urgent".to_owned());
        }
        self.rule(&Zone::UTC).map(drop)
    }
}
