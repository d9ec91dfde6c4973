//! Whose pictures of a study somebody has begun to look at: many pictures are one view.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ichor_core::Uid;
use ichor_store::Timestamp;

/// Pictures within this time are one view, in milliseconds.
const ONE_VIEW_MS: i64 = 3_600_000;
/// Most views that are remembered.
const MOST: usize = 10_000;

#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<(i64, Uid), i64>>);

impl Seen {
    /// Whether this is a new view of the study by the user, to be written down.
    pub(crate) fn is_new(&self, user: i64, study: &Uid, now: Timestamp) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.as_millis();
        if seen.len() >= MOST {
            seen.retain(|_, since| now - *since < ONE_VIEW_MS);
        }
        if seen.len() >= MOST {
            // More is written down than needs be.
            seen.clear();
        }
        let begun = seen.entry((user, study.clone())).or_insert(i64::MIN / 2);
        let is_new = now - *begun >= ONE_VIEW_MS;
        if is_new {
            *begun = now;
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pictures_are_one_view() {
        let (seen, study, other) = (Seen::default(), Uid::derive(["a"]), Uid::derive(["b"]));
        let at = Timestamp::from_millis;
        assert!(seen.is_new(1, &study, at(0)));
        assert!(!seen.is_new(1, &study, at(ONE_VIEW_MS - 1)));
        assert!(seen.is_new(2, &study, at(1)) && seen.is_new(1, &other, at(1)));
        assert!(seen.is_new(1, &study, at(ONE_VIEW_MS)));
    }
}
