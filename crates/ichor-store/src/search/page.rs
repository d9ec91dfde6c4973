//! Pages, and the token of the next one.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::StudyFilter;
use crate::StoreError;

/// Bytes of a token: urgency, moment, number, and eight bytes that bind them to the question.
const LENGTH: usize = 1 + 8 + 8 + 8;

/// A place in a list of studies. Its text is for handing back only, with the question that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) urgency: u8,
    pub(crate) received_at: i64,
    pub(crate) id: i64,
    binding: [u8; 8],
}

impl Cursor {
    /// The place behind a study in the list of a question.
    pub(crate) fn new(filter: &StudyFilter, urgency: u8, received_at: i64, id: i64) -> Self {
        Self { urgency, received_at, id, binding: binding(filter, urgency, received_at, id) }
    }

    /// Whether it is a place in this question's list.
    pub(crate) fn check(&self, filter: &StudyFilter) -> Result<(), StoreError> {
        if self.binding == binding(filter, self.urgency, self.received_at, self.id) {
            return Ok(());
        }
        Err(StoreError::PageToken { why: "belongs to another question, or is damaged" })
    }
}

/// The question, whatever the length of its pages, and the place.
fn binding(filter: &StudyFilter, urgency: u8, received_at: i64, id: i64) -> [u8; 8] {
    let question = StudyFilter { limit: 0, after: None, ..filter.clone() };
    let words = format!("{question:?} {urgency} {received_at} {id}");
    let mut binding = [0; 8];
    binding.copy_from_slice(&blake3::hash(words.as_bytes()).as_bytes()[..8]);
    binding
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&[self.urgency][..], &self.received_at.to_be_bytes(), &self.id.to_be_bytes(), &self.binding];
        parts.concat().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let is_hex = text.len() == 2 * LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let text = Some(text).filter(|_| is_hex)?;
            let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok();
            let bytes: Vec<u8> = (0..LENGTH).map(byte).collect::<Option<_>>()?;
            let eight = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).ok();
            let number = |at: usize| eight(at).map(i64::from_be_bytes);
            Some(Self { urgency: bytes[0], received_at: number(1)?, id: number(9)?, binding: eight(17)? })
        };
        parse().ok_or(StoreError::PageToken { why: "is damaged" })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StudyOrder;

    #[test]
    fn a_token_belongs_to_its_question() {
        let question = StudyFilter { patient_name: Some("o'brien".to_owned()), ..StudyFilter::default() };
        let cursor = Cursor::new(&question, 4, 1_700_000_000_123, 42);
        let back: Cursor = cursor.to_string().parse().unwrap();
        assert_eq!(back, cursor);
        back.check(&StudyFilter { limit: 7, after: Some(cursor), ..question.clone() }).unwrap();
        for other in [
            StudyFilter { order: StudyOrder::Priority, ..question.clone() },
            StudyFilter { positive: Some(true), ..question.clone() },
            StudyFilter::default(),
        ] {
            assert!(matches!(back.check(&other), Err(StoreError::PageToken { .. })), "{other:?}");
        }
    }

    #[test]
    fn damaged_tokens_are_told() {
        let question = StudyFilter::default();
        let text = Cursor::new(&question, 0, 5, 6).to_string();
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
            let read: Result<Cursor, _> = String::from_utf8(damaged).unwrap().parse();
            assert!(read.is_err() || read.is_ok_and(|cursor| cursor.check(&question).is_err()), "digit {at}");
        }
        for bad in ["", "1.x", "' OR 1=1", &text[2..], &format!("{text}00"), &"ü".repeat(25), &"+1".repeat(25)] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
    }
}
