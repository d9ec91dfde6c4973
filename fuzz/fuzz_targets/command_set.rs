//! Command sets: arbitrary bytes never panic, and what is decoded is encoded to the same command.
#![no_main]

use ichor_dimse::command::{CommandSet, tag};
use ichor_dimse::status::StoreStatus;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(command) = CommandSet::decode(bytes) else { return };
    assert_eq!(CommandSet::decode(&command.encode()).as_ref(), Ok(&command));
    let _ = (command.uid(tag::AFFECTED_SOP_CLASS), command.u16(tag::STATUS), command.announces_data_set());
    if let Some(comment) = command.comment() {
        assert!(comment.len() <= 64);
    }
    if let Ok(response) = CommandSet::response(&command, StoreStatus::Success, "comment") {
        assert_eq!(response.is_response(), Ok(true));
    }
});
