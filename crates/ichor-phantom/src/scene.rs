//! A head in the scanner: everything of a study that is not a slice.

use ichor_core::ImagePlane;
use rand::Rng;

use crate::bleed::{Lesion, Push};
use crate::brain::{Brain, BrainForm};
use crate::error::PhantomError;
use crate::extras::Extras;
use crate::geometry::{Pose, V3, dot, norm, sub};
use crate::head::{Head, HeadForm};
use crate::mimic::Mimics;
use crate::noise::ValueNoise;
use crate::options::{BleedPlan, COVERAGE_MM, PhantomOptions, generator, stream};
use crate::outside::Outside;
use crate::plan;
use crate::scanner::Scanner;

/// Lowest table position of the scan, in mm against the middle of the head.
const LOWEST_MM: f64 = -62.0;

/// One head, lying in one scanner, ready to be imaged slice by slice.
pub struct Scene {
    pub(crate) seed: u64,
    pub(crate) options: PhantomOptions,
    pub(crate) head: Head,
    pub(crate) brain: Brain,
    pub(crate) outside: Outside,
    pub(crate) mimics: Mimics,
    pub(crate) lesions: Vec<Lesion>,
    pub(crate) pushes: Vec<Push>,
    pub(crate) pose: Pose,
    pub(crate) scanner: Scanner,
    pub(crate) planes: Vec<ImagePlane>,
    pub(crate) slabs_mm: Vec<f64>,
    pub(crate) min_slice_area_mm2: f64,
}

impl Scene {
    /// Draws the head of a seed and lays it into the scanner.
    ///
    /// # Errors
    /// [`PhantomError::Option`] if an option makes no scan.
    pub fn new(seed: u64, options: &PhantomOptions) -> Result<Self, PhantomError> {
        options.checked()?;
        let mut rng = generator(seed, stream::HEAD);
        let noise = ValueNoise::new(&mut rng);
        let atrophy = rng.random_range(0.0..1.0f32).powf(1.3);
        let head = Head::new(&HeadForm::draw(&mut rng, atrophy), &noise);
        let form = BrainForm::draw(&mut rng, atrophy);
        let brain = Brain::new(form, noise, &mut rng);
        let mut rng = generator(seed, stream::MIMICS);
        let mimics = Mimics::draw(&mut rng, brain.form().atrophy);
        let outside = Outside::draw(&mut rng);

        let mut rng = generator(seed, stream::BLEEDS);
        let lesions = plan::lay(&options.bleeds, &head, &brain, &mut rng);
        let (mass_effect, min_slice_area_mm2) = match &options.bleeds {
            BleedPlan::Random(ranges) => (rng.random_bool(ranges.mass_effect_share), ranges.min_slice_area_mm2),
            _ => (true, 0.0),
        };
        let strength = if mass_effect { rng.random_range(0.35..1.0) } else { 0.0 };
        let pushes =
            lesions.iter().filter_map(|lesion| Push::of(&lesion.form, strength)).filter(|_| mass_effect).collect();

        let mut rng = generator(seed, stream::SCANNER);
        let (roll, pitch, yaw) =
            (rng.random_range(-15.0..15.0), rng.random_range(-8.0..8.0), rng.random_range(-5.0..5.0));
        let middle = [rng.random_range(-9.0..9.0f32), rng.random_range(-10.0..10.0f32)];
        let Extras { roll_degrees, shift_mm: [left, back], .. } = options.extras;
        let pose = Pose::new(roll + roll_degrees, pitch, yaw, [middle[0] + left, middle[1] + back, 0.0]);
        let scanner = Scanner::draw(&mut rng, options);
        let (planes, slabs_mm) = planes(options, &scanner);
        Ok(Self {
            seed,
            options: options.clone(),
            head,
            brain,
            outside,
            mimics,
            lesions,
            pushes,
            pose,
            scanner,
            planes,
            slabs_mm,
            min_slice_area_mm2,
        })
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Slices of the scan.
    #[must_use]
    pub fn slice_count(&self) -> usize {
        self.planes.len()
    }

    /// Point of the room at which the head's axes begin, for a table position of 0.
    pub(crate) fn to_head(&self, p: [f64; 3]) -> V3 {
        let table = self.scanner.table_mm;
        self.pose.point([p[0] as f32, p[1] as f32, (p[2] - table) as f32])
    }

    /// The lesions that may reach a plane in the head's axes.
    pub(crate) fn lesions_near(&self, on: V3, normal: V3, half_thickness: f32) -> Vec<usize> {
        (0..self.lesions.len())
            .filter(|i| {
                let (centre, radius) = self.lesions[*i].bounds();
                dot(sub(centre, on), normal).abs() < radius + half_thickness
            })
            .collect()
    }

    /// Where the tissue at a point of the head came from, and how much sulci are pressed shut there.
    #[inline]
    pub(crate) fn undo_pushes(&self, p: V3) -> (V3, f32) {
        let (mut from, mut effaced) = (p, 0.0f32);
        for push in &self.pushes {
            let (moved, shut) = push.undo(from);
            from = moved;
            effaced = effaced.max(shut);
        }
        (from, effaced)
    }

    /// Whether a point is further than `clearance` mm outside the skin.
    #[inline]
    pub(crate) fn is_clear_of_skin(&self, p: V3, clearance: f32) -> bool {
        if dot(p, p) < self.head.nearest * self.head.nearest {
            return false;
        }
        let place = self.head.place(p);
        place.vault < 0.0 && self.head.within_skin(p, &place) + self.outside.thickest_swelling() < -clearance
    }

    /// Whether a point is beyond everything that attenuates.
    #[inline]
    pub(crate) fn is_air(&self, p: V3) -> bool {
        // The face and the swelling of a scalp stand out by no more than this.
        let margin = if p[2] < -4.0 { 42.0 } else { 14.0 };
        norm([p[0], p[1], p[2].max(-4.0)]) > self.head.reach + margin
    }
}

/// Planes of the slices, lowest first, and the extent along the normal that each stands for, in mm.
fn planes(options: &PhantomOptions, scanner: &Scanner) -> (Vec<ImagePlane>, Vec<f64>) {
    let spacing = options.fov_mm / f64::from(options.columns);
    let (sin, cos) = options.tilt_degrees.to_radians().sin_cos();
    let (row, column) = ([1.0, 0.0, 0.0], [0.0, cos, -sin]);
    let half = |count: u32| (f64::from(count) - 1.0) / 2.0 * spacing;
    let (left, up) = (half(options.columns), half(options.rows));
    let steps = table_steps(options);
    let travel: f64 = steps.iter().sum();
    let start = scanner.table_mm + LOWEST_MM + (COVERAGE_MM - travel) / 2.0;
    let mut table = start;
    let mut planes = Vec::with_capacity(options.slices as usize);
    for index in 0..options.slices as usize {
        let centre = [scanner.centre[0], scanner.centre[1], table];
        let position = std::array::from_fn(|i| centre[i] - row[i] * left - column[i] * up);
        let (rows, columns) = (options.rows, options.columns);
        planes.push(ImagePlane { position, row, column, spacing: [spacing; 2], rows, columns });
        table += steps.get(index).copied().unwrap_or(0.0);
    }
    let gap = |index: usize| steps.get(index).map(|step| step * cos);
    let outer = options.slice_thickness_mm;
    let slabs = (0..planes.len())
        .map(|i| {
            let below = i.checked_sub(1).and_then(gap).unwrap_or(outer);
            let above = gap(i).unwrap_or(outer);
            0.5 * (below + above)
        })
        .collect();
    (planes, slabs)
}

/// Table travel between neighbours.
fn table_steps(options: &PhantomOptions) -> Vec<f64> {
    let gaps = options.slices as usize - 1;
    let fine = if options.uneven { gaps / 3 } else { 0 };
    (0..gaps).map(|i| if i < fine { options.slice_spacing_mm / 2.0 } else { options.slice_spacing_mm }).collect()
}
