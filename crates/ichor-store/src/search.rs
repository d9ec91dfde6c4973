//! Lists: studies by any mix of conditions, in pages; what waits in queues; statistics; the event log as a feed.

mod day;
mod feed;
mod page;
mod queues;
mod statistics;

use std::fmt;
use std::str::FromStr;

use ichor_core::{AeTitle, StudyStatus};
use serde::Serialize;

pub use day::study_day;
pub use feed::LoggedEvent;
pub use page::{Cursor, Page};
pub use queues::ReleaseOutcome;
pub use statistics::{DayFigures, ReasonCount, SourceFigures, Statistics, Turnaround};

use crate::{Store, StoreError, StudySummary, Timestamp};

/// Most studies on one page.
const LONGEST_PAGE: u32 = 10_000;

/// In which order studies are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StudyOrder {
    /// By the arrival of the first instance, newest first.
    #[default]
    Time,
    /// The most urgent first ([`StudySummary::urgency`]), the newest first among equals.
    Priority,
}

/// What a few studies bear, and are looked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudyMark {
    /// It is on hold: none of its files goes.
    OnHold,
    /// It was found suspicious before it was complete.
    Alerted,
    /// A delivery or a message of it is dead.
    GivenUp,
}

impl StudyMark {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OnHold, Self::Alerted, Self::GivenUp];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnHold => "on-hold",
            Self::Alerted => "alerted",
            Self::GivenUp => "given-up",
        }
    }
}

impl fmt::Display for StudyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no mark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown mark {0:?}; known are on-hold, alerted, given-up")]
pub struct UnknownMark(String);

impl FromStr for StudyMark {
    type Err = UnknownMark;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|mark| mark.as_str() == text).ok_or_else(|| UnknownMark(text.to_owned()))
    }
}

/// Which studies to list. Fields that are `None` do not filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyFilter {
    /// Study Date from, YYYYMMDD.
    pub date_from: Option<String>,
    /// Study Date to, inclusive, YYYYMMDD.
    pub date_to: Option<String>,
    /// First instance received from.
    pub received_from: Option<Timestamp>,
    /// First instance received before or at.
    pub received_to: Option<Timestamp>,
    /// Patient ID, exactly.
    pub patient_id: Option<String>,
    /// Beginnings of words of the Patient's Name, each of which must be there; case and accents do not matter.
    pub patient_name: Option<String>,
    /// Accession Number, exactly.
    pub accession_number: Option<String>,
    /// Study Instance UID, or its beginning.
    pub study_instance: Option<String>,
    /// Status.
    pub status: Option<StudyStatus>,
    /// Verdict of the newest finished version.
    pub positive: Option<bool>,
    /// Code of the reason why the status is what it is.
    pub reason: Option<String>,
    /// Who sent the first instance.
    pub source_ae: Option<AeTitle>,
    /// What it must bear.
    pub mark: Option<StudyMark>,
    /// In which order.
    pub order: StudyOrder,
    /// Most studies on the page; 10,000 at most.
    pub limit: u32,
    /// Where the last page ended; of this very question.
    pub after: Option<Cursor>,
}

impl Default for StudyFilter {
    fn default() -> Self {
        Self {
            date_from: None,
            date_to: None,
            received_from: None,
            received_to: None,
            patient_id: None,
            patient_name: None,
            accession_number: None,
            study_instance: None,
            status: None,
            positive: None,
            reason: None,
            source_ae: None,
            mark: None,
            order: StudyOrder::Time,
            limit: 50,
            after: None,
        }
    }
}

impl StudyFilter {
    /// Refuses a range that nothing can lie in: an empty list would say that there is no such study.
    fn check_ranges(&self) -> Result<(), StoreError> {
        let reversed = |what: &str| Err(StoreError::Filter { what: format!("{what} ends before it begins") });
        if let (Some(from), Some(to)) = (&self.date_from, &self.date_to)
            && from > to
        {
            return reversed(&format!("the range of study dates from {from} to {to}"));
        }
        if self.received_from.zip(self.received_to).is_some_and(|(from, to)| from > to) {
            return reversed("the range of times of arrival");
        }
        Ok(())
    }
}

impl Store {
    /// Studies that match, a page of them.
    ///
    /// # Errors
    /// [`StoreError::PageToken`] if the place is one of another question's list; [`StoreError::Filter`] if a name holds no
    /// letter, a range ends before it begins, or a name fits more studies than can be put in the order of priority; [`StoreError::Busy`],
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn studies(&self, filter: &StudyFilter) -> Result<Page<StudySummary>, StoreError> {
        filter.check_ranges()?;
        if let Some(cursor) = &filter.after {
            cursor.check(filter)?;
        }
        self.index().studies(filter, filter.limit.clamp(1, LONGEST_PAGE)).await
    }

    /// Everybody who ever sent a study: AE titles, and names of DICOMweb clients. Reads all rows of an index.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn known_sources(&self) -> Result<Vec<String>, StoreError> {
        self.index().known_sources().await
    }

    /// Codes of all reasons why studies are in the state in which they are. Reads all rows.
    ///
    /// # Errors
    /// As [`Self::known_sources`].
    pub async fn known_reasons(&self) -> Result<Vec<String>, StoreError> {
        self.index().known_reasons().await
    }
}
