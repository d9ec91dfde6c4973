//! The provider against a peer that has an association and does what it is told to, right or wrong.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom_ul::Pdu;
use dicom_ul::pdu::{AbortRQServiceProviderReason as AbortReason, AbortRQSource, AssociationRJResult, PDataValueType};
use ichor_dimse::command::{CommandSet, field, tag};
use ichor_dimse::scp::{AssociationOutcome, Rejection, StoreFailure};
use ichor_dimse::status::StoreStatus;
use support::peer::{Peer, aborted, encode, pdv, request, store_request};
use support::{CT, EXPLICIT, Plan, Provider, ct_data_set, is_aborted, options, uid};
use tokio::sync::Semaphore;

const INSTANCE: &str = "1.2.826.0.1.3680043.10.543.9";

fn failure(status: StoreStatus) -> StoreFailure {
    StoreFailure::new(status, "disk is full")
}

#[tokio::test]
async fn a_failing_sink_does_not_end_the_association() {
    let provider = Provider::start(options()).await;
    let recorder = &provider.recorder;
    recorder.plan([
        Plan::FailWriteAfter(20_000, failure(StoreStatus::OutOfResources)),
        Plan::FailBegin(failure(StoreStatus::OutOfResources)),
        Plan::FailCommit(failure(StoreStatus::CannotUnderstand)),
        Plan::FailCommit(StoreFailure::new(StoreStatus::Success, "not a failure at all")),
        Plan::Warn(failure(StoreStatus::ElementsDiscarded)),
    ]);
    let mut peer = Peer::associate(provider.address).await;
    let bytes = ct_data_set(INSTANCE, 256, 256);
    for (id, wanted) in [
        (1, StoreStatus::OutOfResources),
        (2, StoreStatus::OutOfResources),
        (3, StoreStatus::CannotUnderstand),
        (4, StoreStatus::ProcessingFailure),
        (5, StoreStatus::ElementsDiscarded),
        (6, StoreStatus::Success),
    ] {
        let (response, status) = peer.store(id, INSTANCE, &bytes).await;
        assert_eq!((id, status), (id, wanted));
        assert_eq!(response.u16(tag::MESSAGE_ID_RESPONDED_TO), Ok(id));
        assert_eq!(response.uid(tag::AFFECTED_SOP_INSTANCE), Ok(uid(INSTANCE)));
        let comment = match id {
            4 => Some("not a failure at all"),
            6 => None,
            _ => Some("disk is full"),
        };
        assert_eq!(response.comment().as_deref(), comment);
    }
    peer.release().await;
    let end = recorder.closed(1).await;
    assert_eq!((end.instances, end.failures, end.bytes), (2, 4, 6 * bytes.len() as u64));
    recorder.read(|log| {
        assert_eq!((log.stored.len(), log.discarded), (2, 3));
        assert_eq!(log.stored[1].bytes, bytes);
        assert_eq!(log.stored[1].longest_fragment, 8_000, "fragments are handed on as they come");
    });
    provider.stop().await;
}

#[tokio::test]
async fn command_and_data_in_one_pdu() {
    let provider = Provider::start(options()).await;
    let mut peer = Peer::associate(provider.address).await;
    let bytes = ct_data_set(INSTANCE, 4, 4);
    for id in 1..4 {
        let command = store_request(id, INSTANCE).encode();
        let data = vec![
            pdv(1, PDataValueType::Command, &command[..30], false),
            pdv(1, PDataValueType::Command, &command[30..], true),
            pdv(1, PDataValueType::Data, &bytes, true),
        ];
        peer.send(&Pdu::PData { data }).await;
        assert_eq!(peer.response().await.1, StoreStatus::Success);
    }
    peer.release().await;
    provider.recorder.read(|log| assert!(log.stored.iter().all(|stored| stored.bytes == bytes)));
    assert_eq!(provider.stop().await.read(|log| log.stored.len()), 3);
}

#[tokio::test]
async fn unknown_operations_are_answered() {
    let provider = Provider::start(options()).await;
    let mut peer = Peer::associate(provider.address).await;
    // N-GET-RQ, which names a Requested class, and C-FIND-RQ, which brings a data set.
    let get = CommandSet::default()
        .with_uid(tag::REQUESTED_SOP_CLASS, &uid(CT))
        .with_u16(tag::COMMAND_FIELD, 0x0110)
        .with_u16(tag::MESSAGE_ID, 7)
        .with_u16(tag::DATA_SET_TYPE, 0x0101);
    peer.send_command(1, &get).await;
    let (response, status) = peer.response().await;
    assert_eq!((status, response.u16(tag::COMMAND_FIELD)), (StoreStatus::UnrecognizedOperation, Ok(0x8110)));
    assert_eq!(response.uid(tag::AFFECTED_SOP_CLASS), Ok(uid(CT)));
    assert_eq!(response.comment().as_deref(), Some("command field 0x0110 is not supported"));
    let find = CommandSet::default()
        .with_u16(tag::COMMAND_FIELD, 0x0020)
        .with_u16(tag::MESSAGE_ID, 8)
        .with_u16(tag::DATA_SET_TYPE, 0x0000);
    peer.send_command(1, &find).await;
    peer.send_data(1, &[0; 100], false).await;
    peer.send_data(1, &[0; 100], true).await;
    let (response, status) = peer.response().await;
    assert_eq!((status, response.u16(tag::MESSAGE_ID_RESPONDED_TO)), (StoreStatus::UnrecognizedOperation, Ok(8)));
    // C-CANCEL has no response: the next one belongs to the instance that follows.
    let cancel = CommandSet::default()
        .with_u16(tag::COMMAND_FIELD, field::C_CANCEL_RQ)
        .with_u16(tag::MESSAGE_ID_RESPONDED_TO, 8)
        .with_u16(tag::DATA_SET_TYPE, 0x0101);
    peer.send_command(1, &cancel).await;
    let (response, status) = peer.store(9, INSTANCE, &ct_data_set(INSTANCE, 4, 4)).await;
    assert_eq!((status, response.u16(tag::MESSAGE_ID_RESPONDED_TO)), (StoreStatus::Success, Ok(9)));
    peer.release().await;
    provider.stop().await;
}

#[tokio::test]
async fn store_requests_that_make_no_sense() {
    let provider = Provider::start(options()).await;
    let mut peer = Peer::associate(provider.address).await;
    let hostile = store_request(1, INSTANCE).encode();
    let at = hostile.windows(3).rposition(|w| w == b"543").unwrap();
    let mut bytes = hostile.clone();
    bytes[at..at + 3].copy_from_slice(b"../");
    peer.send(&Pdu::PData { data: vec![pdv(1, PDataValueType::Command, &bytes, true)] }).await;
    peer.send_data(1, &[0; 64], true).await;
    assert_eq!(peer.response().await.1, StoreStatus::InvalidSopInstance);
    let other = CommandSet::c_store_request(2, &uid("1.2.840.10008.5.1.4.1.1.4"), &uid(INSTANCE));
    peer.send_command(1, &other).await;
    peer.send_data(1, &[0; 64], true).await;
    assert_eq!(peer.response().await.1, StoreStatus::SopClassNotSupported);
    peer.send_command(1, &store_request(3, INSTANCE).with_u16(tag::DATA_SET_TYPE, 0x0101)).await;
    assert_eq!(peer.response().await.1, StoreStatus::CannotUnderstand);
    peer.send_command(1, &store_request(4, INSTANCE)).await;
    peer.send_data(1, &[], true).await;
    assert_eq!(peer.response().await.1, StoreStatus::CannotUnderstand);
    peer.release().await;
    let end = provider.recorder.closed(1).await;
    assert_eq!((end.instances, end.failures), (0, 4));
    assert_eq!(provider.stop().await.read(|log| (log.begun, log.stored.len())), (1, 0));
}

#[tokio::test]
async fn a_connection_dropped_inside_a_slice() {
    let provider = Provider::start(options()).await;
    let mut peer = Peer::associate(provider.address).await;
    let bytes = ct_data_set(INSTANCE, 128, 128);
    assert_eq!(peer.store(1, INSTANCE, &bytes).await.1, StoreStatus::Success);
    peer.send_command(1, &store_request(2, INSTANCE)).await;
    peer.send_data(1, &bytes[..10_000], false).await;
    provider.recorder.wait("the second sink", |log| log.begun == 2).await;
    drop(peer);
    let end = provider.recorder.closed(1).await;
    assert!(matches!(end.outcome, AssociationOutcome::Dropped(_)), "{:?}", end.outcome);
    assert_eq!((end.instances, end.failures), (1, 0));
    assert_eq!(end.bytes, bytes.len() as u64 + 10_000);
    assert_eq!(provider.stop().await.read(|log| (log.stored.len(), log.discarded)), (1, 1));
}

#[tokio::test]
async fn an_abort_by_the_peer_is_told_from_a_drop() {
    let provider = Provider::start(options()).await;
    let mut peer = Peer::associate(provider.address).await;
    peer.send(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser }).await;
    let end = provider.recorder.closed(1).await;
    assert_eq!(end.outcome, AssociationOutcome::AbortedByPeer("service user".into()));
    provider.stop().await;
}

#[tokio::test]
async fn peers_that_are_slow() {
    let mut options = options();
    options.artim_timeout = Duration::from_millis(800);
    options.idle_timeout = Duration::from_millis(1000);
    options.pdu_timeout = Duration::from_millis(700);
    options.instance_timeout = Duration::from_millis(1500);
    let provider = Provider::start(options).await;
    let recorder = &provider.recorder;

    // Says nothing, or half a request.
    let mut mute = Peer::connect(provider.address).await;
    let mut half = Peer::connect(provider.address).await;
    half.send_raw(&[1, 0, 0, 0, 1, 0, 0, 1]).await;
    assert_eq!(aborted(mute.receive().await), Some(AbortReason::ReasonNotSpecified));
    assert_eq!(aborted(half.receive().await), Some(AbortReason::ReasonNotSpecified));
    for count in 1..=2 {
        let limit = Duration::from_millis(800);
        assert_eq!(recorder.refused(count).await.1, Rejection::TimedOut(limit));
    }

    // Has an association, and nothing to say.
    let mut idle = Peer::associate(provider.address).await;
    let start = Instant::now();
    aborted(idle.receive().await);
    assert!(start.elapsed() >= Duration::from_millis(990));
    assert_eq!(recorder.closed(1).await.outcome, AssociationOutcome::TimedOut("no message for 1s".into()));

    // Stops inside a data set.
    let mut stuck = Peer::associate(provider.address).await;
    stuck.send_command(1, &store_request(1, INSTANCE)).await;
    stuck.send_data(1, &[0; 100], false).await;
    aborted(stuck.receive().await);
    assert_eq!(recorder.closed(2).await.outcome, AssociationOutcome::TimedOut("no whole PDU within 700ms".into()));

    // Sends a byte now and then.
    let mut dripping = Peer::associate(provider.address).await;
    dripping.send_command(1, &store_request(1, INSTANCE)).await;
    let (mut reader, mut writer) = dripping.stream.into_split();
    let drip = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while writer.write_all(&[4, 0, 0, 0, 0, 8, 0, 0, 0, 4, 1, 0, 7, 7]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let end = recorder.closed(3).await;
    assert!(matches!(end.outcome, AssociationOutcome::TimedOut(_)), "{:?}", end.outcome);
    tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.ok();
    drip.await.unwrap();
    assert_eq!(provider.stop().await.read(|log| (log.stored.len(), log.discarded)), (0, 2));
}

#[tokio::test]
async fn an_instance_that_is_too_long() {
    let mut options = options();
    options.max_instance_bytes = 50_000;
    let provider = Provider::start(options).await;
    let mut peer = Peer::associate(provider.address).await;
    let (response, status) = peer.store(1, INSTANCE, &vec![0; 60_000]).await;
    assert_eq!(status, StoreStatus::OutOfResources);
    assert_eq!(response.comment().as_deref(), Some("data set of more than 50000 bytes"));
    assert_eq!(peer.store(2, INSTANCE, &vec![1; 50_000]).await.1, StoreStatus::Success);
    // An endless one is not discarded for ever.
    peer.send_command(1, &store_request(3, INSTANCE)).await;
    for _ in 0..13 {
        peer.send_data(1, &[0; 8_000], false).await;
    }
    assert_eq!(aborted(peer.receive().await), Some(AbortReason::UnexpectedPduParameter));
    let end = provider.recorder.closed(1).await;
    assert!(is_aborted(&end.outcome), "{:?}", end.outcome);
    assert_eq!(provider.stop().await.read(|log| (log.stored.len(), log.discarded)), (1, 2));
}

#[tokio::test]
async fn messages_that_break_the_protocol() {
    let provider = Provider::start(options()).await;
    let bad_command = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 0];
    let data = |kind, bytes: &[u8], last| Pdu::PData { data: vec![pdv(1, kind, bytes, last)] };
    let response = CommandSet::response(&store_request(1, INSTANCE), StoreStatus::Success, "").unwrap();
    let cases: Vec<(Vec<u8>, AbortReason)> = vec![
        // Lengths of presentation data values that do not fit their PDU: longer, shorter than their header, cut off.
        (vec![4, 0, 0, 0, 0, 8, 0, 0, 0xff, 0xff, 1, 3, 0, 0], AbortReason::InvalidPduParameter),
        (vec![4, 0, 0, 0, 0, 8, 0, 0, 0, 1, 1, 3, 0, 0], AbortReason::InvalidPduParameter),
        (vec![4, 0, 0, 0, 0, 3, 0, 0, 0], AbortReason::InvalidPduParameter),
        (vec![4, 0, 0, 0, 0, 0], AbortReason::UnexpectedPdu),
        // A PDU longer than was agreed on.
        (vec![4, 0, 0, 0x10, 0, 0], AbortReason::InvalidPduParameter),
        (encode(&data(PDataValueType::Data, &[0; 8], true)), AbortReason::UnexpectedPduParameter),
        (encode(&data(PDataValueType::Command, &bad_command, true)), AbortReason::UnexpectedPduParameter),
        (encode(&data(PDataValueType::Command, &response.encode(), true)), AbortReason::UnexpectedPduParameter),
        (
            encode(&Pdu::PData {
                data: vec![pdv(5, PDataValueType::Command, &store_request(1, INSTANCE).encode(), true)],
            }),
            AbortReason::UnexpectedPduParameter,
        ),
        (encode(&Pdu::ReleaseRP), AbortReason::UnexpectedPduParameter),
        (encode(&request("PEER", &[(1, CT, &[EXPLICIT])]).into()), AbortReason::UnexpectedPdu),
    ];
    let total = cases.len();
    for (count, (bytes, reason)) in cases.into_iter().enumerate() {
        let mut peer = Peer::associate(provider.address).await;
        peer.send_raw(&bytes).await;
        assert_eq!(aborted(peer.receive().await), Some(reason), "{bytes:x?}");
        assert!(peer.ends().await);
        let end = provider.recorder.closed(count + 1).await;
        assert!(is_aborted(&end.outcome), "{bytes:x?}: {:?}", end.outcome);
    }
    assert_eq!(provider.stop().await.read(|log| (log.closed.len(), log.begun)), (total, 0));
}

#[tokio::test]
async fn a_drain_lets_the_slice_in_progress_finish() {
    let provider = Provider::start(options()).await;
    let recorder = provider.recorder.clone();
    let gate = Arc::new(Semaphore::new(0));
    recorder.plan([Plan::HoldCommit(gate.clone())]);
    let bytes = ct_data_set(INSTANCE, 64, 64);
    let mut busy = Peer::associate(provider.address).await;
    let mut idle = Peer::associate(provider.address).await;
    busy.send_command(1, &store_request(1, INSTANCE)).await;
    busy.send_data(1, &bytes[..1000], false).await;
    recorder.wait("the sink", |log| log.begun == 1).await;

    let address = provider.address;
    let stopped = tokio::spawn(provider.stop());
    // Who has nothing in progress goes at once, and who asks now is asked to come back.
    aborted(idle.receive().await);
    let mut late = Peer::connect(address).await;
    let rejected = late.ask(request("PEER", &[(1, CT, &[EXPLICIT])])).await.unwrap_err();
    assert_eq!(rejected.result, AssociationRJResult::Transient);
    // Who connects and says nothing holds nobody up.
    let _silent = Peer::connect(address).await;
    busy.send_data(1, &bytes[1000..], true).await;
    gate.add_permits(1);
    assert_eq!(busy.response().await.1, StoreStatus::Success);
    aborted(busy.receive().await);
    stopped.await.unwrap();
    recorder.read(|log| {
        assert_eq!(log.stored[0].bytes, bytes);
        assert!(log.closed.iter().all(|end| end.outcome == AssociationOutcome::ShutDown));
        assert_eq!(log.closed.iter().map(|end| end.instances).sum::<u64>(), 1);
    });
}

#[tokio::test]
async fn a_drain_ends_after_its_grace_period() {
    let mut options = options();
    options.drain_timeout = Duration::from_millis(200);
    let provider = Provider::start(options).await;
    let recorder = provider.recorder.clone();
    let gate = Arc::new(Semaphore::new(0));
    recorder.plan([Plan::HoldCommit(gate.clone())]);
    let mut held = Peer::associate(provider.address).await;
    held.send_command(1, &store_request(1, INSTANCE)).await;
    held.send_data(1, &[0; 100], true).await;
    // The plan is for the first to begin, and two connections race.
    recorder.wait("the sink that holds", |log| log.begun == 1).await;
    let mut stuck = Peer::associate(provider.address).await;
    stuck.send_command(1, &store_request(1, INSTANCE)).await;
    recorder.wait("both sinks", |log| log.begun == 2).await;
    let start = Instant::now();
    let stopped = tokio::spawn(provider.stop());
    aborted(held.receive().await);
    aborted(stuck.receive().await);
    drop((held, stuck));
    stopped.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    recorder.read(|log| {
        assert_eq!((log.stored.len(), log.discarded, log.closed.len()), (0, 2, 2));
        assert!(log.closed.iter().all(|end| end.outcome == AssociationOutcome::ShutDown));
    });
}

#[tokio::test]
async fn peers_that_keep_a_place_by_dripping() {
    let mut options = options();
    options.idle_timeout = Duration::from_secs(5);
    options.pdu_timeout = Duration::from_secs(1);
    options.min_bytes_per_second = 20_000;
    options.throughput_window = Duration::from_millis(500);
    let provider = Provider::start(options).await;
    let recorder = &provider.recorder;

    // A data set, a few bytes at a time: each PDU is in time, and far more than one comes in each window.
    let mut slow = Peer::associate(provider.address).await;
    slow.send_command(1, &store_request(1, INSTANCE)).await;
    let start = Instant::now();
    let (mut reader, mut writer) = slow.stream.into_split();
    let drip = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while writer.write_all(&[4, 0, 0, 0, 0, 8, 0, 0, 0, 4, 1, 0, 7, 7]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let AssociationOutcome::TimedOut(words) = recorder.closed(1).await.outcome else { panic!() };
    assert!(words.ends_with("of waiting, fewer than 20000 a second"), "{words}");
    assert!(start.elapsed() >= Duration::from_millis(490));
    tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.ok();
    drip.await.unwrap();

    // A command, a byte at a time.
    let slow = Peer::associate(provider.address).await;
    let start = Instant::now();
    let (mut reader, mut writer) = slow.stream.into_split();
    let drip = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while writer.write_all(&[4, 0, 0, 0, 0, 7, 0, 0, 0, 3, 1, 1, 0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let outcome = recorder.closed(2).await.outcome;
    assert_eq!(outcome, AssociationOutcome::TimedOut("no whole PDU within 1s".into()));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.ok();
    drip.await.unwrap();

    // Our own time is not the peer's: a commit that takes longer than several windows is no reason to abort.
    let gate = Arc::new(Semaphore::new(0));
    recorder.plan([Plan::HoldCommit(gate.clone())]);
    let mut fast = Peer::associate(provider.address).await;
    let bytes = ct_data_set(INSTANCE, 64, 64);
    let opener = gate.clone();
    let opened = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        opener.add_permits(1);
    });
    assert_eq!(fast.store(1, INSTANCE, &bytes).await.1, StoreStatus::Success);
    assert_eq!(fast.store(2, INSTANCE, &bytes).await.1, StoreStatus::Success);
    opened.await.unwrap();
    fast.release().await;
    assert_eq!(provider.stop().await.read(|log| log.stored.len()), 2);
}

#[tokio::test]
async fn every_failure_says_what_is_wrong() {
    let provider = Provider::start(options()).await;
    let tagged = failure(StoreStatus::DataSetDoesNotMatch).at(0x0008, 0x0018).at(0x0020, 0x000d);
    provider.recorder.plan([
        Plan::FailCommit(tagged),
        Plan::FailCommit(StoreFailure::new(StoreStatus::CannotUnderstand, "")),
        Plan::FailCommit(StoreFailure::new(StoreStatus::CannotUnderstand, "patienté\\\u{7}".repeat(30))),
    ]);
    let mut peer = Peer::associate(provider.address).await;
    let bytes = ct_data_set(INSTANCE, 8, 8);
    let mut comments = Vec::new();
    for (id, offending) in [(1, &[(0x0008, 0x0018), (0x0020, 0x000d)][..]), (2, &[]), (3, &[])] {
        let (response, _) = peer.store(id, INSTANCE, &bytes).await;
        assert_eq!(response.offending(), offending);
        comments.push(response.comment().unwrap());
    }
    assert_eq!(comments[1], "0xC000 cannot understand");

    // Requests that are wrong in themselves: a UID of 10,000 characters, one that climbs, none, none of the class.
    let long = vec![b'1'; 10_000];
    let class = CT.as_bytes();
    let cases: [(&[u8], &[u8], StoreStatus, &str); 5] = [
        (class, &long, StoreStatus::InvalidSopInstance, "SOP Instance UID: "),
        (class, b"../../x\0", StoreStatus::InvalidSopInstance, "SOP Instance UID: "),
        (class, b"", StoreStatus::InvalidSopInstance, "SOP Instance UID: empty UID"),
        (b"", b"1.2.3\0", StoreStatus::NoSuchSopClass, "SOP Class UID: empty UID"),
        (&long, b"1.2.3\0", StoreStatus::NoSuchSopClass, "SOP Class UID: "),
    ];
    for (class, instance, wanted, words) in cases {
        let mut body = Vec::new();
        for (element, value) in [
            (0x0002u16, class),
            (0x0100, &[1, 0][..]),
            (0x0110, &[9, 0]),
            (0x0700, &[0, 0]),
            (0x0800, &[0, 0]),
            (0x1000, instance),
        ] {
            body.extend_from_slice(&[0, 0]);
            body.extend_from_slice(&element.to_le_bytes());
            body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
            body.extend_from_slice(value);
        }
        peer.send(&Pdu::PData { data: vec![pdv(1, PDataValueType::Command, &body, true)] }).await;
        peer.send_data(1, &bytes, true).await;
        let (response, status) = peer.response().await;
        let comment = response.comment().unwrap();
        assert!(status == wanted && comment.starts_with(words), "{status} {comment}");
        comments.push(comment);
    }
    // C-ECHO where it was not agreed on, and an operation that nobody knows.
    for operation in [field::C_ECHO_RQ, 0x0fe0] {
        let command = CommandSet::c_echo_request(10).with_u16(tag::COMMAND_FIELD, operation);
        peer.send_command(1, &command).await;
        let (response, status) = peer.response().await;
        assert!(!status.is_success_or_warning());
        comments.push(response.comment().unwrap());
    }
    for comment in &comments {
        assert!(
            comment.len() <= 64 && comment.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\'),
            "{comment:?}"
        );
    }
    peer.release().await;
    provider.stop().await;
}
