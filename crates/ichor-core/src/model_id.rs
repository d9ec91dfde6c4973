//! Which model, which weights.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names one set of weights: `name@version+hash`, the hash being the first twelve hexadecimal digits of the weight
/// file's SHA-256. It stands in every row, event and object that came from the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct ModelId(String);

/// The string is not `name@version+hash`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a model id of the form name@version+hash")]
pub struct InvalidModelId(String);

impl ModelId {
    /// Puts the id together. `sha256_hex` may be the full digest; twelve digits of it are kept.
    ///
    /// # Errors
    /// [`InvalidModelId`] if the parts hold anything but letters, digits, `.`, `_`, `-`, or the digest is short.
    pub fn new(name: &str, version: &str, sha256_hex: &str) -> Result<Self, InvalidModelId> {
        let hash = sha256_hex.get(..12).unwrap_or(sha256_hex);
        Self::parse(&format!("{name}@{version}+{hash}"))
    }

    /// Parses `name@version+hash`.
    ///
    /// # Errors
    /// [`InvalidModelId`] with the text.
    pub fn parse(text: &str) -> Result<Self, InvalidModelId> {
        let word = |s: &str| {
            !s.is_empty() && s.len() <= 64 && s.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        };
        let digest = |s: &str| s.len() == 12 && s.chars().all(|c| c.is_ascii_hexdigit());
        let valid = text
            .split_once('@')
            .and_then(|(name, rest)| rest.rsplit_once('+').map(|(version, hash)| (name, version, hash)))
            .is_some_and(|(name, version, hash)| word(name) && word(version) && digest(hash));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidModelId(text.to_owned())) }
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name before the `@`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }

    /// Version and hash, behind the `@`.
    #[must_use]
    pub fn version_and_hash(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, rest)| rest)
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ModelId {
    type Err = InvalidModelId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ModelId {
    type Error = InvalidModelId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<ModelId> for String {
    fn from(id: ModelId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let id = ModelId::new("ichor-demo", "1.0.0", &"0123456789abcdef".repeat(4)).unwrap();
        assert_eq!(id.as_str(), "ichor-demo@1.0.0+0123456789ab");
        assert_eq!((id.name(), id.version_and_hash()), ("ichor-demo", "1.0.0+0123456789ab"));
        for bad in ["", "a@b", "a@b+123", "a b@1+0123456789ab", "@1+0123456789ab"] {
            assert!(ModelId::parse(bad).is_err(), "{bad}");
        }
    }
}
