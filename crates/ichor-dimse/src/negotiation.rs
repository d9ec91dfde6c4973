//! Presentation contexts (PS3.8 7.1.1.13 and 9.3.3.2): each proposed one is answered for itself.

use dicom_ul::pdu::{
    PresentationContextProposed, PresentationContextResult, PresentationContextResultReason as ResultReason,
    UserVariableItem,
};
use ichor_core::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Uid};

use crate::scp::SopClassRule;
use crate::uids;

/// Most presentation contexts of an association: identifiers are the odd numbers of one byte.
pub(crate) const MAX_CONTEXTS: usize = 128;

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
}

/// Answers each proposed context by the rules: the abstract syntax must have one, and of the transfer syntaxes the
/// peer's first that the rule lists is taken, so that the peer's order and our list both count.
pub(crate) fn negotiate(proposed: &[PresentationContextProposed], rules: &[SopClassRule]) -> Negotiated {
    let mut negotiated = Negotiated { accepted: Vec::new(), results: Vec::with_capacity(proposed.len()) };
    for context in proposed {
        // Identifiers are odd and stand once (PS3.8 7.1.1.13); a second one would make the first ambiguous.
        let is_usable = context.id % 2 == 1 && negotiated.results.iter().all(|result| result.id != context.id);
        let answer = if is_usable { choose(context, rules) } else { Err(ResultReason::NoReason) };
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
    negotiated
}

fn choose(context: &PresentationContextProposed, rules: &[SopClassRule]) -> Result<AcceptedContext, ResultReason> {
    let class = Uid::parse(&context.abstract_syntax).map_err(|_| ResultReason::AbstractSyntaxNotSupported)?;
    let rule =
        rules.iter().find(|rule| rule.sop_class == class.as_str()).ok_or(ResultReason::AbstractSyntaxNotSupported)?;
    let transfer_syntax = context
        .transfer_syntaxes
        .iter()
        .filter_map(|syntax| Uid::parse(syntax).ok())
        .find(|syntax| rule.transfer_syntaxes.contains(&syntax.as_str()))
        .ok_or(ResultReason::TransferSyntaxesNotSupported)?;
    Ok(AcceptedContext { id: context.id, abstract_syntax: class, transfer_syntax })
}

/// Our user information (PS3.7 Annex D.3.3). Roles, asynchronous operations and extended negotiation are not answered,
/// which stands for their defaults.
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
        let negotiated = negotiate(&contexts, &rules);
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
    }

    #[test]
    fn peer_texts_are_made_printable() {
        assert_eq!(printable(" CT\u{1b}[31m\n1 \0", 16), "CT?[31m?1");
        assert_eq!(printable(&"x".repeat(40), 16).len(), 16);
    }
}
