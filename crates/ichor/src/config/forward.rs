//! `[[forward]]`: received instances that go on as they are.

use std::collections::BTreeMap;

use ichor_core::{AeTitle, Zone};
use ichor_pipeline::route::Rule;
use serde::{Deserialize, Serialize};

use super::Fault;
use super::rule::{PriorityName, When};

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
    /// Hours in the site's zone, such as `19:00-06:30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hours: Option<String>,
    /// Where to.
    pub(crate) destinations: Vec<String>,
    /// How soon; absent: with others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<PriorityName>,
}

impl ForwardConfig {
    fn when(&self) -> When<'_> {
        let Self { name, sources, tags, hours, .. } = self;
        When { section: "forward", name, sources, tags, hours: hours.as_deref() }
    }

    /// What the pipeline asks; hours are those of a zone.
    ///
    /// # Errors
    /// A key, and what is wrong with it.
    pub(crate) fn rule(&self, zone: &Zone) -> Result<Rule, Fault> {
        let urgent = self.priority.map(PriorityName::is_urgent);
        Ok(Rule { destinations: Some(self.destinations.clone()), urgent, ..self.when().rule(zone)? })
    }

    /// Checks what the types cannot say; `destinations` are the names of those that are configured.
    pub(super) fn check(&self, destinations: &[&str]) -> Result<(), Fault> {
        self.when().check_destinations(&self.destinations, destinations)?;
        self.rule(&Zone::UTC).map(drop)
    }
}
