//! Peers that keep a place by sending a byte now and then.

use std::time::Duration;

/// Holds what a peer sends against a lowest rate. Only time spent waiting for the peer counts: while our own side writes,
/// the peer may be waiting for us.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Starts to count; a rate of 0 is no bound.
    pub(super) fn new(bytes_per_second: u64, window: Duration) -> Self {
        Self { bytes_per_second, window, waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts a fragment and the time it was waited for.
    ///
    /// # Errors
    /// In words, at the end of a window in which too little came.
    pub(super) fn count(&mut self, bytes: usize, waited: Duration) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited = self.waited.saturating_add(waited);
        if self.waited < self.window || self.bytes_per_second == 0 {
            return Ok(());
        }
        let wanted = u128::from(self.bytes_per_second) * self.waited.as_millis() / 1000;
        if u128::from(self.bytes) < wanted {
            return Err(format!(
                "{} bytes in {:?} of waiting, fewer than {} a second",
                self.bytes, self.waited, self.bytes_per_second
            ));
        }
        *self = Self::new(self.bytes_per_second, self.window);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_window_is_judged_for_itself() {
        let mut pace = Pace::new(1000, 100 * MS);
        assert!(pace.count(10_000, 60 * MS).is_ok());
        assert!(pace.count(0, 60 * MS).is_ok(), "10,000 bytes in 120 ms");
        assert!(pace.count(10, 99 * MS).is_ok(), "the window is not over");
        let words = pace.count(10, MS).unwrap_err();
        assert_eq!(words, "20 bytes in 100ms of waiting, fewer than 1000 a second");
    }

    #[test]
    fn our_own_time_does_not_count() {
        let mut pace = Pace::new(1000, 100 * MS);
        for _ in 0..1000 {
            // What lies in the buffer already is not waited for, however long we took to ask for it.
            assert!(pace.count(1, Duration::ZERO).is_ok());
        }
        let mut unbounded = Pace::new(0, 100 * MS);
        assert!(unbounded.count(0, 3_600_000 * MS).is_ok());
    }
}
