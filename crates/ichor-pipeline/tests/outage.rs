//! A destination that is down: the other one does not notice, and everything arrives once after the return.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ichor_core::{AeTitle, DeliveryStatus, Finding, Uid, Verdict as Call};
use ichor_dimse::part10::{Part10Meta, write_header};
use ichor_dimse::scp::{
    AssociationEnd, InstanceSink, PeerInfo, PeerRule, Rejection, ScpOptions, StorageHandler, StorageScp, StoreFailure,
    StoreOutcome, StoreRequest,
};
use ichor_dimse::scu::ScuOptions;
use ichor_dimse::uids::{CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN, SEGMENTATION_STORAGE};
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::deliver::{self, Destination, Flow, Transport};
use ichor_pipeline::now;
use ichor_pipeline::prove::ProofOptions;
use ichor_store::{
    AnalysisOutcome, DeliveryFilter, NewInstance, NewObject, SeriesAttributes, Store, StoreOptions, StudyAttributes,
    Verdict,
};
use tokio_util::sync::CancellationToken;

/// Studies that are queued for the one that is down.
const QUEUED: usize = 200;
/// Studies whose way to the healthy one is measured, each time.
const MEASURED: usize = 40;

/// A PACS that notes when it has taken what, and over how many associations.
#[derive(Clone, Default)]
struct Pacs {
    taken: Arc<Mutex<HashMap<Uid, Vec<Instant>>>>,
    associations: Arc<Mutex<usize>>,
}

struct Taking(Pacs, Uid);

impl InstanceSink for Taking {
    async fn write(&mut self, _: &[u8]) -> Result<(), StoreFailure> {
        Ok(())
    }

    async fn commit(self) -> Result<StoreOutcome, StoreFailure> {
        self.0.taken.lock().unwrap().entry(self.1).or_default().push(Instant::now());
        Ok(StoreOutcome::Success)
    }
}

impl StorageHandler for Pacs {
    type Association = ();
    type Sink = Taking;

    async fn association_opened(&self, _: &PeerInfo) -> Result<(), Rejection> {
        *self.associations.lock().unwrap() += 1;
        Ok(())
    }

    async fn association_refused(&self, _: &PeerInfo, _: &Rejection) {}

    async fn association_closed(&self, (): (), _: AssociationEnd) {}

    async fn begin(&self, (): &(), request: &StoreRequest) -> Result<Taking, StoreFailure> {
        Ok(Taking(self.clone(), request.sop_instance.clone()))
    }
}

impl Pacs {
    async fn listen(&self, address: SocketAddr, stop: &CancellationToken) -> SocketAddr {
        let mut options = ScpOptions::new(AeTitle::parse("PACS").unwrap());
        options.peers = vec![PeerRule { ae_title: None, networks: Vec::new(), user: None }];
        let scp = StorageScp::bind(address, options, self.clone()).await.unwrap();
        let (address, stop) = (scp.local_addr().unwrap(), stop.clone());
        tokio::spawn(scp.run(stop));
        address
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    fn taken_at(&self, object: &Uid) -> Option<Instant> {
        self.taken.lock().unwrap().get(object).map(|times| times[0])
    }
}

fn title(text: &str) -> AeTitle {
    AeTitle::parse(text).unwrap()
}

fn start(store: &Store, name: &str, address: SocketAddr, stop: &CancellationToken) {
    let mut options = ScuOptions::new(title("ICHOR"), title("PACS"), address.to_string());
    options.connect_timeout = Duration::from_secs(5);
    options.response_timeout = Duration::from_secs(5);
    let destination = Destination {
        name: name.to_owned(),
        transport: Transport::CStore(options),
        backoff: Backoff { first: Duration::from_millis(50), longest: Duration::from_millis(500), attempts: 3 },
        proof: ProofOptions::none(),
        flow: Flow::default(),
        traced: None,
    };
    tokio::spawn(deliver::run(store.clone(), Arc::new(destination), stop.clone()));
}

async fn open(folder: &Path) -> Store {
    let store = Store::open(&StoreOptions::new(&folder.join("ichor.db"), &folder.join("blobs"))).await.unwrap();
    store.recover(now()).await.unwrap();
    store
}

/// A study with one result object for these destinations; the object.
async fn analysed(store: &Store, study: &str, destinations: &[&str]) -> Uid {
    let uid = |kind: &str| Uid::derive([kind, study]);
    let known = |text: &str| Uid::parse(text).unwrap();
    let mut blob = store.blobs().begin_with_header(b"").await.unwrap();
    blob.write(b"slice").await.unwrap();
    let instance = NewInstance {
        sop_instance: uid("slice"),
        sop_class: known(CT_IMAGE_STORAGE),
        study: StudyAttributes {
            study_instance: uid("study"),
            patient_id: None,
            patient_name: None,
            accession_number: None,
            study_date: None,
            description: None,
        },
        series: SeriesAttributes { series_instance: uid("series"), modality: None, description: None, number: None },
        transfer_syntax: known(EXPLICIT_VR_LITTLE_ENDIAN),
        association: None,
        source_ae: None,
        arrived: store.blobs().finish_in_place(blob).await.unwrap(),
        quiet_period_ms: 0,
        own: false,
        max_study_instances: 10,
    };
    store.record_instance(instance, now()).await.unwrap();
    store.close_quiet_studies(now()).await.unwrap();
    let claim = store.claim_analysis("test", now()).await.unwrap().unwrap();
    let object = uid("object");
    let header = write_header(&Part10Meta {
        sop_class: known(SEGMENTATION_STORAGE),
        sop_instance: object.clone(),
        transfer_syntax: known(EXPLICIT_VR_LITTLE_ENDIAN),
        source_ae: None,
    });
    let mut blob = store.blobs().begin_with_header(&header).await.unwrap();
    blob.write(&[0; 64 * 1024]).await.unwrap();
    let outcome = AnalysisOutcome {
        verdict: Verdict::Analysed(Finding {
            verdict: Call::Positive,
            probability: 0.9,
            volume_ml: 1.0,
            volume_sd_ml: None,
            positive_slices: 1,
            slices: 1,
            lesions_ml: vec![1.0],
        }),
        model: None,
        notice: None,
        series: Vec::new(),
        slices: Vec::new(),
        objects: vec![NewObject {
            kind: "seg".to_owned(),
            sop_class: known(SEGMENTATION_STORAGE),
            sop_instance: object.clone(),
            series_instance: uid("results"),
            transfer_syntax: known(EXPLICIT_VR_LITTLE_ENDIAN),
            destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
            staged: blob.finish().await.unwrap(),
        }],
        maps: None,
        slices_known: 0,
        timings: Vec::new(),
        routed: None,
    };
    store.complete_analysis(claim, outcome, now()).await.unwrap();
    object
}

/// The median time from the outbox to the healthy PACS, over studies that come one after the other.
async fn latency(store: &Store, pacs: &Pacs, label: &str, destinations: &[&str]) -> Duration {
    let mut times = Vec::new();
    for number in 0..MEASURED {
        let object = analysed(store, &format!("{label} {number}"), destinations).await;
        let queued = Instant::now();
        let taken = wait(|| pacs.taken_at(&object)).await;
        times.push(taken.saturating_duration_since(queued));
    }
    times.sort_unstable();
    times[MEASURED / 2]
}

async fn wait<T>(look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_destination_slows_no_other_and_gets_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stop) = (open(folder.path()).await, CancellationToken::new());
    let (healthy, late) = (Pacs::default(), Pacs::default());
    let any = "127.0.0.1:0".parse().unwrap();
    let healthy_at = healthy.listen(any, &stop).await;
    // A port that nobody has: it was free a moment ago.
    let late_at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    start(&store, "healthy", healthy_at, &stop);
    let alone = latency(&store, &healthy, "alone", &["healthy"]).await;

    start(&store, "late", late_at, &stop);
    let mut expected = Vec::new();
    for number in 0..QUEUED {
        expected.push(analysed(&store, &format!("queued {number}"), &["late"]).await);
    }
    let beside = latency(&store, &healthy, "beside", &["healthy", "late"]).await;
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!(
        "median of {MEASURED}: {alone:?} alone, {beside:?} beside one that is down with {QUEUED} queued: {ratio:.2}"
    );
    // The bar is 1.1 on a machine of its own; here others may be at work.
    assert!(ratio < 2.0, "{alone:?} alone, {beside:?} beside one that is down");

    let filter = DeliveryFilter { destination: Some("late".to_owned()), limit: 1_000, ..DeliveryFilter::default() };
    let held = store.deliveries(&filter).await.unwrap();
    assert_eq!(held.len(), QUEUED + MEASURED);
    // One may be on its way to find out.
    assert!(held.iter().all(|delivery| delivery.attempts <= 1 && delivery.status != DeliveryStatus::Dead));
    let state = store.destinations(now()).await.unwrap().into_iter().find(|state| state.name == "late").unwrap();
    assert!(!state.is_up && state.failures > 3, "{state:?}");

    late.listen(late_at, &stop).await;
    wait(|| (late.count() == QUEUED + MEASURED).then_some(())).await;
    assert!(expected.iter().all(|object| late.taken_at(object).is_some()));
    let taken = late.taken.lock().unwrap().clone();
    assert!(taken.values().all(|times| times.len() == 1), "each once");
    let associations = *late.associations.lock().unwrap();
    assert!(associations <= 5, "{associations} associations for {} objects", taken.len());
    loop {
        let all = store.deliveries(&filter).await.unwrap();
        if all.iter().all(|delivery| delivery.status == DeliveryStatus::Accepted) {
            assert!(all.iter().all(|delivery| delivery.attempts == 1), "what was held cost no attempt");
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let events: Vec<String> = store.recent_events(10_000).await.unwrap().into_iter().map(|event| event.kind).collect();
    for (kind, count) in [("destination-down", 1), ("destination-up", 1), ("delivery-failed", 0)] {
        assert_eq!(events.iter().filter(|event| *event == kind).count(), count, "{kind}");
    }
    stop.cancel();
}
