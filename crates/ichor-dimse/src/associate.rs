//! A-ASSOCIATE PDUs as real peers write them, made such as dicom-ul reads: it refuses what PS3.8 tells a receiver to
//! overlook.

use bytes::Bytes;

use crate::uids;

/// PDU header and the fixed fields before the variable items (PS3.8 tables 9-11 and 9-17).
const FIXED: usize = 6 + 68;

const APPLICATION_CONTEXT: u8 = 0x10;
const PROPOSED_CONTEXT: u8 = 0x20;
const CONTEXT_RESULT: u8 = 0x21;
const TRANSFER_SYNTAX: u8 = 0x40;
const USER_INFORMATION: u8 = 0x50;
const MAXIMUM_LENGTH: u8 = 0x51;
const ROLE_SELECTION: u8 = 0x54;
const EXTENDED_NEGOTIATION: u8 = 0x56;
const USER_IDENTITY: u8 = 0x58;

/// Leaves items of unrecognized types out (PS3.8 9.3.1), and gives each rejected presentation context the transfer
/// syntax that dicom-ul wants and that is not significant (PS3.8 9.3.3.2; some archives send none). Everything else, and
/// every PDU that does not hold together, stays for the decoder to judge.
pub(crate) fn overlook(pdu: Bytes) -> Bytes {
    if !matches!(pdu.first(), Some(0x01 | 0x02)) {
        return pdu;
    }
    rewrite(&pdu).map_or(pdu, Bytes::from)
}

/// Whether the sub-items of the user information (PS3.7 D.3.3) keep to their own lengths. dicom-ul does not look at
/// these where a sub-item has lengths inside, and would take one sub-item's bytes for the next one.
pub(crate) fn user_items_hold_together(pdu: &[u8]) -> bool {
    if !matches!(pdu.first(), Some(0x01 | 0x02)) {
        return true;
    }
    let mut rest = pdu.get(FIXED..).unwrap_or_default();
    while let Some((kind, body, tail)) = next_item(rest) {
        if kind == USER_INFORMATION && !sub_items_hold_together(body) {
            return false;
        }
        rest = tail;
    }
    // Items outside the user information are the decoder's to judge.
    true
}

fn sub_items_hold_together(mut rest: &[u8]) -> bool {
    let length_at = |body: &[u8], at: usize| {
        body.get(at..at + 2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    while !rest.is_empty() {
        let Some((kind, body, tail)) = next_item(rest) else { return false };
        let holds = match kind {
            MAXIMUM_LENGTH => body.len() == 4,
            ROLE_SELECTION => length_at(body, 0).is_some_and(|name| body.len() == 2 + name + 2),
            EXTENDED_NEGOTIATION => length_at(body, 0).is_some_and(|name| body.len() >= 2 + name),
            USER_IDENTITY => length_at(body, 2).is_some_and(|primary| {
                length_at(body, 4 + primary).is_some_and(|secondary| body.len() == 4 + primary + 2 + secondary)
            }),
            _ => true,
        };
        if !holds {
            return false;
        }
        rest = tail;
    }
    true
}

/// Type and body of the first item, and what follows it.
fn next_item(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, _, l0, l1], tail) = bytes.split_first_chunk::<4>()?;
    let (body, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
    Some((*kind, body, tail))
}

fn rewrite(pdu: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut rest) = pdu.split_at_checked(FIXED)?;
    let mut rewritten = Vec::with_capacity(pdu.len() + 64);
    rewritten.extend_from_slice(fixed);
    while !rest.is_empty() {
        let ([kind, _, l0, l1], tail) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (body, tail) = tail.split_at_checked(length)?;
        match (*kind, body) {
            (CONTEXT_RESULT, [id, _, result @ 1..=u8::MAX, ..]) => rejected(&mut rewritten, *id, *result),
            (APPLICATION_CONTEXT | PROPOSED_CONTEXT | CONTEXT_RESULT | USER_INFORMATION, _) => {
                rewritten.extend_from_slice(&rest[..4 + length]);
            }
            _ => {}
        }
        rest = tail;
    }
    let length = u32::try_from(rewritten.len() - 6).ok()?;
    rewritten[2..6].copy_from_slice(&length.to_be_bytes());
    Some(rewritten)
}

/// Writes the item of a rejected context; a result that PS3.8 does not know is "no reason".
fn rejected(pdu: &mut Vec<u8>, id: u8, result: u8) {
    const SYNTAX: &[u8] = uids::IMPLICIT_VR_LITTLE_ENDIAN.as_bytes();
    // A registered UID has at most 64 bytes.
    let length = SYNTAX.len() as u8;
    let result = if result <= 4 { result } else { 2 };
    pdu.extend_from_slice(&[CONTEXT_RESULT, 0, 0, length + 8, id, 0, result, 0, TRANSFER_SYNTAX, 0, 0, length]);
    pdu.extend_from_slice(SYNTAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_ul::Pdu;
    use dicom_ul::pdu::read_pdu;
    use proptest::prelude::*;

    fn acceptance(items: &[&[u8]]) -> Bytes {
        let mut body = vec![0, 1, 0, 0];
        body.resize(68, b' ');
        for item in items {
            body.extend_from_slice(item);
        }
        let length = u32::try_from(body.len()).unwrap();
        [&[2, 0][..], &length.to_be_bytes(), &body].concat().into()
    }

    const NAME: &[u8] = b"\x10\0\0\x151.2.840.10008.3.1.1.1";

    #[test]
    fn rejected_contexts_need_no_transfer_syntax() {
        let accepted = b"\x21\0\0\x09\x01\0\0\0\x40\0\0\x011";
        let strange = acceptance(&[NAME, b"\x21\0\0\x04\x03\0\x03\0", accepted, b"\x21\0\0\x08\x05\0\x09\0\x40\0\0\0"]);
        assert!(read_pdu(strange.clone(), 16_384, true).is_err(), "dicom-ul reads it by now: this module can go");
        let Ok(Some(Pdu::AssociationAC(answer))) = read_pdu(overlook(strange), 16_384, true) else { panic!() };
        let results: Vec<_> = answer.presentation_contexts.iter().map(|c| (c.id, c.reason.clone() as u8)).collect();
        assert_eq!(results, [(3, 3), (1, 0), (5, 2)]);
        assert_eq!(answer.presentation_contexts[1].transfer_syntax, "1");
    }

    #[test]
    fn unrecognized_items_are_left_out() {
        let strange = acceptance(&[b"\x77\0\0\x03abc", NAME, b"\x60\0\0\0"]);
        assert!(read_pdu(strange.clone(), 16_384, true).is_err(), "dicom-ul reads it by now: this module can go");
        assert!(matches!(read_pdu(overlook(strange), 16_384, true), Ok(Some(Pdu::AssociationAC(_)))));
    }

    #[test]
    fn what_does_not_hold_together_stays() {
        for items in [&[NAME, b"\x21\0\xff\xff\x01"][..], &[NAME, b"\x21\0"]] {
            let broken = acceptance(items);
            assert_eq!(overlook(broken.clone()), broken);
        }
        let short = Bytes::from_static(b"\x02\0\0\0\0\x02\0\x01");
        assert_eq!(overlook(short.clone()), short);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..4, noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let length = u32::try_from(noise.len()).unwrap();
            let pdu = Bytes::from([&[kind, 0][..], &length.to_be_bytes(), &noise].concat());
            user_items_hold_together(&pdu);
            let _ = read_pdu(overlook(pdu), 131_072, true);
        }
    }
}
