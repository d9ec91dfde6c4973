//! What the store's tests share: backends, and short words for long intents.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ichor_core::{AeTitle, Finding, Reason, RuleOutcome, RuleVerdict, Uid, Verdict as Call};
use ichor_store::{
    AnalysisClaim, AnalysisOutcome, AssociationId, IncomingBlob, NewAssociation, NewInstance, NewObject, Recorded,
    SeriesAttributes, SeriesOutcomeRow, SliceScore, StagedBlob, Store, StoreError, StoreOptions, StudyAttributes,
    StudyDetail, StudyKey, Timestamp, Verdict,
};
use tempfile::TempDir;

/// A place where a store can be opened, and opened again after a crash.
pub(crate) trait Backend: Sized {
    /// An empty one.
    fn new() -> Self;
    /// Opens it.
    fn open(&self) -> impl Future<Output = Store> + Send;
    /// The folder with the blobs.
    fn blobs(&self) -> PathBuf;
}

/// SQLite and a local folder.
pub(crate) struct SqliteFolder {
    folder: TempDir,
}

impl SqliteFolder {
    pub(crate) fn options(&self) -> StoreOptions {
        StoreOptions::new(&self.folder.path().join("db/ichor.db"), &self.folder.path().join("blobs"))
    }
}

impl Backend for SqliteFolder {
    fn new() -> Self {
        // What is tested here does not depend on the medium; in memory the fsyncs are free.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self { folder: folder.unwrap() }
    }

    async fn open(&self) -> Store {
        Store::open(&self.options()).await.unwrap()
    }

    fn blobs(&self) -> PathBuf {
        self.folder.path().join("blobs")
    }
}

/// A moment of the tests' clock, in seconds.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

/// Quiet period of everything recorded here.
pub(crate) const QUIET: Duration = Duration::from_secs(10);

/// A moment at which everything that arrived at `seconds` is quiet.
pub(crate) fn quiet_after(seconds: i64) -> Timestamp {
    at(seconds).after(QUIET)
}

pub(crate) fn uid(parts: &[&str]) -> Uid {
    Uid::derive(parts.iter().copied())
}

pub(crate) fn study_uid(study: &str) -> Uid {
    uid(&["study", study])
}

pub(crate) fn slice_uid(study: &str, number: u32) -> Uid {
    uid(&["slice", study, &number.to_string()])
}

pub(crate) fn key(study: &str) -> StudyKey {
    StudyKey::Uid(study_uid(study))
}

pub(crate) async fn stage(store: &Store, content: &[u8]) -> StagedBlob {
    begin(store, content).await.unwrap().finish().await.unwrap()
}

/// Something made here: it has no header that its digest leaves out.
pub(crate) async fn stage_made(store: &Store, content: &[u8]) -> StagedBlob {
    let mut blob = store.blobs().begin().await.unwrap();
    blob.write(content).await.unwrap();
    blob.finish().await.unwrap()
}

async fn begin(store: &Store, content: &[u8]) -> Result<IncomingBlob, StoreError> {
    let mut blob = store.blobs().begin_with_header(b"header").await?;
    blob.write(content).await?;
    Ok(blob)
}

/// An instance about to be recorded; the fields that tests vary.
pub(crate) struct Slice<'a> {
    pub(crate) study: &'a str,
    pub(crate) number: u32,
    /// Another SOP Instance UID than the number's.
    pub(crate) sop_instance: Option<Uid>,
    pub(crate) content: &'a [u8],
    pub(crate) association: Option<AssociationId>,
    pub(crate) own: bool,
    pub(crate) room: u32,
    pub(crate) patient: Option<&'a str>,
    pub(crate) accession: Option<&'a str>,
    pub(crate) date: Option<&'a str>,
    pub(crate) source: &'a str,
}

impl<'a> Slice<'a> {
    pub(crate) fn of(study: &'a str, number: u32) -> Self {
        Self {
            study,
            number,
            sop_instance: None,
            content: b"pixels",
            association: None,
            own: false,
            room: 5_000,
            patient: Some("PATIENT-7"),
            accession: None,
            date: Some("20260301"),
            source: "SCANNER",
        }
    }

    pub(crate) async fn try_record(self, store: &Store, now: Timestamp) -> Result<Recorded, StoreError> {
        let arrived = store.blobs().finish_in_place(begin(store, self.content).await?).await?;
        let text = |value: Option<&str>| value.map(str::to_owned);
        let instance = NewInstance {
            sop_instance: self.sop_instance.unwrap_or_else(|| slice_uid(self.study, self.number)),
            sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            study: StudyAttributes {
                study_instance: study_uid(self.study),
                patient_id: text(self.patient),
                patient_name: Some("SECRET^NAME".to_owned()),
                accession_number: text(self.accession),
                study_date: text(self.date),
                description: Some("HEAD".to_owned()),
            },
            series: SeriesAttributes {
                series_instance: uid(&["series", self.study]),
                modality: Some("CT".to_owned()),
                description: None,
                number: Some(2),
            },
            transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
            association: self.association,
            source_ae: Some(AeTitle::parse(self.source).unwrap()),
            arrived,
            quiet_period_ms: i64::try_from(QUIET.as_millis()).unwrap(),
            own: self.own,
            max_study_instances: self.room,
        };
        store.record_instance(instance, now).await
    }

    pub(crate) async fn record(self, store: &Store, now: Timestamp) -> Recorded {
        self.try_record(store, now).await.unwrap()
    }
}

pub(crate) async fn open_association(store: &Store, now: Timestamp) -> AssociationId {
    let association = NewAssociation {
        peer_address: "192.0.2.7:4242".to_owned(),
        calling_ae: "SCANNER".to_owned(),
        called_ae: "ICHOR".to_owned(),
    };
    store.association_opened(&association, now).await.unwrap()
}

/// Records `slices` slices of a study at a moment and closes it.
pub(crate) async fn closed_study(store: &Store, study: &str, slices: u32, seconds: i64) {
    for number in 0..slices {
        assert!(matches!(Slice::of(study, number).record(store, at(seconds)).await, Recorded::New { .. }));
    }
    let closed = store.close_quiet_studies(quiet_after(seconds)).await.unwrap();
    assert!(closed.iter().any(|closed| closed.study_instance == study_uid(study)), "{closed:?}");
}

pub(crate) fn finding(positive: bool) -> Finding {
    Finding {
        verdict: if positive { Call::Positive } else { Call::Negative },
        probability: if positive { 0.97 } else { 0.03 },
        volume_ml: if positive { 23.5 } else { 0.0 },
        volume_sd_ml: positive.then_some(4.5),
        positive_slices: if positive { 12 } else { 0 },
        slices: 32,
        lesions_ml: if positive { vec![20.0, 3.5] } else { Vec::new() },
    }
}

/// What a gate may have said.
pub(crate) fn rules() -> Vec<RuleOutcome> {
    let rule = |rule: &str, verdict, text: &str| RuleOutcome {
        rule: rule.to_owned(),
        attributes: vec!["ImageOrientationPatient".to_owned(), "PixelData".to_owned()],
        verdict,
        text: text.to_owned(),
    };
    vec![rule("axial", RuleVerdict::Passed, "18.5 degrees off axial"), rule("adult", RuleVerdict::NotAsked, "")]
}

pub(crate) fn object_uid(claim: &AnalysisClaim) -> Uid {
    uid(&["seg", claim.study.study_instance.as_str(), &claim.version.to_string()])
}

/// An outcome with one object for each destination's sake.
pub(crate) async fn outcome(
    store: &Store,
    claim: &AnalysisClaim,
    positive: bool,
    destinations: &[&str],
) -> AnalysisOutcome {
    AnalysisOutcome {
        verdict: Verdict::Analysed(finding(positive)),
        model: Some("ichor-demo@1.0.0+0123456789ab".parse().unwrap()),
        notice: Some("made for tests".to_owned()),
        series: vec![SeriesOutcomeRow {
            series_instance: claim.instances[0].series_instance.clone(),
            chosen: true,
            reasons: Vec::new(),
            rules: rules(),
        }],
        slices: (claim.instances.iter().zip(0u16..))
            .map(|(instance, number)| SliceScore {
                sop_instance: instance.sop_instance.clone(),
                frame: None,
                probability: f32::from(number) / 4096.0,
                masked_pixels: u32::from(number),
                map: None,
            })
            .collect(),
        objects: vec![NewObject {
            kind: "seg".to_owned(),
            sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.66.4").unwrap(),
            sop_instance: object_uid(claim),
            series_instance: uid(&["seg series", claim.study.study_instance.as_str()]),
            transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
            destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
            staged: stage(store, b"segmentation").await,
        }],
        maps: None,
        slices_known: 0,
        timings: vec![("classify".to_owned(), 1_200), ("mask".to_owned(), 800)],
        routed: None,
    }
}

pub(crate) fn not_analysed() -> AnalysisOutcome {
    AnalysisOutcome {
        verdict: Verdict::NotAnalysed(Reason::new("single-slice", "the study has one slice")),
        model: None,
        notice: None,
        series: Vec::new(),
        slices: Vec::new(),
        objects: Vec::new(),
        maps: None,
        slices_known: 0,
        timings: Vec::new(),
        routed: None,
    }
}

/// Claims, and completes with an outcome that has one object.
pub(crate) async fn analyse(store: &Store, positive: bool, destinations: &[&str], now: Timestamp) -> AnalysisClaim {
    let claim = store.claim_analysis("worker", now).await.unwrap().expect("a queued analysis");
    let outcome = outcome(store, &claim, positive, destinations).await;
    let copy = copy(&claim);
    store.complete_analysis(claim, outcome, now).await.unwrap();
    copy
}

/// Another claim with the same content, as only a test would make it.
pub(crate) fn copy(claim: &AnalysisClaim) -> AnalysisClaim {
    AnalysisClaim {
        id: claim.id,
        study: claim.study.clone(),
        source_ae: claim.source_ae.clone(),
        version: claim.version,
        attempts: claim.attempts,
        accepted_at: claim.accepted_at,
        instances: claim.instances.clone(),
        wanted_model: claim.wanted_model.clone(),
        looked_up_accession: claim.looked_up_accession.clone(),
    }
}

pub(crate) async fn detail(store: &Store, study: &str) -> StudyDetail {
    store.study(&key(study)).await.unwrap()
}

pub(crate) async fn kinds(store: &Store, study: &str) -> Vec<String> {
    store.timeline(&study_uid(study)).await.unwrap().into_iter().map(|event| event.kind).collect()
}

/// Files with bytes of instances or objects: all but marks and locks.
pub(crate) fn files(blobs: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(blobs, &mut found);
    found.retain(|path| !path.starts_with(blobs.join("shelves")));
    found
}
