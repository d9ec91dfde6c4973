//! What is remembered of those who look: many pictures of a study are one view, so is a list that stays open; and how many
//! event streams each of them hears.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ichor_core::Uid;

use crate::api::events::Streams;

/// What is looked at within this time is one view.
const ONE_VIEW: Duration = Duration::from_secs(3_600);
/// Most views that are remembered.
const MOST: usize = 10_000;

/// What somebody looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// Pictures of a study.
    Pictures(Uid),
    /// A list of studies, by the digest of what was asked.
    List([u8; 32]),
}

impl View {
    /// The list that answers a question. Another page is another list: it shows other patients.
    pub(crate) fn list(asked: &serde_json::Value) -> Self {
        Self::List(*blake3::hash(asked.to_string().as_bytes()).as_bytes())
    }
}

#[derive(Default)]
pub(crate) struct Seen {
    views: Mutex<HashMap<(i64, View), Instant>>,
    /// Event streams that are open.
    pub(crate) streams: Streams,
}

impl Seen {
    /// Whether this is a new view by the user, to be written down.
    pub(crate) fn is_new(&self, user: i64, view: &View, now: Instant) -> bool {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.get(&(user, view.clone())).is_none_or(|since| now.duration_since(*since) >= ONE_VIEW)
    }

    /// Remembers a view. It is written down by now: one that could not be is new once more.
    pub(crate) fn written(&self, user: i64, view: View, now: Instant) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if views.len() >= MOST {
            views.retain(|_, since| now.duration_since(*since) < ONE_VIEW);
        }
        if views.len() >= MOST {
            // More is written down than needs be.
            views.clear();
        }
        views.insert((user, view), now);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn many_pictures_are_one_view() {
        let (seen, start) = (Seen::default(), Instant::now());
        let (study, other) = (View::Pictures(Uid::derive(["a"])), View::Pictures(Uid::derive(["b"])));
        assert!(seen.is_new(1, &study, start));
        assert!(seen.is_new(1, &study, start), "it was not written down");
        seen.written(1, study.clone(), start);
        assert!(!seen.is_new(1, &study, start + ONE_VIEW.saturating_sub(Duration::from_millis(1))));
        assert!(seen.is_new(2, &study, start) && seen.is_new(1, &other, start));
        assert!(seen.is_new(1, &study, start + ONE_VIEW));
    }

    #[test]
    fn another_page_is_another_list() {
        let (seen, start) = (Seen::default(), Instant::now());
        seen.written(1, View::list(&json!({ "name": "a" })), start);
        assert!(!seen.is_new(1, &View::list(&json!({ "name": "a" })), start));
        for other in [json!({ "name": "b" }), json!({ "name": "a", "page": "x" })] {
            assert!(seen.is_new(1, &View::list(&other), start), "{other}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (seen, start) = (Seen::default(), Instant::now());
        for number in 0..30_000 {
            seen.written(number, View::List([0; 32]), start);
        }
        assert!(seen.views.lock().unwrap().len() <= MOST);
    }
}
