//! What weights are for: the JSON file `<name>.manifest.json` beside `<name>.safetensors`.
//!
//! Architecture Invariant: weights are never used without their manifest, and never with a preset or a preparation
//! of the input that this program does not have. A mismatch refuses to start.

use std::fmt;
use std::path::{Path, PathBuf};

use ichor_core::{Calibration, InvalidModelId, ModelId, StudyRule, VolumeUncertainty};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::attribution::GradientSite;
use crate::config::{PlanError, SwinConfig, SwinPlan};
use crate::self_test::SelfTest;
use crate::strategy::Strategy;

/// Version of the manifest's own form.
pub const MANIFEST_FORMAT: u32 = 1;

/// A model's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// Head-wise gradient-infused self-attention.
    HgiSam,
    /// Self-attention alone.
    SwinSam,
    /// Grad-CAM on the last block.
    GradCam,
}

impl fmt::Display for MapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HgiSam => "hgi-sam",
            Self::SwinSam => "swin-sam",
            Self::GradCam => "grad-cam",
        })
    }
}

/// How slices become input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputCard {
    /// Name of the window preset.
    pub preset: String,
    /// Version of the function that prepares the input.
    pub preprocessing_version: u32,
}

/// How slices become masks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapCard {
    /// Which map.
    pub kind: MapKind,
    /// Where HGI-SAM takes its gradient; without meaning for the others.
    #[serde(default)]
    pub gradient_site: GradientSite,
    /// A pixel belongs to the mask from this map value on.
    pub threshold: f32,
    /// How the mask is refined by what the pixels say; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refine: Option<RefineCard>,
}

/// Constants of the refinement of masks, chosen on validation studies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefineCard {
    /// Version of the function that refines.
    pub version: u32,
    /// A bright region is meant if the map reaches this value in it.
    pub support: f32,
    /// Nothing is marked where the spread map stays below this value.
    pub floor: f32,
    /// From so far above the slice's tissue on a value may be blood, HU.
    pub contrast_hu: f32,
}

/// What a model is and how it is used: everything but the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Name: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Version, of the same characters.
    pub version: String,
    /// Sizes of the Swin.
    pub sizes: SwinConfig,
    /// What the head says.
    pub strategy: Strategy,
    /// How slices become input.
    pub input: InputCard,
    /// How slices become masks.
    pub map: MapCard,
    /// How the map was chosen, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_choice: Option<String>,
    /// A slice is positive from this calibrated probability on.
    pub slice_threshold: f32,
    /// How far the probabilities of neighbouring slices are made consistent before any threshold: standard deviation in
    /// mm along the normal, 0 for not at all.
    #[serde(default)]
    pub slice_reach_mm: f64,
    /// What makes the consistent probabilities of slices honest.
    #[serde(default)]
    pub slice_calibration: Calibration,
    /// What makes the study's probability honest.
    #[serde(default)]
    pub study_calibration: Calibration,
    /// How far the volume of a study's masks may be off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeUncertainty>,
    /// How a study's verdict comes from its slices. Absent in older manifests, which have `min_positive_slices` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study_rule: Option<StudyRule>,
    /// Older manifests: a study is positive when so many neighbouring slices are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_positive_slices: Option<usize>,
    /// What it was trained on, in a sentence.
    pub training_data: String,
    /// Made to show the software, not for patients. Such a model must carry a notice.
    pub demonstration: bool,
    /// Text that must stand in every object made with these weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// A model card bound to one weight file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form: [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The model.
    pub model: ModelCard,
    /// SHA-256 of the weight file, in hexadecimal.
    pub sha256: String,
    /// What the weights said of a fixed input when they were saved.
    pub self_test: SelfTest,
}

/// What the program that wants to use a model can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Presets it knows.
    pub presets: Vec<String>,
    /// Version of its preparation of the input.
    pub preprocessing_version: u32,
    /// Version of its refinement of masks.
    pub refine_version: u32,
}

/// A manifest that cannot be used.
#[derive(Debug, Error)]
#[error("manifest {}: {problem}", path.display())]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: ManifestProblem,
}

/// What is wrong with a manifest.
#[derive(Debug, Error)]
pub enum ManifestProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// It is not the JSON of a manifest.
    #[error("cannot be understood: {0}")]
    Parse(#[source] serde_json::Error),
    /// It is of another form.
    #[error("has format {0}, this program reads format {MANIFEST_FORMAT}")]
    Format(u32),
    /// Name, version or digest do not make a model id.
    #[error("names no model: {0}")]
    Id(#[source] InvalidModelId),
    /// The digest is not 64 hexadecimal digits.
    #[error("sha256 {0:?} is not 64 hexadecimal digits")]
    Digest(String),
    /// The sizes make no Swin.
    #[error("sizes: {0}")]
    Plan(#[source] PlanError),
    /// Head and strategy do not fit.
    #[error("num_classes is {classes}, but the {strategy:?} strategy has {want} logits")]
    Classes {
        /// The strategy.
        strategy: Strategy,
        /// Its logits.
        want: i64,
        /// The head's.
        classes: i64,
    },
    /// The preset is unknown here.
    #[error("input preset {preset:?} is unknown; known are {}", known.join(", "))]
    Preset {
        /// The weights' preset.
        preset: String,
        /// The program's presets.
        known: Vec<String>,
    },
    /// The input was prepared otherwise.
    #[error("preprocessing version is {weights}, this program has {program}: the weights must be trained anew")]
    Preprocessing {
        /// The weights' version.
        weights: u32,
        /// The program's version.
        program: u32,
    },
    /// Masks were refined otherwise when the constants were chosen.
    #[error("refinement version is {weights}, this program has {program}: its constants must be chosen anew")]
    Refinement {
        /// The weights' version.
        weights: u32,
        /// The program's version.
        program: u32,
    },
    /// Constants that cannot be meant.
    #[error("{0} cannot be meant")]
    Unsound(&'static str),
    /// A threshold is outside its range.
    #[error("{0} is {1}, which is not above 0 and at most 1")]
    Threshold(&'static str, f32),
    /// Neighbouring slices cannot be made consistent so far.
    #[error("slice_reach_mm is {0}, which is not between 0 and 50")]
    SliceReach(f64),
    /// A study could never, or without any slice, be positive.
    #[error("min_positive_slices is {0}, which is not between 1 and 100")]
    MinPositiveSlices(usize),
    /// It is not clear when a study is positive.
    #[error("exactly one of study_rule and min_positive_slices must say when a study is positive")]
    StudyRule,
    /// A demonstration that does not say so.
    #[error("a demonstration model carries no notice")]
    Notice,
    /// The self-test does not fit the head.
    #[error("self_test holds {got} {what}, {want} are needed")]
    SelfTest {
        /// Which list.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length it should have.
        want: usize,
    },
}

impl Manifest {
    /// Where the manifest of a weight file lies.
    #[must_use]
    pub fn path_for(weights: &Path) -> PathBuf {
        weights.with_extension("manifest.json")
    }

    /// Reads the manifest beside a weight file and checks all that can be checked without the program's presets.
    ///
    /// # Errors
    /// [`ManifestError`] names the file and the problem.
    pub fn read(weights: &Path) -> Result<Self, ManifestError> {
        let path = Self::path_for(weights);
        let manifest = std::fs::read(&path)
            .map_err(ManifestProblem::Read)
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).map_err(ManifestProblem::Parse))
            .and_then(|manifest| manifest.check_itself().map(|()| manifest));
        manifest.map_err(|problem| ManifestError { path, problem })
    }

    /// Reads the manifest and checks that this program can use the model.
    ///
    /// # Errors
    /// [`ManifestError`] names the file and the problem.
    pub fn load(weights: &Path, expected: &Expected) -> Result<Self, ManifestError> {
        let manifest = Self::read(weights)?;
        manifest
            .model
            .input
            .check(expected)
            .and_then(|()| manifest.model.map.check(expected))
            .map_err(|problem| ManifestError { path: Self::path_for(weights), problem })?;
        Ok(manifest)
    }

    /// Name, version and digest in one.
    ///
    /// # Errors
    /// [`InvalidModelId`] if they hold forbidden characters.
    pub fn id(&self) -> Result<ModelId, InvalidModelId> {
        ModelId::new(&self.model.name, &self.model.version, &self.sha256)
    }

    fn check_itself(&self) -> Result<(), ManifestProblem> {
        if self.format != MANIFEST_FORMAT {
            return Err(ManifestProblem::Format(self.format));
        }
        if self.sha256.len() != 64 || !self.sha256.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(ManifestProblem::Digest(self.sha256.clone()));
        }
        self.id().map_err(ManifestProblem::Id)?;
        self.model.check()?;
        self.self_test.check_lengths(self.model.strategy)
    }
}

impl ModelCard {
    /// How a study's verdict comes from its slices, whichever way the manifest says it.
    #[must_use]
    pub fn study_rule(&self) -> StudyRule {
        let slices = self.min_positive_slices.unwrap_or(1);
        self.study_rule.unwrap_or(StudyRule::Neighbours { slices, threshold: self.slice_threshold })
    }

    /// Checks that the card is sound in itself.
    ///
    /// # Errors
    /// [`ManifestProblem`] says what is not.
    pub fn check(&self) -> Result<(), ManifestProblem> {
        SwinPlan::check(&self.sizes).map_err(ManifestProblem::Plan)?;
        let (strategy, classes, want) = (self.strategy, self.sizes.num_classes, self.strategy.classes());
        if classes != want {
            return Err(ManifestProblem::Classes { strategy, want, classes });
        }
        for (name, value) in [("slice_threshold", self.slice_threshold), ("map.threshold", self.map.threshold)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(ManifestProblem::Threshold(name, value));
            }
        }
        if !(0.0..=50.0).contains(&self.slice_reach_mm) {
            return Err(ManifestProblem::SliceReach(self.slice_reach_mm));
        }
        let sound = [
            ("slice_calibration", self.slice_calibration.is_sound()),
            ("study_calibration", self.study_calibration.is_sound()),
            ("volume", self.volume.is_none_or(VolumeUncertainty::is_sound)),
            ("map.refine", self.map.refine.is_none_or(RefineCard::is_sound)),
            ("study_rule", self.study_rule.is_none_or(|rule| rule.is_sound())),
        ];
        if let Some((name, _)) = sound.iter().find(|(_, is_sound)| !is_sound) {
            return Err(ManifestProblem::Unsound(name));
        }
        if self.study_rule.is_some() == self.min_positive_slices.is_some() {
            return Err(ManifestProblem::StudyRule);
        }
        if let Some(slices) = self.min_positive_slices.filter(|slices| !(1..=100).contains(slices)) {
            return Err(ManifestProblem::MinPositiveSlices(slices));
        }
        let says_so = self.notice.as_deref().is_some_and(|notice| !notice.trim().is_empty());
        if self.demonstration && !says_so { Err(ManifestProblem::Notice) } else { Ok(()) }
    }
}

impl RefineCard {
    fn is_sound(self) -> bool {
        let shares = (0.0..=1.0).contains(&self.support) && (0.0..=1.0).contains(&self.floor);
        shares && (0.0..=100.0).contains(&self.contrast_hu)
    }
}

impl MapCard {
    fn check(&self, expected: &Expected) -> Result<(), ManifestProblem> {
        let program = expected.refine_version;
        match self.refine {
            Some(RefineCard { version: weights, .. }) if weights != program => {
                Err(ManifestProblem::Refinement { weights, program })
            }
            _ => Ok(()),
        }
    }
}

impl InputCard {
    fn check(&self, expected: &Expected) -> Result<(), ManifestProblem> {
        if !expected.presets.contains(&self.preset) {
            let known = expected.presets.clone();
            return Err(ManifestProblem::Preset { preset: self.preset.clone(), known });
        }
        let (weights, program) = (self.preprocessing_version, expected.preprocessing_version);
        if weights == program { Ok(()) } else { Err(ManifestProblem::Preprocessing { weights, program }) }
    }
}
