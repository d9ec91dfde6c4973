//! The structured report: Comprehensive 3D SR (PS3.3 A.35.13) after TID 1500 Measurement Report (PS3.16).
//!
//! One measurement group a lesion (TID 1411), tied to the segment of the Segmentation that goes to the same place; one
//! for the study (TID 1501); what was looked at (TID 1600); and, in so many words, what came of it: "no hemorrhage
//! detected by algorithm" and "not analysed, because" are reports too.

mod check;
mod content;
mod document;
mod keys;

use std::collections::HashSet;
use std::io::Write;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use ichor_core::{Reason, RuleOutcome, Uid};

pub use check::{check_key_objects, check_report};
pub use keys::{KeyObjectInput, write_key_objects};

use crate::codes::{BRAIN, HEMORRHAGE, report as concept};
use crate::element::{sequence, text};
use crate::error::ResultError;
use crate::part10::write_part10;
use crate::provenance::Provenance;
use crate::segment::SegmentReference;
use crate::segmentation::SourceSlice;
use content::{InstanceReference, Item, Relation};
use document::{common, device, evidence, observed, series_and_time};

/// Series Numbers of reports lie this much above those of Segmentations.
const SERIES_NUMBER_STEP: u32 = 1;
/// What is said with every lesion: the method's masks localise, and are not outlines.
const CAVEAT: &str =
    "The mask of a weakly supervised model shows where, not how far: outline and volume are approximate";

/// What the analysis of a study came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Conclusion<'a> {
    /// Hemorrhage was found, or was not.
    Analysed {
        /// Whether it was found.
        positive: bool,
        /// Probability of hemorrhage in the study, 0 to 1.
        probability: f64,
        /// Volume of all lesions, in mL.
        volume_ml: f64,
        /// One standard deviation of the volume, in mL, as the model's manifest has it from validation studies; `None` if
        /// it has none.
        volume_sd_ml: Option<f64>,
        /// Slices that the model calls positive.
        positive_slices: u32,
    },
    /// No series could be analysed.
    NotAnalysed(&'a Reason),
}

/// What was measured of one lesion.
#[derive(Clone, Debug, PartialEq)]
pub struct LesionFacts {
    /// What it is known by; the number is that of its segment.
    pub reference: SegmentReference,
    /// Volume in mL.
    pub volume_ml: f64,
    /// How much of the volume hangs on where its border runs within a pixel, in mL, to either side.
    pub border_ml: f64,
    /// Mean of its pixels, in HU.
    pub mean_hu: f64,
    /// Largest of its pixels, in HU.
    pub max_hu: f64,
    /// Longest distance within one slice, in mm.
    pub extent_mm: f64,
    /// First and last slice that it touches, as places among the slices.
    pub slices: (usize, usize),
}

/// What the gate said of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesFacts {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Whether it was analysed.
    pub chosen: bool,
    /// Every rule and what came of it.
    pub rules: Vec<RuleOutcome>,
    /// Why it was chosen or not.
    pub reasons: Vec<Reason>,
}

/// The Segmentation whose segments the lesions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentationReference {
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
}

/// Everything that makes a report what it is.
#[derive(Clone, Debug)]
pub struct ReportInput<'a> {
    /// Where it comes from; the header is that of any instance where nothing was analysed.
    pub provenance: Provenance<'a>,
    /// All slices that were analysed, in order; none where nothing was.
    pub slices: &'a [SourceSlice],
    /// What came of it.
    pub conclusion: Conclusion<'a>,
    /// The lesions, by number.
    pub lesions: &'a [LesionFacts],
    /// The Segmentation of the same version, if one goes to the same place.
    pub segmentation: Option<&'a SegmentationReference>,
    /// What the gate said of each series of the study.
    pub series: &'a [SeriesFacts],
}

/// A document that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Comprehensive 3D SR Storage, or Key Object Selection Document Storage.
    pub sop_class: Uid,
    /// Derived SOP Instance UID.
    pub sop_instance: Uid,
    /// Derived Series Instance UID, the same for all versions.
    pub series_instance: Uid,
    /// Transfer Syntax UID: Explicit VR Little Endian.
    pub transfer_syntax: Uid,
}

/// Writes the report as a Part 10 file. The same input gives the same bytes; the file must pass [`check_report`] before
/// it leaves.
///
/// # Errors
/// [`ResultError::Measurement`] if a number is not finite or a lesion lies outside of the slices;
/// [`ResultError::Write`] when `out` fails; every other [`ResultError`] names what cannot be.
pub fn write_report(input: &ReportInput<'_>, out: impl Write) -> Result<Report, ResultError> {
    refuse_nonsense(input)?;
    let provenance = &input.provenance;
    let constant = |uid: &str| Uid::parse(uid).map_err(|e| ResultError::Encode(e.to_string()));
    let report = Report {
        sop_class: constant(uids::COMPREHENSIVE3_DSR_STORAGE)?,
        sop_instance: instance_uid(input),
        series_instance: Uid::derive([&["ichor-sr-series"], &identity(input)[..]].concat()),
        transfer_syntax: constant(uids::EXPLICIT_VR_LITTLE_ENDIAN)?,
    };
    let device = device(provenance);
    let study = Uid::derive(["ichor-study-finding", report.sop_instance.as_str()]);
    let segmentation = used_segmentation(input).map(|s| (&s.series_instance, &s.sop_class, &s.sop_instance));
    let sources = input.slices.iter().map(|s| (provenance.header.series(), &s.sop_class, &s.sop_instance));
    let name = "Hemorrhage analysis report";
    let elements = common(provenance, &report.sop_class, &report.sop_instance)?
        .into_iter()
        .chain(series_and_time(provenance, "SR", &report.series_instance, SERIES_NUMBER_STEP, name)?)
        .chain([
            text(tags::COMPLETION_FLAG, VR::CS, "COMPLETE"),
            text(tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED"),
            sequence(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, Vec::new()),
        ])
        .chain(evidence(provenance.header.study(), sources.chain(segmentation)))
        .chain(root(input, &device, &study).elements(None));
    write_part10(elements, out)?;
    Ok(report)
}

/// Numbers that no report may hold.
fn refuse_nonsense(input: &ReportInput<'_>) -> Result<(), ResultError> {
    if let Conclusion::Analysed { probability, volume_ml, volume_sd_ml, .. } = input.conclusion {
        let is_amount = |millilitres: f64| millilitres.is_finite() && millilitres >= 0.0;
        if !((0.0..=1.0).contains(&probability) && is_amount(volume_ml) && volume_sd_ml.is_none_or(is_amount)) {
            let text = format!("probability {probability}, volume {volume_ml} mL ± {volume_sd_ml:?}");
            return Err(ResultError::Measurement(text));
        }
    }
    for lesion in input.lesions {
        let numbers = [lesion.volume_ml, lesion.border_ml, lesion.mean_hu, lesion.max_hu, lesion.extent_mm];
        let (first, last) = lesion.slices;
        if numbers.iter().any(|n| !n.is_finite()) || first > last || last >= input.slices.len() {
            let text = format!("lesion {} of {} slices: {lesion:?}", lesion.reference.number, input.slices.len());
            return Err(ResultError::Measurement(text));
        }
    }
    Ok(())
}

/// What tells a series of reports from others.
fn identity<'a>(input: &ReportInput<'a>) -> [&'a str; 5] {
    let Provenance { header, model, configuration_digest, .. } = input.provenance;
    let of = input.segmentation.map_or("", |segmentation| segmentation.series_instance.as_str());
    [header.study().as_str(), header.series().as_str(), model.as_str(), configuration_digest, of]
}

fn instance_uid(input: &ReportInput<'_>) -> Uid {
    let version = input.provenance.version.to_string();
    let frames: Vec<String> = input.slices.iter().map(|s| s.frame_number.unwrap_or_default().to_string()).collect();
    let mut sources: Vec<[&str; 2]> =
        input.slices.iter().zip(&frames).map(|(s, frame)| [s.sop_instance.as_str(), frame.as_str()]).collect();
    sources.sort_unstable();
    // Other settings of the gate give another report on the same slices.
    let content = format!("{:?} {:?} {:?}", input.conclusion, input.lesions, input.series);
    let parts = ["ichor-sr-instance"].into_iter().chain(identity(input)).chain([version.as_str(), content.as_str()]);
    Uid::derive(parts.chain(sources.into_iter().flatten()))
}

/// The Segmentation, where a lesion refers to it.
fn used_segmentation<'a>(input: &ReportInput<'a>) -> Option<&'a SegmentationReference> {
    input.segmentation.filter(|_| !input.lesions.is_empty())
}

/// TID 1500.
fn root<'a>(input: &'a ReportInput<'a>, device: &'a Uid, study: &'a Uid) -> Item<'a> {
    let provenance = &input.provenance;
    let was_analysed = matches!(input.conclusion, Conclusion::Analysed { .. });
    let procedure = if was_analysed { concept::CT_OF_HEAD } else { concept::CT };
    let root = Item::container(concept::MEASUREMENT_REPORT, Some("1500"));
    let mut root = observed(root, provenance, device)
        .with(Relation::HasConceptModifier, Item::code(concept::PROCEDURE_REPORTED, procedure));
    if !input.slices.is_empty() {
        root = root.containing([image_library(input)]);
    }
    if let Conclusion::Analysed { positive, probability, volume_ml, volume_sd_ml, .. } = input.conclusion {
        let volume = positive.then_some((volume_ml, volume_sd_ml));
        let mut groups = vec![study_group(study, probability, volume)];
        groups.extend(input.lesions.iter().map(|lesion| lesion_group(input, lesion)));
        root = root.containing([Item::container(concept::IMAGING_MEASUREMENTS, None).containing(groups)]);
    }
    root.containing([evaluations(input)])
}

/// TID 1600: what was looked at.
fn image_library<'a>(input: &'a ReportInput<'a>) -> Item<'a> {
    let context = Relation::HasAcquisitionContext;
    let mut group = Item::container(concept::IMAGE_LIBRARY_GROUP, None)
        .with(context, Item::code(concept::MODALITY, concept::CT_MODALITY))
        .with(context, Item::code(concept::TARGET_REGION, concept::HEAD));
    if let Some(frame_of_reference) = input.provenance.header.frame_of_reference() {
        group = group.with(context, Item::uid(concept::FRAME_OF_REFERENCE, frame_of_reference));
    }
    let mut seen = HashSet::new();
    let distinct = input.slices.iter().filter(|slice| seen.insert(&slice.sop_instance));
    let images = distinct.map(|slice| Item::image(None, InstanceReference { frame: None, ..source(slice) }));
    Item::container(concept::IMAGE_LIBRARY, Some("1600")).containing([group.containing(images)])
}

fn source(slice: &SourceSlice) -> InstanceReference<'_> {
    let SourceSlice { sop_class, sop_instance, frame_number, .. } = slice;
    InstanceReference { sop_class, sop_instance, frame: *frame_number, segment: None }
}

/// Rounded to so many decimals: more digits than were measured say nothing.
fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

/// TID 1501: the study as a whole; of what is positive the volume and its standard deviation, in mL.
fn study_group(tracking: &Uid, probability: f64, volume: Option<(f64, Option<f64>)>) -> Item<'_> {
    let context = Relation::HasObservationContext;
    let mut group = Item::container(concept::MEASUREMENT_GROUP, Some("1501"))
        .with(context, Item::text(concept::TRACKING_IDENTIFIER, "intracranial-hemorrhage-of-the-study"))
        .with(context, Item::uid(concept::TRACKING_UID, tracking))
        .containing([Item::code(concept::FINDING, HEMORRHAGE)])
        .with(Relation::HasConceptModifier, Item::code(concept::FINDING_SITE, BRAIN))
        .containing([Item::number(concept::CERTAINTY, rounded(probability * 100.0, 1), concept::PERCENT)]);
    let Some((volume_ml, sd_ml)) = volume else { return group };
    let mut volume = Item::number(concept::VOLUME, rounded(volume_ml, 2), concept::MILLILITER);
    let mut words = None;
    if let Some(sd_ml) = sd_ml {
        // TID 310 through TID 300.
        let side = |concept| Item::number(concept, rounded(sd_ml, 2), concept::MILLILITER);
        volume = volume
            .with(Relation::HasProperties, side(concept::UPPER_UNCERTAINTY))
            .with(Relation::HasProperties, side(concept::LOWER_UNCERTAINTY));
        words = Some(format!(
            "Volume {volume_ml:.2} mL, standard deviation {sd_ml:.2} mL to either side, as fitted on the model's \
             validation studies"
        ));
    }
    group = group.containing([volume]);
    group.containing(words.map(|words| Item::text(concept::COMMENT, words)))
}

/// TID 1411, or TID 1501 where there is no Segmentation to refer to.
fn lesion_group<'a>(input: &'a ReportInput<'a>, lesion: &'a LesionFacts) -> Item<'a> {
    let context = Relation::HasObservationContext;
    let template = if input.segmentation.is_some() { "1411" } else { "1501" };
    let mut group = Item::container(concept::MEASUREMENT_GROUP, Some(template))
        .with(context, Item::text(concept::TRACKING_IDENTIFIER, lesion.reference.tracking_id.as_str()))
        .with(context, Item::uid(concept::TRACKING_UID, &lesion.reference.tracking_uid))
        .containing([Item::code(concept::FINDING, HEMORRHAGE)])
        .with(Relation::HasConceptModifier, Item::code(concept::FINDING_SITE, BRAIN));
    let (first, last) = lesion.slices;
    let (first_slice, last_slice) = (&input.slices[first], &input.slices[last]);
    match input.segmentation {
        Some(SegmentationReference { sop_class, sop_instance, .. }) => {
            let segment = Some(lesion.reference.number);
            let reference = InstanceReference { sop_class, sop_instance, frame: None, segment };
            group = group.containing([
                Item::image(concept::REFERENCED_SEGMENT, reference),
                Item::uid(concept::SOURCE_SERIES, input.provenance.header.series()),
            ]);
        }
        None => {
            let touched = input.slices[first..=last].iter();
            group = group.containing(touched.map(|slice| Item::image(concept::SOURCE_OF_MEASUREMENT, source(slice))));
        }
    }
    let attenuation = |value, kind| {
        Item::number(concept::ATTENUATION, rounded(value, 1), concept::HOUNSFIELD)
            .with(Relation::HasConceptModifier, Item::code(concept::DERIVATION, kind))
    };
    let words = format!(
        "In slices {} to {} of {} (instances {} to {}), in the order of their position. {CAVEAT}; within a pixel's \
         width of the border alone lie {:.2} mL to either side.",
        first + 1,
        last + 1,
        input.slices.len(),
        first_slice.sop_instance,
        last_slice.sop_instance,
        lesion.border_ml,
    );
    group.containing([
        Item::number(concept::VOLUME, rounded(lesion.volume_ml, 2), concept::MILLILITER),
        attenuation(lesion.mean_hu, concept::MEAN),
        attenuation(lesion.max_hu, concept::MAXIMUM),
        Item::number(concept::LONG_AXIS, rounded(lesion.extent_mm, 1), concept::MILLIMETER),
        Item::text(concept::COMMENT, words),
    ])
}

/// TID 1500's Qualitative Evaluations: the verdict, in a code and in words, and what the gate said of each series.
fn evaluations<'a>(input: &ReportInput<'a>) -> Item<'a> {
    let (presence, words) = match input.conclusion {
        Conclusion::Analysed { positive: true, positive_slices, .. } => {
            let words = format!(
                "Hemorrhage detected by algorithm, in {positive_slices} of {} slices; {} lesions",
                input.slices.len(),
                input.lesions.len()
            );
            (concept::PRESENT, words)
        }
        Conclusion::Analysed { positive: false, .. } => {
            let words = format!("No hemorrhage detected by algorithm, in {} slices", input.slices.len());
            (concept::ABSENT, words)
        }
        Conclusion::NotAnalysed(reason) => {
            (concept::INDETERMINATE, format!("Not analysed, because {} ({})", reason.text, reason.code))
        }
    };
    let comment = |words: String| Item::text(concept::COMMENT, words);
    Item::container(concept::QUALITATIVE_EVALUATIONS, None)
        .containing([Item::code(HEMORRHAGE, presence), comment(words)])
        .containing(input.provenance.notice().map(comment))
        .containing(input.series.iter().map(|series| comment(series_words(series))))
}

/// What the gate said of a series, a line a rule.
fn series_words(series: &SeriesFacts) -> String {
    let verdict = if series.chosen { "analysed" } else { "not analysed" };
    let reasons = series.reasons.iter().map(|reason| format!("{} ({})", reason.text, reason.code));
    let rules = series.rules.iter().map(|rule| {
        let attributes = rule.attributes.join(", ");
        format!("rule {} ({attributes}): {}; {}", rule.rule, rule.verdict, rule.text)
    });
    let head = format!("Series {}: {verdict}", series.series_instance);
    std::iter::once(head).chain(reasons).chain(rules).collect::<Vec<_>>().join("\r\n")
}
