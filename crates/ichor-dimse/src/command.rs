//! Command sets (PS3.7 6.3 and Annex E): group 0000 in Implicit VR Little Endian, small and bounded.

mod request;

use std::collections::BTreeMap;

use ichor_core::Uid;
use thiserror::Error;

use crate::status::StoreStatus;

/// Longest command set that is accepted, in bytes. A C-STORE-RQ has about 250; an N-GET-RQ with a long list of
/// attributes a few thousand.
pub const MAX_COMMAND_SET_BYTES: usize = 64 * 1024;
/// Most elements a command set may have. Annex E defines fewer than 40.
pub const MAX_COMMAND_ELEMENTS: usize = 256;

/// Command Data Set Type (0000,0800) that says that no data set follows.
const NO_DATA_SET: u16 = 0x0101;
/// Bit of the Command Field that makes a response out of a request (PS3.7 E.1).
const RESPONSE: u16 = 0x8000;
/// Longest Error Comment (0000,0902), VR LO.
const MAX_COMMENT: usize = 64;
/// Most elements that an Offending Element (0000,0901) names here.
const MAX_OFFENDING: usize = 16;

/// Element numbers of group 0000 (PS3.7 E.1) that are used here.
pub mod tag {
    /// Command Group Length, UL.
    pub const GROUP_LENGTH: u16 = 0x0000;
    /// Affected SOP Class UID, UI.
    pub const AFFECTED_SOP_CLASS: u16 = 0x0002;
    /// Requested SOP Class UID, UI.
    pub const REQUESTED_SOP_CLASS: u16 = 0x0003;
    /// Command Field, US.
    pub const COMMAND_FIELD: u16 = 0x0100;
    /// Message ID, US.
    pub const MESSAGE_ID: u16 = 0x0110;
    /// Message ID Being Responded To, US.
    pub const MESSAGE_ID_RESPONDED_TO: u16 = 0x0120;
    /// Move Destination, AE.
    pub const MOVE_DESTINATION: u16 = 0x0600;
    /// Priority, US.
    pub const PRIORITY: u16 = 0x0700;
    /// Command Data Set Type, US.
    pub const DATA_SET_TYPE: u16 = 0x0800;
    /// Status, US.
    pub const STATUS: u16 = 0x0900;
    /// Offending Element, AT.
    pub const OFFENDING_ELEMENT: u16 = 0x0901;
    /// Error Comment, LO.
    pub const ERROR_COMMENT: u16 = 0x0902;
    /// Affected SOP Instance UID, UI.
    pub const AFFECTED_SOP_INSTANCE: u16 = 0x1000;
    /// Requested SOP Instance UID, UI.
    pub const REQUESTED_SOP_INSTANCE: u16 = 0x1001;
    /// Event Type ID, US.
    pub const EVENT_TYPE: u16 = 0x1002;
    /// Action Type ID, US.
    pub const ACTION_TYPE: u16 = 0x1008;
    /// Number of Completed Sub-operations, US.
    pub const COMPLETED_SUB_OPERATIONS: u16 = 0x1021;
    /// Number of Failed Sub-operations, US.
    pub const FAILED_SUB_OPERATIONS: u16 = 0x1022;
    /// Number of Warning Sub-operations, US.
    pub const WARNING_SUB_OPERATIONS: u16 = 0x1023;
}

/// Values of the Command Field (0000,0100) that are used here.
pub mod field {
    /// C-STORE-RQ.
    pub const C_STORE_RQ: u16 = 0x0001;
    /// C-STORE-RSP.
    pub const C_STORE_RSP: u16 = 0x8001;
    /// C-FIND-RQ.
    pub const C_FIND_RQ: u16 = 0x0020;
    /// C-FIND-RSP.
    pub const C_FIND_RSP: u16 = 0x8020;
    /// C-MOVE-RQ.
    pub const C_MOVE_RQ: u16 = 0x0021;
    /// C-MOVE-RSP.
    pub const C_MOVE_RSP: u16 = 0x8021;
    /// C-ECHO-RQ.
    pub const C_ECHO_RQ: u16 = 0x0030;
    /// C-ECHO-RSP.
    pub const C_ECHO_RSP: u16 = 0x8030;
    /// N-EVENT-REPORT-RQ.
    pub const N_EVENT_REPORT_RQ: u16 = 0x0100;
    /// N-EVENT-REPORT-RSP.
    pub const N_EVENT_REPORT_RSP: u16 = 0x8100;
    /// N-ACTION-RQ.
    pub const N_ACTION_RQ: u16 = 0x0130;
    /// N-ACTION-RSP.
    pub const N_ACTION_RSP: u16 = 0x8130;
    /// C-CANCEL-RQ, which has no response.
    pub const C_CANCEL_RQ: u16 = 0x0FFF;
}

/// Why bytes are not a command set, or a command set lacks what its use needs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// More bytes than any command has.
    #[error("command set of {0} bytes, at most {MAX_COMMAND_SET_BYTES} are accepted")]
    TooLong(usize),
    /// More elements than any command has.
    #[error("command set of more than {MAX_COMMAND_ELEMENTS} elements")]
    TooManyElements,
    /// The bytes end inside an element.
    #[error("command set ends inside the element at byte {0}")]
    Truncated(usize),
    /// An element of another group.
    #[error("command set holds ({0:04x},{1:04x}), which is not of group 0000")]
    Group(u16, u16),
    /// The same element twice: which one counts is anyone's guess.
    #[error("command set holds (0000,{0:04x}) twice")]
    Duplicate(u16),
    /// An element that the use needs is absent or empty.
    #[error("command set lacks (0000,{0:04x})")]
    Missing(u16),
    /// The value is not of the element's form.
    #[error("value of (0000,{element:04x}) in the command set is invalid: {reason}")]
    Value {
        /// Element number.
        element: u16,
        /// What is wrong.
        reason: String,
    },
}

/// A command set: elements of group 0000 by element number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSet {
    elements: BTreeMap<u16, Vec<u8>>,
}

impl CommandSet {
    /// Decodes the bytes of a complete command. The group length is not believed, and not kept.
    ///
    /// # Errors
    /// [`CommandError`]; no length in the bytes is used before it is checked against what is there.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        if bytes.len() > MAX_COMMAND_SET_BYTES {
            return Err(CommandError::TooLong(bytes.len()));
        }
        let mut elements = BTreeMap::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let Some((header, tail)) = rest.split_first_chunk::<8>() else { return Err(CommandError::Truncated(at)) };
            let [g0, g1, e0, e1, l0, l1, l2, l3] = *header;
            let (group, element) = (u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
            let length = u32::from_le_bytes([l0, l1, l2, l3]);
            if group != 0 {
                return Err(CommandError::Group(group, element));
            }
            let Some((value, tail)) = usize::try_from(length).ok().and_then(|n| tail.split_at_checked(n)) else {
                return Err(CommandError::Truncated(at));
            };
            if element != tag::GROUP_LENGTH && elements.insert(element, value.to_vec()).is_some() {
                return Err(CommandError::Duplicate(element));
            }
            if elements.len() > MAX_COMMAND_ELEMENTS {
                return Err(CommandError::TooManyElements);
            }
            rest = tail;
        }
        Ok(Self { elements })
    }

    /// Encodes the command with its group length, elements in ascending order.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        for (element, value) in &self.elements {
            push(&mut body, *element, value);
        }
        let mut bytes = Vec::with_capacity(body.len() + 12);
        push(&mut bytes, tag::GROUP_LENGTH, &wide(body.len()).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Sets a US value.
    #[must_use]
    pub fn with_u16(mut self, element: u16, value: u16) -> Self {
        self.elements.insert(element, value.to_le_bytes().to_vec());
        self
    }

    /// Sets a UI value, padded with NUL to even length.
    #[must_use]
    pub fn with_uid(mut self, element: u16, uid: &Uid) -> Self {
        self.elements.insert(element, padded(uid.as_str(), 0));
        self
    }

    /// Sets the Error Comment: at most 64 characters of the default repertoire without backslash. Nothing is set for
    /// an empty one.
    #[must_use]
    pub fn with_comment(mut self, comment: &str) -> Self {
        let comment = comment_text(comment);
        if !comment.is_empty() {
            self.elements.insert(tag::ERROR_COMMENT, padded(&comment, b' '));
        }
        self
    }

    /// Sets the Offending Element, of which at most 16 are named. Nothing is set for none.
    #[must_use]
    pub fn with_offending(mut self, elements: &[(u16, u16)]) -> Self {
        if !elements.is_empty() {
            let bytes = |&(group, element): &(u16, u16)| [group.to_le_bytes(), element.to_le_bytes()].concat();
            let value = elements.iter().take(MAX_OFFENDING).flat_map(bytes).collect();
            self.elements.insert(tag::OFFENDING_ELEMENT, value);
        }
        self
    }

    /// The Offending Element, by group and element; what is no whole tag is left out.
    #[must_use]
    pub fn offending(&self) -> Vec<(u16, u16)> {
        let value = self.elements.get(&tag::OFFENDING_ELEMENT).map_or(&[][..], Vec::as_slice);
        let tag = |bytes: &[u8; 4]| {
            let [g0, g1, e0, e1] = *bytes;
            (u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]))
        };
        value.as_chunks().0.iter().take(MAX_OFFENDING).map(tag).collect()
    }

    /// Reads a US value that must be there.
    ///
    /// # Errors
    /// [`CommandError::Missing`], or [`CommandError::Value`] if it is not two bytes.
    pub fn u16(&self, element: u16) -> Result<u16, CommandError> {
        let value = self.elements.get(&element).ok_or(CommandError::Missing(element))?;
        match *value.as_slice() {
            [low, high] => Ok(u16::from_le_bytes([low, high])),
            [] => Err(CommandError::Missing(element)),
            _ => Err(CommandError::Value { element, reason: format!("{} bytes instead of 2", value.len()) }),
        }
    }

    /// Reads a UI value that must be there.
    ///
    /// # Errors
    /// [`CommandError::Missing`], or [`CommandError::Value`] if it is no UID.
    pub fn uid(&self, element: u16) -> Result<Uid, CommandError> {
        let value = self.elements.get(&element).ok_or(CommandError::Missing(element))?;
        let invalid = |reason| CommandError::Value { element, reason };
        let text = std::str::from_utf8(value).map_err(|_| invalid("not ASCII".to_owned()))?;
        Uid::parse(text).map_err(|error| invalid(error.to_string()))
    }

    /// The Error Comment, if there is one, with everything but printable ASCII replaced.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        let value = self.elements.get(&tag::ERROR_COMMENT)?;
        let text: String = value.iter().take(4 * MAX_COMMENT).map(|byte| char::from(*byte)).collect();
        Some(comment_text(text.trim_matches(['\0', ' ']))).filter(|text| !text.is_empty())
    }

    /// Whether a data set follows the command (PS3.7 9.3, Command Data Set Type).
    ///
    /// # Errors
    /// If the element is absent or no US.
    pub fn announces_data_set(&self) -> Result<bool, CommandError> {
        Ok(self.u16(tag::DATA_SET_TYPE)? != NO_DATA_SET)
    }

    /// Makes the response to a request: without data set, with the request's SOP class and instance where these are
    /// valid, and with the comment unless it is empty.
    ///
    /// # Errors
    /// If the request lacks its Command Field or Message ID, so that there is nothing to respond to.
    pub fn response(request: &Self, status: StoreStatus, comment: &str) -> Result<Self, CommandError> {
        let mut response = Self::default()
            .with_u16(tag::COMMAND_FIELD, request.u16(tag::COMMAND_FIELD)? | RESPONSE)
            .with_u16(tag::MESSAGE_ID_RESPONDED_TO, request.u16(tag::MESSAGE_ID)?)
            .with_u16(tag::DATA_SET_TYPE, NO_DATA_SET)
            .with_u16(tag::STATUS, status.code())
            .with_comment(comment);
        // N- requests name a Requested class, and their responses an Affected one.
        if let Ok(class) = request.uid(tag::AFFECTED_SOP_CLASS).or_else(|_| request.uid(tag::REQUESTED_SOP_CLASS)) {
            response = response.with_uid(tag::AFFECTED_SOP_CLASS, &class);
        }
        let instance = request.uid(tag::AFFECTED_SOP_INSTANCE);
        if let Ok(instance) = instance.or_else(|_| request.uid(tag::REQUESTED_SOP_INSTANCE)) {
            response = response.with_uid(tag::AFFECTED_SOP_INSTANCE, &instance);
        }
        Ok(response)
    }

    /// Whether the command is a response.
    ///
    /// # Errors
    /// If the Command Field is absent or no US.
    pub fn is_response(&self) -> Result<bool, CommandError> {
        Ok(self.u16(tag::COMMAND_FIELD)? & RESPONSE != 0)
    }
}

fn push(bytes: &mut Vec<u8>, element: u16, value: &[u8]) {
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&element.to_le_bytes());
    bytes.extend_from_slice(&wide(value.len()).to_le_bytes());
    bytes.extend_from_slice(value);
}

/// Lengths here are bounded by [`MAX_COMMAND_SET_BYTES`] or by what this module sets.
fn wide(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn padded(text: &str, pad: u8) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(pad);
    }
    value
}

/// An LO value may hold no control characters and no backslash, which separates values; a command set has no
/// character set but the default one.
fn comment_text(comment: &str) -> String {
    let printable = |c: char| match c {
        '\\' => '/',
        ' '..='~' => c,
        _ if c.is_control() => ' ',
        _ => '?',
    };
    comment.chars().take(MAX_COMMENT).map(printable).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uids;
    use proptest::prelude::*;

    fn element(group: u16, element: u16, length: u32, value: &[u8]) -> Vec<u8> {
        [&group.to_le_bytes()[..], &element.to_le_bytes(), &length.to_le_bytes(), value].concat()
    }

    #[test]
    fn c_store_request_as_the_standard_lays_it_out() {
        let class = Uid::parse("1.2").unwrap();
        let bytes = CommandSet::c_store_request(7, &class, &Uid::parse("1.2.3").unwrap()).encode();
        let body = [
            element(0, 0x0002, 4, b"1.2\0"),
            element(0, 0x0100, 2, &[1, 0]),
            element(0, 0x0110, 2, &[7, 0]),
            element(0, 0x0700, 2, &[0, 0]),
            element(0, 0x0800, 2, &[0, 0]),
            element(0, 0x1000, 6, b"1.2.3\0"),
        ]
        .concat();
        let length = u32::try_from(body.len()).unwrap();
        assert_eq!(bytes, [element(0, 0, 4, &length.to_le_bytes()), body].concat());
    }

    #[test]
    fn a_response_answers_its_request() {
        let request = CommandSet::c_store_request(300, &uids::known(uids::VERIFICATION), &Uid::parse("1.2.3").unwrap());
        let response = CommandSet::response(&request, StoreStatus::OutOfResources, "disk is full\\\u{7}é").unwrap();
        let response = CommandSet::decode(&response.encode()).unwrap();
        assert_eq!(response.u16(tag::COMMAND_FIELD), Ok(field::C_STORE_RSP));
        assert_eq!(response.u16(tag::MESSAGE_ID_RESPONDED_TO), Ok(300));
        assert_eq!(response.u16(tag::STATUS), Ok(0xA700));
        assert_eq!(response.announces_data_set(), Ok(false));
        assert_eq!(response.uid(tag::AFFECTED_SOP_INSTANCE).unwrap().as_str(), "1.2.3");
        assert_eq!(response.comment().as_deref(), Some("disk is full/ ?"));
    }

    #[test]
    fn long_comments_are_cut_on_a_character() {
        let command = CommandSet::default().with_comment(&"é".repeat(200));
        assert_eq!(command.comment().unwrap(), "?".repeat(64));
        assert_eq!(CommandSet::default().with_comment("  "), CommandSet::default());
    }

    #[test]
    fn broken_command_sets() {
        let decode = |bytes: &[u8]| CommandSet::decode(bytes).unwrap_err();
        assert_eq!(decode(&[0; 7]), CommandError::Truncated(0));
        assert_eq!(decode(&element(0, 0x100, 3, &[1, 0])), CommandError::Truncated(0));
        assert_eq!(decode(&element(0, 0x100, u32::MAX, &[1, 0])), CommandError::Truncated(0));
        assert_eq!(decode(&element(8, 0x16, 0, &[])), CommandError::Group(8, 0x16));
        assert_eq!(decode(&vec![0; MAX_COMMAND_SET_BYTES + 1]), CommandError::TooLong(MAX_COMMAND_SET_BYTES + 1));
        let twice = [element(0, 0x100, 0, &[]), element(0, 0x100, 0, &[])].concat();
        assert_eq!(decode(&twice), CommandError::Duplicate(0x100));
        let many: Vec<u8> = (1..=300).flat_map(|number| element(0, number, 0, &[])).collect();
        assert_eq!(decode(&many), CommandError::TooManyElements);
    }

    #[test]
    fn values_of_the_wrong_form() {
        let bytes = [element(0, 0x0002, 4, b"../x"), element(0, 0x0100, 4, &[1, 0, 0, 0])].concat();
        let command = CommandSet::decode(&bytes).unwrap();
        assert!(matches!(command.u16(0x0100), Err(CommandError::Value { element: 0x0100, .. })));
        assert!(matches!(command.uid(0x0002), Err(CommandError::Value { element: 0x0002, .. })));
        assert_eq!(command.u16(tag::STATUS), Err(CommandError::Missing(tag::STATUS)));
        assert!(CommandSet::response(&command, StoreStatus::Success, "").is_err());
    }

    #[test]
    fn an_action_is_answered_under_its_requested_instance() {
        let (class, instance) = (uids::known(uids::STORAGE_COMMITMENT), uids::known(uids::STORAGE_COMMITMENT_INSTANCE));
        let request = CommandSet::n_action_request(9, &class, &instance, 1);
        let response = CommandSet::response(&request, StoreStatus::Success, "").unwrap();
        assert_eq!(response.u16(tag::COMMAND_FIELD), Ok(field::N_ACTION_RSP));
        assert_eq!(response.uid(tag::AFFECTED_SOP_CLASS), Ok(class.clone()));
        assert_eq!(response.uid(tag::AFFECTED_SOP_INSTANCE), Ok(instance.clone()));
        let event = CommandSet::n_event_report_request(1, &class, &instance, 2);
        let event = CommandSet::decode(&event.encode()).unwrap();
        assert_eq!((event.u16(tag::EVENT_TYPE), event.announces_data_set()), (Ok(2), Ok(true)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(command) = CommandSet::decode(&bytes) {
                let _ = (command.u16(tag::STATUS), command.uid(tag::AFFECTED_SOP_CLASS), command.comment());
                let _ = CommandSet::response(&command, StoreStatus::Success, "");
            }
        }

        // Bytes that look like elements reach further than plain noise.
        #[test]
        fn damaged_commands_never_panic(
            at in 0usize..400, flip in any::<u8>(), cut in 0usize..400, comment in ".{0,80}",
        ) {
            let request = CommandSet::c_store_request(1, &uids::known(uids::CT_IMAGE_STORAGE), &uids::known("1.2.3"));
            let mut bytes = CommandSet::response(&request, StoreStatus::CannotUnderstand, &comment).unwrap().encode();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            bytes.truncate(bytes.len().saturating_sub(cut % 16));
            if let Ok(command) = CommandSet::decode(&bytes) {
                let again = CommandSet::decode(&command.encode());
                prop_assert_eq!(again.as_ref(), Ok(&command));
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(values in proptest::collection::btree_map(1u16.., proptest::collection::vec(any::<u8>(), 0..40), 0..40)) {
            let command = CommandSet { elements: values };
            prop_assert_eq!(CommandSet::decode(&command.encode()), Ok(command));
        }
    }
}
