//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

/// Exponential backoff with jitter: attempt `n` waits between half of and the whole of `first · 2ⁿ⁻¹`, at most
/// `longest`, so that destinations that came back are not met by everything at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
    /// Attempts before giving up; 0: never.
    pub attempts: u32,
}

impl Backoff {
    /// Whether so many attempts are all that there may be.
    #[must_use]
    pub const fn are_used_up(&self, attempts: u32) -> bool {
        self.attempts != 0 && attempts >= self.attempts
    }

    /// The wait after the `failed`-th failed attempt (counted from 1), or `None` when attempts are used up.
    #[must_use]
    pub fn after(&self, failed: u32) -> Option<Duration> {
        if self.are_used_up(failed) {
            return None;
        }
        let doublings = failed.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        Some(whole.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_stays_capped_and_ends() {
        let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60), attempts: 40 };
        for (failed, whole) in [(1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (39, 60.0)] {
            let wait = backoff.after(failed).unwrap().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&wait), "after {failed}: {wait}");
        }
        assert_eq!(backoff.after(40), None);
        assert!(Backoff { attempts: 0, ..backoff }.after(u32::MAX).is_some());
    }
}
