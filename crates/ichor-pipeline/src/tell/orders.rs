//! Tests of messages about an order whose number comes late.

use std::sync::{Arc, Mutex};

use ichor_core::{MessageStatus, Uid};
use ichor_store::{
    AnalysisOutcome, NewAlert, NewInstance, SeriesAttributes, StoreOptions, StudyAttributes, StudyFilter, StudyMark,
};
use ichor_worklist::hl7::{Charset, Hl7Options, Template};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const ALL: &[Subject] = Subject::ALL;

fn uid(kind: &str) -> Uid {
    Uid::derive(["orders", kind])
}

async fn open(folder: &TempDir) -> Store {
    let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
    let store = Store::open(&options).await.unwrap();
    store.recover(now()).await.unwrap();
    store.follow_events("ris", ALL, now()).await.unwrap();
    store
}

/// A slice of the one study there is.
async fn receive(store: &Store, slice: &str, accession: Option<&str>) {
    let mut blob = store.blobs().begin_with_header(b"").await.unwrap();
    blob.write(slice.as_bytes()).await.unwrap();
    let instance = NewInstance {
        sop_instance: uid(slice),
        sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
        study: StudyAttributes {
            study_instance: uid("study"),
            patient_id: Some("P1".to_owned()),
            patient_name: None,
            accession_number: accession.map(str::to_owned),
            study_date: None,
            description: None,
        },
        series: SeriesAttributes {
            series_instance: uid("series"),
            modality: Some("CT".to_owned()),
            description: None,
            number: None,
        },
        transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
        association: None,
        source_ae: None,
        arrived: store.blobs().finish_in_place(blob).await.unwrap(),
        quiet_period_ms: 0,
        own: false,
        max_study_instances: 10,
    };
    store.record_instance(instance, now()).await.unwrap();
}

async fn raise_alarm(store: &Store) {
    let alert = NewAlert {
        study_instance: uid("study"),
        series_instance: uid("series"),
        model: "ichor-demo@1.0.0+0123456789ab physionet".to_owned(),
        notice: None,
        slices: vec![uid("first")],
        probability: 0.75,
        first_received_at: now(),
    };
    store.record_alert(&alert, now()).await.unwrap().unwrap();
}

async fn find_positive(store: &Store) {
    store.close_quiet_studies(now()).await.unwrap();
    let claim = store.claim_analysis("worker", now()).await.unwrap().expect("a queued analysis");
    let finding = Finding {
        verdict: ichor_core::Verdict::Positive,
        probability: 0.97,
        volume_ml: 23.5,
        volume_sd_ml: None,
        positive_slices: 2,
        slices: 2,
        lesions_ml: vec![23.5],
    };
    let outcome = AnalysisOutcome {
        verdict: ichor_store::Verdict::Analysed(finding),
        model: Some("ichor-demo@1.0.0+0123456789ab".parse().unwrap()),
        notice: None,
        series: Vec::new(),
        slices: Vec::new(),
        objects: Vec::new(),
        maps: None,
        slices_known: 0,
        timings: Vec::new(),
        routed: None,
    };
    store.complete_analysis(claim, outcome, now()).await.unwrap();
}

/// A receiver that accepts everything: its address, and what it was sent.
async fn receiver() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut block = Vec::new();
            while !block.ends_with(b"\x1c\r") {
                if stream.read_buf(&mut block).await.unwrap() == 0 {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&block).into_owned();
            let id = text.split('|').nth(9).unwrap_or_default().to_owned();
            kept.lock().unwrap().push(text);
            let answer = format!("\x0bMSH|^~\\&|RIS||ICHOR||20260101||ACK|1|P|2.5.1\rMSA|AA|{id}\r\x1c\r");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, received)
}

fn channel(address: &str, order_wait: Duration) -> Channel {
    let options = Hl7Options {
        address: address.to_owned(),
        template: Template::Orm,
        sending: ("ICHOR".to_owned(), String::new()),
        receiving: (String::new(), String::new()),
        processing_id: "P".to_owned(),
        charset: Charset::Utf8,
        timeout: Duration::from_secs(10),
        tls: None,
    };
    Channel {
        name: "ris".to_owned(),
        subjects: ALL.to_vec(),
        transport: Transport::Hl7(Hl7Client::new(options).unwrap()),
        backoff: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(1), attempts: 2 },
        order_wait,
        software: "ichor 1".to_owned(),
        traced: None,
    }
}

/// What became of the messages of the study, the oldest first.
async fn messages(store: &Store) -> Vec<(Subject, MessageStatus)> {
    let mut all = store.messages(None, Some(&uid("study")), 10).await.unwrap();
    all.sort_by_key(|message| message.id);
    all.iter().map(|message| (message.subject, message.status)).collect()
}

#[tokio::test]
async fn alert_whose_number_comes_with_the_result_is_sent_before_it() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let (address, received) = receiver().await;
    let (channel, never) = (channel(&address, Duration::ZERO), CancellationToken::new());
    receive(&store, "first", None).await;
    raise_alarm(&store).await;
    tell_due(&store, &channel, &never).await.unwrap();
    assert_eq!(messages(&store).await, [(Subject::Alert, MessageStatus::Dead)]);

    // The result would take its place.
    receive(&store, "second", Some("A1")).await;
    find_positive(&store).await;
    tell_due(&store, &channel, &never).await.unwrap();
    let told = [Subject::Alert, Subject::Positive].map(|subject| (subject, MessageStatus::Acknowledged));
    assert_eq!(messages(&store).await, told);
    let received = received.lock().unwrap().clone();
    assert_eq!(received.len(), 2, "{received:?}");
    assert!(received.iter().all(|text| text.contains("ORC|XO|A1|A1")), "{received:?}");
    let given_up = StudyFilter { mark: Some(StudyMark::GivenUp), ..StudyFilter::default() };
    assert!(store.studies(&given_up).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn waiting_for_a_number_writes_once() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let (address, received) = receiver().await;
    let hour = Duration::from_secs(3_600);
    let (patient, never) = (channel(&address, hour), CancellationToken::new());
    receive(&store, "first", None).await;
    raise_alarm(&store).await;
    let begun = now();
    let wait = tell_due(&store, &patient, &never).await.unwrap();
    assert!(wait <= POLL, "it is looked for all the same: {wait:?}");
    let due = store.next_message_deadline("ris").await.unwrap().unwrap();
    assert!(due.since(begun) > hour / 2, "put off by {:?}", due.since(begun));
    tell_due(&store, &patient, &never).await.unwrap();
    assert_eq!(store.next_message_deadline("ris").await.unwrap(), Some(due), "it was claimed again");
    assert_eq!(messages(&store).await, [(Subject::Alert, MessageStatus::Queued)]);

    // As soon as the number is there.
    receive(&store, "second", Some("A1")).await;
    tell_due(&store, &patient, &never).await.unwrap();
    assert_eq!(messages(&store).await, [(Subject::Alert, MessageStatus::Acknowledged)]);
    assert_eq!(received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn shorter_wait_holds_for_what_waits_already() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let (address, _) = receiver().await;
    receive(&store, "first", None).await;
    raise_alarm(&store).await;
    tell_due(&store, &channel(&address, Duration::from_secs(3_600)), &CancellationToken::new()).await.unwrap();
    assert_eq!(messages(&store).await, [(Subject::Alert, MessageStatus::Queued)]);

    let stop = CancellationToken::new();
    let task = tokio::spawn(run(store.clone(), channel(&address, Duration::ZERO), stop.clone()));
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while messages(&store).await != [(Subject::Alert, MessageStatus::Dead)] {
        assert!(tokio::time::Instant::now() < limit, "{:?}", messages(&store).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    task.await.unwrap();
}
