//! The Key Object Selection (PS3.3 A.35.4, PS3.16 TID 2010): the most suspicious slices, for a PACS that shows neither
//! Segmentations nor reports. Many list it, and some jump to its images.

use std::io::Write;

use dicom_dictionary_std::uids;
use ichor_core::Uid;

use super::content::{InstanceReference, Item};
use super::document::{common, device, evidence, observed, series_and_time};
use super::{Report, SegmentationReference, source};
use crate::codes::report as concept;
use crate::error::ResultError;
use crate::part10::write_part10;
use crate::provenance::Provenance;
use crate::segmentation::SourceSlice;

/// Series Numbers of Key Object Selections lie this much above those of Segmentations.
const SERIES_NUMBER_STEP: u32 = 2;

/// Everything that makes a selection what it is.
#[derive(Clone, Debug)]
pub struct KeyObjectInput<'a> {
    /// Where it comes from.
    pub provenance: Provenance<'a>,
    /// The slices, in their order, each with the probability of hemorrhage, 0 to 1.
    pub slices: &'a [(SourceSlice, f64)],
    /// The Segmentation of the same version, if one goes to the same place.
    pub segmentation: Option<&'a SegmentationReference>,
}

/// Writes the selection as a Part 10 file. The same input gives the same bytes; the file must pass
/// [`check_key_objects`](crate::check_key_objects) before it leaves.
///
/// # Errors
/// [`ResultError::NoSlices`] without slices: a selection of nothing does not exist; [`ResultError::Measurement`] if a
/// probability is none; [`ResultError::Write`] when `out` fails; every other [`ResultError`] names what cannot be.
pub fn write_key_objects(input: &KeyObjectInput<'_>, out: impl Write) -> Result<Report, ResultError> {
    if input.slices.is_empty() {
        return Err(ResultError::NoSlices);
    }
    if let Some((slice, probability)) = input.slices.iter().find(|(_, p)| !(0.0..=1.0).contains(p)) {
        return Err(ResultError::Measurement(format!("probability {probability} of instance {}", slice.sop_instance)));
    }
    let provenance = &input.provenance;
    let constant = |uid: &str| Uid::parse(uid).map_err(|e| ResultError::Encode(e.to_string()));
    let (header, version) = (provenance.header, provenance.version.to_string());
    let words = words(input);
    let of = input.segmentation.map_or("", |segmentation| segmentation.sop_instance.as_str());
    let identity =
        [header.study().as_str(), header.series().as_str(), provenance.model.as_str(), provenance.configuration_digest];
    let sources = input.slices.iter().map(|(slice, _)| slice.sop_instance.as_str());
    let selection = Report {
        sop_class: constant(uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE)?,
        sop_instance: Uid::derive(
            ["ichor-ko-instance"].into_iter().chain(identity).chain([of, version.as_str(), &words]).chain(sources),
        ),
        series_instance: Uid::derive(["ichor-ko-series"].into_iter().chain(identity)),
        transfer_syntax: constant(uids::EXPLICIT_VR_LITTLE_ENDIAN)?,
    };
    let device = device(provenance);
    let segmentation = input.segmentation.map(|s| (&s.series_instance, &s.sop_class, &s.sop_instance));
    let sources = input.slices.iter().map(|(s, _)| (header.series(), &s.sop_class, &s.sop_instance));
    let name = "Suspicious slices";
    let elements = common(provenance, &selection.sop_class, &selection.sop_instance)?
        .into_iter()
        .chain(series_and_time(provenance, "KO", &selection.series_instance, SERIES_NUMBER_STEP, name)?)
        .chain(evidence(header.study(), sources.chain(segmentation)))
        .chain(root(input, &device, words).elements(None));
    write_part10(elements, out)?;
    Ok(selection)
}

/// TID 2010.
fn root<'a>(input: &'a KeyObjectInput<'a>, device: &'a Uid, words: String) -> Item<'a> {
    let images = input.slices.iter().map(|(slice, _)| Item::image(None, source(slice)));
    let segmentation = input.segmentation.map(|SegmentationReference { sop_class, sop_instance, .. }| {
        Item::image(None, InstanceReference { sop_class, sop_instance, frame: None, segment: None })
    });
    observed(Item::container(concept::OF_INTEREST, Some("2010")), &input.provenance, device)
        .containing([Item::text(concept::KEY_OBJECT_DESCRIPTION, words)])
        .containing(images)
        .containing(segmentation)
}

/// Why these slices.
fn words(input: &KeyObjectInput<'_>) -> String {
    let each: Vec<String> = input.slices.iter().map(|(_, p)| format!("{:.0} %", p * 100.0)).collect();
    let notice = input.provenance.notice().map(|notice| format!(" {notice}."));
    format!(
        "Slices that {} finds most suspicious of intracranial hemorrhage, probability {}. A result of an algorithm, not a \
         diagnosis.{}",
        input.provenance.model,
        each.join(", "),
        notice.unwrap_or_default()
    )
}
