//! What phantom to make: the scan and the bleeds.

use ichor_core::HemorrhageSubtype;
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::PhantomError;
use crate::extras::Extras;

/// How much of the head a scan covers, in mm along the table: from below the foramen magnum to above the vertex.
pub const COVERAGE_MM: f64 = 150.0;

/// Streams of the seed's generator: what is drawn from one does not move when another draws more.
pub(crate) mod stream {
    pub(crate) const OPTIONS: u64 = 0;
    pub(crate) const HEAD: u64 = 1;
    pub(crate) const BLEEDS: u64 = 2;
    pub(crate) const MIMICS: u64 = 3;
    pub(crate) const SCANNER: u64 = 4;
    pub(crate) const IDENTITY: u64 = 5;
    pub(crate) const COMPANIONS: u64 = 6;
    /// Slice `i` has stream `SLICES + i`.
    pub(crate) const SLICES: u64 = 1000;
}

/// The generator of a seed's stream.
pub(crate) fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// How hard a bleed is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Difficulty {
    /// Large and dense.
    Easy,
    /// Neither.
    Medium,
    /// Small, faint, or a thin film at the skull or in the sulci.
    Hard,
}

impl Difficulty {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
        }
    }

    /// Classifies by volume (mL), attenuation (HU) and largest thickness (mm) of the sheet or blob.
    #[must_use]
    pub fn of(volume_ml: f64, hu: f64, thickness_mm: f64) -> Self {
        if volume_ml < 4.0 || hu < 50.0 || thickness_mm < 4.0 {
            Self::Hard
        } else if volume_ml >= 15.0 && hu >= 58.0 && thickness_mm >= 8.0 {
            Self::Easy
        } else {
            Self::Medium
        }
    }
}

/// From what bleeds are drawn. A curriculum narrows these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BleedRanges {
    /// Subtypes, each as likely as it is often listed.
    pub subtypes: Vec<HemorrhageSubtype>,
    /// Fewest and most bleeds in one head; one is the most likely.
    pub count: [u32; 2],
    /// Smallest and largest volume of one bleed in mL; drawn log-uniformly.
    pub volume_ml: [f32; 2],
    /// Lowest and highest attenuation of dense blood in HU.
    pub hu: [f32; 2],
    /// Share of faint bleeds, 42 to 50 HU whatever `hu` says.
    pub faint_share: f64,
    /// Share of heads whose bleed pushes the brain aside.
    pub mass_effect_share: f64,
    /// Blood that covers less than this on a slice, in mm², is left out of that slice: image and mask both.
    pub min_slice_area_mm2: f64,
}

impl Default for BleedRanges {
    fn default() -> Self {
        Self {
            subtypes: HemorrhageSubtype::ALL.to_vec(),
            count: [1, 3],
            volume_ml: [1.0, 80.0],
            hu: [50.0, 85.0],
            faint_share: 0.12,
            mass_effect_share: 0.7,
            min_slice_area_mm2: 15.0,
        }
    }
}

impl BleedRanges {
    /// Large, dense, thick bleeds: where a curriculum begins.
    #[must_use]
    pub fn easy() -> Self {
        use HemorrhageSubtype::{Epidural, Intraparenchymal, Subdural};
        Self {
            subtypes: vec![Epidural, Intraparenchymal, Intraparenchymal, Subdural],
            count: [1, 2],
            volume_ml: [25.0, 80.0],
            hu: [65.0, 85.0],
            faint_share: 0.0,
            min_slice_area_mm2: 300.0,
            ..Self::default()
        }
    }

    /// All subtypes, nothing faint or tiny.
    #[must_use]
    pub fn medium() -> Self {
        Self {
            count: [1, 2],
            volume_ml: [8.0, 80.0],
            hu: [58.0, 85.0],
            faint_share: 0.0,
            min_slice_area_mm2: 80.0,
            ..Self::default()
        }
    }
}

/// One bleed asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BleedSpec {
    /// Which.
    pub subtype: HemorrhageSubtype,
    /// Volume to aim at in mL; the anatomy may hold less.
    pub volume_ml: f32,
    /// Attenuation in HU.
    pub hu: f32,
}

/// What bleeds, if anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BleedPlan {
    /// A head without a bleed.
    None,
    /// Drawn from ranges.
    Random(BleedRanges),
    /// These.
    Listed(Vec<BleedSpec>),
}

/// What the scanner writes outside the circle that it reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Nothing special: air.
    None,
    /// The stored value −2000, declared as Pixel Padding Value.
    Declared,
    /// The stored value −2000, declared nowhere.
    Undeclared,
}

/// How Hounsfield units are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// 16 bits, signed, intercept −1024.
    Signed16,
    /// 12 of 16 bits, unsigned, intercept −1024. Has no room for padding.
    Unsigned12,
}

/// The scan and the bleeds. Everything else about a head comes from the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomOptions {
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// Slices.
    pub slices: u32,
    /// Table travel from slice to slice, in mm; where `uneven`, that of the upper part.
    pub slice_spacing_mm: f64,
    /// Slice thickness in mm.
    pub slice_thickness_mm: f64,
    /// Half the spacing for the lower third, as sequential scans of the skull base have it.
    pub uneven: bool,
    /// Field of view along the rows, in mm; pixels are square.
    pub fov_mm: f64,
    /// Gantry tilt in degrees, positive towards the feet at the front (as Gantry/Detector Tilt has it).
    pub tilt_degrees: f64,
    /// Standard deviation of the noise in the brain, in HU.
    pub noise_hu: f32,
    /// Blur of the reconstruction kernel: Gaussian sigma in mm.
    pub blur_mm: f32,
    /// Strength of artefacts (beam hardening, motion, streaks); 0 has none, 1 the usual spread.
    pub artefacts: f32,
    /// Padding outside the reconstruction circle.
    pub padding: Padding,
    /// How pixels are stored.
    pub storage: Storage,
    /// The bleeds.
    pub bleeds: BleedPlan,
    /// What most heads are spared.
    #[serde(default, skip_serializing_if = "Extras::is_none")]
    pub extras: Extras,
}

impl Default for PhantomOptions {
    /// A plain scan of 32 slices, 512 × 512, without a bleed.
    fn default() -> Self {
        Self {
            rows: 512,
            columns: 512,
            slices: 32,
            slice_spacing_mm: COVERAGE_MM / 32.0,
            slice_thickness_mm: 5.0,
            uneven: false,
            fov_mm: 240.0,
            tilt_degrees: 0.0,
            noise_hu: 3.5,
            blur_mm: 0.55,
            artefacts: 1.0,
            padding: Padding::None,
            storage: Storage::Signed16,
            bleeds: BleedPlan::None,
            extras: Extras::default(),
        }
    }
}

/// Slices touch each other, until they are so far apart that no scanner makes them so thick: then there are gaps.
fn thickness(spacing_mm: f64) -> f64 {
    if spacing_mm > 7.5 { 5.0 } else { spacing_mm.max(0.6) }
}

impl PhantomOptions {
    /// Draws a scan from the seed. `positive` says whether it bleeds; absent, half of the seeds do.
    #[must_use]
    pub fn random(seed: u64, positive: Option<bool>) -> Self {
        let mut rng = generator(seed, stream::OPTIONS);
        let bleeds = rng.random_bool(0.5);
        let spacing = [1.25, 2.5, 3.0, 4.0, 4.8, 5.0, 5.0, 5.0, 5.0, 6.0, 7.0][rng.random_range(0..11usize)];
        let uneven = spacing > 3.0 && rng.random_bool(0.12);
        let tilt = if rng.random_bool(0.35) { f64::from(rng.random_range(-20..=25i32)) } else { 0.0 };
        let padding = match rng.random_range(0..10u32) {
            0..=5 => Padding::None,
            6..=8 => Padding::Declared,
            _ => Padding::Undeclared,
        };
        let unsigned = padding == Padding::None && rng.random_bool(0.3);
        let thin: f32 = if spacing < 2.6 { 1.35 } else { 1.0 };
        Self {
            slices: 1,
            slice_thickness_mm: spacing,
            uneven,
            fov_mm: f64::from(rng.random_range(215..=260i32)),
            tilt_degrees: tilt,
            noise_hu: (rng.random_range(2.0..5.0f32) * thin).min(6.0),
            blur_mm: rng.random_range(0.4..0.85),
            padding,
            storage: if unsigned { Storage::Unsigned12 } else { Storage::Signed16 },
            bleeds: if positive.unwrap_or(bleeds) {
                BleedPlan::Random(BleedRanges::default())
            } else {
                BleedPlan::None
            },
            ..Self::default()
        }
        .with_spacing(spacing)
    }

    /// The same with another matrix; the field of view stays.
    #[must_use]
    pub fn with_matrix(self, side: u32) -> Self {
        Self { rows: side, columns: side, ..self }
    }

    /// The same head covered by another number of slices.
    #[must_use]
    pub fn with_slices(self, slices: u32) -> Self {
        let travel = COVERAGE_MM / f64::from(slices.max(1));
        // A third of the slices at half the spacing cover five sixths of what even ones would.
        let spacing = if self.uneven { travel * 6.0 / 5.0 } else { travel };
        Self { slices, slice_spacing_mm: spacing, slice_thickness_mm: thickness(spacing), ..self }
    }

    /// The same head covered at another spacing in mm, with as many slices as that takes.
    #[must_use]
    pub fn with_spacing(self, spacing_mm: f64) -> Self {
        let even = COVERAGE_MM / spacing_mm;
        let slices = if self.uneven { even * 6.0 / 5.0 } else { even };
        Self {
            slices: (slices.round() as u32).max(1),
            slice_spacing_mm: spacing_mm,
            slice_thickness_mm: thickness(spacing_mm),
            ..self
        }
    }

    /// The same scan with other bleeds.
    #[must_use]
    pub fn with_bleeds(self, bleeds: BleedPlan) -> Self {
        Self { bleeds, ..self }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`PhantomError::Option`] names the first option that makes no scan.
    pub fn checked(&self) -> Result<(), PhantomError> {
        let fail = |name, why: String| Err(PhantomError::Option { name, why });
        if !(16..=2048).contains(&self.rows) || !(16..=2048).contains(&self.columns) {
            return fail("rows and columns", format!("{} × {}, 16 to 2048 are possible", self.rows, self.columns));
        }
        if !(1..=5000).contains(&self.slices) {
            return fail("slices", format!("{}, 1 to 5000 are possible", self.slices));
        }
        let lengths = [
            ("slice_spacing_mm", self.slice_spacing_mm, 0.01..=200.0),
            ("slice_thickness_mm", self.slice_thickness_mm, 0.1..=20.0),
            ("fov_mm", self.fov_mm, 50.0..=600.0),
            ("tilt_degrees", self.tilt_degrees, -35.0..=35.0),
            ("noise_hu", f64::from(self.noise_hu), 0.0..=50.0),
            ("blur_mm", f64::from(self.blur_mm), 0.0..=3.0),
            ("artefacts", f64::from(self.artefacts), 0.0..=3.0),
        ];
        for (name, value, range) in lengths {
            if !range.contains(&value) {
                return fail(name, format!("{value} is not within {} to {}", range.start(), range.end()));
            }
        }
        if self.padding != Padding::None && self.storage == Storage::Unsigned12 {
            return fail("padding", "-2000 cannot be stored in unsigned pixels".to_owned());
        }
        self.extras.checked()?;
        self.check_bleeds()
    }

    fn check_bleeds(&self) -> Result<(), PhantomError> {
        let fail = |why: String| Err(PhantomError::Option { name: "bleeds", why });
        let volume = 0.05..=400.0;
        let hu = 20.0..=120.0;
        match &self.bleeds {
            BleedPlan::None => Ok(()),
            BleedPlan::Random(ranges) => {
                let [least, most] = ranges.count;
                if ranges.subtypes.is_empty() || least == 0 || least > most || most > 8 {
                    return fail(format!("{least} to {most} bleeds of {} subtypes", ranges.subtypes.len()));
                }
                let ordered = |[low, high]: [f32; 2]| low <= high;
                let within =
                    ranges.volume_ml.iter().all(|v| volume.contains(v)) && ranges.hu.iter().all(|h| hu.contains(h));
                if !within || !ordered(ranges.volume_ml) || !ordered(ranges.hu) {
                    return fail(format!("volumes {:?} mL, attenuation {:?} HU", ranges.volume_ml, ranges.hu));
                }
                let share = 0.0..=1.0;
                if !share.contains(&ranges.faint_share) || !share.contains(&ranges.mass_effect_share) {
                    return fail("a share is not between 0 and 1".to_owned());
                }
                Ok(())
            }
            BleedPlan::Listed(specs) => {
                if specs.is_empty() || specs.len() > 8 {
                    return fail(format!("{} bleeds listed, 1 to 8 are possible", specs.len()));
                }
                match specs.iter().find(|s| !volume.contains(&s.volume_ml) || !hu.contains(&s.hu)) {
                    Some(spec) => fail(format!("{} mL at {} HU", spec.volume_ml, spec.hu)),
                    None => Ok(()),
                }
            }
        }
    }
}
