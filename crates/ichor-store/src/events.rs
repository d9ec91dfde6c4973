//! The event log: what happened, in the order in which it happened.

use ichor_core::Uid;
use serde::Serialize;

use crate::{Store, StoreError, Timestamp};

/// Longest text of a peer that is kept in an event, in characters.
const LONGEST_PEER_TEXT: usize = 200;

/// Most events of one answer.
const MOST_EVENTS: u32 = 10_000;

/// One thing that happened. Holds no patient data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Stable word for machines, such as `reopened`.
    pub kind: String,
    /// One line for people.
    pub text: String,
    /// The same for machines.
    pub detail: serde_json::Value,
}

impl Store {
    /// The story of a study, from the first association to the last delivery. Instances, duplicates and conflicts
    /// are summed up by association.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn timeline(&self, study: &Uid) -> Result<Vec<Event>, StoreError> {
        self.index().timeline(study).await
    }

    /// What happened last, newest first, refused associations included; at most 10,000 events.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn recent_events(&self, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.index().recent_events(limit.min(MOST_EVENTS)).await
    }
}

/// A peer's words as they may stand in the log: no control characters, of bounded length.
pub(crate) fn peer_text(words: &str) -> String {
    let words = words.trim();
    let mut kept: String =
        words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_PEER_TEXT).collect();
    if words.chars().nth(LONGEST_PEER_TEXT).is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_text_is_tamed() {
        assert_eq!(peer_text(" 0000H\u{1b}[2J\n"), "0000H [2J");
        assert_eq!(peer_text(&"x".repeat(5_000)).chars().count(), LONGEST_PEER_TEXT + 1);
    }
}
