//! Ingest, assemble and analyse over a real store, with a model that says what a test tells it to.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dicom_dictionary_std::tags;
use ichor_core::{ModelId, StudyStatus};
use ichor_ct::input::InputPreset;
use ichor_dimse::part10::read_header;
use ichor_dimse::scp::{
    AssociationEnd, AssociationOutcome, InstanceSink, PeerInfo, PeerRule, StorageHandler, StoreFailure, StoreRequest,
};
use ichor_dimse::status::StoreStatus;
use ichor_phantom::{PhantomOptions, WrittenStudy, write_study};
use ichor_pipeline::analyse::{AnalyseOptions, ModelError, ModelTraits, SliceModel};
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::ingest::{CommitmentOptions, DatasetLimits, Ingest, IngestOptions, Source};
use ichor_pipeline::{analyse, assemble, now};
use ichor_store::{Store, StoreOptions, StudyDetail, StudyKey};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What the model says.
#[derive(Clone, Copy)]
enum Says {
    /// This probability of every slice, and the whole brain as its map.
    Probability(f32),
    /// Probabilities that are none.
    Nonsense,
    /// An error.
    Error,
    /// Nothing, ever.
    Nothing,
}

struct Scripted {
    says: Says,
    traits: ModelTraits,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(says: Says) -> Arc<Self> {
        let traits = ModelTraits {
            id: ModelId::new("scripted", "1", &"ab".repeat(32)).unwrap(),
            preset: InputPreset::PhysioNet,
            size: 32,
            batch: 5,
            slice_threshold: 0.5,
            slice_reach_mm: 4.0,
            min_positive_slices: 2,
            map: "the brain".to_owned(),
            mask_threshold: 0.5,
            notice: Some("for tests".to_owned()),
        };
        Arc::new(Self { says, traits, asked: AtomicUsize::new(0) })
    }
}

impl SliceModel for Scripted {
    fn traits(&self) -> &ModelTraits {
        &self.traits
    }

    async fn classify(&self, inputs: Vec<f32>, slices: usize) -> Result<Vec<f32>, ModelError> {
        assert_eq!(inputs.len(), slices * 3 * 32 * 32);
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.says {
            Says::Probability(probability) => Ok(vec![probability; slices]),
            Says::Nonsense => Ok(vec![f32::NAN; slices]),
            Says::Error => Err(ModelError("out of order".to_owned())),
            Says::Nothing => pending().await,
        }
    }

    async fn maps(&self, _: Vec<f32>, brain_masks: Vec<u8>, slices: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        assert_eq!(brain_masks.len(), slices * 32 * 32);
        Ok(brain_masks.chunks(32 * 32).map(|brain| brain.iter().map(|b| f32::from(*b)).collect()).collect())
    }
}

struct House {
    folder: TempDir,
    store: Store,
    study: WrittenStudy,
}

const QUIET: Duration = Duration::from_millis(50);

impl House {
    /// A store that has taken over, and a small study on disk.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = PhantomOptions::default().with_matrix(64).with_slices(12);
        let study = write_study(5, &options, &folder.path().join("study")).unwrap();
        let store = open(folder.path()).await;
        Self { folder, store, study }
    }

    fn ingest(&self) -> Ingest {
        let peer = PeerRule { ae_title: None, networks: Vec::new() };
        let sources = vec![Source { peer, quiet_period: QUIET }];
        Ingest::new(
            self.store.clone(),
            IngestOptions {
                sources,
                min_free_bytes: 0,
                limits: DatasetLimits::default(),
                commitment: CommitmentOptions { wait: Duration::ZERO, retry_after: Duration::ZERO },
            },
        )
    }

    /// Sends the study in one association.
    async fn receive(&self) {
        let ingest = self.ingest();
        let association = ingest.association_opened(&peer()).await.unwrap();
        for file in &self.study.files {
            store_file(&ingest, &association, file, |_| {}).await.unwrap();
        }
        let instances = self.study.files.len() as u64;
        let end = AssociationEnd { outcome: AssociationOutcome::Released, instances, failures: 0, bytes: 1 };
        ingest.association_closed(association, end).await;
    }

    /// Runs assemble and analyse until the study is in one of the given states, and stops them.
    async fn work(&self, says: Says, until: &[StudyStatus]) -> (StudyDetail, Arc<Scripted>) {
        let (model, stop) = (Scripted::new(says), CancellationToken::new());
        let options = AnalyseOptions {
            gate: ichor_ct::series::GateOptions::default(),
            backoff: Backoff { first: Duration::from_millis(5), longest: Duration::from_millis(20), attempts: 3 },
            min_lesion_ml: 0.1,
            destinations: vec!["one".to_owned(), "two".to_owned()],
        };
        let stages = [
            tokio::spawn(assemble::run(self.store.clone(), stop.clone())),
            tokio::spawn(analyse::run(self.store.clone(), Arc::clone(&model), options, stop.clone())),
        ];
        let reached = async {
            loop {
                let detail = self.study().await;
                if until.contains(&detail.summary.status)
                    && (!matches!(says, Says::Nothing) || was_asked(&model, &detail))
                {
                    break detail;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let detail = tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap();
        stop.cancel();
        for stage in stages {
            stage.await.unwrap();
        }
        (detail, model)
    }

    async fn study(&self) -> StudyDetail {
        self.store.study(&StudyKey::Uid(self.study.study_instance.clone())).await.unwrap()
    }

    /// Closes the store and opens it again, as the next process does.
    async fn restart(&mut self) {
        self.store.close().await;
        self.store = open(self.folder.path()).await;
    }
}

fn was_asked(model: &Scripted, detail: &StudyDetail) -> bool {
    model.asked.load(Ordering::SeqCst) > 0 || detail.summary.status == StudyStatus::Failed
}

async fn open(folder: &Path) -> Store {
    let store = Store::open(&StoreOptions::new(&folder.join("ichor.db"), &folder.join("blobs"))).await.unwrap();
    store.recover(now()).await.unwrap();
    store
}

fn peer() -> PeerInfo {
    PeerInfo {
        address: "127.0.0.1:4000".parse().unwrap(),
        calling_ae: "SCANNER".to_owned(),
        called_ae: "ICHOR".to_owned(),
        implementation_class: None,
        implementation_version: None,
    }
}

/// Hands a file's data set over as an association does, in fragments; `change` may spoil what is announced.
async fn store_file(
    ingest: &Ingest,
    association: &<Ingest as StorageHandler>::Association,
    file: &Path,
    change: impl Fn(&mut StoreRequest),
) -> Result<(), StoreFailure> {
    let header = read_header(file).unwrap();
    let mut request = StoreRequest {
        sop_class: header.sop_class,
        sop_instance: header.sop_instance,
        transfer_syntax: header.transfer_syntax,
        message_id: 1,
    };
    change(&mut request);
    let bytes = std::fs::read(file).unwrap();
    let mut sink = ingest.begin(association, &request).await?;
    for fragment in bytes[usize::try_from(header.dataset_offset).unwrap()..].chunks(4000) {
        sink.write(fragment).await?;
    }
    sink.commit().await.map(|_| ())
}

#[tokio::test]
async fn positive_study_gets_one_object_for_each_destination() {
    let house = House::new().await;
    house.receive().await;
    let (detail, model) = house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 3, "12 slices in batches of 5");
    let finding = detail.finding.unwrap();
    assert!(detail.summary.positive.unwrap() && (finding.probability - 0.9).abs() < 1e-6, "{finding:?}");
    assert!(finding.volume_ml > 100.0, "the whole brain was marked: {finding:?}");
    assert_eq!(detail.slices.len(), 12);
    let [object] = detail.objects.as_slice() else { panic!("{:?}", detail.objects) };
    let mut destinations: Vec<&str> = detail.deliveries.iter().map(|d| d.destination.as_str()).collect();
    destinations.sort_unstable();
    assert_eq!(destinations, ["one", "two"]);

    // Analysed again, it is the same object, byte for byte, and is sent no second time.
    let claim = house.store.claim_delivery("one", now()).await.unwrap().unwrap();
    assert_eq!(&claim.object.sop_instance, &object.sop_instance);
    let bytes = std::fs::read(&claim.object.path).unwrap();
    house.store.retry(&house.study.study_instance, now()).await.unwrap();
    let (again, model) = house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;
    assert!(model.asked.load(Ordering::SeqCst) > 0, "it was analysed again");
    assert_eq!(again.objects.len(), 1);
    assert_eq!(std::fs::read(&claim.object.path).unwrap(), bytes);
    assert_eq!(again.deliveries.iter().filter(|d| d.destination == "one").count(), 1);
    let file = dicom_object::open_file(&claim.object.path).unwrap();
    let label = file.element(tags::SERIES_DESCRIPTION).unwrap().to_str().unwrap().into_owned();
    let whole = format!("{label} {:?}", file.element_opt(tags::CONTENT_DESCRIPTION).unwrap());
    assert!(whole.contains("for tests"), "the notice stands in the object: {whole}");
}

#[tokio::test]
async fn work_whose_claim_was_lost_is_queued_again() {
    let house = House::new().await;
    house.receive().await;
    // Claimed, and the outcome could not be recorded: the claim is gone, the row says "running".
    let claim = loop {
        house.store.close_quiet_studies(now()).await.unwrap();
        if let Some(claim) = house.store.claim_analysis("lost", now()).await.unwrap() {
            break claim;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    drop(claim);
    assert!(house.store.claim_analysis("next", now()).await.unwrap().is_none());
    assert_eq!(house.store.requeue_analyses(now()).await.unwrap(), 1);
    house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;

    for destination in ["one", "two"] {
        drop(house.store.claim_delivery(destination, now()).await.unwrap().unwrap());
        assert!(house.store.claim_delivery(destination, now()).await.unwrap().is_none());
    }
    assert_eq!(house.store.requeue_deliveries("one", now()).await.unwrap(), 1);
    assert_eq!(house.store.claim_delivery("one", now()).await.unwrap().unwrap().attempts, 2);
    assert!(house.store.claim_delivery("two", now()).await.unwrap().is_none(), "the other queue is another's");
}

#[tokio::test]
async fn same_data_set_from_another_peer_is_the_same_instance() {
    let house = House::new().await;
    house.receive().await;
    let ingest = house.ingest();
    let router = PeerInfo { calling_ae: "ROUTER".to_owned(), ..peer() };
    let association = ingest.association_opened(&router).await.unwrap();
    store_file(&ingest, &association, &house.study.files[3], |_| {}).await.unwrap();
    let detail = house.study().await;
    assert_eq!(detail.summary.instances, 12);
    let blobs = walk(&house.folder.path().join("blobs"));
    assert_eq!(blobs.len(), 12, "the same bytes are kept once");
}

#[tokio::test]
async fn negative_study_gets_none() {
    let house = House::new().await;
    house.receive().await;
    let (detail, _) = house.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
    assert_eq!(detail.summary.positive, Some(false));
    assert!(detail.objects.is_empty() && detail.deliveries.is_empty());
    assert!(detail.finding.unwrap().lesions_ml.is_empty());
}

#[tokio::test]
async fn failing_model_is_asked_as_often_as_allowed() {
    for says in [Says::Error, Says::Nonsense] {
        let house = House::new().await;
        house.receive().await;
        let (detail, model) = house.work(says, &[StudyStatus::Failed]).await;
        assert_eq!(model.asked.load(Ordering::SeqCst), 3);
        let reason = detail.summary.reason.unwrap();
        assert_eq!(reason.code.as_str(), "model-failed", "{reason}");
        // Asked for by a person, it is taken up again.
        house.store.retry(&house.study.study_instance, now()).await.unwrap();
        let (detail, _) = house.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
        assert_eq!(detail.summary.positive, Some(false));
    }
}

#[tokio::test]
async fn study_that_ends_the_process_is_given_up_at_last() {
    let mut house = House::new().await;
    house.receive().await;
    for attempt in 1..=3 {
        let (detail, model) = house.work(Says::Nothing, &[StudyStatus::Analysing]).await;
        assert_eq!(model.asked.load(Ordering::SeqCst), 1, "attempt {attempt}: {:?}", detail.summary);
        house.restart().await;
    }
    let (detail, model) = house.work(Says::Nothing, &[StudyStatus::Failed]).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 0);
    let reason = detail.summary.reason.unwrap();
    assert_eq!(reason.code.as_str(), "analysis-interrupted", "{reason}");
}

#[tokio::test]
async fn data_set_must_be_what_the_command_says() {
    let house = House::new().await;
    let ingest = house.ingest();
    let association = ingest.association_opened(&peer()).await.unwrap();
    let file = &house.study.files[0];
    let mr =
        |request: &mut StoreRequest| request.sop_class = ichor_core::Uid::parse("1.2.840.10008.5.1.4.1.1.4").unwrap();
    let other = |request: &mut StoreRequest| request.sop_instance = ichor_core::Uid::parse("2.25.77").unwrap();
    for failure in [
        store_file(&ingest, &association, file, mr).await.unwrap_err(),
        store_file(&ingest, &association, file, other).await.unwrap_err(),
    ] {
        assert_eq!(failure.status, StoreStatus::DataSetDoesNotMatch, "{failure:?}");
    }
    // A sink that is dropped in the middle leaves nothing.
    let header = read_header(file).unwrap();
    let request = StoreRequest {
        sop_class: header.sop_class,
        sop_instance: header.sop_instance,
        transfer_syntax: header.transfer_syntax,
        message_id: 2,
    };
    let mut sink = ingest.begin(&association, &request).await.unwrap();
    sink.write(&[0; 1000]).await.unwrap();
    drop(sink);
    let blobs = walk(&house.folder.path().join("blobs"));
    assert!(blobs.is_empty(), "{blobs:?}");
    assert!(house.store.study(&StudyKey::Uid(house.study.study_instance.clone())).await.is_err());
    // And the association lives on.
    store_file(&ingest, &association, file, |_| {}).await.unwrap();
    assert_eq!(house.study().await.summary.instances, 1);
    assert_eq!(house.study().await.summary.source_ae.as_deref(), Some("SCANNER"));
}

/// Files with anything in them: the store marks its folders with empty ones.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] });
    files.filter(|path| path.metadata().is_ok_and(|data| data.len() > 0)).collect()
}
