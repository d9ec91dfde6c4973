//! Another model becomes the active one without a restart, and others look on.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ichor_core::{ActivationStatus, ModelId, OfferState, ShadowStatus, StudyStatus};
use ichor_dimse::scp::StorageHandler;
use ichor_pipeline::analyse::{ModelError, ModelTraits, SliceModel};
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::models::{Loader, Roster};
use ichor_pipeline::shadow::ShadowOptions;
use ichor_pipeline::traffic::Traffic;
use ichor_pipeline::triage::{AlertOptions, TriageOptions};
use ichor_pipeline::{analyse, assemble, models, now, shadow, triage};
use ichor_store::{NewOffer, ReanalysisWish, RetryOutcome, ShadowResult, StudyDetail};
use support::{House, Says, Scripted, analyse_options, live, peer, store_file};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A model that may be held up, or crash.
struct Gated {
    scripted: Arc<Scripted>,
    gate: Semaphore,
    crashes: AtomicBool,
}

impl Gated {
    fn open(scripted: Arc<Scripted>) -> Arc<Self> {
        Arc::new(Self { scripted, gate: Semaphore::new(1_000), crashes: AtomicBool::new(false) })
    }

    fn shut(scripted: Arc<Scripted>) -> Arc<Self> {
        Arc::new(Self { scripted, gate: Semaphore::new(0), crashes: AtomicBool::new(false) })
    }

    fn asked(&self) -> usize {
        self.scripted.asked.load(Ordering::SeqCst)
    }
}

impl SliceModel for Gated {
    fn traits(&self) -> &ModelTraits {
        &self.scripted.traits
    }

    async fn classify(&self, inputs: Vec<f32>, slices: usize) -> Result<Vec<f32>, ModelError> {
        let said = self.scripted.classify(inputs, slices).await;
        self.gate.acquire().await.unwrap().forget();
        assert!(!self.crashes.load(Ordering::SeqCst), "the model crashes");
        said
    }

    async fn maps(&self, inputs: Vec<f32>, masks: Vec<u8>, slices: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        self.scripted.maps(inputs, masks, slices).await
    }
}

/// What can be loaded.
fn loader(models: &[&Arc<Gated>]) -> Loader<Gated> {
    let all: HashMap<ModelId, Arc<Gated>> =
        models.iter().map(|model| (model.scripted.id(), Arc::clone(model))).collect();
    Arc::new(move |id| {
        let found = all.get(&id).cloned().ok_or_else(|| "the self-test failed".to_owned());
        Box::pin(async move { found })
    })
}

/// Stages at work.
struct Stages {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Stages {
    fn start(house: &House, roster: &Roster<Gated>) -> Self {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(assemble::run(house.store.clone(), stop.clone()));
        tasks.spawn(models::run(house.store.clone(), roster.clone(), stop.clone()));
        tasks.spawn(analyse::run(house.store.clone(), roster.clone(), live(analyse_options()), stop.clone()));
        Self { stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), reached).await.is_ok(), "never: {what}");
}

async fn offer(house: &House, models: &[ModelId]) {
    let offer = |model: &ModelId| NewOffer {
        weights: format!("/{model}"),
        model: Some(model.clone()),
        state: OfferState::Waiting,
        words: String::new(),
    };
    house.store.offer_models(&models.iter().map(offer).collect::<Vec<_>>(), now()).await.unwrap();
}

/// Waits until the request is settled; how.
async fn settled(house: &House, id: i64) -> ActivationStatus {
    let status = async || house.store.activation(id).await.unwrap().status;
    until("an answer", async || status().await != ActivationStatus::Requested).await;
    status().await
}

async fn analysed_as(house: &House, version: u32) -> StudyDetail {
    let is_there =
        |detail: &StudyDetail| detail.summary.version == version && detail.summary.status == StudyStatus::Analysed;
    until("an analysed version", async || is_there(&house.study().await)).await;
    house.study().await
}

#[tokio::test]
async fn analysis_under_way_ends_with_the_model_that_it_began_with() {
    let house = House::new().await;
    let old = Gated::shut(Scripted::new(Says::Probability(0.9)));
    let new = Gated::open(Scripted::named("other", Says::Probability(0.1)));
    let (old_id, new_id) = (old.scripted.id(), new.scripted.id());
    offer(&house, &[old_id.clone(), new_id.clone()]).await;
    house.store.adopt_model(&old_id, "test", now()).await.unwrap();
    let roster = Roster::new(Some(Arc::clone(&old)), loader(&[&old, &new]));
    house.receive().await;
    let stages = Stages::start(&house, &roster);
    until("the old model is at it", async || old.asked() > 0).await;
    let requested = house.store.request_model(&new_id, "anna", "better", now()).await.unwrap();
    assert_eq!(settled(&house, requested.id).await, ActivationStatus::Active);
    until("everybody sees it", async || roster.active().unwrap().scripted.id() == new_id).await;
    old.gate.add_permits(1_000);
    let first = analysed_as(&house, 1).await;
    assert_eq!((first.summary.model.as_ref(), first.summary.positive), (Some(&old_id), Some(true)));
    assert_eq!(new.asked(), 0);

    // The next one begins with the new model, and asks it about every slice.
    house.store.retry(&house.study.study_instance, now()).await.unwrap();
    until("a negative study", async || house.study().await.summary.positive == Some(false)).await;
    assert_eq!(house.study().await.summary.model, Some(new_id));
    assert_eq!(new.asked(), 3, "12 slices in batches of 5: what the old one said is not the new one's");

    // And back.
    let back = house.store.request_rollback("bert", "it was not", now()).await.unwrap();
    assert_eq!(settled(&house, back.id).await, ActivationStatus::Active);
    until("the old one is back", async || roster.active().unwrap().scripted.id() == old_id).await;
    stages.stop().await;
}

#[tokio::test]
async fn model_that_fails_its_test_is_refused_and_the_active_one_stays() {
    let house = House::new().await;
    let old = Gated::open(Scripted::new(Says::Probability(0.9)));
    let broken = Scripted::named("broken", Says::Error).id();
    offer(&house, &[old.scripted.id(), broken.clone()]).await;
    house.store.adopt_model(&old.scripted.id(), "test", now()).await.unwrap();
    let roster = Roster::new(Some(Arc::clone(&old)), loader(&[&old]));
    let stages = Stages::start(&house, &roster);
    let requested = house.store.request_model(&broken, "anna", "newer", now()).await.unwrap();
    assert_eq!(settled(&house, requested.id).await, ActivationStatus::Refused);
    let words = house.store.activation(requested.id).await.unwrap().words.unwrap();
    assert!(words.contains("self-test"), "{words}");
    house.receive().await;
    let detail = analysed_as(&house, 1).await;
    assert_eq!(detail.summary.model, Some(old.scripted.id()));
    stages.stop().await;
}

#[tokio::test]
async fn studies_wait_while_no_model_is_active() {
    let house = House::new().await;
    let other = Gated::open(Scripted::named("other", Says::Probability(0.9)));
    offer(&house, &[other.scripted.id()]).await;
    let gone = Scripted::new(Says::Error).id();
    house.store.adopt_model(&gone, "it was chosen once", now()).await.unwrap();
    let roster = Roster::new(None, loader(&[&other]));
    house.receive().await;
    let stages = Stages::start(&house, &roster);
    until("a queued study", async || house.study().await.summary.status == StudyStatus::Queued).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(house.study().await.summary.status, StudyStatus::Queued, "no other takes its place");
    let requested = house.store.request_model(&other.scripted.id(), "anna", "the other is gone", now()).await.unwrap();
    assert_eq!(settled(&house, requested.id).await, ActivationStatus::Active);
    assert_eq!(analysed_as(&house, 1).await.summary.model, Some(other.scripted.id()));
    stages.stop().await;
}

#[tokio::test]
async fn study_is_analysed_anew_by_the_model_that_somebody_asks_for() {
    let house = House::new().await;
    let active = Gated::open(Scripted::new(Says::Probability(0.9)));
    let other = Gated::open(Scripted::named("other", Says::Probability(0.95)));
    let gone = Scripted::named("gone", Says::Error).id();
    offer(&house, &[active.scripted.id(), other.scripted.id(), gone.clone()]).await;
    let roster = Roster::new(Some(Arc::clone(&active)), loader(&[&active, &other]));
    house.receive().await;
    let stages = Stages::start(&house, &roster);
    let first = analysed_as(&house, 1).await;
    let wish = |model| ReanalysisWish {
        study: house.study.study_instance.clone(),
        model,
        actor: "anna".to_owned(),
        why: "second opinion".to_owned(),
    };
    let queued = house.store.reanalyse(&wish(other.scripted.id()), now()).await.unwrap();
    assert_eq!(queued, RetryOutcome::Queued { version: 2, deliveries: 0 });
    let second = analysed_as(&house, 2).await;
    assert_eq!(second.summary.model, Some(other.scripted.id()));
    assert_eq!(second.objects.len(), 2 * first.objects.len(), "objects of a version of their own, sent as any other");
    assert_eq!(roster.active().unwrap().scripted.id(), active.scripted.id());

    // One that cannot be loaded fails the version, and says so.
    house.store.reanalyse(&wish(gone.clone()), now()).await.unwrap();
    until("a failure", async || house.study().await.summary.status == StudyStatus::Failed).await;
    let reason = house.study().await.summary.reason.unwrap();
    assert!(reason.code.as_str() == "model-failed" && reason.text.contains(gone.as_str()), "{reason}");
    stages.stop().await;
}

#[tokio::test]
async fn triage_does_not_mix_what_two_models_say() {
    let house = House::new().await;
    let old = Gated::open(Scripted::new(Says::Probability(0.9)));
    let new = Gated::open(Scripted::named("other", Says::Probability(0.9)));
    offer(&house, &[old.scripted.id(), new.scripted.id()]).await;
    house.store.adopt_model(&old.scripted.id(), "test", now()).await.unwrap();
    let roster = Roster::new(Some(Arc::clone(&old)), loader(&[&old, &new]));
    let stop = CancellationToken::new();
    let options = TriageOptions {
        gate: support::gate(),
        decoder: support::no_decoder(),
        alert: AlertOptions { slices: 3, threshold: None, max_gap_mm: 15.0 },
        traffic: Traffic::default(),
        share: 0.2,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(triage::run(house.store.clone(), roster.clone(), options, stop.clone()));
    tasks.spawn(models::run(house.store.clone(), roster.clone(), stop.clone()));
    let ingest = house.ingest();
    let association = ingest.association_opened(&peer()).await.unwrap();
    let waiting = async |fed: &str| house.store.unclassified_instances(fed, 0, 100).await.unwrap().len();
    for file in &house.study.files[..2] {
        store_file(&ingest, &association, file, |_| {}).await.unwrap();
    }
    let (old_fed, new_fed) = (old.traits().fed(), new.traits().fed());
    until("the old one has said something of two", async || waiting(&old_fed).await == 0).await;
    let requested = house.store.request_model(&new.scripted.id(), "anna", "better", now()).await.unwrap();
    assert_eq!(settled(&house, requested.id).await, ActivationStatus::Active);
    until("everybody sees it", async || roster.active().unwrap().scripted.id() == new.scripted.id()).await;
    let alerts = async || {
        let timeline = house.store.timeline(&house.study.study_instance).await.unwrap();
        timeline.into_iter().filter(|event| event.kind == "alert").collect::<Vec<_>>()
    };
    for (number, file) in house.study.files[2..6].iter().enumerate() {
        store_file(&ingest, &association, file, |_| {}).await.unwrap();
        until("the new one has said something of it", async || waiting(&new_fed).await <= 2).await;
        if number == 1 {
            assert!(alerts().await.is_empty(), "two of the old model's and two of the new one's are no three");
        }
    }
    until("an alert", async || !alerts().await.is_empty()).await;
    let alert = alerts().await.remove(0);
    assert_eq!(alert.detail["model"], new_fed);
    let slices = alert.detail["slices"].as_array().unwrap().len();
    assert!((3..=4).contains(&slices), "{slices}: none of the two that the old one has seen");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

fn shadow_options() -> ShadowOptions {
    ShadowOptions {
        gate: support::gate(),
        decoder: support::no_decoder(),
        min_lesion_ml: 0.1,
        backoff: Backoff { first: Duration::from_millis(5), longest: Duration::from_millis(20), attempts: 2 },
        max_queue: 10,
        quiet: Duration::ZERO,
        reload: Duration::from_secs(60),
    }
}

/// A shadow of these at work, which has begun before anything is analysed.
async fn shadows(house: &House, models: &[&Arc<Gated>], known: &[ModelId]) -> (CancellationToken, JoinSet<()>) {
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    house.store.queue_shadow_runs(known, 10, now()).await.unwrap();
    tasks.spawn(shadow::run(house.store.clone(), known.to_vec(), loader(models), shadow_options(), stop.clone()));
    (stop, tasks)
}

async fn results(house: &House) -> Vec<ShadowResult> {
    house.store.shadow_results(&house.study.study_instance).await.unwrap()
}

async fn result_of(house: &House, model: &ModelId, status: ShadowStatus) -> ShadowResult {
    let find = async || results(house).await.into_iter().find(|one| one.model == *model && one.status == status);
    until("a result of the shadow", async || find().await.is_some()).await;
    find().await.unwrap()
}

#[tokio::test]
async fn shadows_score_the_same_slices_and_nothing_follows() {
    let house = House::new().await;
    let active = Gated::open(Scripted::new(Says::Probability(0.9)));
    let agrees = Gated::open(Scripted::named("agrees", Says::Probability(0.8)));
    let differs = Gated::open(Scripted::named("differs", Says::Probability(0.1)));
    house.store.adopt_model(&active.scripted.id(), "test", now()).await.unwrap();
    let known = [active.scripted.id(), agrees.scripted.id(), differs.scripted.id()];
    let (stop, mut tasks) = shadows(&house, &[&agrees, &differs], &known).await;
    house.receive().await;
    let stages = Stages::start(&house, &Roster::from(Arc::clone(&active)));
    let detail = analysed_as(&house, 1).await;
    let before = (detail.clone(), house.store.queue_depths().await.unwrap());
    let same = result_of(&house, &agrees.scripted.id(), ShadowStatus::Done).await;
    let finding = same.finding.unwrap();
    assert_eq!((finding.slices, finding.is_positive()), (12, true));
    assert!((same.dice.unwrap() - 1.0).abs() < 1e-9, "both mask the whole brain");
    assert!((finding.volume_ml - detail.finding.unwrap().volume_ml).abs() < 1e-6);
    let other = result_of(&house, &differs.scripted.id(), ShadowStatus::Done).await;
    assert_eq!((other.finding.unwrap().is_positive(), other.dice), (false, None));
    assert_eq!(results(&house).await.len(), 2, "the active one does not shadow itself");
    assert_eq!((house.study().await, house.store.queue_depths().await.unwrap()), before);
    let report = house.store.agreement(&differs.scripted.id(), ichor_store::Timestamp::from_millis(0)).await.unwrap();
    assert_eq!((report.agreement.studies, report.agreement.only_active, report.disagreements.len()), (1, 1, 1));
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    stages.stop().await;
}

#[tokio::test]
async fn shadow_that_fails_or_crashes_is_given_up_and_the_study_is_not() {
    let house = House::new().await;
    let active = Gated::open(Scripted::new(Says::Probability(0.9)));
    let fails = Gated::open(Scripted::named("fails", Says::Error));
    let crashes = Gated::open(Scripted::named("crashes", Says::Probability(0.9)));
    crashes.crashes.store(true, Ordering::SeqCst);
    let absent = Scripted::named("absent", Says::Error).id();
    let known = [fails.scripted.id(), crashes.scripted.id(), absent.clone()];
    let (stop, mut tasks) = shadows(&house, &[&fails, &crashes], &known).await;
    house.receive().await;
    let stages = Stages::start(&house, &Roster::from(active));
    let detail = analysed_as(&house, 1).await;
    let failed = result_of(&house, &fails.scripted.id(), ShadowStatus::Failed).await;
    assert_eq!(failed.reason.unwrap().code.as_str(), "model-failed");
    assert_eq!(fails.asked(), 2, "twice, and no more");
    let crashed = result_of(&house, &crashes.scripted.id(), ShadowStatus::Failed).await;
    assert_eq!(crashed.reason.unwrap().code.as_str(), "shadow-interrupted");
    assert_eq!(crashes.asked(), 2);
    assert_eq!(result_of(&house, &absent, ShadowStatus::Queued).await.finding, None, "it waits for its weights");
    assert_eq!(house.study().await, detail);
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    stages.stop().await;
}

#[tokio::test]
async fn shadow_waits_while_anything_real_has_to_be_done() {
    let house = House::new().await;
    let active = Gated::open(Scripted::new(Says::Probability(0.9)));
    let looks_on = Gated::open(Scripted::named("looks-on", Says::Probability(0.9)));
    house.store.queue_shadow_runs(&[], 10, now()).await.unwrap();
    house.receive().await;
    let stages = Stages::start(&house, &Roster::from(Arc::clone(&active)));
    analysed_as(&house, 1).await;
    stages.stop().await;
    // Another analysis is due, and nobody is there to do it.
    house.store.queue_shadow_runs(&[looks_on.scripted.id()], 10, now()).await.unwrap();
    house.store.retry(&house.study.study_instance, now()).await.unwrap();
    let (stop, mut tasks) = shadows(&house, &[&looks_on], &[looks_on.scripted.id()]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(looks_on.asked(), 0, "real studies first");
    let stages = Stages::start(&house, &Roster::from(active));
    result_of(&house, &looks_on.scripted.id(), ShadowStatus::Done).await;
    assert!(looks_on.asked() > 0);
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    stages.stop().await;
}
