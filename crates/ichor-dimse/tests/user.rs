//! The user against DCMTK's storescp, against our own provider, and against peers that misbehave.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AbortRQSource, AssociationAC, AssociationRJ, AssociationRJResult,
    AssociationRJServiceProviderPresentationReason as PresentationReason, AssociationRJServiceUserReason as UserReason,
    AssociationRJSource, PDataValueType, PresentationContextResult, PresentationContextResultReason as ResultReason,
    UserVariableItem,
};
use ichor_core::AeTitle;
use ichor_dimse::command::{CommandSet, field, tag};
use ichor_dimse::part10::read_header;
use ichor_dimse::scp::{AssociationOutcome, StoreFailure};
use ichor_dimse::scu::{MoveKeys, ProposedContext, ScuError, ScuOptions, StorageScu, StoreItem};
use ichor_dimse::status::StoreStatus;
use support::dcmtk::{Listener, available, received};
use support::peer::{Peer, encode, pdv};
use support::{CT, EXPLICIT, IMPLICIT, Plan, Provider, ct_data_set, options, uid};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;

const INSTANCE: &str = "1.2.826.0.1.3680043.10.543.7";

fn scu_options(address: impl ToString) -> ScuOptions {
    let title = |title| AeTitle::parse(title).unwrap();
    let mut options = ScuOptions::new(title("ICHOR"), title("PACS"), address.to_string());
    options.connect_timeout = Duration::from_secs(5);
    options.response_timeout = Duration::from_secs(5);
    options
}

fn ct(syntaxes: &[&str]) -> ProposedContext {
    ProposedContext::new(uid(CT), syntaxes.iter().map(|s| uid(s)))
}

fn item(instance: &str) -> StoreItem {
    StoreItem { sop_class: uid(CT), sop_instance: uid(instance), transfer_syntax: uid(EXPLICIT) }
}

#[tokio::test]
async fn storescp_gets_every_byte() {
    if !available(&["storescp"]) {
        return;
    }
    for arguments in [&["--bit-preserving", "-pdu", "4096"][..], &["--bit-preserving", "-pdu", "131072"]] {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::storescp(folder.path(), arguments);
        let contexts = [ct(&[EXPLICIT, IMPLICIT]), ProposedContext::verification()];
        let mut scu = StorageScu::connect(&scu_options(listener.address()), &contexts).await.unwrap();
        assert!(scu.accepts(&uid(CT), &uid(EXPLICIT)) && scu.accepts(&uid(CT), &uid(IMPLICIT)));
        assert!(scu.echo().await.unwrap().is_success());
        // One fragment, just about one, just about two, and many.
        let fit = 4096 - 6;
        let base = ct_data_set(INSTANCE, 0, 0).len();
        let mut sent = Vec::new();
        for (number, length) in [base + 2, fit - 2, fit, fit + 2, 2 * fit, 525_000].into_iter().enumerate() {
            let instance = format!("{INSTANCE}.{number}");
            let spare = u16::try_from((length - base) / 2).unwrap_or(u16::MAX);
            let bytes = if length < 100_000 {
                // One row: the length is the base's, less the shorter UID's, plus the pixels.
                let short = ct_data_set(&instance, 0, 0).len();
                ct_data_set(&instance, 1, u16::try_from((length.max(short + 2) - short) / 2).unwrap())
            } else {
                ct_data_set(&instance, 512, spare.min(512))
            };
            let response = scu.store(&item(&instance), Cursor::new(bytes.clone())).await.unwrap();
            assert_eq!((response.status, response.comment), (StoreStatus::Success, None));
            sent.push((instance, bytes));
        }
        assert!(sent.iter().any(|(_, bytes)| bytes.len() == fit) && sent.iter().any(|(_, b)| b.len() == 2 * fit));
        scu.release().await.unwrap();
        for (instance, bytes) in sent {
            let files = received(folder.path(), &uid(&instance));
            assert_eq!(files.len(), 1, "{instance}");
            let header = read_header(&files[0]).unwrap();
            let offset = usize::try_from(header.dataset_offset).unwrap();
            assert_eq!(header.transfer_syntax.as_str(), EXPLICIT);
            assert!(std::fs::read(&files[0]).unwrap()[offset..] == bytes, "{instance} arrived changed");
        }
    }
}

#[tokio::test]
async fn storescp_accepts_no_context() {
    if !available(&["storescp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::storescp(folder.path(), &["+xi"]);
    let error = StorageScu::connect(&scu_options(listener.address()), &[ct(&[EXPLICIT])]).await.unwrap_err();
    assert!(matches!(error, ScuError::NoAcceptedContext) && !error.is_permanent(), "{error}");
    // Some contexts accepted: what was not is refused here, and the association goes on.
    let mut scu = StorageScu::connect(&scu_options(listener.address()), &[ct(&[EXPLICIT, IMPLICIT])]).await.unwrap();
    assert!(!scu.accepts(&uid(CT), &uid(EXPLICIT)));
    let error = scu.store(&item(INSTANCE), Cursor::new(b"bytes".to_vec())).await.unwrap_err();
    assert!(matches!(error, ScuError::ContextNotAccepted { .. }) && !error.is_permanent(), "{error}");
    scu.release().await.unwrap();
}

#[tokio::test]
async fn storescp_aborts_inside_a_data_set() {
    if !available(&["storescp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::storescp(folder.path(), &["--abort-during"]);
    let mut scu = StorageScu::connect(&scu_options(listener.address()), &[ct(&[EXPLICIT])]).await.unwrap();
    let bytes = ct_data_set(INSTANCE, 512, 512);
    let error = scu.store(&item(INSTANCE), Cursor::new(bytes)).await.unwrap_err();
    assert!(matches!(error, ScuError::Aborted(_) | ScuError::Dropped(_)), "{error:?}");
    assert!(!error.is_permanent());
    let error = scu.store(&item(INSTANCE), Cursor::new(b"bytes".to_vec())).await.unwrap_err();
    assert!(matches!(error, ScuError::Closed), "{error:?}");
}

#[tokio::test]
async fn our_provider_gets_every_byte_and_its_words_come_back() {
    let provider = Provider::start(options()).await;
    let failure = StoreFailure::new(StoreStatus::DataSetDoesNotMatch, "SOP Class UID differs");
    provider.recorder.plan([Plan::Take, Plan::FailCommit(failure)]);
    let mut scu = StorageScu::connect(&scu_options(provider.address), &[ct(&[EXPLICIT])]).await.unwrap();
    let bytes = ct_data_set(INSTANCE, 512, 512);
    for (status, comment) in [
        (StoreStatus::Success, None),
        (StoreStatus::DataSetDoesNotMatch, Some("SOP Class UID differs")),
        (StoreStatus::Success, None),
    ] {
        let response = scu.store(&item(INSTANCE), Cursor::new(bytes.clone())).await.unwrap();
        assert_eq!((response.status, response.comment.as_deref()), (status, comment));
    }
    let error = scu.store(&item(INSTANCE), Cursor::new(Vec::new())).await.unwrap_err();
    assert!(matches!(error, ScuError::EmptyDataSet) && error.is_permanent());
    let error = scu.echo().await.unwrap_err();
    assert!(matches!(error, ScuError::ContextNotAccepted { .. }));
    scu.release().await.unwrap();
    let recorder = provider.stop().await;
    recorder.read(|log| {
        assert_eq!(log.stored.len(), 2);
        assert!(log.stored.iter().all(|stored| stored.bytes == bytes));
        assert!(log.stored[0].longest_fragment <= 131_072 - 6);
        assert_eq!(log.closed[0].outcome, AssociationOutcome::Released);
    });
}

/// Gives some bytes and then fails, as a file on a lost disk does.
struct Failing(Cursor<Vec<u8>>);

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() == before => Poll::Ready(Err(std::io::Error::other("disk lost"))),
            polled => polled,
        }
    }
}

#[tokio::test]
async fn a_source_that_fails_never_passes_for_whole() {
    let provider = Provider::start(options()).await;
    let mut scu = StorageScu::connect(&scu_options(provider.address), &[ct(&[EXPLICIT])]).await.unwrap();
    let source = Failing(Cursor::new(vec![7; 300_000]));
    let error = scu.store(&item(INSTANCE), source).await.unwrap_err();
    assert!(matches!(error, ScuError::Source(_)) && !error.is_permanent(), "{error:?}");
    let end = provider.recorder.closed(1).await;
    assert_eq!(end.outcome, AssociationOutcome::AbortedByPeer("service user".into()));
    // Dropped without a word, inside or between messages, nothing is taken for whole either.
    let mut scu = StorageScu::connect(&scu_options(provider.address), &[ct(&[EXPLICIT])]).await.unwrap();
    let (mut feed, source) = tokio::io::duplex(1 << 20);
    tokio::io::AsyncWriteExt::write_all(&mut feed, &vec![7; 400_000]).await.unwrap();
    let cut = tokio::time::timeout(Duration::from_millis(300), scu.store(&item(INSTANCE), source)).await;
    assert!(cut.is_err());
    drop(scu);
    let end = provider.recorder.closed(2).await;
    assert!(matches!(end.outcome, AssociationOutcome::Dropped(_)), "{:?}", end.outcome);
    assert_eq!(provider.stop().await.read(|log| (log.stored.len(), log.discarded)), (0, 2));
}

#[tokio::test]
async fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = StorageScu::connect(&scu_options(port), &[ct(&[EXPLICIT])]).await.unwrap_err();
    assert!(matches!(error, ScuError::Connect { .. }) && !error.is_permanent(), "{error:?}");
    let error = StorageScu::connect(&scu_options(port), &[]).await.unwrap_err();
    assert!(matches!(error, ScuError::Contexts(0)) && error.is_permanent());
    let many: Vec<_> = (0..129).map(|n| ProposedContext::new(uid(&format!("1.2.{n}")), [uid(EXPLICIT)])).collect();
    let error = StorageScu::connect(&scu_options(port), &many).await.unwrap_err();
    assert!(matches!(error, ScuError::Contexts(129)));
}

/// A peer for one connection, which does with it what the test says.
async fn peer_that<F>(act: impl FnOnce(Peer) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { act(Peer::accepted(listener.accept().await.unwrap().0)).await });
    address
}

fn acceptance(transfer_syntax: &str, max_pdu: u32) -> Pdu {
    let context = PresentationContextResult {
        id: 1,
        reason: ResultReason::Acceptance,
        transfer_syntax: transfer_syntax.to_owned(),
    };
    Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        calling_ae_title: "ICHOR".to_owned(),
        called_ae_title: "PACS".to_owned(),
        application_context_name: "1.2.840.10008.3.1.1.1".to_owned(),
        presentation_contexts: vec![context],
        user_variables: vec![UserVariableItem::MaxLength(max_pdu)],
    })
}

#[track_caller]
fn check(error: &ScuError, kind: &str, permanent: bool) {
    let found = format!("{error:?}");
    assert!(found.starts_with(kind), "{found}");
    assert_eq!(error.is_permanent(), permanent, "{found}");
}

#[tokio::test]
async fn associations_that_do_not_come_about() {
    let user = AssociationRJSource::ServiceUser(UserReason::CallingAETitleNotRecognized);
    let busy = AssociationRJSource::ServiceProviderPresentation(PresentationReason::LocalLimitExceeded);
    let answers: Vec<(Pdu, &str, bool)> = vec![
        (AssociationRJ { result: AssociationRJResult::Permanent, source: user }.into(), "Rejected", false),
        (AssociationRJ { result: AssociationRJResult::Transient, source: busy }.into(), "Rejected", false),
        (Pdu::AbortRQ { source: AbortRQSource::ServiceUser }, "Aborted", false),
        (Pdu::ReleaseRQ, "Protocol", false),
        (acceptance(IMPLICIT, 16_384), "NoAcceptedContext", false),
        (acceptance(EXPLICIT, 7), "Protocol", false),
    ];
    for (answer, kind, permanent) in answers {
        let address = peer_that(move |mut peer| async move {
            assert!(matches!(peer.receive().await, Some(Pdu::AssociationRQ(_))));
            peer.send(&answer).await;
            peer.receive().await;
        })
        .await;
        let error = StorageScu::connect(&scu_options(address), &[ct(&[EXPLICIT])]).await.unwrap_err();
        check(&error, kind, permanent);
    }
    let address = peer_that(|mut peer| async move {
        peer.receive().await;
        peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        peer.receive().await;
    })
    .await;
    check(&StorageScu::connect(&scu_options(address), &[ct(&[EXPLICIT])]).await.unwrap_err(), "Protocol", false);
    let address = peer_that(|mut peer| async move { peer.receive().await.map_or((), drop) }).await;
    check(&StorageScu::connect(&scu_options(address), &[ct(&[EXPLICIT])]).await.unwrap_err(), "Dropped", false);
    let address = peer_that(|mut peer| async move {
        peer.receive().await;
        // The user gives up and says so.
        assert!(matches!(peer.receive().await, Some(Pdu::AbortRQ { .. })));
    })
    .await;
    let mut impatient = scu_options(address);
    impatient.response_timeout = Duration::from_millis(150);
    check(&StorageScu::connect(&impatient, &[ct(&[EXPLICIT])]).await.unwrap_err(), "TimedOut", false);
}

#[tokio::test]
async fn a_rejected_context_without_transfer_syntax() {
    let address = peer_that(|mut peer| async move {
        assert!(matches!(peer.receive().await, Some(Pdu::AssociationRQ(_))));
        let mut bytes = Vec::new();
        dicom_ul::pdu::write_pdu(&mut bytes, &acceptance(EXPLICIT, 0)).unwrap();
        bytes.extend_from_slice(b"\x21\0\0\x04\x03\0\x03\0");
        let length = u32::try_from(bytes.len() - 6).unwrap();
        bytes[2..6].copy_from_slice(&length.to_be_bytes());
        peer.send_raw(&bytes).await;
        assert_eq!(peer.receive().await, Some(Pdu::ReleaseRQ));
        peer.send(&Pdu::ReleaseRP).await;
    })
    .await;
    let scu = StorageScu::connect(&scu_options(address), &[ct(&[EXPLICIT, IMPLICIT])]).await.unwrap();
    assert!(scu.accepts(&uid(CT), &uid(EXPLICIT)) && !scu.accepts(&uid(CT), &uid(IMPLICIT)));
    scu.release().await.unwrap();
}

#[tokio::test]
async fn responses_that_are_none() {
    let wrong_id = CommandSet::default()
        .with_u16(tag::COMMAND_FIELD, field::C_STORE_RSP)
        .with_u16(tag::MESSAGE_ID_RESPONDED_TO, 77)
        .with_u16(tag::DATA_SET_TYPE, 0x0101)
        .with_u16(tag::STATUS, 0);
    let wrong_kind =
        wrong_id.clone().with_u16(tag::COMMAND_FIELD, field::C_ECHO_RSP).with_u16(tag::MESSAGE_ID_RESPONDED_TO, 1);
    let no_status = CommandSet::default()
        .with_u16(tag::COMMAND_FIELD, field::C_STORE_RSP)
        .with_u16(tag::MESSAGE_ID_RESPONDED_TO, 1)
        .with_u16(tag::DATA_SET_TYPE, 0x0101);
    let answers: Vec<(Option<CommandSet>, &str)> = vec![
        (Some(wrong_id), "Protocol"),
        (Some(wrong_kind), "Protocol"),
        (Some(no_status), "Protocol"),
        (None, "TimedOut"),
    ];
    for (answer, kind) in answers {
        let address = peer_that(move |mut peer| async move {
            peer.receive().await;
            peer.send(&acceptance(EXPLICIT, 0)).await;
            peer.receive().await;
            peer.receive().await;
            if let Some(answer) = answer {
                peer.send_command(1, &answer).await;
            }
            assert!(matches!(peer.receive().await, Some(Pdu::AbortRQ { .. })));
        })
        .await;
        let mut options = scu_options(address);
        options.response_timeout = Duration::from_millis(300);
        let mut scu = StorageScu::connect(&options, &[ct(&[EXPLICIT])]).await.unwrap();
        let error = scu.store(&item(INSTANCE), Cursor::new(ct_data_set(INSTANCE, 4, 4))).await.unwrap_err();
        check(&error, kind, false);
        assert!(matches!(scu.release().await, Err(ScuError::Closed)));
    }
}

#[tokio::test]
async fn a_release_that_collides() {
    let address = peer_that(|mut peer| async move {
        peer.receive().await;
        peer.send(&acceptance(EXPLICIT, 0)).await;
        assert_eq!(peer.receive().await, Some(Pdu::ReleaseRQ));
        peer.send(&Pdu::ReleaseRQ).await;
        assert_eq!(peer.receive().await, Some(Pdu::ReleaseRP));
    })
    .await;
    let scu = StorageScu::connect(&scu_options(address), &[ct(&[EXPLICIT])]).await.unwrap();
    scu.release().await.unwrap();
    // By the book the peer answers as well, after our answer; a message at that point is none.
    for (last, is_agreed) in [(Pdu::ReleaseRP, true), (Pdu::ReleaseRQ, false)] {
        let address = peer_that(move |mut peer| async move {
            peer.receive().await;
            peer.send(&acceptance(EXPLICIT, 0)).await;
            assert_eq!(peer.receive().await, Some(Pdu::ReleaseRQ));
            peer.send(&Pdu::ReleaseRQ).await;
            assert_eq!(peer.receive().await, Some(Pdu::ReleaseRP));
            peer.send(&last).await;
            let farewell = peer.receive().await;
            assert_eq!(matches!(farewell, Some(Pdu::AbortRQ { .. })), !is_agreed, "{farewell:?}");
        })
        .await;
        let scu = StorageScu::connect(&scu_options(address), &[ct(&[EXPLICIT])]).await.unwrap();
        assert_eq!(scu.release().await.is_ok(), is_agreed);
    }
}

/// Says that a C-MOVE has ended, and never ends saying which instances failed.
async fn drip(mut peer: Peer) {
    peer.receive().await;
    peer.send(&acceptance(EXPLICIT, 16_384)).await;
    let Some(Pdu::PData { data }) = peer.receive().await else { panic!("no request") };
    let request = CommandSet::decode(&data[0].data).unwrap();
    let response = CommandSet::default()
        .with_u16(tag::COMMAND_FIELD, field::C_MOVE_RSP)
        .with_u16(tag::MESSAGE_ID_RESPONDED_TO, request.u16(tag::MESSAGE_ID).unwrap())
        .with_u16(tag::DATA_SET_TYPE, 1)
        .with_u16(tag::STATUS, 0xB000);
    peer.send_command(1, &response).await;
    let fragment = encode(&Pdu::PData { data: vec![pdv(1, PDataValueType::Data, &[0; 2], false)] });
    while peer.stream.write_all(&fragment).await.is_ok() {
        peer.pause(50).await;
    }
}

/// A response that comes byte by byte holds nobody beyond the limit, nor for long when it is not wanted any more.
#[tokio::test]
async fn a_response_that_never_ends_is_cut_off() {
    let (study, here) = (uid("1.2.3"), AeTitle::parse("ICHOR").unwrap());
    let keys = MoveKeys { study: &study, series: None, instances: &[] };
    let soon = Duration::from_millis(300);
    for (limit, stop) in [(soon, Duration::from_secs(600)), (Duration::from_secs(600), soon)] {
        let mut options = scu_options(peer_that(drip).await);
        options.response_timeout = soon;
        let mut scu = StorageScu::connect_to_move(&options).await.unwrap();
        let moving = scu.move_to(&keys, &here, limit, tokio::time::sleep(stop));
        let error = tokio::time::timeout(Duration::from_secs(20), moving).await.unwrap().unwrap_err();
        check(&error, "TimedOut", false);
    }
}
