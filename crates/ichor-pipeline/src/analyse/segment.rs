//! A positive study's masks, ready to become DICOM Segmentations of any form.

use std::io::Write;

use ichor_core::ModelId;
use ichor_ct::brain::BRAIN_MASK_VERSION;
use ichor_ct::input::PREPROCESSING_VERSION;
use ichor_result::{
    MaskRun, SegmentationForm, SegmentationInput, SliceMask, SourceHeader, SourceSlice, write_segmentation,
};
use ichor_store::Timestamp;
use time::OffsetDateTime;

use super::ModelTraits;
use super::objects::{ObjectError, ObjectIdentity};
use super::study::{AnalysisError, Scored};

/// Everything that the objects of one finding share.
pub(super) struct Finished {
    header: Option<SourceHeader>,
    slices: Vec<SourceSlice>,
    masks: Vec<SliceMask>,
    lesions: u16,
    model: ModelId,
    notice: Option<String>,
    configuration: String,
    version: u32,
    accepted_at: OffsetDateTime,
}

impl Finished {
    /// Reads the header that the objects are built on, and turns the masks into segments, the largest lesion first.
    pub(super) fn new(
        traits: &ModelTraits,
        min_lesion_ml: f64,
        (version, accepted_at): (u32, Timestamp),
        scored: Scored,
    ) -> Result<Self, AnalysisError> {
        // Whatever shapes the masks stands in the digest, and so in the UIDs.
        let configuration = format!(
            "input={PREPROCESSING_VERSION};brain={BRAIN_MASK_VERSION};map={};preset={};mask_threshold={};slice_threshold={};slice_reach_mm={};min_lesion_ml={min_lesion_ml}",
            traits.map,
            traits.preset.name(),
            traits.mask_threshold,
            traits.slice_threshold,
            traits.slice_reach_mm,
        );
        let accepted_at = i128::from(accepted_at.as_millis()) * 1_000_000;
        let accepted_at = OffsetDateTime::from_unix_timestamp_nanos(accepted_at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let placed = &scored.stack.slices;
        let header = placed.first().map(|first| SourceHeader::read(&first.header.path)).transpose()?;
        let slices = placed.iter().map(|slice| SourceSlice {
            sop_class: slice.header.sop_class.clone(),
            sop_instance: slice.header.sop_instance.clone(),
            frame_number: slice.header.frame,
            plane: slice.plane,
            slice_thickness_mm: slice.header.slice_thickness,
        });
        let (masks, lesions) = scored.segments();
        Ok(Self {
            header,
            slices: slices.collect(),
            masks,
            lesions,
            model: traits.id.clone(),
            notice: traits.notice.clone(),
            configuration,
            version,
            accepted_at,
        })
    }

    /// Whether no pixel is marked.
    pub(super) fn is_empty(&self) -> bool {
        self.lesions == 0
    }

    /// Writes the Segmentation of one form.
    pub(super) fn write_segmentation(
        &self,
        form: SegmentationForm,
        out: &mut impl Write,
    ) -> Result<ObjectIdentity, ObjectError> {
        let Some(header) = &self.header else { return Err(ichor_result::ResultError::NoSlices.into()) };
        let written = write_segmentation(
            &SegmentationInput {
                header,
                slices: &self.slices,
                masks: &self.masks,
                lesions: self.lesions,
                form,
                model: &self.model,
                configuration_digest: &self.configuration,
                version: self.version,
                accepted_at: self.accepted_at,
                series_number: None,
                research_notice: self.notice.as_deref(),
            },
            out,
        )?;
        Ok(ObjectIdentity {
            sop_class: written.sop_class,
            sop_instance: written.sop_instance,
            series_instance: written.series_instance,
            transfer_syntax: written.transfer_syntax,
        })
    }
}

impl Scored {
    /// The mask of each slice in segments, one a lesion, and how many there are.
    fn segments(&self) -> (Vec<SliceMask>, u16) {
        let slabs: Vec<f64> = self.stack.slices.iter().map(|slice| slice.slab_mm).collect();
        let area = self.stack.slices.first().map_or(0.0, |slice| slice.plane.pixel_area());
        let mut lesions = 0;
        let slices = self.masks.lesion_runs(area, &slabs);
        let masks = slices.iter().map(|runs| {
            let values = runs.iter().flat_map(|run| run.values).copied().collect();
            let runs = runs.iter().map(|run| {
                // More lesions than segments have numbers share the last one: none is lost.
                let segment = u16::try_from(run.lesion + 1).unwrap_or(u16::MAX);
                lesions = lesions.max(segment);
                MaskRun { row: run.row, start: run.start, end: run.end, segment }
            });
            SliceMask::new(runs.collect(), values)
        });
        (masks.collect(), lesions)
    }
}
