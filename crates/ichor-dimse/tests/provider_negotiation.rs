//! What travels in the user information of an association request, and what the provider says to it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceUserReason as UserReason, AssociationRJSource,
    PresentationContextResultReason as ResultReason, RequestorRoles, UserIdentity, UserIdentityType, UserVariableItem,
};
use ichor_dimse::scp::{PeerRule, Preference, Rejection, UserRule};
use ichor_dimse::uids;
use support::peer::{Peer, encode, request};
use support::{CT, EXPLICIT, IMPLICIT, Provider, options};

const CONTEXTS: &[(u8, &str, &[&str])] = &[(1, CT, &[EXPLICIT])];
const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";

/// What the provider answers to these items, beyond length and implementation.
async fn answers_to(provider: &Provider, items: Vec<UserVariableItem>) -> Vec<UserVariableItem> {
    let mut message = request("PEER", CONTEXTS);
    message.user_variables.extend(items);
    let mut peer = Peer::connect(provider.address).await;
    let accepted = peer.ask(message).await.unwrap();
    assert_eq!(accepted.presentation_contexts[0].reason, ResultReason::Acceptance);
    peer.release().await;
    let is_ours = |item: &UserVariableItem| {
        matches!(
            item,
            UserVariableItem::MaxLength(131_072)
                | UserVariableItem::ImplementationClassUID(_)
                | UserVariableItem::ImplementationVersionName(_)
        )
    };
    assert_eq!(accepted.user_variables.iter().filter(|item| is_ours(item)).count(), 3);
    accepted.user_variables.into_iter().filter(|item| !is_ours(item)).collect()
}

fn identity(kind: UserIdentityType, wants_answer: bool, primary: &str, secondary: &str) -> UserVariableItem {
    let (primary, secondary) = (primary.as_bytes().to_vec(), secondary.as_bytes().to_vec());
    UserVariableItem::UserIdentityItem(UserIdentity::new(wants_answer, kind, primary, secondary))
}

#[tokio::test]
async fn windows_and_roles_are_answered_and_extensions_are_not() {
    let provider = Provider::start(options()).await;
    let window = |invoked: u8, performed: u8| UserVariableItem::Unknown(0x53, vec![0, invoked, 0, performed]);
    let roles = |scu, scp| UserVariableItem::ScuScpRoleSelectionSubItem(CT.to_owned(), RequestorRoles { scu, scp });
    assert_eq!(answers_to(&provider, vec![]).await, []);
    for proposed in [window(0, 0), window(8, 4), window(1, 1), UserVariableItem::Unknown(0x53, vec![])] {
        assert_eq!(answers_to(&provider, vec![proposed]).await, [window(1, 1)]);
    }
    assert_eq!(answers_to(&provider, vec![roles(true, true)]).await, [roles(true, false)]);
    assert_eq!(answers_to(&provider, vec![roles(true, false), window(3, 3)]).await, [roles(true, false), window(1, 1)]);
    let extended = UserVariableItem::SopClassExtendedNegotiationSubItem(CT.to_owned(), vec![2, 0, 1, 0, 1, 0]);
    let common = UserVariableItem::Unknown(0x57, vec![0, 4, b'1', b'.', b'2', 0]);
    assert_eq!(answers_to(&provider, vec![extended, common, UserVariableItem::Unknown(0x77, vec![1])]).await, []);

    // A peer that would be provider only has nobody to serve here.
    let mut message = request("PEER", CONTEXTS);
    message.user_variables.push(roles(false, true));
    let mut peer = Peer::connect(provider.address).await;
    let accepted = peer.ask(message).await.unwrap();
    assert_eq!(accepted.presentation_contexts[0].reason, ResultReason::UserRejection);
    peer.release().await;
    provider.stop().await;
}

#[tokio::test]
async fn identities_are_recorded_and_answered_when_proven() {
    use UserIdentityType::{Jwt, KerberosServiceTicket, SamlAssertion, Username, UsernamePassword};
    let mut options = options();
    let named = PeerRule {
        user: Some(UserRule { name: "router".to_owned(), passcode: "correct horse".to_owned() }),
        ..options.peers[0].clone()
    };
    options.peers.push(named.clone());
    let provider = Provider::start(options).await;
    let confirmed = [UserVariableItem::Unknown(0x59, vec![0, 0])];
    let cases: [(UserVariableItem, &[UserVariableItem], Option<&str>, bool); 9] = [
        (identity(UsernamePassword, true, "router", "correct horse"), &confirmed, Some("router"), true),
        (identity(UsernamePassword, false, "router", "correct horse"), &[], Some("router"), true),
        (identity(UsernamePassword, true, "router", "battery"), &[], Some("router"), false),
        (identity(UsernamePassword, true, "ROUTER", "correct horse"), &[], Some("ROUTER"), false),
        (identity(Username, true, "router", "correct horse"), &[], Some("router"), false),
        (identity(Username, true, "r\u{1b}[31m\u{fc}", ""), &[], Some("r?[31m?"), false),
        (identity(KerberosServiceTicket, true, "ticket", ""), &[], None, false),
        (identity(SamlAssertion, true, "<saml/>", ""), &[], None, false),
        (identity(Jwt, true, "a.b.c", ""), &[], None, false),
    ];
    for (count, (item, answers, user, is_verified)) in cases.into_iter().enumerate() {
        assert_eq!(answers_to(&provider, vec![item.clone()]).await, answers, "{item:?}");
        provider.recorder.read(|log| {
            let peer = &log.opened[count];
            assert_eq!((peer.user.as_deref(), peer.is_user_verified), (user, is_verified), "{item:?}");
            assert!(!format!("{peer:?}").contains("horse"), "the passcode is kept");
        });
    }
    provider.stop().await;
}

#[tokio::test]
async fn a_source_with_a_user_is_closed_to_others() {
    let mut options = options();
    options.peers[0].user = Some(UserRule { name: "router".to_owned(), passcode: "correct horse".to_owned() });
    let provider = Provider::start(options).await;
    let refused = Err(AssociationRJ {
        result: AssociationRJResult::Permanent,
        source: AssociationRJSource::ServiceUser(UserReason::NoReasonGiven),
    });
    for item in [
        None,
        Some(identity(UserIdentityType::Username, false, "router", "")),
        Some(identity(UserIdentityType::UsernamePassword, false, "router", "correct hors")),
        Some(identity(UserIdentityType::UsernamePassword, false, "router", "")),
    ] {
        let mut message = request("PEER", CONTEXTS);
        message.user_variables.extend(item);
        assert_eq!(Peer::connect(provider.address).await.ask(message).await, refused);
    }
    let proven = identity(UserIdentityType::UsernamePassword, false, "router", "correct horse");
    assert_eq!(answers_to(&provider, vec![proven]).await, []);
    provider.stop().await.read(|log| {
        assert_eq!(log.refused.len(), 4);
        assert!(log.refused.iter().all(|(_, rejection)| *rejection == Rejection::UserNotVerified));
    });
}

#[tokio::test]
async fn whose_order_of_transfer_syntaxes_counts() {
    for (prefer, list, expected) in [
        (Preference::Peer, &[JPEG_LS, EXPLICIT, IMPLICIT][..], IMPLICIT),
        (Preference::Own, &[JPEG_LS, EXPLICIT, IMPLICIT], JPEG_LS),
        (Preference::Own, &["1.2.840.10008.1.2.5", EXPLICIT], EXPLICIT),
    ] {
        let mut options = options();
        options.prefer = prefer;
        options.set_storage_syntaxes(list);
        let provider = Provider::start(options).await;
        let mut peer = Peer::connect(provider.address).await;
        let contexts: &[(u8, &str, &[&str])] =
            &[(1, CT, &[IMPLICIT, EXPLICIT, JPEG_LS]), (3, uids::VERIFICATION, &[IMPLICIT])];
        let accepted = peer.ask(request("PEER", contexts)).await.unwrap();
        let syntaxes: Vec<_> = accepted.presentation_contexts.iter().map(|c| c.transfer_syntax.as_str()).collect();
        assert_eq!(syntaxes, [expected, IMPLICIT], "{prefer:?} {list:?}");
        peer.release().await;
        provider.stop().await;
    }
}

#[tokio::test]
async fn all_that_rides_along_in_a_head_study() {
    let provider = Provider::start(options()).await;
    let classes = uids::STORAGE_SOP_CLASSES;
    assert!(classes.len() > 30 && classes.len() <= 128, "{}", classes.len());
    let contexts: Vec<(u8, &str, &[&str])> =
        (1..=u8::MAX).step_by(2).zip(classes).map(|(id, class)| (id, *class, &[EXPLICIT][..])).collect();
    let mut peer = Peer::connect(provider.address).await;
    let accepted = peer.ask(request("PEER", &contexts)).await.unwrap();
    assert_eq!(accepted.presentation_contexts.len(), classes.len());
    assert!(accepted.presentation_contexts.iter().all(|context| context.reason == ResultReason::Acceptance));
    peer.release().await;
    provider.stop().await;
}

/// A request whose user information is these bytes.
fn with_user_information(items: &[u8]) -> Vec<u8> {
    let mut message = request("PEER", CONTEXTS);
    message.user_variables.clear();
    let mut bytes = encode(&message.into());
    bytes.extend_from_slice(&[0x50, 0]);
    bytes.extend_from_slice(&u16::try_from(items.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(items);
    let length = u32::try_from(bytes.len() - 6).unwrap();
    bytes[2..6].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[tokio::test]
async fn user_information_that_lies_about_its_lengths() {
    let provider = Provider::start(options()).await;
    let lies: &[&[u8]] = &[
        // User identity: fields longer than the item, than the PDU, and no secondary field.
        &[0x58, 0, 0, 4, 2, 1, 0xff, 0xff],
        &[0x58, 0, 0xff, 0xff, 2, 1, 0, 1, b'x', 0, 0],
        &[0x58, 0, 0, 5, 1, 0, 0, 1, b'x'],
        &[0x58, 0, 0, 0],
        // A role whose name is longer than everything, an extension without a body, a window of one byte.
        &[0x54, 0, 0, 4, 0xff, 0xff, 1, 1],
        &[0x54, 0, 0, 0],
        &[0x56, 0, 0, 1, 0],
        &[0x56, 0, 0, 2, 0xff, 0xff],
        &[0x53, 0, 0, 9, 1],
        &[0x51, 0, 0, 1, 0],
        &[0x55, 0, 0, 2, b'x'],
        &[0x58],
    ];
    for (count, items) in lies.iter().enumerate() {
        let mut peer = Peer::connect(provider.address).await;
        peer.send_raw(&with_user_information(items)).await;
        let answer = peer.receive().await;
        assert!(matches!(answer, Some(Pdu::AbortRQ { .. })), "{items:x?}: {answer:?}");
        assert!(peer.ends().await);
        let (_, rejection) = provider.recorder.refused(count + 1).await;
        assert!(matches!(rejection, Rejection::NotAnAssociation(_)), "{items:x?}: {rejection:?}");
    }
    // An identity of a kind that nobody knows is none.
    let mut peer = Peer::connect(provider.address).await;
    peer.send_raw(&with_user_information(&[0x58, 0, 0, 7, 99, 1, 0, 1, b'x', 0, 0])).await;
    assert!(matches!(peer.receive().await, Some(Pdu::AssociationAC(_))));
    peer.release().await;
    assert_eq!(provider.stop().await.read(|log| log.opened[0].user.clone()), None);
}
