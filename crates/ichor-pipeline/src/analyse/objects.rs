//! Which result objects a finding becomes, and who gets which.
//!
//! Each destination names the kinds that it wants; a kind that several want in the same form is made once. Another kind
//! of object is a variant of [`ObjectKind`] and of `Plan`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use ichor_core::{Reason, Uid};
use ichor_decode::Decoder;
use ichor_result::{
    CaptureLook, CheckFailed, ResultError, SegmentationForm, SegmentationReference, SegmentationType, SourceError,
};
use ichor_store::{AnalysisClaim, NewObject, Store, Verdict, WrittenBlob};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use super::finished::{Conclusions, Finished, Origin};
use super::study::AnalysisError;
use super::{AnalyseOptions, ModelTraits};

/// Bytes that are handed from the thread that makes an object to the one that stores it.
const CHUNK: usize = 256 << 10;
/// Chunks on their way at once.
const CHUNKS_UNDER_WAY: usize = 4;

/// A kind of result object, with all that decides its form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// DICOM Segmentation.
    Segmentation(SegmentationForm),
    /// Structured report; its lesions are the segments of the Segmentation of this form, which goes to the same place.
    Report(Option<SegmentationForm>),
    /// Key Object Selection of so many slices, and of the Segmentation of this form, which goes to the same place.
    KeyObjects(usize, Option<SegmentationForm>),
    /// Secondary Captures of this look, one a slice.
    Captures(CaptureLook),
    /// Presentation state with the contours.
    Presentation,
}

/// Which verdicts a destination gets a report on, besides findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportOn {
    /// Studies without hemorrhage.
    pub negative: bool,
    /// Studies that cannot be analysed.
    pub not_analysed: bool,
}

/// What one destination gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationObjects {
    /// Its name.
    pub name: String,
    /// The kinds, each once.
    pub objects: Vec<ObjectKind>,
    /// Which verdicts it gets a report on, if it gets reports.
    pub report_on: ReportOn,
}

impl ObjectKind {
    /// Whether it needs the value of each pixel of the mask, not only where the mask is.
    pub(super) fn has_values(&self) -> bool {
        match self {
            Self::Segmentation(form) => form.kind() == SegmentationType::Fractional,
            Self::Report(_) | Self::KeyObjects(..) | Self::Captures(_) | Self::Presentation => false,
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Segmentation(_) => "segmentation",
            Self::Report(_) => "report",
            Self::KeyObjects(..) => "key-objects",
            Self::Captures(_) => "capture",
            Self::Presentation => "presentation-state",
        }
    }

    /// Makes it refer to no Segmentation.
    pub(crate) const fn without_segmentation(&mut self) {
        match self {
            Self::Report(form) | Self::KeyObjects(_, form) => *form = None,
            Self::Segmentation(_) | Self::Captures(_) | Self::Presentation => {}
        }
    }

    /// Whether it needs the HU of the mask's pixels.
    pub(super) fn has_hounsfield(&self) -> bool {
        matches!(self, Self::Report(_))
    }

    /// Whether `destination` gets it with this verdict.
    fn suits(&self, verdict: &Verdict, destination: &DestinationObjects) -> bool {
        match (self, verdict) {
            (_, Verdict::Analysed(finding)) if finding.is_positive() => true,
            (Self::Segmentation(_) | Self::KeyObjects(..) | Self::Captures(_) | Self::Presentation, _) => false,
            (Self::Report(_), Verdict::Analysed(_)) => destination.report_on.negative,
            (Self::Report(_), Verdict::NotAnalysed(_)) => destination.report_on.not_analysed,
        }
    }
}

/// What came of the objects of a finding.
#[derive(Default)]
pub(super) struct Built {
    /// Those that passed their check.
    pub(super) objects: Vec<NewObject>,
    /// Why there are not more.
    pub(super) reasons: Vec<Reason>,
    /// Whether one of them was refused.
    refused: bool,
}

/// An object, as its row names it.
pub(super) struct ObjectIdentity {
    pub(super) sop_class: Uid,
    pub(super) sop_instance: Uid,
    pub(super) series_instance: Uid,
    pub(super) transfer_syntax: Uid,
}

impl ObjectIdentity {
    /// How a report refers to it.
    fn reference(&self) -> SegmentationReference {
        SegmentationReference {
            sop_class: self.sop_class.clone(),
            sop_instance: self.sop_instance.clone(),
            series_instance: self.series_instance.clone(),
        }
    }
}

/// Why an object was not made.
#[derive(Debug, Error)]
pub(super) enum ObjectError {
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error(transparent)]
    Check(#[from] CheckFailed),
    /// A presentation state has one pair for all of its images.
    #[error("the slices with mask have no rescale slope and intercept in common: instance {0}")]
    Rescale(Uid),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("it cannot be read back: {0}")]
    ReadBack(std::io::Error),
}

/// Makes each kind that some destination wants with this verdict, once.
///
/// An object that cannot be made, or does not pass its check, is refused: the reason is recorded and the other kinds go
/// out.
///
/// # Errors
/// [`AnalysisError::Refused`] if a finding's objects are all refused; [`AnalysisError::Store`] if one cannot be stored.
pub(super) async fn build(
    store: &Store,
    traits: &ModelTraits,
    options: &AnalyseOptions,
    destinations: &[DestinationObjects],
    claim: &AnalysisClaim,
    conclusions: Conclusions,
) -> Result<Built, AnalysisError> {
    let wanted = wanted(destinations, &conclusions.verdict);
    let mut built = Built::default();
    if wanted.is_empty() {
        return Ok(built);
    }
    let finished = spawn_blocking({
        let (traits, min_lesion_ml, origin) = (traits.clone(), options.min_lesion_ml, Origin::of(claim));
        move || Finished::new(&traits, min_lesion_ml, &origin, conclusions)
    });
    let finished = Arc::new(finished.await??);
    if finished.is_positive_without_mask() {
        warn!(study = %claim.study.study_instance, "positive, but no pixel reaches the mask threshold: no segmentation");
        let text = "positive, but no pixel of the maps reaches the threshold inside the brain mask: there is no SEG";
        built.reasons.push(Reason::new("empty-mask", text));
    }
    // Segmentations come first, for others refer to them; what then comes to the same is made once.
    let (segmentations, others): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(kind, _)| matches!(kind, ObjectKind::Segmentation(_)));
    let maker = Maker { store, decoder: &options.decoder, finished: &finished };
    let mut known = HashMap::new();
    for (kind, destinations) in segmentations {
        for plan in plans(&kind, &finished, &known) {
            maker.add(&plan, destinations.clone(), claim, &mut built, &mut known).await?;
        }
    }
    let mut merged: Vec<(Plan, Vec<String>)> = Vec::new();
    for (kind, destinations) in others {
        for plan in plans(&kind, &finished, &known) {
            match merged.iter_mut().find(|(same, _)| *same == plan) {
                Some((_, names)) => names.extend(destinations.iter().cloned()),
                None => merged.push((plan, destinations.clone())),
            }
        }
    }
    for (plan, destinations) in merged {
        maker.add(&plan, destinations, claim, &mut built, &mut known).await?;
    }
    match built.reasons.last() {
        Some(reason) if built.refused && built.objects.is_empty() && finished.is_positive() => {
            Err(AnalysisError::Refused(reason.clone()))
        }
        _ => Ok(built),
    }
}

/// The Segmentations that were made, by form.
type Segmentations = HashMap<SegmentationForm, SegmentationReference>;

/// An object that is about to be made.
#[derive(Clone, Debug, PartialEq)]
enum Plan {
    Segmentation(SegmentationForm),
    Report(Option<SegmentationReference>),
    KeyObjects(usize, Option<SegmentationReference>),
    /// Of the slice at this place.
    Capture(CaptureLook, usize),
    Presentation,
}

impl Plan {
    /// What stands in the job log.
    fn word(&self) -> &'static str {
        match self {
            Self::Segmentation(form) => match form.kind() {
                SegmentationType::Binary => "seg",
                SegmentationType::Fractional => "seg-fractional",
                SegmentationType::LabelMap => "seg-labelmap",
            },
            Self::Report(_) => "report",
            Self::KeyObjects(..) => "key-objects",
            Self::Capture(..) => "capture",
            Self::Presentation => "presentation-state",
        }
    }
}

/// The objects of a kind.
fn plans(kind: &ObjectKind, finished: &Finished, known: &Segmentations) -> Vec<Plan> {
    let of = |form: &Option<SegmentationForm>| form.and_then(|form| known.get(&form).cloned());
    match kind {
        ObjectKind::Segmentation(_) | ObjectKind::Presentation if !finished.has_lesions() => Vec::new(),
        ObjectKind::Segmentation(form) => vec![Plan::Segmentation(*form)],
        ObjectKind::Presentation => vec![Plan::Presentation],
        ObjectKind::Report(form) => vec![Plan::Report(of(form))],
        // More than there are come to the same.
        ObjectKind::KeyObjects(most, form) => vec![Plan::KeyObjects((*most).min(finished.slices()), of(form))],
        ObjectKind::Captures(look) => (0..finished.slices()).map(|at| Plan::Capture(*look, at)).collect(),
    }
}

/// What all objects of a study are made with.
struct Maker<'a> {
    store: &'a Store,
    decoder: &'a Decoder,
    finished: &'a Arc<Finished>,
}

impl Maker<'_> {
    /// Makes an object and adds it, or why it is refused.
    async fn add(
        &self,
        plan: &Plan,
        destinations: Vec<String>,
        claim: &AnalysisClaim,
        built: &mut Built,
        known: &mut Segmentations,
    ) -> Result<(), AnalysisError> {
        match make(self.store, self.decoder, self.finished, plan).await? {
            Ok((identity, blob)) => {
                if let Plan::Segmentation(form) = plan {
                    known.insert(*form, identity.reference());
                }
                built.objects.push(NewObject {
                    kind: plan.word().to_owned(),
                    sop_class: identity.sop_class,
                    sop_instance: identity.sop_instance,
                    series_instance: identity.series_instance,
                    transfer_syntax: identity.transfer_syntax,
                    destinations,
                    staged: spawn_blocking(move || blob.sync()).await??,
                });
            }
            Err(refusal) => {
                let text = format!("{} for {}: {}", plan.word(), list(&destinations), ichor_core::chain(&refusal));
                let reason = Reason::new("object-refused", text);
                error!(study = %claim.study.study_instance, %reason, "a result object is refused");
                built.refused = true;
                built.reasons.push(reason);
            }
        }
        Ok(())
    }
}

/// Makes, stores and checks an object; the inner error refuses it.
async fn make(
    store: &Store,
    decoder: &Decoder,
    finished: &Arc<Finished>,
    plan: &Plan,
) -> Result<Result<(ObjectIdentity, WrittenBlob), ObjectError>, AnalysisError> {
    // Read again rather than held: the memory does not grow with the study.
    let pixels = match plan {
        Plan::Capture(_, at) => finished.read(decoder, *at).await?,
        _ => Vec::new(),
    };
    let (identity, blob) = write_object(store, finished, plan, pixels).await?;
    let Ok(identity) = identity else { return Ok(identity.map(|identity| (identity, blob))) };
    let plan = plan.clone();
    Ok(spawn_blocking(move || check_object(blob.path(), &plan).map(|()| (identity, blob))).await?)
}

fn list(destinations: &[String]) -> String {
    if destinations.is_empty() { "no destination".to_owned() } else { destinations.join(", ") }
}

/// The kinds that are wanted with this verdict, each with those who want it: Segmentations first, for others refer to
/// them. Where no destination is configured, a finding's Segmentation is made and kept.
fn wanted(destinations: &[DestinationObjects], verdict: &Verdict) -> Vec<(ObjectKind, Vec<String>)> {
    let mut wanted: Vec<(ObjectKind, Vec<String>)> = Vec::new();
    for destination in destinations {
        for kind in destination.objects.iter().filter(|kind| kind.suits(verdict, destination)) {
            match wanted.iter_mut().find(|(known, _)| known == kind) {
                Some((_, names)) => names.push(destination.name.clone()),
                None => wanted.push((kind.clone(), vec![destination.name.clone()])),
            }
        }
    }
    let is_finding = matches!(verdict, Verdict::Analysed(finding) if finding.is_positive());
    if wanted.is_empty() && is_finding {
        wanted.push((ObjectKind::Segmentation(SegmentationForm::default()), Vec::new()));
    }
    wanted.sort_by_key(|(kind, _)| !matches!(kind, ObjectKind::Segmentation(_)));
    wanted
}

/// Makes an object on a thread of its own and stores its bytes as they come.
async fn write_object(
    store: &Store,
    finished: &Arc<Finished>,
    plan: &Plan,
    pixels: Vec<i16>,
) -> Result<(Result<ObjectIdentity, ObjectError>, WrittenBlob), AnalysisError> {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_UNDER_WAY);
    let (finished, plan) = (Arc::clone(finished), plan.clone());
    let making = spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(CHUNK, ChunkSender(sender));
        let identity = match plan {
            Plan::Segmentation(form) => finished.write_segmentation(form, &mut out)?,
            Plan::Report(segmentation) => finished.write_report(segmentation.as_ref(), &mut out)?,
            Plan::KeyObjects(most, segmentation) => {
                finished.write_key_objects(most, segmentation.as_ref(), &mut out)?
            }
            Plan::Capture(look, at) => finished.write_capture(look, at, &pixels, &mut out)?,
            Plan::Presentation => finished.write_presentation(&mut out)?,
        };
        // A stage that stopped listening has its own error.
        out.flush().map_err(ResultError::Write)?;
        Ok::<_, ObjectError>(identity)
    });
    let stored = async {
        let mut blob = store.blobs().begin().await?;
        while let Some(chunk) = chunks.recv().await {
            blob.write(&chunk).await?;
        }
        let last = blob.last_block().await?;
        spawn_blocking(move || Ok(last.write()?)).await?
    };
    let stored: Result<WrittenBlob, AnalysisError> = stored.await;
    // The channel is closed or dropped by now: whoever makes the object comes to an end.
    drop(chunks);
    let identity = making.await?;
    Ok((identity, stored?))
}

/// Looks the written bytes over.
fn check_object(path: &std::path::Path, plan: &Plan) -> Result<(), ObjectError> {
    let file = std::fs::File::open(path).map_err(ObjectError::ReadBack)?;
    match plan {
        Plan::Segmentation(form) => ichor_result::check(file, *form)?,
        Plan::Report(_) => ichor_result::check_report(std::io::BufReader::new(file))?,
        Plan::KeyObjects(..) => ichor_result::check_key_objects(std::io::BufReader::new(file))?,
        Plan::Capture(..) => ichor_result::check_capture(std::io::BufReader::new(file))?,
        Plan::Presentation => ichor_result::check_presentation(std::io::BufReader::new(file))?,
    }
    Ok(())
}

/// A writer into a channel.
struct ChunkSender(mpsc::Sender<Vec<u8>>);

impl Write for ChunkSender {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let gone = |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the object is not stored any more");
        self.0.blocking_send(bytes.to_vec()).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ichor_core::Finding;
    use ichor_result::Encoding;

    #[test]
    fn what_is_not_as_it_should_be_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seg.dcm");
        for plan in [
            Plan::Segmentation(SegmentationForm::default()),
            Plan::Report(None),
            Plan::KeyObjects(3, None),
            Plan::Capture(CaptureLook::default(), 0),
            Plan::Presentation,
        ] {
            let _ = std::fs::remove_file(&path);
            assert!(matches!(check_object(&path, &plan), Err(ObjectError::ReadBack(_))));
            std::fs::write(&path, b"no object").unwrap();
            let refusal = check_object(&path, &plan).unwrap_err().to_string();
            assert!(refusal.contains("cannot be read back"), "{refusal}");
        }
    }

    #[test]
    fn a_kind_is_made_once_for_all_who_want_it() {
        let form = |kind, encoding| ObjectKind::Segmentation(SegmentationForm::new(kind, encoding, false).unwrap());
        let binary = form(SegmentationType::Binary, Encoding::ExplicitLittleEndian);
        let map = form(SegmentationType::LabelMap, Encoding::RleLossless);
        let destination = |name: &str, objects: &[&ObjectKind]| DestinationObjects {
            name: name.to_owned(),
            objects: objects.iter().copied().cloned().collect(),
            report_on: ReportOn { negative: name != "c", not_analysed: name == "a" },
        };
        let all = [destination("a", &[&binary]), destination("b", &[&map, &binary]), destination("c", &[])];
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let finding = |verdict| {
            let (probability, volume_ml, positive_slices, slices, lesions_ml) = (0.9, 1.0, 3, 30, Vec::new());
            Verdict::Analysed(Finding {
                verdict,
                probability,
                volume_ml,
                volume_sd_ml: None,
                positive_slices,
                slices,
                lesions_ml,
            })
        };
        let positive = finding(ichor_core::Verdict::Positive);
        assert_eq!(wanted(&all, &positive), [(binary.clone(), names(&["a", "b"])), (map, names(&["b"]))]);
        assert_eq!(wanted(&[], &positive), [(binary.clone(), Vec::new())], "kept where nobody is to get it");

        let report = ObjectKind::Report(Some(SegmentationForm::default()));
        let all = ["a", "b", "c"].map(|name| destination(name, &[&report, &binary]));
        let everybody = || names(&["a", "b", "c"]);
        // Segmentations first: reports refer to them.
        assert_eq!(wanted(&all, &positive), [(binary, everybody()), (report.clone(), everybody())]);
        let negative = finding(ichor_core::Verdict::Negative);
        assert_eq!(wanted(&all, &negative), [(report.clone(), names(&["a", "b"]))]);
        let why = Verdict::NotAnalysed(Reason::new("no-eligible-series", "none"));
        assert_eq!(wanted(&all, &why), [(report, names(&["a"]))]);
        assert_eq!((wanted(&[], &negative), wanted(&[], &why)), (Vec::new(), Vec::new()));
    }
}
