//! Which series is analysed, and for each other one the reason why not.
//!
//! The axial, non-contrast, soft-tissue-kernel head series. Attributes that are missing exclude nothing: real series
//! lack many of them. What an attribute leaves in doubt (a Series Description, an extent beyond the head) ranks a series
//! lower but does not exclude it, and axial reformats are eligible: often they are the only soft-tissue series kept.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ichor_core::{ImagePlane, Reason, Uid};

use crate::body::is_other_body_part;
use crate::header::InstanceHeader;
use crate::kernel::is_sharp_kernel;
use crate::volume::{PlacedSlice, Stack};
use crate::words::{Description, is_no_agent, words};

/// Settings of the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateOptions {
    /// Fewest slices.
    pub min_slices: usize,
    /// Largest angle between the normal and the patient's axis, in degrees.
    pub max_tilt_degrees: f64,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self { min_slices: 5, max_tilt_degrees: 35.0 }
    }
}

/// What was decided about one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesOutcome {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Whether it is the one that is analysed.
    pub chosen: bool,
    /// Why, or why not, and what of it was left out.
    pub reasons: Vec<Reason>,
}

/// The choice.
#[derive(Clone, Debug, Default)]
pub struct SeriesChoice {
    /// The slices to analyse, in order; `None`: nothing is eligible.
    pub chosen: Option<(Uid, Stack)>,
    /// One for each series.
    pub outcomes: Vec<SeriesOutcome>,
}

/// 1 − cosine below which two directions are the same (about 0.8°).
const PARALLEL: f64 = 1e-4;

/// Slice distance that is preferred among eligible series, in mm: what the model was trained on.
const PREFERRED_DISTANCE_MM: f64 = 5.0;

/// Coverage that is a whole head, in mm: what lies beyond makes no series better.
const HEAD_MM: f64 = 160.0;

/// Coverage that is no whole head, in mm: a few original images are no better than the whole head reformatted.
const PART_MM: f64 = 100.0;

/// Coverage from which on a series is of more than the head, in mm.
const BEYOND_HEAD_MM: f64 = 260.0;

/// A series that passed, with what the choice among several needs.
struct Candidate {
    series: Uid,
    stack: Stack,
    description: Description,
    reformatted: bool,
    coverage_mm: f64,
    distance_mm: f64,
    number: f64,
    reasons: Vec<Reason>,
}

impl Candidate {
    /// What speaks against its being the non-contrast head.
    fn doubts(&self) -> Vec<&'static str> {
        let doubts = [
            (self.coverage_mm > BEYOND_HEAD_MM, "covers more than a head"),
            (self.description.contrast, "Series Description tells of contrast"),
            (self.description.trunk, "Series Description names more than the head"),
        ];
        doubts.into_iter().filter_map(|(holds, doubt)| holds.then_some(doubt)).collect()
    }

    /// The lowest is the best: fewest doubts, then a head and not a part of one, then original before reformatted
    /// images, then most of the head in whole centimetres, then not for bone.
    fn rank(&self) -> (usize, bool, bool, Reverse<u64>, bool) {
        let centimetres = (self.coverage_mm.min(HEAD_MM) / 10.0).round() as u64;
        let is_part = self.coverage_mm < PART_MM;
        (self.doubts().len(), is_part, self.reformatted, Reverse(centimetres), self.description.bone)
    }

    /// Its extent, and what speaks against it.
    fn summary(&self) -> String {
        let extent = format!("{:.0} mm in steps of {:.1} mm", self.coverage_mm, self.distance_mm);
        let kind = self.reformatted.then_some("reformatted");
        std::iter::once(extent.as_str()).chain(kind).chain(self.doubts()).collect::<Vec<_>>().join(", ")
    }
}

/// Chooses among all instances of a study.
#[must_use]
pub fn choose_series(headers: Vec<InstanceHeader>, options: &GateOptions) -> SeriesChoice {
    let mut by_series: BTreeMap<Uid, Vec<InstanceHeader>> = BTreeMap::new();
    for header in headers {
        by_series.entry(header.series_instance.clone()).or_default().push(header);
    }
    let mut choice = SeriesChoice::default();
    let mut candidates = Vec::new();
    for (series, headers) in by_series {
        match examine(series.clone(), headers, options) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => {
                choice.outcomes.push(SeriesOutcome { series_instance: series, chosen: false, reasons });
            }
        }
    }
    // Among equals the distance nearest to what the model knows.
    candidates.sort_by(|a, b| {
        let off = |c: &Candidate| (c.distance_mm - PREFERRED_DISTANCE_MM).abs();
        (a.rank().cmp(&b.rank()))
            .then(off(a).total_cmp(&off(b)))
            .then(a.number.total_cmp(&b.number))
            .then_with(|| a.series.cmp(&b.series))
    });
    let mut candidates = candidates.into_iter();
    if let Some(best) = candidates.next() {
        for other in candidates {
            let (preferred, own) = (best.summary(), other.summary());
            let text = format!("eligible, but {} was preferred: {preferred} against {own}", best.series);
            let mut reasons = vec![Reason::new("other-series-preferred", text)];
            reasons.extend(other.reasons);
            choice.outcomes.push(SeriesOutcome { series_instance: other.series, chosen: false, reasons });
        }
        let count = best.stack.slices.len();
        let text = format!("axial soft-tissue head series: {count} slices over {}", best.summary());
        let mut reasons = vec![Reason::new("eligible", text)];
        reasons.extend(best.reasons);
        choice.outcomes.push(SeriesOutcome { series_instance: best.series.clone(), chosen: true, reasons });
        choice.chosen = Some((best.series, best.stack));
    }
    choice
}

/// Whether a single slice may belong to an eligible series, and where it lies: what can be said before the rest of its
/// series is known. Its offset is 0, and it stands for its own thickness.
///
/// # Errors
/// The reason why it cannot.
pub fn place(header: InstanceHeader, options: &GateOptions) -> Result<PlacedSlice, Reason> {
    if let Some(reason) = exclude(&header) {
        return Err(reason);
    }
    if let Some(reason) = header.unscaled {
        return Err(reason);
    }
    let plane = header.plane.clone()?;
    check_tilt(&plane, options)?;
    let slab_mm = header.slice_thickness.unwrap_or(1.0);
    Ok(PlacedSlice { header, plane, offset_mm: 0.0, slab_mm })
}

fn check_tilt(plane: &ImagePlane, options: &GateOptions) -> Result<(), Reason> {
    let tilt = plane.normal()[2].abs().clamp(0.0, 1.0).acos().to_degrees();
    if tilt <= options.max_tilt_degrees {
        return Ok(());
    }
    let text = format!("slices stand {tilt:.0} degrees off axial, at most {} are accepted", options.max_tilt_degrees);
    Err(Reason::new("not-axial", text))
}

fn examine(series: Uid, headers: Vec<InstanceHeader>, options: &GateOptions) -> Result<Candidate, Vec<Reason>> {
    let mut aside: Vec<Reason> = Vec::new();
    let mut images = Vec::new();
    for header in headers {
        match exclude(&header) {
            None => images.push(header),
            Some(reason) if aside.contains(&reason) => {}
            Some(reason) => aside.push(reason),
        }
    }
    // Single ones are refused when they are read, with their reason; a series of nothing else must not be preferred.
    if images.iter().all(|header| header.unscaled.is_some()) {
        for reason in images.into_iter().filter_map(|header| header.unscaled) {
            if !aside.contains(&reason) {
                aside.push(reason);
            }
        }
        return Err(aside);
    }
    let (group, mut reasons) = largest_group(images);
    reasons.splice(0..0, aside);
    let Some(plane) = group.first().and_then(|header| header.plane.clone().ok()) else { return Err(reasons) };
    if let Err(reason) = check_tilt(&plane, options) {
        reasons.insert(0, reason);
        return Err(reasons);
    }
    let number = group.first().and_then(|header| header.series_number).unwrap_or(f64::INFINITY);
    let description = group.first().map_or_else(Description::default, described);
    let reformatted = group.iter().any(is_reformatted);
    let stack = Stack::new(group);
    reasons.extend(stack.left_out.iter().map(|(uid, reason)| named(uid, reason)));
    let count = stack.slices.len();
    if count < options.min_slices {
        let text = format!("{count} usable slices, at least {} are needed", options.min_slices);
        reasons.insert(0, Reason::new("too-few-slices", text));
        return Err(reasons);
    }
    let coverage_mm = stack.slices.iter().map(|slice| slice.slab_mm).sum();
    let distance_mm = coverage_mm / count as f64;
    Ok(Candidate { series, stack, description, reformatted, coverage_mm, distance_mm, number, reasons })
}

/// What its Series Description says.
fn described(header: &InstanceHeader) -> Description {
    header.series_description.as_deref().map_or_else(Description::default, Description::new)
}

/// A reason about one instance, as it stands among its series' reasons.
fn named(sop_instance: &Uid, reason: &Reason) -> Reason {
    Reason { code: reason.code.clone(), text: format!("instance {sop_instance}: {}", reason.text) }
}

/// Why an instance is not part of an eligible series whatever the others are.
fn exclude(header: &InstanceHeader) -> Option<Reason> {
    let is = |value: &str| header.image_type.iter().any(|part| part == value);
    if header.is_enhanced_ct() {
        return Some(Reason::new("enhanced-ct", "multi-frame CT is kept, but not analysed yet"));
    }
    if !header.is_ct_image() {
        let text = format!("not a CT image: modality {:?}, SOP class {}", header.modality, header.sop_class);
        return Some(Reason::new("not-ct", text));
    }
    if is("LOCALIZER") || is("SCOUT") {
        return Some(Reason::new("localizer", "localizer"));
    }
    if let Some(kind) = view(&header.image_type) {
        return Some(Reason::new("reformatted", format!("a view of a volume ({kind})")));
    }
    if let Some(agent) = &header.contrast
        && !is_no_agent(agent)
    {
        return Some(Reason::new("contrast", format!("Contrast/Bolus Agent is {agent:?}")));
    }
    if let Some(word) = described(header).angiography {
        return Some(Reason::new("contrast", format!("Series Description tells of contrast ({word})")));
    }
    if let Some(part) = header.body_part.as_deref().filter(|part| is_other_body_part(part)) {
        return Some(Reason::new("not-head", format!("Body Part Examined is {part:?}")));
    }
    if let Some(kernel) = header.kernel.as_deref().filter(|kernel| is_sharp_kernel(kernel)) {
        return Some(Reason::new("bone-kernel", format!("Convolution Kernel {kernel:?} is for bone or lung")));
    }
    None
}

/// The value of an Image Type that says that the pixels are a view of a volume, not a section through it.
fn view(image_type: &[String]) -> Option<&str> {
    const VIEWS: [&str; 7] = ["3D", "MINIP", "MIP", "PROJECTION", "SSD", "VOLREN", "VRT"];
    let is_original = image_type.first().is_some_and(|pixels| pixels == "ORIGINAL");
    let is_view = |value: &str| {
        // "3D" is said of the scan, too.
        let is_known = |word: &String| VIEWS.contains(&word.as_str()) && !(is_original && word == "3D");
        ["MAX_IP", "MIN_IP"].contains(&value) || words(value).iter().any(is_known)
    };
    image_type.iter().map(String::as_str).find(|value| is_view(value))
}

/// Whether images are sections computed from others, as Siemens (MPR) and GE (REFORMATTED) mark them.
fn is_reformatted(header: &InstanceHeader) -> bool {
    let marks = ["CSAPARALLEL", "MPR", "REFORMATTED"];
    header.image_type.iter().flat_map(|value| words(value)).any(|word| marks.contains(&word.as_str()))
}

/// The largest set of images with one matrix, spacing and orientation; the rest is named.
fn largest_group(images: Vec<InstanceHeader>) -> (Vec<InstanceHeader>, Vec<Reason>) {
    let mut groups: Vec<(ImagePlane, Vec<InstanceHeader>)> = Vec::new();
    let mut reasons = Vec::new();
    for image in images {
        let plane = match &image.plane {
            Ok(plane) => *plane,
            Err(reason) => {
                reasons.push(named(&image.sop_instance, reason));
                continue;
            }
        };
        let alike = |other: &ImagePlane| {
            other.rows == plane.rows
                && other.columns == plane.columns
                && other.spacing.iter().zip(plane.spacing).all(|(a, b)| (a - b).abs() <= 1e-3 * b)
                && other.is_parallel_to(&plane, PARALLEL)
        };
        match groups.iter_mut().find(|(other, _)| alike(other)) {
            Some((_, members)) => members.push(image),
            None => groups.push((plane, vec![image])),
        }
    }
    let Some(largest) = (0..groups.len()).max_by_key(|index| (groups[*index].1.len(), usize::MAX - index)) else {
        return (Vec::new(), reasons);
    };
    let (_, kept) = groups.swap_remove(largest);
    for image in groups.iter().flat_map(|(_, members)| members) {
        let text = "another matrix, pixel spacing or orientation than most of the series";
        reasons.push(named(&image.sop_instance, &Reason::new("other-geometry", text)));
    }
    (kept, reasons)
}
