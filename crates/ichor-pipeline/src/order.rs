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

/// Decides of what was queued since the last time; what an urgent task asks for is urgent by that. Without rules nothing else is
/// decided, and everything else is routine.
///
/// # Errors
/// As [`Store::undecided_analyses`], [`Store::decide_urgency`] and [`Store::make_tasks_urgent`].
pub async fn decide(store: &Store, options: &OrderOptions) -> Result<(), StoreError> {
    store.make_tasks_urgent(now()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::tests::received;
    use crate::route::Pattern;

    #[tokio::test]
    async fn first_rule_that_fits_makes_urgent_and_what_cannot_be_read_is_routine() {
        let looks = Rule { tags: vec![("StationName".to_owned(), Pattern::new("ER*"))], ..Rule::default() };
        let any = Rule { name: "any".to_owned(), ..Rule::default() };
        for (rules, by, word) in [
            (vec![any.clone()], Some("any"), Some("urgent by rule \"any\"")),
            // The instance is no DICOM file: no rule may be asked, also none that would not look.
            (vec![looks, any], None, Some("cannot be told")),
            (Vec::new(), None, None),
        ] {
            let folder = tempfile::TempDir::new().unwrap();
            let store = received(&folder, 2).await;
            let options = OrderOptions { rules, longest_overtaken: Duration::from_secs(60) };
            decide(&store, &options).await.unwrap();
            let queue = store.analysis_queue(options.overdue(now()), 10, now()).await.unwrap();
            assert_eq!((queue.len(), queue[0].urgent_by.as_deref()), (1, by));
            let told = store.timeline(&queue[0].study_instance).await.unwrap();
            let words = told.iter().find(|event| event.kind == "analysis-order").map(|event| event.text.clone());
            assert_eq!(words.is_some(), word.is_some(), "{told:?}");
            assert!(words.unwrap_or_default().contains(word.unwrap_or_default()));
        }
    }
}
