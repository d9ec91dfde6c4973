//! Logins that have begun at a provider: each is good once, for a short time, and for the browser that began it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

/// How long somebody may take at the provider.
pub(super) const MOST_AGE: Duration = Duration::from_secs(600);

/// Most logins under way, of all and of one address.
const MOST: usize = 2_000;
const MOST_OF_ADDRESS: usize = 50;

/// What is needed again when the browser comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// What the ID token must repeat.
    pub(crate) nonce: String,
    /// What proves that whoever brings the code began the login (RFC 7636).
    pub(crate) verifier: String,
    /// Digest of the cookie of the browser that began it.
    pub(crate) browser: [u8; 32],
}

/// By their state.
#[derive(Default)]
pub(super) struct Begun {
    logins: Mutex<HashMap<String, (Kept, String, Instant)>>,
}

impl Begun {
    /// Remembers a login. Where there are too many the oldest goes, of the same address if that has too many: nobody is kept
    /// from beginning one.
    pub(super) fn keep(&self, state: &str, kept: Kept, address: &str, now: Instant) {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.retain(|_, (_, _, since)| now.duration_since(*since) < MOST_AGE);
        let is_address_full = logins.values().filter(|(_, of, _)| of == address).count() >= MOST_OF_ADDRESS;
        if is_address_full || logins.len() >= MOST {
            let those = logins.iter().filter(|(_, (_, of, _))| !is_address_full || of == address);
            let oldest = those.min_by_key(|(_, (_, _, since))| *since).map(|(oldest, _)| oldest.clone());
            if let Some(oldest) = oldest {
                logins.remove(&oldest);
            }
        }
        logins.insert(state.to_owned(), (kept, address.to_owned(), now));
    }

    /// Takes a login, once, if it is the browser's own and not too old.
    pub(super) fn take(&self, state: &str, browser: [u8; 32], now: Instant) -> Option<Kept> {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, _, since) = logins.get(state)?;
        if !bool::from(kept.browser.ct_eq(&browser)) {
            // Another's: it stays good for its own.
            return None;
        }
        let is_young = now.duration_since(*since) < MOST_AGE;
        logins.remove(state).filter(|_| is_young).map(|(kept, _, _)| kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(browser: u8) -> Kept {
        Kept { nonce: "n".to_owned(), verifier: "v".to_owned(), browser: [browser; 32] }
    }

    #[test]
    fn a_login_is_good_once_and_for_its_own_browser() {
        let (begun, now) = (Begun::default(), Instant::now());
        begun.keep("s", kept(1), "10.0.0.1", now);
        assert_eq!(begun.take("other", [1; 32], now), None);
        assert_eq!(begun.take("s", [2; 32], now), None, "another browser");
        assert_eq!(begun.take("s", [1; 32], now), Some(kept(1)));
        assert_eq!(begun.take("s", [1; 32], now), None, "a second time");
        begun.keep("late", kept(1), "10.0.0.1", now);
        assert_eq!(begun.take("late", [1; 32], now + MOST_AGE), None);
    }

    #[test]
    fn they_are_bounded() {
        let (begun, start) = (Begun::default(), Instant::now());
        let at = |number: usize| start + Duration::from_millis(number as u64);
        let count = || begun.logins.lock().unwrap().len();
        begun.keep("another's", kept(1), "10.0.0.2", start);
        for number in 0..=MOST_OF_ADDRESS {
            begun.keep(&number.to_string(), kept(1), "10.0.0.1", at(number + 1));
        }
        assert_eq!(count(), MOST_OF_ADDRESS + 1);
        assert_eq!(begun.take("0", [1; 32], at(100)), None, "the oldest of the address has gone");
        assert!(begun.take("1", [1; 32], at(100)).is_some() && begun.take("another's", [1; 32], at(100)).is_some());
        for number in 0..MOST {
            begun.keep(&format!("from {number}"), kept(1), &number.to_string(), at(200));
        }
        assert_eq!(count(), MOST);
        assert_eq!(begun.take("2", [1; 32], at(300)), None, "the oldest of all have gone");
        assert!(begun.take("from 0", [1; 32], at(300)).is_some());
        begun.keep("later", kept(1), "10.0.0.1", at(200) + MOST_AGE);
        assert_eq!(count(), 1);
    }
}
