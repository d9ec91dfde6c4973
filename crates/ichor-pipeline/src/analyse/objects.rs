//! Which result objects a finding becomes, and who gets which.
//!
//! Each destination names the kinds that it wants; a kind that several want in the same form is made once. Another kind
//! of object is a variant of [`ObjectKind`] and a line in [`write_object`].

use std::io::Write;

use ichor_core::{Reason, Uid};
use ichor_result::{CheckFailed, ResultError, SegmentationForm, SegmentationType};
use ichor_store::{AnalysisClaim, NewObject, Store, WrittenBlob};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use super::segment::Finished;
use super::study::{AnalysisError, Scored};
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
}

/// What one destination gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationObjects {
    /// Its name.
    pub name: String,
    /// The kinds, each once.
    pub objects: Vec<ObjectKind>,
}

impl ObjectKind {
    /// What stands in the job log.
    fn word(&self) -> &'static str {
        match self {
            Self::Segmentation(form) => match form.kind() {
                SegmentationType::Binary => "seg",
                SegmentationType::Fractional => "seg-fractional",
                SegmentationType::LabelMap => "seg-labelmap",
            },
        }
    }

    /// Whether it needs the value of each pixel of the mask, not only where the mask is.
    pub(super) fn has_values(&self) -> bool {
        match self {
            Self::Segmentation(form) => form.kind() == SegmentationType::Fractional,
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
}

/// An object, as its row names it.
pub(super) struct ObjectIdentity {
    pub(super) sop_class: Uid,
    pub(super) sop_instance: Uid,
    pub(super) series_instance: Uid,
    pub(super) transfer_syntax: Uid,
}

/// Why an object was not made.
#[derive(Debug, Error)]
pub(super) enum ObjectError {
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error(transparent)]
    Check(#[from] CheckFailed),
    #[error("it cannot be read back: {0}")]
    ReadBack(std::io::Error),
}

/// Makes each kind that some destination wants, once.
///
/// An object that cannot be made, or does not pass its check, is refused: the reason is recorded and the other kinds go
/// out.
///
/// # Errors
/// [`AnalysisError::Refused`] if all of them are refused; [`AnalysisError::Store`] if one cannot be stored.
pub(super) async fn build(
    store: &Store,
    traits: &ModelTraits,
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
    scored: Scored,
) -> Result<Built, AnalysisError> {
    let finished = spawn_blocking({
        let (traits, claim) = (traits.clone(), (claim.version, claim.accepted_at));
        let min_lesion_ml = options.min_lesion_ml;
        move || Finished::new(&traits, min_lesion_ml, claim, scored)
    });
    let finished = finished.await??;
    let mut built = Built::default();
    if finished.is_empty() {
        warn!(study = %claim.study.study_instance, "positive, but no pixel reaches the mask threshold: no object");
        let text = "positive, but no pixel of the maps reaches the threshold inside the brain mask: there is no SEG";
        built.reasons.push(Reason::new("empty-mask", text));
        return Ok(built);
    }
    let finished = std::sync::Arc::new(finished);
    for (kind, destinations) in wanted(&options.destinations) {
        let (identity, blob) = write_object(store, &finished, &kind).await?;
        let checked = match identity {
            Ok(identity) => {
                let (path, kind) = (blob.path().to_owned(), kind.clone());
                spawn_blocking(move || check_object(&path, &kind).map(|()| identity)).await?
            }
            Err(refusal) => Err(refusal),
        };
        match checked {
            Ok(identity) => built.objects.push(NewObject {
                kind: kind.word().to_owned(),
                sop_class: identity.sop_class,
                sop_instance: identity.sop_instance,
                series_instance: identity.series_instance,
                transfer_syntax: identity.transfer_syntax,
                destinations,
                staged: spawn_blocking(move || blob.sync()).await??,
            }),
            Err(refusal) => {
                let text = format!("{} for {}: {}", kind.word(), list(&destinations), crate::ingest::chain(&refusal));
                let reason = Reason::new("object-refused", text);
                error!(study = %claim.study.study_instance, %reason, "a result object is refused");
                built.reasons.push(reason);
            }
        }
    }
    match built.reasons.first() {
        Some(reason) if built.objects.is_empty() => Err(AnalysisError::Refused(reason.clone())),
        _ => Ok(built),
    }
}

fn list(destinations: &[String]) -> String {
    if destinations.is_empty() { "no destination".to_owned() } else { destinations.join(", ") }
}

/// The kinds that are wanted, in the order of the configuration, each with those who want it. Where nobody wants
/// anything, the Segmentation is made and kept.
fn wanted(destinations: &[DestinationObjects]) -> Vec<(ObjectKind, Vec<String>)> {
    let mut wanted: Vec<(ObjectKind, Vec<String>)> = Vec::new();
    for destination in destinations {
        for kind in &destination.objects {
            match wanted.iter_mut().find(|(known, _)| known == kind) {
                Some((_, names)) => names.push(destination.name.clone()),
                None => wanted.push((kind.clone(), vec![destination.name.clone()])),
            }
        }
    }
    if wanted.is_empty() {
        wanted.push((ObjectKind::Segmentation(SegmentationForm::default()), Vec::new()));
    }
    wanted
}

/// Makes an object on a thread of its own and stores its bytes as they come.
async fn write_object(
    store: &Store,
    finished: &std::sync::Arc<Finished>,
    kind: &ObjectKind,
) -> Result<(Result<ObjectIdentity, ObjectError>, WrittenBlob), AnalysisError> {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_UNDER_WAY);
    let (finished, kind) = (std::sync::Arc::clone(finished), kind.clone());
    let making = spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(CHUNK, ChunkSender(sender));
        let identity = match kind {
            ObjectKind::Segmentation(form) => finished.write_segmentation(form, &mut out)?,
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
fn check_object(path: &std::path::Path, kind: &ObjectKind) -> Result<(), ObjectError> {
    let file = std::fs::File::open(path).map_err(ObjectError::ReadBack)?;
    match kind {
        ObjectKind::Segmentation(form) => ichor_result::check(file, *form)?,
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
    use ichor_result::Encoding;

    #[test]
    fn what_is_not_as_it_should_be_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seg.dcm");
        let kind = ObjectKind::Segmentation(SegmentationForm::default());
        assert!(matches!(check_object(&path, &kind), Err(ObjectError::ReadBack(_))));
        std::fs::write(&path, b"no object").unwrap();
        let refusal = check_object(&path, &kind).unwrap_err().to_string();
        assert!(refusal.contains("cannot be read back"), "{refusal}");
    }

    #[test]
    fn a_kind_is_made_once_for_all_who_want_it() {
        let form = |kind, encoding| ObjectKind::Segmentation(SegmentationForm::new(kind, encoding, false).unwrap());
        let binary = form(SegmentationType::Binary, Encoding::ExplicitLittleEndian);
        let map = form(SegmentationType::LabelMap, Encoding::RleLossless);
        let destination = |name: &str, objects: &[&ObjectKind]| DestinationObjects {
            name: name.to_owned(),
            objects: objects.iter().copied().cloned().collect(),
        };
        let all = [destination("a", &[&binary]), destination("b", &[&map, &binary]), destination("c", &[])];
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(wanted(&all), [(binary.clone(), names(&["a", "b"])), (map, names(&["b"]))]);
        assert_eq!(wanted(&[]), [(binary, Vec::new())], "kept where nobody is to get it");
    }
}
