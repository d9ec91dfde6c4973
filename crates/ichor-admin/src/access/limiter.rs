//! Failed logins, counted by address and by name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most addresses and names that are remembered.
const MOST_KEYS: usize = 20_000;

/// How much more a name may fail than an address: somebody else must not lock a user out with few attempts.
const NAME_FACTOR: u32 = 5;

/// What failed, and since when it counts.
type Failures = HashMap<String, (u32, Instant)>;

pub(crate) struct Limiter {
    attempts: u32,
    window: Duration,
    failures: Mutex<Failures>,
}

impl Limiter {
    pub(crate) fn new(attempts: u32, window: Duration) -> Self {
        Self { attempts: attempts.max(1), window, failures: Mutex::new(HashMap::new()) }
    }

    /// How long to wait before the next attempt; `None`: not at all.
    pub(crate) fn wait(&self, address: &str, name: &str, now: Instant) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |key: String, most: u32| {
            let (count, since) = failures.get(&key)?;
            let left = self.window.checked_sub(now.duration_since(*since))?;
            (*count >= most).then_some(left)
        };
        wait(address_key(address), self.attempts).max(wait(name_key(name), self.attempts.saturating_mul(NAME_FACTOR)))
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, address: &str, name: &str, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST_KEYS {
            failures.retain(|_, (_, since)| now.duration_since(*since) < self.window);
        }
        if failures.len() >= MOST_KEYS {
            // Whoever brings as many addresses loses the count of all; argon2 still costs each attempt its time.
            failures.clear();
        }
        for key in [address_key(address), name_key(name)] {
            let (count, since) = failures.entry(key).or_insert((0, now));
            if now.duration_since(*since) >= self.window {
                (*count, *since) = (0, now);
            }
            *count = count.saturating_add(1);
        }
    }

    /// Forgets an address: its user is who they say.
    pub(crate) fn succeeded(&self, address: &str, name: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&address_key(address));
        failures.remove(&name_key(name));
    }
}

fn address_key(address: &str) -> String {
    format!("a {address}")
}

fn name_key(name: &str) -> String {
    format!("n {}", name.to_lowercase().chars().take(64).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_failures_wait() {
        let (limiter, start) = (Limiter::new(3, Duration::from_secs(60)), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            assert_eq!(limiter.wait("10.0.0.1", "anna", at(second)), None, "{second}");
            limiter.failed("10.0.0.1", "anna", at(second));
        }
        assert_eq!(limiter.wait("10.0.0.1", "bob", at(10)), Some(Duration::from_secs(50)), "whatever the name");
        assert_eq!(limiter.wait("10.0.0.2", "anna", at(10)), None, "anna herself may still come");
        for _ in 0..12 {
            limiter.failed("10.0.0.9", "ANNA", at(11));
        }
        assert!(limiter.wait("10.0.0.2", "anna", at(12)).is_some(), "from many addresses");
        assert_eq!(limiter.wait("10.0.0.1", "bob", at(61)), None, "it passes");
        limiter.succeeded("10.0.0.2", "anna");
        assert_eq!(limiter.wait("10.0.0.2", "anna", at(12)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (limiter, start) = (Limiter::new(3, Duration::from_secs(60)), Instant::now());
        for number in 0..30_000 {
            limiter.failed(&number.to_string(), "anna", start);
        }
        assert!(limiter.failures.lock().unwrap().len() <= MOST_KEYS + 1);
    }
}
