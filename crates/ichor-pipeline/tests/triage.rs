//! Slices classified as they arrive, and the alert that does not wait for the study.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ichor_core::StudyStatus;
use ichor_dimse::scp::StorageHandler;
use ichor_pipeline::traffic::Traffic;
use ichor_pipeline::triage::{AlertOptions, TriageOptions};
use ichor_pipeline::{now, triage};
use ichor_store::Event;
use support::{House, Says, Scripted, peer, store_file};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ALERT: AlertOptions = AlertOptions { slices: 3, threshold: Some(0.5), max_gap_mm: 15.0 };

/// The stage at work.
struct Triage {
    model: Arc<Scripted>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Triage {
    fn start(house: &House, says: Says) -> Self {
        let (model, stop) = (Scripted::new(says), CancellationToken::new());
        let options = TriageOptions {
            gate: support::gate(),
            decoder: support::no_decoder(),
            alert: ALERT,
            traffic: Traffic::default(),
            share: 0.2,
        };
        let task = tokio::spawn(triage::run(house.store.clone(), Arc::clone(&model), options, stop.clone()));
        Self { model, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// How many slices of the house's study wait to be classified.
    async fn waiting(&self, house: &House) -> usize {
        house.store.unclassified_instances(&self.model.traits.fed(), 0, 1_000).await.unwrap().len()
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

async fn events(house: &House, kind: &str) -> Vec<Event> {
    let timeline = house.store.timeline(&house.study.study_instance).await.unwrap();
    timeline.into_iter().filter(|event| event.kind == kind).collect()
}

#[tokio::test]
async fn alert_comes_before_the_study_is_complete() {
    let house = House::new().await;
    let triage = Triage::start(&house, Says::Probability(0.9));
    let ingest = house.ingest();
    let association = ingest.association_opened(&peer()).await.unwrap();
    for (number, file) in house.study.files.iter().enumerate() {
        store_file(&ingest, &association, file, |_| {}).await.unwrap();
        let sent = number + 1;
        until("each slice is classified on arrival", async || triage.waiting(&house).await == 0).await;
        if sent == 2 {
            assert!(events(&house, "alert").await.is_empty(), "two are not three");
        }
        if sent == 3 {
            until("the alert", async || !events(&house, "alert").await.is_empty()).await;
            assert_eq!(house.study().await.summary.status, StudyStatus::Receiving);
        }
    }
    let alerts = events(&house, "alert").await;
    let [alert] = alerts.as_slice() else { panic!("one alert a study: {alerts:?}") };
    assert_eq!(alert.detail["slices"].as_array().unwrap().len(), 3);
    assert!(alert.detail["latency_ms"].as_i64().unwrap() >= 0);
    assert_eq!(house.study().await.summary.alerted_at, Some(alert.at));
    let asked = triage.model.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 12, "one slice at a time, as they came");
    triage.stop().await;

    // The analysis asks the model nothing that it has said already.
    let (detail, model) = house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 0);
    assert_eq!((detail.slices.len(), detail.objects.len()), (12, 1));
    let analysed = events(&house, "analysed").await;
    assert_eq!(analysed[0].detail["slices_known"], 12);
    assert!(events(&house, "alert-withdrawn").await.is_empty());
}

#[tokio::test]
async fn what_came_before_the_start_is_left_to_the_analysis() {
    let house = House::new().await;
    let ingest = house.ingest();
    let association = ingest.association_opened(&peer()).await.unwrap();
    for file in &house.study.files[..8] {
        store_file(&ingest, &association, file, |_| {}).await.unwrap();
    }
    let triage = Triage::start(&house, Says::Probability(0.1));
    // The stage must have looked once before more arrives.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for file in &house.study.files[8..] {
        store_file(&ingest, &association, file, |_| {}).await.unwrap();
    }
    until("the new ones are classified", async || triage.waiting(&house).await == 8).await;
    triage.stop().await;
    assert!(events(&house, "alert").await.is_empty());
    let (detail, model) = house.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
    assert_eq!(detail.slices.len(), 12);
    assert_eq!(model.asked.load(Ordering::SeqCst), 2, "8 slices in batches of 5");
    assert_eq!(events(&house, "analysed").await[0].detail["slices_known"], 4);
}

#[tokio::test]
async fn another_model_asks_anew() {
    let house = House::new().await;
    let mut other = Scripted::new(Says::Probability(0.9));
    Arc::get_mut(&mut other).unwrap().traits.preset = ichor_ct::input::InputPreset::Rsna;
    let triage = Triage::start(&house, Says::Probability(0.9));
    assert_ne!(triage.model.traits.fed(), other.traits.fed());
    house.receive().await;
    until("everything is classified", async || triage.waiting(&house).await == 0).await;
    triage.stop().await;
    let unseen = house.store.unclassified_instances(&other.traits.fed(), 0, 100).await.unwrap();
    assert_eq!(unseen.len(), 12);
}

#[tokio::test]
async fn model_that_fails_is_asked_again_and_then_passed_by() {
    // It says nothing twice, which is one time less than it is asked.
    let house = House::new().await;
    let triage = Triage::start(&house, Says::Later(2, 0.9));
    let ingest = house.ingest();
    let association = ingest.association_opened(&peer()).await.unwrap();
    store_file(&ingest, &association, &house.study.files[0], |_| {}).await.unwrap();
    until("the slice is classified after all", async || {
        triage.model.asked.load(Ordering::SeqCst) == 3 && triage.waiting(&house).await == 0
    })
    .await;
    triage.stop().await;

    // It never says anything: nothing is lost, the study's analysis meets the model's failure itself.
    let house = House::new().await;
    let triage = Triage::start(&house, Says::Error);
    house.receive().await;
    until("the model was asked", async || triage.model.asked.load(Ordering::SeqCst) > 0).await;
    let (detail, _) = house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;
    assert_eq!(detail.summary.positive, Some(true));
    triage.stop().await;
}

#[tokio::test]
async fn wrong_alert_is_withdrawn() {
    let house = House::new().await;
    let triage = Triage::start(&house, Says::Probability(0.9));
    house.receive().await;
    until("the alert", async || !events(&house, "alert").await.is_empty()).await;
    triage.stop().await;
    // Other weights judge the whole study.
    let mut model = Scripted::new(Says::Probability(0.1));
    Arc::get_mut(&mut model).unwrap().traits.preset = ichor_ct::input::InputPreset::Rsna;
    let detail = house.work_with(model, &[StudyStatus::Analysed]).await;
    assert_eq!(detail.summary.positive, Some(false));
    assert_eq!(events(&house, "alert-withdrawn").await.len(), 1);
    assert!(detail.summary.alerted_at.unwrap() <= now());
}
