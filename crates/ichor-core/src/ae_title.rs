//! Application entity titles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An application entity title (PS3.5 6.2, VR AE): 1 to 16 printable ASCII characters without a backslash, leading
/// and trailing spaces not significant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct AeTitle(String);

/// Why a string is not an [`AeTitle`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAeTitle {
    /// Nothing but spaces.
    #[error("empty AE title")]
    Empty,
    /// Longer than 16 characters.
    #[error("AE title of {0} characters, at most 16 are allowed")]
    TooLong(usize),
    /// A control character, a backslash, or anything outside ASCII.
    #[error("AE title holds {0:?}, which is not allowed")]
    Character(char),
}

impl AeTitle {
    /// Longest AE title that the standard allows.
    pub const MAX_LENGTH: usize = 16;

    /// Parses an AE title; leading and trailing spaces and NUL padding are removed.
    ///
    /// # Errors
    /// [`InvalidAeTitle`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidAeTitle> {
        let text = text.trim_matches(['\0', ' ']);
        if text.is_empty() {
            return Err(InvalidAeTitle::Empty);
        }
        if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~') || *c == '\\') {
            return Err(InvalidAeTitle::Character(c));
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(InvalidAeTitle::TooLong(text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The title without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AeTitle {
    type Err = InvalidAeTitle;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AeTitle {
    type Error = InvalidAeTitle;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<AeTitle> for String {
    fn from(title: AeTitle) -> Self {
        title.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_refused() {
        assert_eq!(AeTitle::parse(" STORESCU  ").unwrap().as_str(), "STORESCU");
        assert_eq!(AeTitle::parse(""), Err(InvalidAeTitle::Empty));
        assert_eq!(AeTitle::parse("A\\B"), Err(InvalidAeTitle::Character('\\')));
        assert_eq!(AeTitle::parse("A\u{7}B"), Err(InvalidAeTitle::Character('\u{7}')));
        assert_eq!(AeTitle::parse("ABCDEFGHIJKLMNOPQ"), Err(InvalidAeTitle::TooLong(17)));
    }
}
