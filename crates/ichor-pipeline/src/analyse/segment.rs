//! A positive study's masks → one DICOM Segmentation, staged in the blob store.

use ichor_ct::brain::BRAIN_MASK_VERSION;
use ichor_ct::input::PREPROCESSING_VERSION;
use ichor_result::{ResultError, SegmentationInput, SourceHeader, SourceSlice, build_segmentation};
use ichor_store::{AnalysisClaim, NewObject, Store};
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::study::{AnalysisError, Scored};
use super::{AnalyseOptions, ModelTraits};

/// Builds and stages the Segmentation; `None` if the masks are empty: the verdict stands without a mask.
pub(super) async fn segmentation(
    store: &Store,
    traits: &ModelTraits,
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
    scored: Scored,
) -> Result<Option<NewObject>, AnalysisError> {
    let (model, notice, version) = (traits.id.clone(), traits.notice.clone(), claim.version);
    // Whatever shapes the masks stands in the digest, and so in the UIDs.
    let configuration = format!(
        "input={PREPROCESSING_VERSION};brain={BRAIN_MASK_VERSION};map={};preset={};mask_threshold={};slice_threshold={};slice_reach_mm={};min_lesion_ml={}",
        traits.map,
        traits.preset.name(),
        traits.mask_threshold,
        traits.slice_threshold,
        traits.slice_reach_mm,
        options.min_lesion_ml
    );
    let accepted_at = i128::from(claim.accepted_at.as_millis()) * 1_000_000;
    let accepted_at = OffsetDateTime::from_unix_timestamp_nanos(accepted_at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let built = spawn_blocking(move || {
        let placed = &scored.stack.slices;
        let Some(first) = placed.first() else { return Err(ResultError::NothingToSegment.into()) };
        let header = SourceHeader::read(&first.header.path)?;
        let slices: Vec<SourceSlice> = placed
            .iter()
            .map(|slice| SourceSlice {
                sop_class: slice.header.sop_class.clone(),
                sop_instance: slice.header.sop_instance.clone(),
                frame_number: None,
                plane: slice.plane,
                slice_thickness_mm: slice.header.slice_thickness,
            })
            .collect();
        let masks: Vec<Option<Vec<u8>>> = (0..placed.len()).map(|index| scored.masks.mask(index)).collect();
        let masks: Vec<Option<&[u8]>> = masks.iter().map(Option::as_deref).collect();
        let segmentation = build_segmentation(&SegmentationInput {
            header: &header,
            slices: &slices,
            masks: &masks,
            model: &model,
            configuration_digest: &configuration,
            version,
            accepted_at,
            series_number: None,
            research_notice: notice.as_deref(),
        })?;
        Ok::<_, AnalysisError>(segmentation)
    })
    .await?;
    let segmentation = match built {
        Ok(segmentation) => segmentation,
        Err(AnalysisError::Result(ResultError::NothingToSegment)) => {
            warn!(study = %claim.study.study_instance, "positive, but no pixel reaches the mask threshold: no object");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut blob = store.blobs().begin().await?;
    blob.write(&segmentation.part10).await?;
    Ok(Some(NewObject {
        kind: "seg".to_owned(),
        sop_class: segmentation.sop_class,
        sop_instance: segmentation.sop_instance,
        series_instance: segmentation.series_instance,
        transfer_syntax: segmentation.transfer_syntax,
        staged: blob.finish().await?,
    }))
}
