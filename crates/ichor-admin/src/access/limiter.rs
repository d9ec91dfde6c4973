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
        self.count([address_key(address), name_key(name)], now);
    }

    fn count<const N: usize>(&self, keys: [String; N], now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST_KEYS {
            failures.retain(|_, (_, since)| now.duration_since(*since) < self.window);
        }
        if failures.len() >= MOST_KEYS {
            // Whoever brings as many addresses loses the count of all; argon2 still costs each attempt its time.
            failures.clear();
        }
        for key in keys {
            let (count, since) = failures.entry(key).or_insert((0, now));
            if now.duration_since(*since) >= self.window {
                (*count, *since) = (0, now);
            }
            *count = count.saturating_add(1);
        }
    }

    /// Takes back the attempt that was counted, and forgets the name: its user is who they say. What the address has failed
    /// before stands: who knows one password may be guessing others.
    pub(crate) fn succeeded(&self, address: &str, name: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, _)) = failures.get_mut(&address_key(address)) {
            *count = count.saturating_sub(1);
        }
        failures.remove(&name_key(name));
    }

    /// Whether no refusal of the address has been written down in this window.
    pub(crate) fn is_refusal_new(&self, address: &str, now: Instant) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&refusal_key(address)).is_none_or(|(_, since)| now.duration_since(*since) >= self.window)
    }

    /// Remembers that a refusal of the address is written down.
    pub(crate) fn refusal_written(&self, address: &str, now: Instant) {
        self.count([refusal_key(address)], now);
    }
}

fn address_key(address: &str) -> String {
    format!("a {address}")
}

fn refusal_key(address: &str) -> String {
    format!("r {address}")
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
    fn a_success_takes_back_one_attempt() {
        let (limiter, now) = (Limiter::new(3, Duration::from_secs(60)), Instant::now());
        for name in ["bob", "carl", "anna"] {
            limiter.failed("10.0.0.1", name, now);
        }
        limiter.succeeded("10.0.0.1", "anna");
        assert_eq!(limiter.wait("10.0.0.1", "bob", now), None, "two are left");
        limiter.failed("10.0.0.1", "bob", now);
        assert!(limiter.wait("10.0.0.1", "bob", now).is_some(), "the two before still count");
    }

    #[test]
    fn a_refusal_is_new_once_a_window() {
        let (limiter, now) = (Limiter::new(3, Duration::from_secs(60)), Instant::now());
        assert!(limiter.is_refusal_new("10.0.0.1", now) && limiter.is_refusal_new("10.0.0.1", now));
        limiter.refusal_written("10.0.0.1", now);
        assert!(!limiter.is_refusal_new("10.0.0.1", now) && limiter.is_refusal_new("10.0.0.2", now));
        assert!(limiter.is_refusal_new("10.0.0.1", now + Duration::from_secs(60)));
        assert_eq!(limiter.wait("10.0.0.1", "anna", now), None, "it is no failure");
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
