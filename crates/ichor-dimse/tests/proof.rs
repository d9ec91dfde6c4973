//! The user of Storage Commitment and of queries, and the provider that hears reports, against peers that keep to the
//! standard and peers that do not.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AssociationAC, PresentationContextResult, PresentationContextResultReason as ResultReason, RequestorRoles,
    UserVariableItem,
};
use ichor_core::{AeTitle, Uid};
use ichor_dimse::command::{CommandSet, field, tag};
use ichor_dimse::commitment::{CommitmentReport, CommitmentRequest, Reference};
use ichor_dimse::scp::CommitmentLimits;
use ichor_dimse::scu::{CommitmentScu, Found, InstanceKey, ScuOptions, StorageScu};
use ichor_dimse::status::StoreStatus;
use ichor_dimse::uids::{STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, STUDY_ROOT_FIND};
use support::peer::{Peer, request};
use support::{CT, IMPLICIT, Provider, options, uid};
use tokio::net::TcpListener;

const WAIT: Duration = Duration::from_millis(300);

/// A peer that accepts its contexts in Implicit VR and then acts.
async fn peer<F>(act: impl FnOnce(Peer) -> F + Send + 'static) -> ScuOptions
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut peer = Peer::accepted(listener.accept().await.unwrap().0);
        let Some(Pdu::AssociationRQ(asked)) = peer.receive().await else { panic!("no association request") };
        let answer = |context: &dicom_ul::pdu::PresentationContextProposed| {
            let is_implicit = context.transfer_syntaxes == [IMPLICIT];
            let reason =
                if is_implicit { ResultReason::Acceptance } else { ResultReason::TransferSyntaxesNotSupported };
            PresentationContextResult { id: context.id, reason, transfer_syntax: IMPLICIT.to_owned() }
        };
        let accepted = AssociationAC {
            protocol_version: 1,
            calling_ae_title: "ICHOR".to_owned(),
            called_ae_title: "PACS".to_owned(),
            application_context_name: "1.2.840.10008.3.1.1.1".to_owned(),
            presentation_contexts: asked.presentation_contexts.iter().map(answer).collect(),
            user_variables: vec![UserVariableItem::MaxLength(16_384)],
        };
        peer.send(&Pdu::AssociationAC(accepted)).await;
        act(peer).await;
    });
    let title = |title| AeTitle::parse(title).unwrap();
    let mut options = ScuOptions::new(title("ICHOR"), title("PACS"), address.to_string());
    options.response_timeout = Duration::from_secs(2);
    options
}

/// The next message: its command, its context, and its data set if it has one.
async fn message(peer: &mut Peer) -> (u8, CommandSet, Vec<u8>) {
    let (mut command, mut data): (Option<CommandSet>, Vec<u8>) = (None, Vec::new());
    loop {
        let Some(Pdu::PData { data: values }) = peer.receive().await else { panic!("no message") };
        for value in values {
            let context = value.presentation_context_id;
            match &command {
                None => command = Some(CommandSet::decode(&value.data).unwrap()),
                Some(_) => data.extend_from_slice(&value.data),
            }
            let has_data = command.as_ref().unwrap().announces_data_set().unwrap();
            if value.is_last && (!has_data || !data.is_empty()) {
                return (context, command.unwrap(), data);
            }
        }
    }
}

fn asked(count: usize) -> CommitmentRequest {
    let reference = |n| Reference { sop_class: uid(CT), sop_instance: uid(&format!("1.2.{n}")) };
    CommitmentRequest { transaction: uid("1.2.3"), references: (1..=count).map(reference).collect() }
}

fn report_on(request: &CommitmentRequest) -> CommitmentReport {
    let transaction = request.transaction.clone();
    CommitmentReport { transaction, committed: request.references.clone(), failed: Vec::new() }
}

async fn send_report(peer: &mut Peer, context: u8, report: &CommitmentReport) {
    let (class, instance) = (uid(STORAGE_COMMITMENT), uid(STORAGE_COMMITMENT_INSTANCE));
    let command = CommandSet::n_event_report_request(7, &class, &instance, report.event_type());
    peer.send_command(context, &command).await;
    peer.send_data(context, &report.write(&uid(IMPLICIT)), true).await;
}

#[tokio::test]
async fn report_before_and_after_the_answer_to_the_request() {
    for early in [true, false] {
        let options = peer(move |mut peer| async move {
            let (context, command, data) = message(&mut peer).await;
            assert_eq!(command.u16(tag::COMMAND_FIELD).unwrap(), field::N_ACTION_RQ);
            let request = CommitmentRequest::read(&data, &uid(IMPLICIT), 10).unwrap();
            let response = CommandSet::response(&command, StoreStatus::Success, "").unwrap();
            if early {
                send_report(&mut peer, context, &report_on(&request)).await;
                peer.send_command(context, &response).await;
            } else {
                peer.send_command(context, &response).await;
                send_report(&mut peer, context, &report_on(&request)).await;
            }
            let (answer, status) = peer.response().await;
            assert_eq!(answer.u16(tag::COMMAND_FIELD).unwrap(), field::N_EVENT_REPORT_RSP);
            assert_eq!(status, StoreStatus::Success);
            assert_eq!(peer.receive().await, Some(Pdu::ReleaseRQ));
            peer.send(&Pdu::ReleaseRP).await;
        })
        .await;
        let mut scu = CommitmentScu::connect(&options).await.unwrap();
        assert!(scu.request(&asked(3)).await.unwrap().status.is_success());
        let report = scu.report(WAIT * 5).await.unwrap().expect("a report");
        assert_eq!(report.report.as_ref().unwrap(), &report_on(&asked(3)));
        scu.answer(&report, StoreStatus::Success, "").await.unwrap();
        scu.release().await.unwrap();
    }
}

#[tokio::test]
async fn no_report_in_time_leaves_the_association_whole() {
    let options = peer(|mut peer| async move {
        let (context, command, _) = message(&mut peer).await;
        let response = CommandSet::response(&command, StoreStatus::Success, "").unwrap();
        peer.send_command(context, &response).await;
        assert_eq!(peer.receive().await, Some(Pdu::ReleaseRQ));
        peer.send(&Pdu::ReleaseRP).await;
    })
    .await;
    let mut scu = CommitmentScu::connect(&options).await.unwrap();
    scu.request(&asked(1)).await.unwrap();
    assert!(scu.report(WAIT).await.unwrap().is_none());
    scu.release().await.unwrap();
}

#[tokio::test]
async fn reports_that_are_none() {
    // More instances than were asked about, and bytes that are no data set.
    for bytes in [report_on(&asked(2)).write(&uid(IMPLICIT)), vec![0xff; 40]] {
        let options = peer(move |mut peer| async move {
            let (context, command, _) = message(&mut peer).await;
            let response = CommandSet::response(&command, StoreStatus::Success, "").unwrap();
            peer.send_command(context, &response).await;
            let (class, instance) = (uid(STORAGE_COMMITMENT), uid(STORAGE_COMMITMENT_INSTANCE));
            peer.send_command(context, &CommandSet::n_event_report_request(7, &class, &instance, 1)).await;
            peer.send_data(context, &bytes, true).await;
            assert_eq!(peer.response().await.1, StoreStatus::InvalidArgumentValue);
        })
        .await;
        let mut scu = CommitmentScu::connect(&options).await.unwrap();
        scu.request(&asked(1)).await.unwrap();
        let report = scu.report(WAIT * 5).await.unwrap().unwrap();
        assert!(report.report.is_err());
        scu.answer(&report, StoreStatus::InvalidArgumentValue, "no").await.unwrap();
    }
}

#[tokio::test]
async fn answers_to_a_request_that_are_none() {
    // Another command, a release, and reports without end before the answer.
    for act in 0..3 {
        let options = peer(move |mut peer| async move {
            let (context, command, _) = message(&mut peer).await;
            match act {
                0 => peer.send_command(context, &CommandSet::c_echo_request(1)).await,
                1 => peer.send(&Pdu::ReleaseRQ).await,
                _ => {
                    for _ in 0..3 {
                        send_report(&mut peer, context, &report_on(&asked(1))).await;
                    }
                }
            }
            drop(command);
            assert!(matches!(peer.receive().await, Some(Pdu::AbortRQ { .. })));
        })
        .await;
        let mut scu = CommitmentScu::connect(&options).await.unwrap();
        let error = scu.request(&asked(1)).await.unwrap_err();
        assert!(error.to_string().contains("protocol error"), "{error}");
    }
}

fn key() -> InstanceKey {
    InstanceKey { study: uid("1.2"), series: uid("1.2.3"), sop_instance: uid("1.2.3.4") }
}

/// Answers a C-FIND with matches of these SOP Instance UIDs, and a final status.
async fn answer_find(mut peer: Peer, matches: Vec<Uid>, last: StoreStatus) {
    let (context, command, data) = message(&mut peer).await;
    assert_eq!(command.u16(tag::COMMAND_FIELD).unwrap(), field::C_FIND_RQ);
    assert!(data.windows(5).any(|bytes| bytes == b"IMAGE"), "{data:?}");
    let response = |status: StoreStatus, has_data: u16| {
        CommandSet::response(&command, status, "").unwrap().with_u16(tag::DATA_SET_TYPE, has_data)
    };
    for instance in matches {
        let mut item = vec![0x08, 0x00, 0x18, 0x00];
        let mut value = instance.as_str().as_bytes().to_vec();
        value.resize(value.len().next_multiple_of(2), 0);
        item.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        item.extend_from_slice(&value);
        peer.send_command(context, &response(StoreStatus::from_code(0xFF00), 0)).await;
        peer.send_data(context, &item, true).await;
    }
    peer.send_command(context, &response(last, 0x0101)).await;
    // Whatever comes next ends it.
    peer.receive().await;
}

#[tokio::test]
async fn only_the_instance_itself_is_found() {
    let wanted = key().sop_instance;
    let success = StoreStatus::Success;
    let refused = StoreStatus::from_code(0xA900);
    for (matches, last, found) in [
        (vec![wanted.clone()], success, Some(true)),
        (vec![uid("1.2.3.40"), wanted.clone()], success, Some(true)),
        (vec![uid("1.2.3.40")], success, Some(false)),
        (Vec::new(), success, Some(false)),
        (vec![wanted.clone()], refused, None),
    ] {
        let options = peer(move |peer| answer_find(peer, matches, last)).await;
        let mut scu = StorageScu::connect_to_find(&options).await.unwrap();
        let answer = scu.find(&key()).await.unwrap();
        match found {
            Some(true) => assert_eq!(answer, Found::Yes),
            Some(false) => assert_eq!(answer, Found::No),
            None => assert!(matches!(answer, Found::Refused(response) if response.status == refused)),
        }
    }
}

#[tokio::test]
async fn peer_with_matches_without_end_is_given_up() {
    let options = peer(|peer| answer_find(peer, vec![uid("1.2.3.4"); 200], StoreStatus::Success)).await;
    let mut scu = StorageScu::connect_to_find(&options).await.unwrap();
    let error = scu.find(&key()).await.unwrap_err();
    assert!(error.to_string().contains("more than 64 matches"), "{error}");
}

#[tokio::test]
async fn provider_answers_roles_and_refuses_reports_that_it_cannot_use() {
    let provider = Provider::start(options().with_commitment(CommitmentLimits::default())).await;
    let mut peer = Peer::connect(provider.address).await;
    let mut ask = request("PACS", &[(1, STORAGE_COMMITMENT, &[IMPLICIT]), (3, CT, &[IMPLICIT])]);
    let role = UserVariableItem::ScuScpRoleSelectionSubItem(
        STORAGE_COMMITMENT.to_owned(),
        RequestorRoles { scu: false, scp: true },
    );
    ask.user_variables.push(role.clone());
    let accepted = peer.ask(ask).await.unwrap();
    assert!(accepted.user_variables.contains(&role), "{accepted:?}");
    let (class, instance) = (uid(STORAGE_COMMITMENT), uid(STORAGE_COMMITMENT_INSTANCE));
    let event = |class: &Uid| CommandSet::n_event_report_request(1, class, &instance, 1);

    // A handler that takes none, a context that is none, a class that is another's, no data set, and no data.
    let report = report_on(&asked(1)).write(&uid(IMPLICIT));
    for (context, command, data, status) in [
        (1, event(&class), Some(&report[..]), StoreStatus::UnrecognizedOperation),
        (3, event(&class), Some(&report[..]), StoreStatus::UnrecognizedOperation),
        (1, event(&uid(STUDY_ROOT_FIND)), Some(&report[..]), StoreStatus::ClassInstanceConflict),
        (1, event(&class).with_u16(tag::DATA_SET_TYPE, 0x0101), None, StoreStatus::InvalidArgumentValue),
        (1, event(&class), Some(&b"????????"[..]), StoreStatus::ProcessingFailure),
    ] {
        peer.send_command(context, &command).await;
        if let Some(data) = data {
            peer.send_data(context, data, true).await;
        }
        let (response, found) = peer.response().await;
        assert_eq!(response.u16(tag::COMMAND_FIELD).unwrap(), field::N_EVENT_REPORT_RSP);
        assert_eq!(found, status, "{command:?}");
    }
    peer.release().await;
    provider.stop().await;
}
