//! What a new site gets wrong, looked for one thing at a time, each with how to mend it. Nothing is changed: no database is
//! made or migrated, no study is sent, and a port that is tried is given back at once.

mod audit;
mod holder;
mod lookup;
mod machine;
mod model;
mod network;
mod retention;
mod secrets;
mod services;
mod tasks;

use serde::Serialize;

use crate::config::Config;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// It works, and somebody should look at it.
    Warning,
    /// Studies are lost to it, or results do not arrive.
    Failure,
}

/// What one look came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// What was looked at, such as `destination "pacs"`.
    pub(crate) subject: String,
    /// How bad it is.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// How to mend it; absent where there is nothing to mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<String>,
}

impl Outcome {
    fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), level: Level::Good, found: found.into(), mend: None }
    }

    fn warning(subject: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { subject: subject.into(), level: Level::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    fn failure(subject: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { subject: subject.into(), level: Level::Failure, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Looks at everything that a configuration names, in the order in which a study meets it.
pub(crate) async fn examine(config: &Config) -> Vec<Outcome> {
    let mut outcomes = machine::store(config).await;
    outcomes.extend(retention::examine(config).await);
    outcomes.extend(machine::limits(config));
    outcomes.push(machine::clock());
    outcomes.extend(network::listeners(config).await);
    outcomes.extend(network::sources(config));
    outcomes.extend(secrets::certificates(config));
    outcomes.extend(secrets::files(config));
    outcomes.push(model::decoder(config));
    for (place, model) in config.model.each().iter().enumerate() {
        let mut outcome = model::weights(model).await;
        // The active one serves without those beside it.
        if place > 0 {
            outcome.level = outcome.level.min(Level::Warning);
        }
        outcomes.push(outcome);
    }
    outcomes.extend(model::active(config).await);
    outcomes.extend(network::destinations(config).await);
    outcomes.extend(network::channels(config).await);
    outcomes.extend(audit::examine(config).await);
    outcomes.extend(network::telemetry(config).await);
    outcomes.extend(network::provider(config).await);
    outcomes.extend(lookup::examine(config).await);
    outcomes.extend(network::task_lists(config).await);
    outcomes.extend(tasks::examine(config).await);
    outcomes
}
