//! Marks. Few studies bear one, and those that do have an index of their own in the order of each list.

use sqlx::QueryBuilder;

use super::super::super::Dialect;
use crate::search::StudyMark;

/// A mark, as its partial indexes have it.
pub(super) struct Marked {
    is_borne: &'static str,
    /// The index in the order of arrival.
    pub(super) by_time: &'static str,
    /// The index in the order of urgency.
    pub(super) by_urgency: &'static str,
}

impl Marked {
    pub(super) const fn of(mark: StudyMark) -> Self {
        let (is_borne, by_time, by_urgency) = match mark {
            StudyMark::OnHold => ("held_at IS NOT NULL", "study_on_hold", "study_on_hold_urgency"),
            StudyMark::Alerted => ("alerted_at IS NOT NULL", "study_alerted", "study_alerted_urgency"),
            StudyMark::GivenUp => ("given_up > 0", "study_given_up", "study_given_up_urgency"),
        };
        Self { is_borne, by_time, by_urgency }
    }

    /// Pushes that it is borne.
    pub(super) fn push(&self, statement: &mut QueryBuilder<Dialect>) {
        statement.push(" AND ").push(self.is_borne);
    }
}

/// Pushes that a mark is borne, kept from its index.
pub(super) fn push_mark(statement: &mut QueryBuilder<Dialect>, mark: Option<StudyMark>) {
    if let Some(mark) = mark {
        statement.push(" AND +").push(Marked::of(mark).is_borne);
    }
}
