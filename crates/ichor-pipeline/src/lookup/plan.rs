//! When a peer is asked about a study, and when again.

use std::time::Duration;

use ichor_store::{Completeness, DueLookup, LookupAnswer, Timestamp};

use super::LookupOptions;

/// What is to be done about a study that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask.
    Ask {
        /// For the accession number.
        accession: bool,
        /// For numbers of instances.
        count: bool,
    },
    /// Not yet.
    Wait(Timestamp),
    /// Nothing is left to be asked.
    Drop,
}

pub(super) fn step(study: &DueLookup, options: &LookupOptions, now: Timestamp) -> Step {
    if study.asks >= options.most_questions {
        return Step::Drop;
    }
    let accession = options.accession && !study.has_accession;
    let count = options.counts() && study.is_receiving;
    let settled = study.last_instance_at.after(options.settle);
    match (accession, count) {
        (false, false) => Step::Drop,
        (false, true) if now < settled => Step::Wait(settled),
        // Asked once for the number at once; what is known later is asked for with the count.
        (true, true) if now < settled && study.asks > 0 => Step::Wait(settled),
        // A number that is told while instances come says nothing, and costs the peer a query more.
        (accession, count) => Step::Ask { accession, count: count && now >= settled },
    }
}

pub(super) fn completeness(options: &LookupOptions, asked_at: Timestamp) -> Completeness {
    Completeness {
        asked_at,
        close_when_complete: options.close_when_complete,
        stable: options.stable,
        wait_for_missing: options.wait_for_missing,
    }
}

/// When it is asked again that has answered; `None`: never.
pub(super) fn after_answer(
    study: &DueLookup,
    options: &LookupOptions,
    answer: &LookupAnswer,
    now: Timestamp,
) -> Option<Timestamp> {
    if study.asks.saturating_add(1) >= options.most_questions {
        return None;
    }
    if options.counts() && study.is_receiving {
        return Some(now.after(options.interval.max(Duration::from_millis(10))));
    }
    let lacks = options.accession && !study.has_accession && answer.accession_number.is_none();
    // The order may be entered later than the images come.
    if lacks { options.backoff.after(study.failures.saturating_add(1)).map(|wait| now.after(wait)) } else { None }
}

/// When it is asked again that did not answer; `None`: never.
pub(super) fn after_failure(study: &DueLookup, options: &LookupOptions, now: Timestamp) -> Option<Timestamp> {
    if study.asks.saturating_add(1) >= options.most_questions {
        return None;
    }
    options.backoff.after(study.failures.saturating_add(1)).map(|wait| now.after(wait))
}
