use ichor_core::{DeliveryStatus, Uid, Zone};
use ichor_store::{DeliveryFilter, Forwarding, NewInstance, SeriesAttributes, StoreOptions, StudyAttributes};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

fn uid(kind: &str, number: u32) -> Uid {
    Uid::derive([kind, &number.to_string()])
}

/// A store with a closed study of as many instances, which are no DICOM files.
pub(crate) async fn received(folder: &TempDir, instances: u32) -> Store {
    let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
    let store = Store::open(&options).await.unwrap();
    store.recover(now()).await.unwrap();
    for number in 0..instances {
        let mut blob = store.blobs().begin_with_header(b"").await.unwrap();
        blob.write(&number.to_le_bytes()).await.unwrap();
        let instance = NewInstance {
            sop_instance: uid("instance", number),
            sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            study: StudyAttributes {
                study_instance: uid("study", 0),
                patient_id: None,
                patient_name: None,
                accession_number: None,
                study_date: None,
                description: None,
            },
            series: SeriesAttributes {
                series_instance: uid("series", 0),
                modality: None,
                description: None,
                number: None,
            },
            transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
            association: None,
            source_ae: None,
            arrived: store.blobs().finish_in_place(blob).await.unwrap(),
            quiet_period_ms: 0,
            own: false,
            max_study_instances: instances,
        };
        store.record_instance(instance, now()).await.unwrap();
    }
    store.close_quiet_studies(now()).await.unwrap();
    store
}

/// The same, queued for `pacs` in the order of their numbers.
async fn queued(folder: &TempDir, instances: u32) -> Store {
    let store = received(folder, instances).await;
    let forwarding = Forwarding { destinations: vec!["pacs".to_owned()], ..Forwarding::default() };
    for study in store.undecided_studies(10).await.unwrap() {
        store.forward(&study, &forwarding, now()).await.unwrap();
    }
    store
}

#[tokio::test]
async fn one_that_alone_finds_nobody_blocks_no_other_and_is_given_up() {
    let folder = TempDir::new().unwrap();
    let store = queued(&folder, 10).await;
    let wait = Duration::from_millis(1);
    let destination = Destination {
        name: "pacs".to_owned(),
        transport: Transport::Folder(folder.path().to_owned()),
        backoff: Backoff { first: wait, longest: wait, attempts: 3 },
        proof: ProofOptions::none(),
        flow: Flow::default(),
        traced: None,
    };
    let mut worker = Worker::new(store.clone(), Arc::new(destination), CancellationToken::new());
    let filter = DeliveryFilter { limit: 100, ..DeliveryFilter::default() };
    for _ in 0..1_000 {
        let all = store.deliveries(&filter).await.unwrap();
        if all.iter().all(|delivery| delivery.finished_at.is_some()) {
            break;
        }
        if let Some(wait) = worker.breaker.closed_for(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        let Some(claim) = store.claim_delivery("pacs", now()).await.unwrap() else {
            if !store.release_held("pacs", Among::All, now()).await.unwrap() {
                tokio::time::sleep(wait).await;
            }
            continue;
        };
        // The peer answers 504 to this one, which is what it says when nobody is there.
        let attempt = if claim.object.sop_instance == uid("instance", 0) {
            Attempt::PeerDown(Reason::new("unreachable", "HTTP status 504"))
        } else {
            Attempt::Accepted("Success".to_owned())
        };
        worker.record(claim, attempt).await.unwrap();
    }
    for delivery in store.deliveries(&filter).await.unwrap() {
        let is_refused = delivery.sop_instance == uid("instance", 0);
        let expected = if is_refused { (DeliveryStatus::Dead, 3) } else { (DeliveryStatus::Accepted, 1) };
        assert_eq!((delivery.status, delivery.attempts), expected, "{delivery:?}");
    }
}

#[tokio::test]
async fn absence_costs_no_attempt_however_often_it_is_found() {
    let folder = TempDir::new().unwrap();
    let store = queued(&folder, 3).await;
    let wait = Duration::from_millis(1);
    let destination = Destination {
        name: "pacs".to_owned(),
        transport: Transport::Folder(folder.path().join("not mounted")),
        backoff: Backoff { first: wait, longest: wait, attempts: 2 },
        proof: ProofOptions::none(),
        flow: Flow::default(),
        traced: None,
    };
    let mut worker = Worker::new(store.clone(), Arc::new(destination), CancellationToken::new());
    let filter = DeliveryFilter { limit: 100, ..DeliveryFilter::default() };
    for _ in 0..20 {
        let wait = worker.deliver_due().await.unwrap();
        assert!(worker.breaker.is_tripped(), "nobody is there");
        tokio::time::sleep(wait).await;
    }
    let all = store.deliveries(&filter).await.unwrap();
    assert!(all.iter().all(|delivery| (delivery.status, delivery.attempts) == (DeliveryStatus::Queued, 0)), "{all:?}");
    assert!(all.iter().any(|delivery| delivery.last_words.as_deref().is_some_and(|words| words.starts_with("held"))));
    for delivery in &all {
        let is_held = delivery.last_words.is_some();
        assert_eq!(delivery.next_attempt.is_none(), is_held, "what is held up has no moment of its own: {delivery:?}");
    }
    std::fs::create_dir(folder.path().join("not mounted")).unwrap();
    worker.deliver_due().await.unwrap();
    let all = store.deliveries(&filter).await.unwrap();
    assert!(
        all.iter().all(|delivery| (delivery.status, delivery.attempts) == (DeliveryStatus::Accepted, 1)),
        "{all:?}"
    );
}

#[tokio::test]
async fn what_waits_for_the_hours_says_so() {
    let folder = TempDir::new().unwrap();
    let store = queued(&folder, 3).await;
    let wait = Duration::from_millis(1);
    // A window of an hour that is two hours away.
    let hour = (now().as_millis() / 3_600_000).rem_euclid(24);
    let window = format!("{:02}:00-{:02}:00", (hour + 2) % 24, (hour + 3) % 24);
    let destination = Destination {
        name: "pacs".to_owned(),
        transport: Transport::Folder(folder.path().to_owned()),
        backoff: Backoff { first: wait, longest: wait, attempts: 1 },
        proof: ProofOptions::none(),
        flow: Flow { hours: Some(Hours::parse(&window, &Zone::UTC).unwrap()), ..Flow::default() },
        traced: None,
    };
    let mut worker = Worker::new(store.clone(), Arc::new(destination), CancellationToken::new());
    worker.deliver_due().await.unwrap();
    let all = store.deliveries(&DeliveryFilter { limit: 100, ..DeliveryFilter::default() }).await.unwrap();
    let words = format!("waits for the hours {window} UTC");
    assert_eq!(all.len(), 3);
    for delivery in &all {
        assert_eq!((delivery.status, delivery.last_words.as_deref()), (DeliveryStatus::Queued, Some(words.as_str())));
    }
    assert_eq!(store.say_why_due_waits("pacs", &words, now()).await.unwrap(), 0, "said once");
}

#[tokio::test]
async fn rate_of_a_destination_spaces_its_deliveries() {
    let wait = Duration::from_millis(1);
    // One in 300 ms; and as fast as it goes.
    for (per_minute, interval) in [(200, Duration::from_millis(300)), (0, Duration::ZERO)] {
        let folder = TempDir::new().unwrap();
        let store = queued(&folder, 4).await;
        let destination = Destination {
            traced: None,
            name: "pacs".to_owned(),
            transport: Transport::Folder(folder.path().to_owned()),
            backoff: Backoff { first: wait, longest: wait, attempts: 1 },
            proof: ProofOptions::none(),
            flow: Flow { per_minute, ..Flow::default() },
        };
        let mut worker = Worker::new(store.clone(), Arc::new(destination), CancellationToken::new());
        let filter = DeliveryFilter { status: Some(DeliveryStatus::Accepted), limit: 100, ..DeliveryFilter::default() };
        let (begun, mut calls, mut accepted) = (Instant::now(), 0, 0);
        while accepted < 4 {
            let next = worker.deliver_due().await.unwrap();
            calls += 1;
            accepted = store.deliveries(&filter).await.unwrap().len();
            assert!(accepted >= 1 && calls <= 100, "{accepted} delivered in {calls} calls");
            if interval.is_zero() {
                assert_eq!((accepted, calls), (4, 1), "nothing holds them up");
                break;
            }
            // The first goes at once, each other an interval after the one before, however slow the machine is.
            let most = 1.0 + begun.elapsed().as_secs_f64() / interval.as_secs_f64();
            assert!(accepted as f64 <= most, "{accepted} delivered in {:?}", begun.elapsed());
            assert!(accepted == 4 || next <= interval, "the next look comes in {next:?}");
            tokio::time::sleep(next.min(interval)).await;
        }
        assert!(begun.elapsed() >= interval * 3, "4 delivered in {:?}", begun.elapsed());
    }
}
