//! What was written down already: many pictures and frames of a study, one after the other, are one view.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ichor_core::Uid;

/// What is looked at within this time is one view, as on the pages.
const ONE_VIEW: Duration = Duration::from_secs(3_600);
/// Most views that are remembered.
const MOST: usize = 10_000;

/// Who looks at what: client, address, action and study.
pub(super) type View = (String, IpAddr, &'static str, Uid);

#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<View, Instant>>);

impl Seen {
    /// Whether this is a view that was not written down yet.
    pub(super) fn is_new(&self, view: &View, now: Instant) -> bool {
        let views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.get(view).is_none_or(|since| now.duration_since(*since) >= ONE_VIEW)
    }

    /// Remembers a view. It is written down by now: one that could not be is new once more.
    pub(super) fn written(&self, view: View, now: Instant) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if views.len() >= MOST {
            views.retain(|_, since| now.duration_since(*since) < ONE_VIEW);
        }
        if views.len() >= MOST {
            // More is written down than needs be.
            views.clear();
        }
        views.insert(view, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_frames_are_one_view() {
        let (seen, start) = (Seen::default(), Instant::now());
        let view = |client: &str, action, study: &str| {
            (client.to_owned(), "127.0.0.1".parse().unwrap(), action, Uid::derive([study]))
        };
        let frames = view("OHIF", "frames-retrieved", "a");
        assert!(seen.is_new(&frames, start) && seen.is_new(&frames, start), "it was not written down");
        seen.written(frames.clone(), start);
        assert!(!seen.is_new(&frames, start));
        assert!(seen.is_new(&frames, start + ONE_VIEW));
        for other in [
            view("OHIF", "frames-retrieved", "b"),
            view("OHIF", "pictures-retrieved", "a"),
            view("OTHER", "frames-retrieved", "a"),
        ] {
            assert!(seen.is_new(&other, start), "{other:?}");
        }
        for number in 0..30_000 {
            seen.written(view(&number.to_string(), "frames-retrieved", "a"), start);
        }
        assert!(seen.0.lock().unwrap().len() <= MOST);
    }
}
