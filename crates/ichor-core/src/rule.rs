//! One rule of the gate, asked of one series: data, so that it can be stored, shown and sent along.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a rule said of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum RuleVerdict {
    /// The series keeps the rule.
    Passed,
    /// The series breaks the rule, and is not analysed for it.
    Failed,
    /// The series does not say. Real series lack many attributes: this sets nothing aside.
    Unknown,
    /// The rule is switched off, or an earlier one left nothing to ask it of.
    NotAsked,
}

impl RuleVerdict {
    /// The verdict as it is stored and printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::NotAsked => "not-asked",
        }
    }
}

impl fmt::Display for RuleVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The outcome of one rule for one series. Holds no patient data: neither a name nor an age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RuleOutcome {
    /// The rule's stable name, such as `axial`; the one that the configuration switches it off by.
    pub rule: String,
    /// Keywords of the DICOM attributes that it read; `PixelData` where the pixels were looked at.
    pub attributes: Vec<String>,
    /// What came of it.
    pub verdict: RuleVerdict,
    /// Why, for people: lower-case sentence without full stop.
    pub text: String,
}
