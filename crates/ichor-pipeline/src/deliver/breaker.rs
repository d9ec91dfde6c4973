//! The circuit breaker of a destination. While nobody is there its queue is held as one: no delivery's own attempts are
//! counted, and one attempt at a time finds out whether somebody has come back (half-open).

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// Closed while everything goes its way; open until a moment, after which the next attempt is a probe.
#[derive(Debug)]
pub(super) struct Breaker {
    backoff: Backoff,
    /// Failures in a row, each of another kind than "nobody is there", that open it; 0: none do.
    threshold: u32,
    /// Such failures in a row.
    failures: u32,
    /// How often in a row it was opened.
    opened: u32,
    open_until: Option<Instant>,
    /// Something was taken since the last attempt that found nobody.
    takes_things: bool,
}

impl Breaker {
    pub(super) fn new(backoff: Backoff, threshold: u32) -> Self {
        // The attempts of a delivery are not those of its destination: one that is away may stay away for long.
        let backoff = Backoff { attempts: 0, ..backoff };
        Self { backoff, threshold, failures: 0, opened: 0, open_until: None, takes_things: false }
    }

    /// How long nobody must be asked; `None`: an attempt may be made.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        let left = self.open_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Nobody is there: opens, and says for how long.
    pub(super) fn trip(&mut self, now: Instant) -> Duration {
        self.opened = self.opened.saturating_add(1);
        (self.failures, self.takes_things) = (0, false);
        let wait = self.backoff.after(self.opened).unwrap_or(self.backoff.longest);
        self.open_until = Some(now + wait);
        wait
    }

    /// The peer asks to be left alone for so long.
    pub(super) fn leave_alone(&mut self, now: Instant, wait: Duration) {
        self.open_until = self.open_until.max(Some(now + wait));
    }

    /// An attempt failed although somebody was there; whether so many have in a row that it is to be opened.
    pub(super) fn failed(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        // What fails after it was open was the probe.
        self.threshold != 0 && (self.failures >= self.threshold || self.opened > 0)
    }

    /// Whether nobody was there at the last attempt.
    pub(super) const fn is_tripped(&self) -> bool {
        self.opened > 0
    }

    /// Somebody is there and takes things.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.opened, self.open_until, self.takes_things) = (0, 0, None, true);
    }

    /// Whether it is a delivery's own fault that it seemed to find nobody: it has failed before, and others were taken in
    /// between. Said once: if the next finds nobody either, nobody is there.
    pub(super) fn blames(&mut self, has_failed: bool) -> bool {
        has_failed && std::mem::take(&mut self.takes_things)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_probes_and_closes() {
        let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(8), attempts: 1 };
        let mut breaker = Breaker::new(backoff, 3);
        let now = Instant::now();
        assert_eq!(breaker.closed_for(now), None);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let wait = breaker.trip(now);
            assert_eq!(breaker.closed_for(now), Some(wait));
            assert_eq!(breaker.closed_for(now + wait), None, "half-open");
            waits.push(wait.as_secs_f64());
        }
        assert!((1.0..=2.0).contains(&waits[0]) && (4.0..=8.0).contains(&waits[5]), "{waits:?}");
        assert!(breaker.is_tripped() && breaker.failed(), "a probe that fails opens it again");
        breaker.succeeded();
        assert!(!breaker.is_tripped());
        assert_eq!(breaker.closed_for(now), None);
        assert_eq!([breaker.failed(), breaker.failed(), breaker.failed()], [false, false, true]);
        breaker.succeeded();
        assert!(!breaker.failed(), "counted in a row");
        assert!(!breaker.blames(false), "the first of its failures");
        assert!(breaker.blames(true) && !breaker.blames(true), "nothing was taken in between");
        breaker.succeeded();
        breaker.trip(now);
        assert!(!breaker.blames(true), "nobody is there");
        assert!(!Breaker::new(backoff, 3).blames(true), "nothing was taken yet");
        let (long, short) = (Duration::from_secs(5), Duration::from_secs(1));
        breaker.succeeded();
        breaker.leave_alone(now, long);
        breaker.leave_alone(now, short);
        assert_eq!((breaker.closed_for(now), breaker.closed_for(now + long)), (Some(long), None), "as the peer asked");
        assert!(!breaker.is_tripped(), "somebody is there");
        let mut never = Breaker::new(backoff, 0);
        assert!((0..100).all(|_| !never.failed()));
    }
}
