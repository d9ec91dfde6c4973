//! Order: which queued analysis is urgent. The first rule whose conditions all hold decides, by the same conditions as routing
//! rules without an outcome. An alert makes a study urgent too, and so does a long wait, so that nobody waits for ever.

use std::time::Duration;

use ichor_core::AeTitle;
use ichor_store::{Store, StoreError, Timestamp, UndecidedAnalysis, Urgency};
use tracing::{info, warn};

use crate::now;
use crate::route::{Facts, Rule, look_into, route};

/// Analyses that are decided before the first is claimed.
const AT_ONCE: u32 = 100;

/// Settings of the order.
#[derive(Clone, Debug, Default)]
pub struct OrderOptions {
    /// Rules without outcome: the study of which one fires is urgent.
    pub rules: Vec<Rule>,
    /// Whoever has waited longer than this counts as urgent.
    pub longest_overtaken: Duration,
}

impl OrderOptions {
    /// What was queued until then counts as urgent.
    #[must_use]
    pub fn overdue(&self, now: Timestamp) -> Timestamp {
        let wait = i64::try_from(self.longest_overtaken.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(wait))
    }
}

/// Decides of what was queued since the last time. Without rules nothing is decided, and everything is routine.
///
/// # Errors
/// As [`Store::undecided_analyses`] and [`Store::decide_urgency`].
pub async fn decide(store: &Store, options: &OrderOptions) -> Result<(), StoreError> {
    if options.rules.is_empty() {
        return Ok(());
    }
    loop {
        let undecided = store.undecided_analyses(AT_ONCE).await?;
        for analysis in &undecided {
            let urgency = judge(options, analysis).await;
            if let Some(words) = &urgency.words {
                info!(study = %analysis.study_instance, words, "order of analysis");
            }
            store.decide_urgency(analysis, &urgency, now()).await?;
        }
        if undecided.len() < AT_ONCE as usize {
            return Ok(());
        }
    }
}

/// A study that rules cannot look at is routine, and says so: it must not hold the others up.
async fn judge(options: &OrderOptions, analysis: &UndecidedAnalysis) -> Urgency {
    let instance = match look_into(&options.rules, analysis.first_instance.clone()).await {
        Ok(instance) => instance,
        Err(error) => {
            warn!(study = %analysis.study_instance, error, "whether it is urgent cannot be told");
            let words = format!("whether it is urgent cannot be told, so it is not: {error}");
            return Urgency { by: None, words: Some(words) };
        }
    };
    let facts = Facts {
        source: analysis.source_ae.as_ref().map(AeTitle::as_str),
        instance: instance.as_ref(),
        outcome: None,
        reason: None,
        now: now(),
    };
    let Some(rule) = route(&options.rules, &facts).fired else { return Urgency::default() };
    let words = format!("urgent by rule {:?}: it is analysed before others", rule.name);
    Urgency { by: Some(rule.name.clone()), words: Some(words) }
}
