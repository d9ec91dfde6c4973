//! What the analysis of a study came to, ready to become result objects of any kind and form.

use std::io::Write;
use std::path::PathBuf;

use ichor_core::ModelId;
use ichor_ct::brain::BRAIN_MASK_VERSION;
use ichor_ct::input::PREPROCESSING_VERSION;
use ichor_ct::refine::REFINE_VERSION;
use ichor_ct::volume::PlacedSlice;
use ichor_decode::{DecodeError, Decoder};
use ichor_result::{
    Capture, CaptureInput, CaptureLook, Conclusion, KeyObjectInput, LesionFacts, MaskRun, Presentation,
    PresentationInput, Provenance, Report, ReportInput, SegmentationForm, SegmentationInput, SegmentationReference,
    SeriesFacts, SliceMask, SourceHeader, SourceSlice, write_capture, write_key_objects, write_presentation,
    write_report, write_segmentation,
};
use ichor_store::{AnalysisClaim, SeriesOutcomeRow, Timestamp, Verdict};
use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use super::ModelTraits;
use super::objects::{ObjectError, ObjectIdentity};
use super::study::{AnalysisError, Scored};

/// Everything that the objects of one study share.
pub(super) struct Finished {
    header: SourceHeader,
    verdict: Verdict,
    series: Vec<SeriesFacts>,
    slices: Vec<SourceSlice>,
    /// Where they lie on the disk.
    placed: Vec<PlacedSlice>,
    slice_threshold: f32,
    /// One a slice.
    probabilities: Vec<f32>,
    masks: Vec<SliceMask>,
    /// How many lesions the masks show.
    lesions: u16,
    /// One a lesion; none if they were not asked for.
    facts: Vec<LesionFacts>,
    model: ModelId,
    notice: Option<String>,
    looked_up_accession: Option<String>,
    configuration: String,
    version: u32,
    accepted_at: OffsetDateTime,
}

/// What the analysis of a study came to.
pub(super) struct Conclusions {
    pub(super) verdict: Verdict,
    /// The slices that were classified, with their masks if the verdict is positive; `None` where nothing was analysed.
    pub(super) scored: Option<Scored>,
    pub(super) series: Vec<SeriesOutcomeRow>,
}

/// What the objects have of the study's claim.
pub(super) struct Origin {
    version: u32,
    accepted_at: Timestamp,
    instances: Vec<PathBuf>,
    looked_up_accession: Option<String>,
}

impl Origin {
    pub(super) fn of(claim: &AnalysisClaim) -> Self {
        let instances = claim.instances.iter().map(|instance| instance.path.clone()).collect();
        let looked_up_accession = claim.looked_up_accession.clone();
        Self { version: claim.version, accepted_at: claim.accepted_at, instances, looked_up_accession }
    }
}

impl Finished {
    /// Reads the header that the objects are built on, and turns the masks into segments, the largest lesion first.
    pub(super) fn new(
        traits: &ModelTraits,
        min_lesion_ml: f64,
        origin: &Origin,
        conclusions: Conclusions,
    ) -> Result<Self, AnalysisError> {
        let Conclusions { verdict, scored, series } = conclusions;
        let header = match scored.as_ref().and_then(|scored| scored.stack.slices.first()) {
            Some(first) => SourceHeader::read(&first.header.path)?,
            None => any_header(&origin.instances)?,
        };
        let mut finished = Self {
            header,
            verdict,
            series: series.into_iter().map(series_facts).collect(),
            slices: Vec::new(),
            placed: Vec::new(),
            slice_threshold: traits.slice_threshold,
            probabilities: Vec::new(),
            masks: Vec::new(),
            lesions: 0,
            facts: Vec::new(),
            model: traits.id.clone(),
            notice: traits.notice.clone(),
            looked_up_accession: origin.looked_up_accession.clone(),
            configuration: configuration(traits, min_lesion_ml),
            version: origin.version,
            accepted_at: date_and_time(origin.accepted_at),
        };
        if let Some(scored) = scored {
            finished.slices = scored.sources();
            finished.probabilities.clone_from(&scored.probabilities);
            if matches!(&finished.verdict, Verdict::Analysed(finding) if finding.is_positive()) {
                (finished.masks, finished.lesions) = scored.segments();
                finished.facts = lesion_facts(&finished.provenance(), &scored, finished.lesions);
            }
            finished.placed = scored.stack.slices;
        }
        Ok(finished)
    }

    /// Whether the verdict is positive and no pixel is marked.
    pub(super) fn is_positive_without_mask(&self) -> bool {
        self.is_positive() && self.lesions == 0
    }

    /// Whether hemorrhage was found.
    pub(super) fn is_positive(&self) -> bool {
        matches!(&self.verdict, Verdict::Analysed(finding) if finding.is_positive())
    }

    /// How many slices were analysed.
    pub(super) fn slices(&self) -> usize {
        self.slices.len()
    }

    /// Reads the pixels of a slice, in HU.
    pub(super) async fn read(&self, decoder: &Decoder, at: usize) -> Result<Vec<i16>, AnalysisError> {
        let Some(placed) = self.placed.get(at).cloned() else { return Ok(Vec::new()) };
        let (decoder, label) = (decoder.clone(), placed.header.label());
        let slice = spawn_blocking(move || decoder.read_slice(&placed)).await?;
        match slice {
            Ok(slice) => Ok(slice.hu),
            Err(DecodeError::Unavailable(error)) => Err(error.into()),
            Err(DecodeError::Slice(_)) => Err(AnalysisError::Gone(label)),
        }
    }

    /// Whether there are segments.
    pub(super) fn has_lesions(&self) -> bool {
        self.lesions > 0
    }

    fn provenance(&self) -> Provenance<'_> {
        Provenance {
            header: &self.header,
            model: &self.model,
            configuration_digest: &self.configuration,
            version: self.version,
            accepted_at: self.accepted_at,
            series_number: None,
            looked_up_accession: self.looked_up_accession.as_deref(),
            research_notice: self.notice.as_deref(),
        }
    }

    /// Writes the Segmentation of one form.
    pub(super) fn write_segmentation(
        &self,
        form: SegmentationForm,
        out: &mut impl Write,
    ) -> Result<ObjectIdentity, ObjectError> {
        let input = SegmentationInput {
            provenance: self.provenance(),
            slices: &self.slices,
            masks: &self.masks,
            lesions: self.lesions,
            form,
        };
        let written = write_segmentation(&input, out)?;
        Ok(ObjectIdentity {
            sop_class: written.sop_class,
            sop_instance: written.sop_instance,
            series_instance: written.series_instance,
            transfer_syntax: written.transfer_syntax,
        })
    }

    /// Writes the structured report; its lesions are the segments of `segmentation`, if there is one.
    pub(super) fn write_report(
        &self,
        segmentation: Option<&SegmentationReference>,
        out: &mut impl Write,
    ) -> Result<ObjectIdentity, ObjectError> {
        let conclusion = match &self.verdict {
            Verdict::Analysed(finding) => Conclusion::Analysed {
                positive: finding.is_positive(),
                probability: finding.probability,
                volume_ml: finding.volume_ml,
                volume_sd_ml: finding.volume_sd_ml,
                positive_slices: finding.positive_slices,
            },
            Verdict::NotAnalysed(reason) => Conclusion::NotAnalysed(reason),
        };
        let input = ReportInput {
            provenance: self.provenance(),
            slices: &self.slices,
            conclusion,
            lesions: &self.facts,
            segmentation,
            series: &self.series,
        };
        Ok(document(write_report(&input, out)?))
    }

    /// Writes the Secondary Capture of the slice at `at`, whose pixels are `hu`.
    pub(super) fn write_capture(
        &self,
        look: CaptureLook,
        at: usize,
        hu: &[i16],
        out: &mut impl Write,
    ) -> Result<ObjectIdentity, ObjectError> {
        let input = CaptureInput {
            provenance: self.provenance(),
            slices: &self.slices,
            probabilities: &self.probabilities,
            slice_threshold: self.slice_threshold,
            masks: &self.masks,
            look,
        };
        let Capture { sop_class, sop_instance, series_instance, transfer_syntax } = write_capture(&input, at, hu, out)?;
        Ok(ObjectIdentity { sop_class, sop_instance, series_instance, transfer_syntax })
    }

    /// Writes the presentation state.
    pub(super) fn write_presentation(&self, out: &mut impl Write) -> Result<ObjectIdentity, ObjectError> {
        let mut rescale = None;
        for (placed, _) in self.placed.iter().zip(&self.masks).filter(|(_, mask)| !mask.is_empty()) {
            let here = SourceHeader::read(&placed.header.path)?.rescale();
            if here.is_none() || rescale.is_some_and(|common| Some(common) != here) {
                return Err(ObjectError::Rescale(placed.header.sop_instance.clone()));
            }
            rescale = here;
        }
        let rescale = rescale.ok_or(ichor_result::ResultError::NothingToSegment)?;
        let input =
            PresentationInput { provenance: self.provenance(), slices: &self.slices, masks: &self.masks, rescale };
        let Presentation { sop_class, sop_instance, series_instance, transfer_syntax } =
            write_presentation(&input, out)?;
        Ok(ObjectIdentity { sop_class, sop_instance, series_instance, transfer_syntax })
    }

    /// Writes the Key Object Selection of the `most` most suspicious slices.
    pub(super) fn write_key_objects(
        &self,
        most: usize,
        segmentation: Option<&SegmentationReference>,
        out: &mut impl Write,
    ) -> Result<ObjectIdentity, ObjectError> {
        let slices: Vec<(SourceSlice, f64)> = most_suspicious(&self.probabilities, most)
            .into_iter()
            .filter_map(|at| Some((self.slices.get(at)?.clone(), f64::from(*self.probabilities.get(at)?))))
            .collect();
        let input = KeyObjectInput { provenance: self.provenance(), slices: &slices, segmentation };
        Ok(document(write_key_objects(&input, out)?))
    }
}

fn document(written: Report) -> ObjectIdentity {
    let Report { sop_class, sop_instance, series_instance, transfer_syntax } = written;
    ObjectIdentity { sop_class, sop_instance, series_instance, transfer_syntax }
}

/// The places of the `most` highest probabilities, in slice order; of equal ones the first.
fn most_suspicious(probabilities: &[f32], most: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..probabilities.len()).collect();
    places.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
    places.truncate(most);
    places.sort_unstable();
    places
}

/// Whatever shapes masks and numbers: it stands in the objects, and in what their UIDs are derived from.
fn configuration(traits: &ModelTraits, min_lesion_ml: f64) -> String {
    format!(
        "input={PREPROCESSING_VERSION};brain={BRAIN_MASK_VERSION};map={};preset={};mask_threshold={};refine={};slice_threshold={};reading={:?};study={:?} {:?};min_lesion_ml={min_lesion_ml};precision={}",
        traits.map,
        traits.preset.name(),
        traits.mask_threshold,
        traits.refine.map_or_else(|| "none".to_owned(), |options| format!("{REFINE_VERSION} {options:?}")),
        traits.slice_threshold,
        traits.reading,
        traits.study_rule,
        traits.study_calibration,
        traits.precision,
    )
}

fn date_and_time(at: Timestamp) -> OffsetDateTime {
    let nanoseconds = i128::from(at.as_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The header of the first instance that has one: whose study it is, for a report on a study without a chosen series.
fn any_header(instances: &[PathBuf]) -> Result<SourceHeader, AnalysisError> {
    let mut last = None;
    for instance in instances {
        match SourceHeader::read(instance) {
            Ok(header) => return Ok(header),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| ichor_result::ResultError::NoSlices.into(), AnalysisError::from))
}

fn series_facts(row: SeriesOutcomeRow) -> SeriesFacts {
    let SeriesOutcomeRow { series_instance, chosen, reasons, rules } = row;
    SeriesFacts { series_instance, chosen, rules, reasons }
}

/// The measurements of each lesion, if the masks know their HU.
fn lesion_facts(provenance: &Provenance<'_>, scored: &Scored, lesions: u16) -> Vec<LesionFacts> {
    let slabs: Vec<f64> = scored.stack.slices.iter().map(|slice| slice.slab_mm).collect();
    let spacing = scored.stack.slices.first().map_or([0.0; 2], |slice| slice.plane.spacing);
    let measures = scored.masks.measure(spacing, &slabs);
    let facts = provenance.lesions(lesions).into_iter().zip(measures).map(|(reference, measured)| LesionFacts {
        reference,
        volume_ml: measured.volume_ml,
        border_ml: measured.border_ml,
        mean_hu: measured.mean_hu,
        max_hu: measured.max_hu,
        extent_mm: measured.extent_mm,
        slices: measured.slices,
    });
    facts.collect()
}

impl Scored {
    /// The slices as objects name them.
    fn sources(&self) -> Vec<SourceSlice> {
        let source = |slice: &PlacedSlice| SourceSlice {
            sop_class: slice.header.sop_class.clone(),
            sop_instance: slice.header.sop_instance.clone(),
            frame_number: slice.header.frame,
            plane: slice.plane,
            slice_thickness_mm: slice.header.slice_thickness,
        };
        self.stack.slices.iter().map(source).collect()
    }

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

#[cfg(test)]
mod tests {
    use super::most_suspicious;

    #[test]
    fn the_most_suspicious_slices_in_their_order() {
        assert_eq!(most_suspicious(&[0.1, 0.9, 0.5, 0.9, 0.95], 3), [1, 3, 4]);
        assert_eq!(most_suspicious(&[0.9, 0.9], 1), [0]);
        assert_eq!(most_suspicious(&[0.2], 5), [0]);
        assert!(most_suspicious(&[], 5).is_empty());
    }
}
