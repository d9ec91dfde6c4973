//! What an association request proposes, answered: each presentation context for itself (PS3.8 7.1.1.13 and 9.3.3.2),
//! then roles, asynchronous operations and user identity (PS3.7 D.3.3). Extended negotiation is not answered, which says
//! that it is not supported (PS3.7 D.3.3.5 and D.3.3.6).

use dicom_ul::pdu::{
    PresentationContextProposed, PresentationContextResult, PresentationContextResultReason as ResultReason,
    RequestorRoles, UserIdentity, UserIdentityType, UserVariableItem,
};
use ichor_core::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Uid};

use crate::scp::{Preference, SopClassRule};
use crate::uids;

/// Most presentation contexts of an association: identifiers are the odd numbers of one byte.
pub(crate) const MAX_CONTEXTS: usize = 128;
/// Longest name of a user that is kept, in characters.
const MAX_USER_NAME: usize = 64;
/// Asynchronous Operations Window sub-item (PS3.7 D.3.3.3), which dicom-ul hands on as it is.
const OPERATIONS_WINDOW: u8 = 0x53;
/// User identity, the acceptor's answer (PS3.7 D.3.3.7.2).
const IDENTITY_ANSWER: u8 = 0x59;

/// An accepted presentation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedContext {
    pub(crate) id: u8,
    pub(crate) abstract_syntax: Uid,
    pub(crate) transfer_syntax: Uid,
}

/// The answers to an A-ASSOCIATE-RQ.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) accepted: Vec<AcceptedContext>,
    pub(crate) results: Vec<PresentationContextResult>,
    /// Answers to proposed roles.
    pub(crate) roles: Vec<UserVariableItem>,
}

/// Answers each proposed context by the rules: the abstract syntax must have one, and of the transfer syntaxes that are
/// both proposed and listed the first is taken, in the order that counts.
pub(crate) fn negotiate(
    proposed: &[PresentationContextProposed],
    items: &[UserVariableItem],
    rules: &[SopClassRule],
    prefer: Preference,
) -> Negotiated {
    let mut negotiated =
        Negotiated { accepted: Vec::new(), results: Vec::with_capacity(proposed.len()), roles: Vec::new() };
    for context in proposed {
        // Identifiers are odd and stand once (PS3.8 7.1.1.13); a second one would make the first ambiguous.
        let is_usable = context.id % 2 == 1 && negotiated.results.iter().all(|result| result.id != context.id);
        let answer = if is_usable { choose(context, items, rules, prefer) } else { Err(ResultReason::NoReason) };
        let (reason, transfer_syntax) = match answer {
            Ok(accepted) => {
                let transfer_syntax = accepted.transfer_syntax.to_string();
                negotiated.accepted.push(accepted);
                (ResultReason::Acceptance, transfer_syntax)
            }
            // Not significant, but the item must hold one (PS3.8 9.3.3.2).
            Err(reason) => (reason, uids::IMPLICIT_VR_LITTLE_ENDIAN.to_owned()),
        };
        negotiated.results.push(PresentationContextResult { id: context.id, reason, transfer_syntax });
    }
    negotiated.roles = answer_to_roles(items, &negotiated.accepted);
    negotiated
}

fn choose(
    context: &PresentationContextProposed,
    items: &[UserVariableItem],
    rules: &[SopClassRule],
    prefer: Preference,
) -> Result<AcceptedContext, ResultReason> {
    let class = Uid::parse(&context.abstract_syntax).map_err(|_| ResultReason::AbstractSyntaxNotSupported)?;
    let rule =
        rules.iter().find(|rule| rule.sop_class == class.as_str()).ok_or(ResultReason::AbstractSyntaxNotSupported)?;
    if proposed_roles(items, &class).is_some_and(|roles| !roles.scu) && !takes_both_roles(&class) {
        // The peer would be provider only, and so are we.
        return Err(ResultReason::UserRejection);
    }
    let proposed: Vec<Uid> = context.transfer_syntaxes.iter().filter_map(|syntax| Uid::parse(syntax).ok()).collect();
    let is_listed = |syntax: &&Uid| rule.transfer_syntaxes.contains(&syntax.as_str());
    let chosen = match prefer {
        Preference::Peer => proposed.iter().find(is_listed),
        Preference::Own => {
            rule.transfer_syntaxes.iter().find_map(|own| proposed.iter().find(|syntax| syntax.as_str() == *own))
        }
    };
    let transfer_syntax = chosen.cloned().ok_or(ResultReason::TransferSyntaxesNotSupported)?;
    Ok(AcceptedContext { id: context.id, abstract_syntax: class, transfer_syntax })
}

/// Whether we may be the user as well: reports on requests of ours come on associations that the provider opens
/// (PS3.4 J.3.3).
fn takes_both_roles(class: &Uid) -> bool {
    class.as_str() == uids::STORAGE_COMMITMENT
}

/// The roles that the peer proposes for a SOP class; the first item counts where there are several.
fn proposed_roles(items: &[UserVariableItem], class: &Uid) -> Option<RequestorRoles> {
    items.iter().find_map(|item| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(uid, roles) => {
            Uid::parse(uid).is_ok_and(|uid| uid == *class).then_some(*roles)
        }
        _ => None,
    })
}

/// Answers proposed roles (PS3.7 D.3.3.4): the peer may be user, and we are the provider; of Storage Commitment also the
/// other way round. An answer stands once for each
/// SOP class that was accepted; what was not proposed must not be accepted.
fn answer_to_roles(items: &[UserVariableItem], accepted: &[AcceptedContext]) -> Vec<UserVariableItem> {
    let mut answered: Vec<&Uid> = Vec::new();
    let mut answers = Vec::new();
    for class in accepted.iter().map(|context| &context.abstract_syntax) {
        if answered.contains(&class) {
            continue;
        }
        if let Some(RequestorRoles { scu, scp }) = proposed_roles(items, class) {
            let roles = RequestorRoles { scu, scp: scp && takes_both_roles(class) };
            answers.push(UserVariableItem::ScuScpRoleSelectionSubItem(class.to_string(), roles));
            answered.push(class);
        }
    }
    answers
}

/// Answers a proposed window of asynchronous operations (PS3.7 D.3.3.3): one operation at a time, whatever was proposed.
/// Where none was, that is what holds, and nothing is said.
pub(crate) fn answer_to_operations(items: &[UserVariableItem]) -> Option<UserVariableItem> {
    let is_proposed = items.iter().any(|item| matches!(item, UserVariableItem::Unknown(OPERATIONS_WINDOW, _)));
    is_proposed.then(|| UserVariableItem::Unknown(OPERATIONS_WINDOW, vec![0, 1, 0, 1]))
}

/// The identity that the peer gives (PS3.7 D.3.3.7.1).
pub(crate) fn user_identity(items: &[UserVariableItem]) -> Option<&UserIdentity> {
    items.iter().find_map(|item| match item {
        UserVariableItem::UserIdentityItem(identity) => Some(identity),
        _ => None,
    })
}

/// The user's name, printable, where the identity gives one in plain. Tickets, assertions and tokens are not opened.
pub(crate) fn claimed_name(identity: &UserIdentity) -> Option<String> {
    match identity.identity_type() {
        UserIdentityType::Username | UserIdentityType::UsernamePassword => {
            let name = printable(&String::from_utf8_lossy(&identity.primary_field()), MAX_USER_NAME);
            Some(name).filter(|name| !name.is_empty())
        }
        _ => None,
    }
}

/// Answers a user identity that asks for an answer, if it was verified; silence says that it was not, or cannot be
/// (PS3.7 D.3.3.7.2). The answer to a passcode is empty.
pub(crate) fn answer_to_identity(items: &[UserVariableItem], is_verified: bool) -> Option<UserVariableItem> {
    let is_wanted = user_identity(items).is_some_and(UserIdentity::positive_response_requested);
    (is_wanted && is_verified).then(|| UserVariableItem::Unknown(IDENTITY_ANSWER, vec![0, 0]))
}

/// Our user information (PS3.7 Annex D.3.3), as user and as provider.
pub(crate) fn user_information(max_pdu: u32) -> Vec<UserVariableItem> {
    vec![
        UserVariableItem::MaxLength(max_pdu),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ]
}

/// What a peer's user information says of it.
#[derive(Debug, Default)]
pub(crate) struct PeerInformation {
    /// 0 stands for no limit, also where the item is absent.
    pub(crate) max_pdu: u32,
    pub(crate) implementation_class: Option<String>,
    pub(crate) implementation_version: Option<String>,
}

impl PeerInformation {
    pub(crate) fn read(items: &[UserVariableItem]) -> Self {
        let mut information = Self::default();
        for item in items {
            match item {
                UserVariableItem::MaxLength(length) => information.max_pdu = *length,
                UserVariableItem::ImplementationClassUID(uid) => {
                    information.implementation_class = Some(printable(uid, Uid::MAX_LENGTH));
                }
                UserVariableItem::ImplementationVersionName(name) => {
                    information.implementation_version = Some(printable(name, 16));
                }
                _ => {}
            }
        }
        information
    }
}

/// A peer's text as it may stand in a log or a table: cut, and everything but printable ASCII replaced.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    text.trim_matches(['\0', ' ']).chars().take(longest).map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResultReason::{AbstractSyntaxNotSupported, Acceptance, NoReason, TransferSyntaxesNotSupported};

    const IMPLICIT: &str = uids::IMPLICIT_VR_LITTLE_ENDIAN;
    const EXPLICIT: &str = uids::EXPLICIT_VR_LITTLE_ENDIAN;
    const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";

    fn proposed(id: u8, class: &str, syntaxes: &[&str]) -> PresentationContextProposed {
        let transfer_syntaxes = syntaxes.iter().map(|s| (*s).to_owned()).collect();
        PresentationContextProposed { id, abstract_syntax: class.to_owned(), transfer_syntaxes }
    }

    #[test]
    fn each_context_is_answered_for_itself() {
        let rules = [
            SopClassRule { sop_class: uids::CT_IMAGE_STORAGE, transfer_syntaxes: vec![IMPLICIT, JPEG_LS] },
            SopClassRule { sop_class: uids::VERIFICATION, transfer_syntaxes: vec![IMPLICIT] },
        ];
        let contexts = [
            proposed(1, uids::CT_IMAGE_STORAGE, &[EXPLICIT, "1.2.840.10008.1.2.4.80\0", IMPLICIT]),
            proposed(3, uids::CT_IMAGE_STORAGE, &[IMPLICIT, JPEG_LS]),
            proposed(5, uids::CT_IMAGE_STORAGE, &[EXPLICIT]),
            proposed(7, uids::SEGMENTATION_STORAGE, &[IMPLICIT]),
            proposed(8, uids::VERIFICATION, &[IMPLICIT]),
            proposed(3, uids::VERIFICATION, &[IMPLICIT]),
            proposed(9, "../etc", &[IMPLICIT]),
            proposed(11, uids::VERIFICATION, &[]),
            proposed(13, uids::VERIFICATION, &[JPEG_LS, IMPLICIT]),
        ];
        let negotiated = negotiate(&contexts, &[], &rules, Preference::Peer);
        let reasons: Vec<_> = negotiated.results.iter().map(|r| (r.id, r.reason.clone())).collect();
        assert_eq!(
            reasons,
            [
                (1, Acceptance),
                (3, Acceptance),
                (5, TransferSyntaxesNotSupported),
                (7, AbstractSyntaxNotSupported),
                (8, NoReason),
                (3, NoReason),
                (9, AbstractSyntaxNotSupported),
                (11, TransferSyntaxesNotSupported),
                (13, Acceptance),
            ]
        );
        let accepted: Vec<_> = negotiated.accepted.iter().map(|c| (c.id, c.transfer_syntax.as_str())).collect();
        assert_eq!(accepted, [(1, JPEG_LS), (3, IMPLICIT), (13, IMPLICIT)]);
        // The rule lists Implicit VR first.
        let negotiated = negotiate(&contexts, &[], &rules, Preference::Own);
        let accepted: Vec<_> = negotiated.accepted.iter().map(|c| (c.id, c.transfer_syntax.as_str())).collect();
        assert_eq!(accepted, [(1, IMPLICIT), (3, IMPLICIT), (13, IMPLICIT)]);
        assert!(negotiated.roles.is_empty());
    }

    fn role(class: &str, scu: bool, scp: bool) -> UserVariableItem {
        UserVariableItem::ScuScpRoleSelectionSubItem(class.to_owned(), RequestorRoles { scu, scp })
    }

    #[test]
    fn roles_are_answered_for_what_is_accepted() {
        let classes = [uids::CT_IMAGE_STORAGE, uids::SEGMENTATION_STORAGE, uids::VERIFICATION];
        let rules = classes.map(|sop_class| SopClassRule { sop_class, transfer_syntaxes: vec![IMPLICIT] });
        let contexts = [
            proposed(1, uids::CT_IMAGE_STORAGE, &[IMPLICIT]),
            proposed(3, uids::CT_IMAGE_STORAGE, &[IMPLICIT]),
            proposed(5, uids::SEGMENTATION_STORAGE, &[IMPLICIT]),
            proposed(7, uids::VERIFICATION, &[IMPLICIT]),
            proposed(9, "1.2.3", &[IMPLICIT]),
        ];
        let items = [
            role(uids::CT_IMAGE_STORAGE, true, true),
            role(uids::CT_IMAGE_STORAGE, false, true),
            role(uids::SEGMENTATION_STORAGE, false, true),
            role("1.2.3", true, true),
        ];
        let negotiated = negotiate(&contexts, &items, &rules, Preference::Peer);
        let reasons: Vec<_> = negotiated.results.iter().map(|r| r.reason.clone()).collect();
        assert_eq!(
            reasons,
            [Acceptance, Acceptance, ResultReason::UserRejection, Acceptance, AbstractSyntaxNotSupported]
        );
        assert_eq!(negotiated.roles, [role(uids::CT_IMAGE_STORAGE, true, false)]);
    }

    #[test]
    fn providers_of_storage_commitment_may_report() {
        let rules = [SopClassRule { sop_class: uids::STORAGE_COMMITMENT, transfer_syntaxes: vec![IMPLICIT] }];
        let contexts = [proposed(1, uids::STORAGE_COMMITMENT, &[IMPLICIT])];
        for (scu, scp) in [(false, true), (true, true), (true, false)] {
            let items = [role(uids::STORAGE_COMMITMENT, scu, scp)];
            let negotiated = negotiate(&contexts, &items, &rules, Preference::Peer);
            assert_eq!((negotiated.accepted.len(), negotiated.roles), (1, items.to_vec()));
        }
        assert!(negotiate(&contexts, &[], &rules, Preference::Peer).roles.is_empty());
    }

    #[test]
    fn identities_are_answered_when_proven_and_asked_for() {
        let item = |kind, wants| {
            let identity = UserIdentity::new(wants, kind, b"dr\x1b[31m house ".to_vec(), b"secret".to_vec());
            [UserVariableItem::UserIdentityItem(identity)]
        };
        let with = item(UserIdentityType::UsernamePassword, true);
        assert_eq!(claimed_name(user_identity(&with).unwrap()).as_deref(), Some("dr?[31m house"));
        assert_eq!(answer_to_identity(&with, true), Some(UserVariableItem::Unknown(0x59, vec![0, 0])));
        assert_eq!(answer_to_identity(&with, false), None);
        assert_eq!(answer_to_identity(&item(UserIdentityType::UsernamePassword, false), true), None);
        assert_eq!(answer_to_identity(&[], true), None);
        for kind in [UserIdentityType::KerberosServiceTicket, UserIdentityType::SamlAssertion, UserIdentityType::Jwt] {
            assert_eq!(claimed_name(user_identity(&item(kind, true)).unwrap()), None);
        }
        let window = UserVariableItem::Unknown(0x53, vec![0, 0, 0, 0]);
        assert_eq!(answer_to_operations(&[window]), Some(UserVariableItem::Unknown(0x53, vec![0, 1, 0, 1])));
        assert_eq!(answer_to_operations(&with), None);
    }

    #[test]
    fn peer_texts_are_made_printable() {
        assert_eq!(printable(" CT\u{1b}[31m\n1 \0", 16), "CT?[31m?1");
        assert_eq!(printable(&"x".repeat(40), 16).len(), 16);
    }
}
