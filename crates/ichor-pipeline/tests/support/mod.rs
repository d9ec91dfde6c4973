//! A store, a small study on disk, and a model that says what a test tells it to.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses some of it; a test ends by panicking")]

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ichor_core::{Calibration, ModelId, Precision, Priority, SliceReading, StudyRule, StudyStatus};
use ichor_ct::gate::GateOptions;
use ichor_ct::input::InputPreset;
use ichor_decode::{Decoder, DecoderOptions};
use ichor_dimse::part10::read_header;
use ichor_dimse::scp::{
    AssociationEnd, AssociationOutcome, InstanceSink, PeerInfo, PeerRule, StorageHandler, StoreFailure, StoreRequest,
};
use ichor_phantom::{PhantomOptions, WrittenStudy, write_study};
use ichor_pipeline::analyse::{
    AnalyseOptions, DestinationObjects, ModelError, ModelTraits, ObjectKind, ReportOn, SliceModel,
};
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::ingest::{CommitmentOptions, DatasetLimits, Ingest, IngestOptions, Source};
use ichor_pipeline::{analyse, assemble, now};
use ichor_result::SegmentationForm;
use ichor_store::{Store, StoreOptions, StudyDetail, StudyKey};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What the model says.
#[derive(Clone, Copy)]
pub(crate) enum Says {
    /// This probability of every slice, and the whole brain as its map.
    Probability(f32),
    /// An error, so many times; then this probability of every slice.
    Later(usize, f32),
    /// Probabilities that are none.
    Nonsense,
    /// An error.
    Error,
    /// Nothing, ever.
    Nothing,
}

pub(crate) struct Scripted {
    pub(crate) says: Says,
    pub(crate) traits: ModelTraits,
    /// How often it was asked for probabilities.
    pub(crate) asked: AtomicUsize,
    /// And for maps.
    pub(crate) mapped: AtomicUsize,
}

impl Scripted {
    pub(crate) fn new(says: Says) -> Arc<Self> {
        let traits = ModelTraits {
            id: ModelId::new("scripted", "1", &"ab".repeat(32)).unwrap(),
            preset: InputPreset::PhysioNet,
            size: 32,
            batch: 5,
            batch_on_arrival: 2,
            slice_threshold: 0.5,
            reading: SliceReading { reach_mm: 4.0, ..SliceReading::default() },
            study_calibration: Calibration::NONE,
            volume: None,
            refine: None,
            study_rule: StudyRule::Neighbours { slices: 2, threshold: 0.5 },
            map: "the brain".to_owned(),
            precision: Precision::F32,
            mask_threshold: 0.5,
            priority: Priority { nice: 10, idle_cores_only: true },
            notice: Some("for tests".to_owned()),
        };
        Arc::new(Self { says, traits, asked: AtomicUsize::new(0), mapped: AtomicUsize::new(0) })
    }
}

impl Scripted {
    /// The same under another name.
    pub(crate) fn named(name: &str, says: Says) -> Arc<Self> {
        let mut model = Self::new(says);
        Arc::get_mut(&mut model).unwrap().traits.id = ModelId::new(name, "1", &"cd".repeat(32)).unwrap();
        model
    }

    pub(crate) fn id(&self) -> ModelId {
        self.traits.id.clone()
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
            Says::Later(after, probability) => match self.asked.load(Ordering::SeqCst) {
                asked if asked <= after => Err(ModelError("not yet".to_owned())),
                _ => Ok(vec![probability; slices]),
            },
            Says::Nonsense => Ok(vec![f32::NAN; slices]),
            Says::Error => Err(ModelError("out of order".to_owned())),
            Says::Nothing => pending().await,
        }
    }

    async fn maps(&self, _: Vec<f32>, brain_masks: Vec<u8>, slices: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        assert_eq!(brain_masks.len(), slices * 32 * 32);
        self.mapped.fetch_add(1, Ordering::SeqCst);
        Ok(brain_masks.chunks(32 * 32).map(|brain| brain.iter().map(|b| f32::from(*b)).collect()).collect())
    }
}

pub(crate) struct House {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    pub(crate) study: WrittenStudy,
}

pub(crate) const QUIET: Duration = Duration::from_millis(50);

impl House {
    /// A store that has taken over, and a small study on disk.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = PhantomOptions::default().with_matrix(64).with_slices(12);
        let study = write_study(5, &options, &folder.path().join("study")).unwrap();
        let store = open(folder.path()).await;
        Self { folder, store, study }
    }

    pub(crate) fn ingest(&self) -> Ingest {
        let peer = PeerRule { ae_title: None, networks: Vec::new(), user: None };
        let sources = vec![Source { peer, quiet_period: QUIET }];
        let limits = DatasetLimits::default();
        let commitment = CommitmentOptions {
            wait: Duration::ZERO,
            backoff: Backoff { first: Duration::ZERO, longest: Duration::ZERO, attempts: 3 },
        };
        let options = IngestOptions { sources, min_free_bytes: 0, limits, max_study_instances: 12, commitment };
        Ingest::new(self.store.clone(), options)
    }

    /// Sends the study in one association.
    pub(crate) async fn receive(&self) {
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
    pub(crate) async fn work(&self, says: Says, until: &[StudyStatus]) -> (StudyDetail, Arc<Scripted>) {
        let model = Scripted::new(says);
        let detail = self.work_with(Arc::clone(&model), until).await;
        (detail, model)
    }

    pub(crate) async fn work_with(&self, model: Arc<Scripted>, until: &[StudyStatus]) -> StudyDetail {
        self.work_for(model, analyse_options(), until).await
    }

    pub(crate) async fn work_for(
        &self,
        model: Arc<Scripted>,
        options: AnalyseOptions,
        until: &[StudyStatus],
    ) -> StudyDetail {
        let stop = CancellationToken::new();
        let stages = [
            tokio::spawn(assemble::run(self.store.clone(), stop.clone())),
            tokio::spawn(analyse::run(self.store.clone(), Arc::clone(&model), live(options), stop.clone())),
        ];
        let reached = async {
            loop {
                let detail = self.study().await;
                if until.contains(&detail.summary.status)
                    && (!matches!(model.says, Says::Nothing) || was_asked(&model, &detail))
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
        detail
    }

    pub(crate) async fn study(&self) -> StudyDetail {
        self.store.study(&StudyKey::Uid(self.study.study_instance.clone())).await.unwrap()
    }

    /// Closes the store and opens it again, as the next process does.
    pub(crate) async fn restart(&mut self) {
        self.store.close().await;
        self.store = open(self.folder.path()).await;
    }
}

/// Reads uncompressed slices, and has no program for others.
pub(crate) fn no_decoder() -> Decoder {
    Decoder::new(DecoderOptions::new("/nonexistent".into())).unwrap()
}

/// Lets a study of twelve slices through: the whole head in steps of 12.5 mm.
pub(crate) fn gate() -> GateOptions {
    GateOptions { max_spacing_mm: 15.0, ..GateOptions::default() }
}

pub(crate) fn analyse_options() -> AnalyseOptions {
    AnalyseOptions {
        gate: gate(),
        decoder: no_decoder(),
        backoff: Backoff { first: Duration::from_millis(5), longest: Duration::from_millis(20), attempts: 3 },
        min_lesion_ml: 0.1,
        keep_maps: true,
        destinations: ["one", "two"].map(|name| gets(name, SegmentationForm::default())).to_vec(),
        order: ichor_pipeline::order::OrderOptions::default(),
        rules: Vec::new(),
        reading: None,
    }
}

/// A destination that gets a Segmentation of this form.
pub(crate) fn gets(name: &str, form: SegmentationForm) -> DestinationObjects {
    let report_on = ReportOn { negative: true, not_analysed: false };
    DestinationObjects { name: name.to_owned(), objects: vec![ObjectKind::Segmentation(form)], report_on }
}

fn was_asked(model: &Scripted, detail: &StudyDetail) -> bool {
    model.asked.load(Ordering::SeqCst) > 0 || detail.summary.status == StudyStatus::Failed
}

pub(crate) async fn open(folder: &Path) -> Store {
    let store = Store::open(&StoreOptions::new(&folder.join("ichor.db"), &folder.join("blobs"))).await.unwrap();
    store.recover(now()).await.unwrap();
    store
}

pub(crate) fn peer() -> PeerInfo {
    PeerInfo {
        calling_ae: "SCANNER".to_owned(),
        called_ae: "ICHOR".to_owned(),
        ..PeerInfo::stranger("127.0.0.1:4000".parse().unwrap())
    }
}

/// Hands a file's data set over as an association does, in fragments; `change` may spoil what is announced.
pub(crate) async fn store_file(
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

/// Settings that nobody replaces.
pub(crate) fn live<T>(options: T) -> ichor_pipeline::Live<T> {
    // A receiver whose sender is gone keeps the last value.
    tokio::sync::watch::channel(Arc::new(options)).1
}
