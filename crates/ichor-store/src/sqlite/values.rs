//! From columns to the vocabulary, and back.

use ichor_core::{ModelId, Reason, ReasonCode, Uid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::blobs::BlobRef;

/// A UID that was put in as one.
pub(super) fn uid(text: &str) -> Result<Uid, StoreError> {
    Uid::parse(text).map_err(|error| StoreError::corrupt(format!("{text:?} as a UID ({error})")))
}

pub(super) fn blob(text: &str) -> Result<BlobRef, StoreError> {
    BlobRef::parse(text).ok_or_else(|| StoreError::corrupt(format!("{text:?} as the name of a blob")))
}

pub(super) fn model(text: Option<String>) -> Result<Option<ModelId>, StoreError> {
    text.map(|text| ModelId::parse(&text)).transpose().map_err(|error| StoreError::corrupt(error.to_string()))
}

/// A word of one of the closed sets of words.
pub(super) fn word<T: std::str::FromStr>(text: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| StoreError::corrupt(error.to_string()))
}

pub(super) fn reason(code: Option<String>, text: Option<String>) -> Option<Reason> {
    code.map(|code| Reason { code: ReasonCode::from_stored(code), text: text.unwrap_or_default() })
}

/// A number that is never negative where it is written.
pub(super) fn unsigned<T: TryFrom<i64>>(value: i64) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_| StoreError::corrupt(format!("{value} as a count")))
}

/// A count for a column; SQLite's integers end at 2⁶³ − 1.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Database { during: "writing JSON".into(), source: Box::new(error) })
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(format!("JSON ({error})")))
}
