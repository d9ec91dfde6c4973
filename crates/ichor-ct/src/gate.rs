//! The gate: the rules that a series must keep to be analysed, each of them data.
//!
//! Every rule is asked of every series, also after another one has failed, and every outcome is kept. An attribute that
//! is missing excludes nothing: real series lack many of them. Where attributes do not name the head, the pixels are
//! looked at.

mod attributes;
mod look;
mod patient;
mod stack;

use std::fmt;
use std::str::FromStr;

use ichor_core::{RuleOutcome, RuleVerdict};
use thiserror::Error;

pub(crate) use attributes::{Judgement, describe, is_reformatted, judge};
pub(crate) use look::{Looked, look};
pub(crate) use patient::{adult_age, says_phantom};
pub use stack::{Extent, extent};
pub(crate) use stack::{judge_stack, without_strays};

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GateRule {
    /// CT images.
    Ct,
    /// One frame an instance.
    SingleFrame,
    /// Sections through the patient: no localizer, no projection, no rendering.
    Section,
    /// No phantom and no quality assurance, by name.
    NotPhantom,
    /// An adult.
    Adult,
    /// The head.
    Head,
    /// Without a contrast agent.
    NonContrast,
    /// A kernel for soft tissue.
    SoftTissueKernel,
    /// Values in Hounsfield units.
    Hounsfield,
    /// Each image has its place, and most of them lie in parallel.
    Geometry,
    /// Axial, or tilted by the gantry.
    Axial,
    /// Enough slices.
    Slices,
    /// Enough of the head.
    Coverage,
    /// Slices near enough to each other.
    Spacing,
    /// No part of the head left out.
    Gaps,
}

impl GateRule {
    /// All rules, in the order in which they are asked.
    pub const ALL: [Self; 15] = [
        Self::Ct,
        Self::SingleFrame,
        Self::Section,
        Self::NotPhantom,
        Self::Adult,
        Self::Head,
        Self::NonContrast,
        Self::SoftTissueKernel,
        Self::Hounsfield,
        Self::Geometry,
        Self::Axial,
        Self::Slices,
        Self::Coverage,
        Self::Spacing,
        Self::Gaps,
    ];

    /// The rule's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ct => "ct",
            Self::SingleFrame => "single-frame",
            Self::Section => "section",
            Self::NotPhantom => "not-phantom",
            Self::Adult => "adult",
            Self::Head => "head",
            Self::NonContrast => "non-contrast",
            Self::SoftTissueKernel => "soft-tissue-kernel",
            Self::Hounsfield => "hounsfield",
            Self::Geometry => "geometry",
            Self::Axial => "axial",
            Self::Slices => "slices",
            Self::Coverage => "coverage",
            Self::Spacing => "spacing",
            Self::Gaps => "gaps",
        }
    }

    /// Keywords of the attributes that it reads.
    #[must_use]
    pub const fn attributes(self) -> &'static [&'static str] {
        const PLACE: &[&str] = &["ImagePositionPatient", "ImageOrientationPatient"];
        match self {
            Self::Ct => &["SOPClassUID", "Modality"],
            Self::SingleFrame => &["SOPClassUID"],
            Self::Section => &["ImageType"],
            Self::NotPhantom => &["PatientName", "PatientID", "StudyDescription", "SeriesDescription", "ProtocolName"],
            Self::Adult => &["PatientAge", "PatientBirthDate", "StudyDate"],
            Self::Head => &["BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription"],
            Self::NonContrast => &["ContrastBolusAgent", "SeriesDescription"],
            Self::SoftTissueKernel => &["ConvolutionKernel"],
            Self::Hounsfield => &["RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"],
            Self::Geometry => &["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"],
            Self::Axial => &["ImageOrientationPatient"],
            Self::Slices | Self::Spacing | Self::Gaps => PLACE,
            Self::Coverage => &["ImagePositionPatient", "ImageOrientationPatient", "SliceThickness"],
        }
    }

    /// Whether the analysis can do without it: not without images, values and places.
    #[must_use]
    pub const fn may_be_off(self) -> bool {
        !matches!(self, Self::Ct | Self::SingleFrame | Self::Hounsfield | Self::Geometry | Self::Slices)
    }

    pub(crate) fn outcome(self, verdict: RuleVerdict, text: impl Into<String>) -> RuleOutcome {
        let attributes = self.attributes().iter().map(ToString::to_string).collect();
        RuleOutcome { rule: self.name().to_owned(), attributes, verdict, text: text.into() }
    }
}

impl fmt::Display for GateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No rule has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no rule of the gate; there are {names}", names = GateRule::ALL.map(GateRule::name).join(", "))]
pub struct UnknownRule(pub String);

impl FromStr for GateRule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Self, UnknownRule> {
        let rule = Self::ALL.into_iter().find(|rule| rule.name() == name);
        rule.ok_or_else(|| UnknownRule(name.to_owned()))
    }
}

/// A set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(u32);

impl RuleSet {
    /// Whether a rule is in it.
    #[must_use]
    pub const fn contains(self, rule: GateRule) -> bool {
        self.0 >> rule as u32 & 1 == 1
    }

    /// The set with one more rule.
    #[must_use]
    pub const fn with(self, rule: GateRule) -> Self {
        Self(self.0 | 1 << rule as u32)
    }
}

impl FromIterator<GateRule> for RuleSet {
    fn from_iter<I: IntoIterator<Item = GateRule>>(rules: I) -> Self {
        rules.into_iter().fold(Self::default(), Self::with)
    }
}

/// Settings of the gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateOptions {
    /// Fewest slices.
    pub min_slices: usize,
    /// Smallest extent along the normal that the slices stand for, in mm.
    pub min_coverage_mm: f64,
    /// Largest distance of neighbouring slices, in mm; single gaps are another rule's.
    pub max_spacing_mm: f64,
    /// Most slices that may be missing between two neighbours.
    pub max_missing_slices: u32,
    /// Largest angle between the normal and the patient's axis, in degrees.
    pub max_tilt_degrees: f64,
    /// Youngest patient, in years.
    pub min_age_years: f64,
    /// Whether the pixels are looked at where no attribute names the head.
    pub look_at_pixels: bool,
    /// Whether multi-frame CT is let through, each frame as a slice.
    pub multi_frame: bool,
    /// Rules that are not asked. Those that may not be off ([`GateRule::may_be_off`]) are asked anyhow.
    pub off: RuleSet,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self {
            min_slices: 10,
            min_coverage_mm: 80.0,
            max_spacing_mm: 7.5,
            max_missing_slices: 2,
            max_tilt_degrees: 35.0,
            min_age_years: 18.0,
            look_at_pixels: true,
            multi_frame: true,
            off: RuleSet::default(),
        }
    }
}

impl GateOptions {
    /// Whether a rule is not asked.
    #[must_use]
    pub const fn is_off(&self, rule: GateRule) -> bool {
        rule.may_be_off() && self.off.contains(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_find_their_rules() {
        for rule in GateRule::ALL {
            assert_eq!(rule.name().parse(), Ok(rule));
        }
        assert!("Axial".parse::<GateRule>().unwrap_err().to_string().contains("soft-tissue-kernel"));
    }

    #[test]
    fn what_the_analysis_needs_cannot_be_switched_off() {
        let options = GateOptions { off: GateRule::ALL.into_iter().collect(), ..GateOptions::default() };
        let asked: Vec<&str> =
            GateRule::ALL.into_iter().filter(|rule| !options.is_off(*rule)).map(GateRule::name).collect();
        assert_eq!(asked, ["ct", "single-frame", "hounsfield", "geometry", "slices"]);
    }
}
