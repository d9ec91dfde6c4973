//! Single slices, looked at as the analysis looks at them, without a store: for a person who asks why.

use std::collections::HashMap;

use ichor_core::{Reason, SliceReading, Uid};
use ichor_ct::header::InstanceHeader;
use ichor_ct::volume::{PlacedSlice, Stack};
use ichor_decode::Decoder;

use super::batches::{Batches, classify, mask};
use super::prepare::Purpose;
use super::study::AnalysisError;
use super::{ModelError, SliceModel};

/// What the model says of a slice, and where it looks.
#[derive(Debug)]
pub struct Explanation {
    /// The slice.
    pub header: InstanceHeader,
    /// Its probability of hemorrhage by itself.
    pub own_probability: f32,
    /// The same read together with the neighbours that were given, as the analysis does: what the threshold is held
    /// against.
    pub probability: f32,
    /// Values in HU, rows × columns.
    pub hu: Vec<i16>,
    /// The attribution map on the source grid, 0 to 1.
    pub map: Vec<f32>,
    /// The mask on the source grid, not 0 inside. The analysis has it only where the slice is positive.
    pub mask: Vec<u8>,
}

/// Explains slices, in their order; `each` gets one after the other, so that the memory does not grow with their number.
/// Gives the labels of those that cannot be decoded, with the reason.
///
/// # Errors
/// [`AnalysisError`] if the model or the decoder fails as a whole, or what `each` fails of.
pub async fn explain<M, E>(
    model: &M,
    decoder: &Decoder,
    headers: Vec<InstanceHeader>,
    mut each: impl FnMut(Explanation) -> Result<(), E>,
) -> Result<Vec<(InstanceHeader, Reason)>, E>
where
    M: SliceModel,
    E: From<AnalysisError>,
{
    let traits = model.traits();
    let mut broken = Vec::new();
    let mut slices = Vec::with_capacity(headers.len());
    for header in headers {
        match &header.plane {
            Ok(plane) => {
                let plane = *plane;
                slices.push(PlacedSlice { header, plane, offset_mm: 0.0, slab_mm: 0.0 });
            }
            Err(reason) => {
                let reason = reason.clone();
                broken.push((header, reason));
            }
        }
    }
    let (own, unread) = first_look(model, decoder, slices.clone()).await?;
    let consistent = with_neighbours(&slices, &own, &traits.reading);
    slices.retain(|slice| own.contains_key(&slice.header.label()));
    let mut batches = Batches::new(slices, decoder, traits, Purpose::Mask, traits.batch);
    broken.extend(unread);
    while let Some(batch) = batches.next().await? {
        if let Some((label, _)) = batch.broken.into_iter().next() {
            return Err(AnalysisError::Gone(label).into());
        }
        let placed: Vec<PlacedSlice> = batch.slices.iter().map(|slice| slice.placed.clone()).collect();
        let masks = mask(model, batch.slices, true).await?;
        for (slice, seen) in placed.into_iter().zip(masks) {
            let label = slice.header.label();
            let missing = || AnalysisError::from(ModelError(format!("no probability of slice {label}")));
            let own_probability = *own.get(&label).ok_or_else(missing)?;
            let probability = consistent.get(&label).copied();
            let probability = probability.unwrap_or_else(|| traits.reading.calibration.apply(own_probability));
            let (hu, map, mask) = (seen.hu, seen.map, seen.mask);
            each(Explanation { header: slice.header, own_probability, probability, hu, map, mask })?;
        }
    }
    Ok(broken)
}

/// Probabilities by label.
type ByLabel = HashMap<String, f32>;

/// Each slice's own probability, and the slices that cannot be decoded.
async fn first_look<M: SliceModel>(
    model: &M,
    decoder: &Decoder,
    slices: Vec<PlacedSlice>,
) -> Result<(ByLabel, Vec<(InstanceHeader, Reason)>), AnalysisError> {
    let traits = model.traits();
    let headers: HashMap<String, InstanceHeader> =
        slices.iter().map(|slice| (slice.header.label(), slice.header.clone())).collect();
    let (mut own, mut broken) = (HashMap::with_capacity(slices.len()), Vec::new());
    let mut batches = Batches::new(slices, decoder, traits, Purpose::Classify, traits.batch);
    while let Some(batch) = batches.next().await? {
        let unread = batch.broken.into_iter();
        broken.extend(unread.filter_map(|(label, reason)| Some((headers.get(&label)?.clone(), reason))));
        let probabilities = classify(model, &batch.slices).await?;
        own.extend(batch.slices.iter().map(|slice| slice.placed.header.label()).zip(probabilities));
    }
    Ok((own, broken))
}

/// Reads the probabilities of parallel slices of one series together. A slice that has no place among them, such as a
/// second one at the same position, is not in the answer.
fn with_neighbours(slices: &[PlacedSlice], own: &ByLabel, reading: &SliceReading) -> ByLabel {
    /// Cosine of the angle from which on planes are not parallel.
    const PARALLEL: f64 = 0.999;
    let mut series: HashMap<&Uid, Vec<&PlacedSlice>> = HashMap::new();
    for slice in slices.iter().filter(|slice| own.contains_key(&slice.header.label())) {
        series.entry(&slice.header.series_instance).or_default().push(slice);
    }
    let mut consistent = HashMap::with_capacity(own.len());
    for slices in series.into_values() {
        let normal = slices[0].plane.normal();
        let is_parallel = |slice: &&&PlacedSlice| {
            let cosine: f64 = normal.iter().zip(slice.plane.normal()).map(|(a, b)| a * b).sum();
            cosine > PARALLEL
        };
        let stack = Stack::new(slices.iter().filter(is_parallel).map(|slice| slice.header.clone()).collect());
        let labels: Vec<String> = stack.slices.iter().map(|slice| slice.header.label()).collect();
        let offsets: Vec<f64> = stack.slices.iter().map(|slice| slice.offset_mm).collect();
        let probabilities: Vec<f32> = labels.iter().filter_map(|label| own.get(label).copied()).collect();
        consistent.extend(labels.into_iter().zip(reading.read(&probabilities, &offsets)));
    }
    consistent
}
