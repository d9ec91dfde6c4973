//! Workitems that are not to be had when they are looked at: each waits by itself, and none hides those behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use ichor_core::Uid;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// So long after its time has come one is known that nobody asked for again.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// Which workitems could not be had, and when each is asked for again.
#[derive(Debug, Default)]
pub(super) struct Unwell {
    known: BTreeMap<Uid, (u32, Instant)>,
}

impl Unwell {
    /// How often in a row a workitem could not be had: those that could be go first.
    pub(super) fn failures(&self, workitem: &Uid) -> u32 {
        self.known.get(workitem).map_or(0, |(failures, _)| *failures)
    }

    /// Whether its time has not come yet.
    pub(super) fn waits(&self, workitem: &Uid, now: Instant) -> bool {
        self.known.get(workitem).is_some_and(|(_, next)| *next > now)
    }

    /// It could not be had.
    pub(super) fn failed(&mut self, workitem: &Uid, backoff: &Backoff, now: Instant) {
        self.known.retain(|_, (_, next)| *next + KNOWN_FOR > now);
        let failures = self.failures(workitem).saturating_add(1);
        let wait = backoff.after(failures).unwrap_or(backoff.longest);
        self.known.insert(workitem.clone(), (failures, now + wait));
    }

    /// It could.
    pub(super) fn answered(&mut self, workitem: &Uid) {
        self.known.remove(workitem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_by_itself_and_is_forgotten_in_the_end() {
        let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60), attempts: 0 };
        let (mut unwell, begun) = (Unwell::default(), Instant::now());
        let (one, other) = (Uid::parse("1.2").unwrap(), Uid::parse("1.3").unwrap());
        unwell.failed(&one, &backoff, begun);
        assert!(unwell.waits(&one, begun) && !unwell.waits(&other, begun));
        assert!(!unwell.waits(&one, begun + Duration::from_secs(2)));
        for _ in 0..20 {
            unwell.failed(&one, &backoff, begun);
        }
        assert_eq!((unwell.failures(&one), unwell.failures(&other)), (21, 0));
        assert!(unwell.waits(&one, begun + Duration::from_secs(29)));
        assert!(!unwell.waits(&one, begun + Duration::from_secs(60)), "no longer than the longest");
        unwell.failed(&other, &backoff, begun + KNOWN_FOR + Duration::from_secs(61));
        assert_eq!((unwell.failures(&one), unwell.failures(&other)), (0, 1), "nobody asked for it any more");
        unwell.answered(&other);
        assert_eq!(unwell.failures(&other), 0);
    }
}
