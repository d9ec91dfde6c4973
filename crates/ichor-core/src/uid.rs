//! DICOM unique identifiers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// A DICOM unique identifier (PS3.5 chapter 9): 1 to 64 characters, digits and full stops only.
///
/// Components with leading zeros and empty components occur in the field and are kept as received; what they are
/// never used for is a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct Uid(String);

/// Why a string is not a [`Uid`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidUid {
    /// Nothing but padding.
    #[error("empty UID")]
    Empty,
    /// Longer than 64 characters.
    #[error("UID of {0} characters, at most 64 are allowed")]
    TooLong(usize),
    /// A character other than a digit or a full stop.
    #[error("UID holds {0:?}, only digits and full stops are allowed")]
    Character(char),
}

impl Uid {
    /// Longest UID that the standard allows.
    pub const MAX_LENGTH: usize = 64;

    /// Parses a UID; trailing NUL and space padding is removed (PS3.5 6.2, VR UI).
    ///
    /// # Errors
    /// [`InvalidUid`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidUid> {
        let text = text.trim_matches(['\0', ' ']);
        if text.is_empty() {
            return Err(InvalidUid::Empty);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(InvalidUid::TooLong(text.chars().count()));
        }
        match text.chars().find(|c| !c.is_ascii_digit() && *c != '.') {
            Some(c) => Err(InvalidUid::Character(c)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Derives a UID from the parts that make an object what it is, as `2.25.` followed by a 128-bit integer
    /// (PS3.5 B.2). The same parts give the same UID, so a retry names the same object.
    ///
    /// The integer is the head of SHA-256 over the length-prefixed parts, with the version and variant bits of an
    /// RFC 9562 version 8 UUID.
    #[must_use]
    pub fn derive<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(format!("2.25.{}", u128::from_be_bytes(bytes)))
    }

    /// The UID's text, without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Uid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uid {
    type Err = InvalidUid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Uid {
    type Error = InvalidUid;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> Self {
        uid.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_is_removed() {
        assert_eq!(Uid::parse("1.2.840\0").unwrap().as_str(), "1.2.840");
    }

    #[test]
    fn hostile_strings_are_refused() {
        assert_eq!(Uid::parse("  "), Err(InvalidUid::Empty));
        assert_eq!(Uid::parse("../../etc"), Err(InvalidUid::Character('/')));
        assert_eq!(Uid::parse(&"1".repeat(10_000)), Err(InvalidUid::TooLong(10_000)));
    }

    #[test]
    fn part_boundaries_matter() {
        assert_ne!(Uid::derive(["ab", "c"]), Uid::derive(["a", "bc"]));
    }

    proptest! {
        #[test]
        fn derived_uids_are_valid_and_stable(parts in proptest::collection::vec(".{0,40}", 0..6)) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let uid = Uid::derive(parts.iter().copied());
            prop_assert_eq!(&Uid::parse(uid.as_str()).unwrap(), &uid);
            prop_assert!(!uid.as_str()[5..].starts_with('0'));
            prop_assert_eq!(uid, Uid::derive(parts));
        }

        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            if let Ok(uid) = Uid::parse(&text) {
                prop_assert!(uid.as_str().len() <= Uid::MAX_LENGTH);
            }
        }
    }
}
