//! Who gets an association from the provider, and with which presentation contexts.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Instant;

use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AbortRQServiceProviderReason as AbortReason, AssociationRJ, AssociationRJResult,
    AssociationRJServiceProviderPresentationReason as PresentationReason, AssociationRJServiceUserReason as UserReason,
    AssociationRJSource, PresentationContextResultReason as ResultReason,
};
use ichor_core::AeTitle;
use ichor_dimse::command::{CommandSet, field, tag};
use ichor_dimse::scp::{AssociationOutcome, PeerRule, Rejection};
use ichor_dimse::status::StoreStatus;
use support::peer::{Peer, aborted, encode, request};
use support::{CT, EXPLICIT, IMPLICIT, Provider, options};

fn permanent(reason: UserReason) -> AssociationRJ {
    AssociationRJ { result: AssociationRJResult::Permanent, source: AssociationRJSource::ServiceUser(reason) }
}

#[tokio::test]
async fn each_context_gets_its_own_answer() {
    let provider = Provider::start(options()).await;
    let mut peer = Peer::connect(provider.address).await;
    let accepted = peer
        .ask(request(
            "PEER",
            &[
                (1, CT, &["1.2.840.10008.1.2.4.80", EXPLICIT]),
                (3, CT, &[IMPLICIT, EXPLICIT]),
                (5, "1.2.840.10008.5.1.4.1.1.4", &[EXPLICIT]),
                (7, CT, &["1.2.840.10008.1.2.4.100"]),
                (9, "1.2.840.10008.1.1", &[IMPLICIT]),
            ],
        ))
        .await
        .unwrap();
    let answers: Vec<_> = accepted.presentation_contexts.iter().map(|c| (c.id, c.reason.clone())).collect();
    let expected = [
        (1, ResultReason::Acceptance),
        (3, ResultReason::Acceptance),
        (5, ResultReason::AbstractSyntaxNotSupported),
        (7, ResultReason::TransferSyntaxesNotSupported),
        (9, ResultReason::Acceptance),
    ];
    assert_eq!(answers, expected);
    assert_eq!(accepted.presentation_contexts[0].transfer_syntax, "1.2.840.10008.1.2.4.80");
    assert_eq!(accepted.presentation_contexts[1].transfer_syntax, IMPLICIT);

    peer.send_command(9, &CommandSet::c_echo_request(1)).await;
    let (response, status) = peer.response().await;
    assert_eq!((status, response.u16(tag::COMMAND_FIELD)), (StoreStatus::Success, Ok(field::C_ECHO_RSP)));
    // Verification on a storage context is not what was agreed on.
    peer.send_command(3, &CommandSet::c_echo_request(2)).await;
    assert_eq!(peer.response().await.1, StoreStatus::SopClassNotSupported);
    peer.release().await;
    let end = provider.recorder.closed(1).await;
    assert_eq!((end.outcome, end.instances), (AssociationOutcome::Released, 0));
    let opened = provider.recorder.read(|log| log.opened[0].clone());
    assert_eq!((opened.calling_ae.as_str(), opened.called_ae.as_str()), ("PEER", "ICHOR"));
    assert_eq!(opened.implementation_class.as_deref(), Some("1.2.3.4"));
    assert_eq!(opened.implementation_version.as_deref(), Some("PEER_1"));
    provider.stop().await;
}

#[tokio::test]
async fn one_association_too_many() {
    let mut options = options();
    options.max_associations = 2;
    let provider = Provider::start(options).await;
    let first = Peer::associate(provider.address).await;
    let second = Peer::associate(provider.address).await;
    let rejected = Peer::connect(provider.address).await.ask(request("LATE", &[(1, CT, &[EXPLICIT])])).await;
    let limit = AssociationRJSource::ServiceProviderPresentation(PresentationReason::LocalLimitExceeded);
    assert_eq!(rejected, Err(AssociationRJ { result: AssociationRJResult::Transient, source: limit }));
    let (peer, rejection) = provider.recorder.refused(1).await;
    assert_eq!((peer.calling_ae.as_str(), rejection), ("LATE", Rejection::LocalLimitExceeded));
    first.release().await;
    provider.recorder.closed(1).await;
    // The place is free once the connection has gone as well.
    let start = Instant::now();
    loop {
        let mut third = Peer::connect(provider.address).await;
        match third.ask(request("THIRD", &[(1, CT, &[EXPLICIT])])).await {
            Ok(_) => break third.release().await,
            Err(_) => assert!(start.elapsed() < support::PATIENCE),
        }
    }
    second.release().await;
    provider.stop().await;
}

#[tokio::test]
async fn silent_strangers_keep_nobody_out() {
    let provider = Provider::start({
        let mut options = options();
        options.peers = vec![PeerRule { ae_title: None, networks: vec!["127.0.0.1".parse().unwrap()], user: None }];
        options
    })
    .await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.push(Peer::connect_from("127.0.0.2", provider.address).await);
    }
    provider.recorder.wait("refused strangers", |log| log.refused.len() >= 92).await;
    let peer = Peer::associate(provider.address).await;
    peer.release().await;
    provider.recorder.read(|log| {
        assert!(log.refused.iter().all(|(_, rejection)| *rejection == Rejection::LocalLimitExceeded));
    });
    drop(strangers);
    provider.stop().await;
}

#[tokio::test]
async fn who_may_not_come() {
    let mut options = options();
    options.check_called_ae = true;
    let networks = vec!["127.0.0.1/32".parse().unwrap()];
    options.peers = vec![PeerRule { ae_title: Some(AeTitle::parse("CT1").unwrap()), networks, user: None }];
    let provider = Provider::start(options).await;
    let contexts: &[(u8, &str, &[&str])] = &[(1, CT, &[EXPLICIT])];

    let forbidden_title = Peer::connect(provider.address).await.ask(request("OTHER", contexts)).await;
    assert_eq!(forbidden_title, Err(permanent(UserReason::CallingAETitleNotRecognized)));
    let forbidden_address = Peer::connect_from("127.0.0.2", provider.address).await.ask(request("CT1", contexts)).await;
    assert_eq!(forbidden_address, Err(permanent(UserReason::CallingAETitleNotRecognized)));
    let mut wrong = request("CT1", contexts);
    wrong.called_ae_title = "ANY-SCP".to_owned();
    let wrong_called = Peer::connect(provider.address).await.ask(wrong).await;
    assert_eq!(wrong_called, Err(permanent(UserReason::CalledAETitleNotRecognized)));
    let mut wrong = request("CT1", contexts);
    wrong.application_context_name = "1.2.3".to_owned();
    let wrong_context = Peer::connect(provider.address).await.ask(wrong).await;
    assert_eq!(wrong_context, Err(permanent(UserReason::ApplicationContextNameNotSupported)));
    let mut wrong = request("CT1", contexts);
    wrong.protocol_version = 2;
    assert!(Peer::connect(provider.address).await.ask(wrong).await.is_err());

    let mut allowed = Peer::connect(provider.address).await;
    assert!(allowed.ask(request("CT1", contexts)).await.is_ok());
    allowed.release().await;
    let recorder = provider.stop().await;
    let refused: Vec<Rejection> = recorder.read(|log| log.refused.iter().map(|(_, r)| r.clone()).collect());
    let expected = [
        Rejection::CallingAeNotRecognized,
        Rejection::CallingAeNotRecognized,
        Rejection::CalledAeNotRecognized,
        Rejection::ApplicationContextNotSupported,
        Rejection::ProtocolVersionNotSupported,
    ];
    assert_eq!(refused, expected);
    recorder.read(|log| {
        assert_eq!(log.opened.len(), 1);
        assert_eq!(log.refused[1].0.address.ip().to_string(), "127.0.0.2");
    });
}

#[tokio::test]
async fn nobody_may_come_without_a_rule() {
    let mut options = options();
    options.peers.clear();
    let provider = Provider::start(options).await;
    let rejected = Peer::connect(provider.address).await.ask(request("CT1", &[(1, CT, &[EXPLICIT])])).await;
    assert_eq!(rejected, Err(permanent(UserReason::CallingAETitleNotRecognized)));
    provider.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port() {
    let provider = Provider::start(options()).await;
    let mut count = 0;
    for (garbage, reason) in [
        (&b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n"[..], AbortReason::InvalidPduParameter),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0], AbortReason::InvalidPduParameter),
        (&[0x04, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], AbortReason::InvalidPduParameter),
        (&[0x01, 0, 0, 0, 0, 4, 0, 1, 0, 0], AbortReason::InvalidPduParameter),
        (&[0x99, 0, 0, 0, 0, 2, 1, 2], AbortReason::UnrecognizedPdu),
        (&[0x05, 0, 0, 0, 0, 4, 0, 0, 0, 0], AbortReason::UnexpectedPdu),
    ] {
        let mut peer = Peer::connect(provider.address).await;
        peer.send_raw(garbage).await;
        assert_eq!(aborted(peer.receive().await), Some(reason), "{garbage:x?}");
        assert!(peer.ends().await);
        count += 1;
        let (_, rejection) = provider.recorder.refused(count).await;
        assert!(matches!(rejection, Rejection::NotAnAssociation(_)), "{rejection:?}");
    }
    // A port check is no refusal.
    drop(Peer::connect(provider.address).await);
    Peer::associate(provider.address).await.release().await;
    assert_eq!(provider.stop().await.read(|log| log.refused.len()), count);
}

#[tokio::test]
async fn requests_that_are_odd() {
    let provider = Provider::start(options()).await;
    // An item of a type that nobody knows, and a title that would paint a terminal red.
    let mut bytes = encode(&request("CT\u{1b}[31m", &[(1, CT, &[EXPLICIT])]).into());
    bytes.extend_from_slice(b"\x77\0\0\x03abc");
    let length = u32::try_from(bytes.len() - 6).unwrap();
    bytes[2..6].copy_from_slice(&length.to_be_bytes());
    let mut peer = Peer::connect(provider.address).await;
    peer.send_raw(&bytes).await;
    assert!(matches!(peer.receive().await, Some(Pdu::AssociationAC(_))));
    peer.release().await;
    assert_eq!(provider.recorder.read(|log| log.opened[0].calling_ae.clone()), "CT?[31m");
    // Without any context, and with more than there are identifiers.
    let mut bare = Peer::connect(provider.address).await;
    assert!(bare.ask(request("PEER", &[])).await.unwrap().presentation_contexts.is_empty());
    bare.release().await;
    let many = vec![(1, CT, &[EXPLICIT][..]); 129];
    let mut peer = Peer::connect(provider.address).await;
    peer.send(&request("PEER", &many).into()).await;
    assert_eq!(aborted(peer.receive().await), Some(AbortReason::InvalidPduParameter));
    assert!(matches!(provider.recorder.refused(1).await.1, Rejection::NotAnAssociation(_)));
    provider.stop().await;
}

#[tokio::test]
async fn the_handler_has_the_last_word() {
    let provider = Provider::start(options()).await;
    provider.recorder.reject_next(Rejection::TemporaryCongestion);
    let rejected = Peer::connect(provider.address).await.ask(request("PEER", &[(1, CT, &[EXPLICIT])])).await;
    let source = AssociationRJSource::ServiceProviderPresentation(PresentationReason::TemporaryCongestion);
    assert_eq!(rejected, Err(AssociationRJ { result: AssociationRJResult::Transient, source }));
    assert_eq!(provider.recorder.refused(1).await.1, Rejection::TemporaryCongestion);
    Peer::associate(provider.address).await.release().await;
    assert_eq!(provider.stop().await.read(|log| (log.opened.len(), log.closed.len())), (1, 1));
}

#[tokio::test]
async fn one_address_does_not_take_every_place() {
    let mut options = options();
    options.max_associations = 8;
    options.max_associations_per_peer = 2;
    let provider = Provider::start(options).await;
    let contexts: &[(u8, &str, &[&str])] = &[(1, CT, &[EXPLICIT])];
    let first = Peer::associate(provider.address).await;
    let second = Peer::associate(provider.address).await;
    let limit = AssociationRJSource::ServiceProviderPresentation(PresentationReason::LocalLimitExceeded);
    let transient = Err(AssociationRJ { result: AssociationRJResult::Transient, source: limit });
    assert_eq!(Peer::connect(provider.address).await.ask(request("GREEDY", contexts)).await, transient);
    assert_eq!(provider.recorder.refused(1).await.1, Rejection::PeerLimitExceeded);
    let mut other = Peer::connect_from("127.0.0.2", provider.address).await;
    assert!(other.ask(request("OTHER", contexts)).await.is_ok());
    other.release().await;
    // However an association ends, its place is free again.
    first.release().await;
    drop(second);
    provider.recorder.closed(3).await;
    let start = Instant::now();
    for _ in 0..2 {
        loop {
            let mut again = Peer::connect(provider.address).await;
            if again.ask(request("AGAIN", contexts)).await.is_ok() {
                break again.release().await;
            }
            assert!(start.elapsed() < support::PATIENCE);
        }
    }
    provider.stop().await;
}
