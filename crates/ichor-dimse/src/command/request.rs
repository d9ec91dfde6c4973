//! Requests, as users make them (PS3.7 9.3 and 10.3).

use ichor_core::{AeTitle, Uid};

use super::{CommandSet, NO_DATA_SET, field, padded, tag};
use crate::uids;

impl CommandSet {
    /// Makes a C-STORE-RQ (PS3.7 9.3.1.1) of medium priority.
    #[must_use]
    pub fn c_store_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid) -> Self {
        Self::default()
            .with_uid(tag::AFFECTED_SOP_CLASS, sop_class)
            .with_u16(tag::COMMAND_FIELD, field::C_STORE_RQ)
            .with_u16(tag::MESSAGE_ID, message_id)
            .with_u16(tag::PRIORITY, 0)
            .with_u16(tag::DATA_SET_TYPE, 0x0000)
            .with_uid(tag::AFFECTED_SOP_INSTANCE, sop_instance)
    }

    /// Makes a C-FIND-RQ (PS3.7 9.3.2.1) of medium priority; the identifier follows as a data set.
    #[must_use]
    pub fn c_find_request(message_id: u16, sop_class: &Uid) -> Self {
        Self::default()
            .with_uid(tag::AFFECTED_SOP_CLASS, sop_class)
            .with_u16(tag::COMMAND_FIELD, field::C_FIND_RQ)
            .with_u16(tag::MESSAGE_ID, message_id)
            .with_u16(tag::PRIORITY, 0)
            .with_u16(tag::DATA_SET_TYPE, 0x0000)
    }

    /// Makes a C-MOVE-RQ (PS3.7 9.3.4.1) of medium priority; the identifier follows as a data set.
    #[must_use]
    pub fn c_move_request(message_id: u16, sop_class: &Uid, destination: &AeTitle) -> Self {
        let mut request = Self::default()
            .with_uid(tag::AFFECTED_SOP_CLASS, sop_class)
            .with_u16(tag::COMMAND_FIELD, field::C_MOVE_RQ)
            .with_u16(tag::MESSAGE_ID, message_id)
            .with_u16(tag::PRIORITY, 0)
            .with_u16(tag::DATA_SET_TYPE, 0x0000);
        request.elements.insert(tag::MOVE_DESTINATION, padded(destination.as_str(), b' '));
        request
    }

    /// Makes a C-CANCEL-RQ (PS3.7 9.3.2.3) for a request that is under way.
    #[must_use]
    pub fn c_cancel_request(message_id: u16) -> Self {
        Self::default()
            .with_u16(tag::COMMAND_FIELD, field::C_CANCEL_RQ)
            .with_u16(tag::MESSAGE_ID_RESPONDED_TO, message_id)
            .with_u16(tag::DATA_SET_TYPE, NO_DATA_SET)
    }

    /// Makes a C-ECHO-RQ (PS3.7 9.3.5.1).
    #[must_use]
    pub fn c_echo_request(message_id: u16) -> Self {
        Self::default()
            .with_uid(tag::AFFECTED_SOP_CLASS, &uids::known(uids::VERIFICATION))
            .with_u16(tag::COMMAND_FIELD, field::C_ECHO_RQ)
            .with_u16(tag::MESSAGE_ID, message_id)
            .with_u16(tag::DATA_SET_TYPE, NO_DATA_SET)
    }

    /// Makes an N-EVENT-REPORT-RQ (PS3.7 10.3.1) with a data set.
    #[must_use]
    pub fn n_event_report_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid, event_type: u16) -> Self {
        Self::default()
            .with_uid(tag::AFFECTED_SOP_CLASS, sop_class)
            .with_u16(tag::COMMAND_FIELD, field::N_EVENT_REPORT_RQ)
            .with_u16(tag::MESSAGE_ID, message_id)
            .with_u16(tag::DATA_SET_TYPE, 0x0000)
            .with_uid(tag::AFFECTED_SOP_INSTANCE, sop_instance)
            .with_u16(tag::EVENT_TYPE, event_type)
    }

    /// Makes an N-ACTION-RQ (PS3.7 10.3.4) with a data set.
    #[must_use]
    pub fn n_action_request(message_id: u16, sop_class: &Uid, sop_instance: &Uid, action_type: u16) -> Self {
        Self::default()
            .with_uid(tag::REQUESTED_SOP_CLASS, sop_class)
            .with_u16(tag::COMMAND_FIELD, field::N_ACTION_RQ)
            .with_u16(tag::MESSAGE_ID, message_id)
            .with_u16(tag::DATA_SET_TYPE, 0x0000)
            .with_uid(tag::REQUESTED_SOP_INSTANCE, sop_instance)
            .with_u16(tag::ACTION_TYPE, action_type)
    }
}
