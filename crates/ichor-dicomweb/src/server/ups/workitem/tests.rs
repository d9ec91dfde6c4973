use serde_json::{Value, json};

use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const TUID: &str = "1.2.3.99";

fn scheduled() -> DataSet {
    let set = json!({
        "00741000": { "vr": "CS", "Value": ["SCHEDULED"] },
        "00741200": { "vr": "CS", "Value": ["HIGH"] },
        "00741204": { "vr": "LO", "Value": ["Read it"] },
        "00404005": { "vr": "DT", "Value": ["20260102030405"] },
        "00404041": { "vr": "CS", "Value": ["READY"] },
        "00404018": { "vr": "SQ" },
    });
    let Value::Object(set) = set else { panic!() };
    set
}

fn set(value: Value) -> DataSet {
    let Value::Object(set) = value else { panic!() };
    set
}

fn item() -> Workitem {
    create(Some(&Uid::parse("1.2.3").unwrap()), scheduled(), NOW).unwrap()
}

fn state(word: &str, transaction: Option<&str>) -> DataSet {
    let mut asked = set(json!({ "00741000": { "vr": "CS", "Value": [word] } }));
    if let Some(uid) = transaction {
        asked.insert(TRANSACTION.to_owned(), attribute("UI", uid));
    }
    asked
}

fn changed(next: Result<Next, Fault>) -> (Workitem, Vec<DataSet>) {
    match next.unwrap() {
        Next::Changed(item, reports) => (item, reports),
        Next::Same(words) => panic!("{words}"),
    }
}

fn claimed() -> Workitem {
    changed(change_state(&item(), &state("IN PROGRESS", Some(TUID)), NOW)).0
}

fn performed() -> DataSet {
    set(json!({ "00741216": { "vr": "SQ", "Value": [{
        "00404050": { "vr": "DT", "Value": ["20260102"] }, "00404051": { "vr": "DT", "Value": ["20260102"] },
    }] } }))
}

fn completed() -> Workitem {
    let uid = Uid::parse(TUID).unwrap();
    let reported = changed(update(&claimed(), performed(), Some(&uid), NOW)).0;
    changed(change_state(&reported, &state("COMPLETED", Some(TUID)), NOW)).0
}

#[test]
fn what_a_workitem_must_have() {
    assert_eq!(item().priority(), 0);
    assert!(text(&item().attributes, WORKLIST_LABEL).is_some(), "the server's own");
    assert_eq!(create(None, scheduled(), NOW).unwrap().uid, create(None, scheduled(), NOW).unwrap().uid);
    for tag in [STATE, PRIORITY, LABEL, START, READINESS, WORKITEM_CODE] {
        let mut poor = scheduled();
        poor.remove(tag);
        assert_eq!(create(None, poor, NOW).unwrap_err().status, 400, "{tag}");
    }
    for (tag, value) in [
        (STATE, attribute("CS", "IN PROGRESS")),
        (PRIORITY, attribute("CS", "STAT")),
        (READINESS, attribute("CS", "MAYBE")),
        (START, attribute("DT", "tomorrow")),
        (TRANSACTION, attribute("UI", TUID)),
        (SOP_CLASS, attribute("UI", "1.2")),
        (SOP_INSTANCE, attribute("UI", "1.2.3.4")),
        (SOP_INSTANCE, attribute("UI", "../etc")),
        (PERFORMED, performed()[PERFORMED].clone()),
        (PROGRESS, sequence(vec![performed()])),
    ] {
        let mut wrong = scheduled();
        wrong.insert(tag.to_owned(), value.clone());
        let fault = create(Some(&Uid::parse("1.2.3").unwrap()), wrong, NOW).unwrap_err();
        assert_eq!(fault.status, 400, "{tag} {value}");
    }
}

/// PS3.4 table CC.1.1-2, every cell of it.
#[test]
fn states_and_what_may_follow() {
    let canceled = changed(change_state(&claimed(), &state("CANCELED", Some(TUID)), NOW)).0;
    for (from, wanted, transaction, outcome) in [
        (item(), "SCHEDULED", TUID, Err((409, INCONSISTENT))),
        (item(), "IN PROGRESS", TUID, Ok("IN PROGRESS")),
        (item(), "COMPLETED", TUID, Err((409, INCONSISTENT))),
        (item(), "CANCELED", TUID, Err((409, INCONSISTENT))),
        (claimed(), "SCHEDULED", TUID, Err((409, INCONSISTENT))),
        (claimed(), "IN PROGRESS", TUID, Err((409, INCONSISTENT))),
        (claimed(), "IN PROGRESS", "1.9", Err((409, INCONSISTENT))),
        (claimed(), "COMPLETED", "1.9", Err((409, TRANSACTION_INCORRECT))),
        // What was done is not said.
        (claimed(), "COMPLETED", TUID, Err((409, INCONSISTENT))),
        (claimed(), "CANCELED", "1.9", Err((409, TRANSACTION_INCORRECT))),
        (claimed(), "CANCELED", TUID, Ok("CANCELED")),
        (completed(), "SCHEDULED", TUID, Err((409, INCONSISTENT))),
        (completed(), "IN PROGRESS", TUID, Err((409, INCONSISTENT))),
        (completed(), "COMPLETED", TUID, Ok("The UPS is already in the requested state of COMPLETED.")),
        (completed(), "CANCELED", TUID, Err((409, INCONSISTENT))),
        (canceled.clone(), "IN PROGRESS", TUID, Err((409, INCONSISTENT))),
        (canceled.clone(), "COMPLETED", TUID, Err((409, INCONSISTENT))),
        (canceled.clone(), "CANCELED", TUID, Ok("The UPS is already in the requested state of CANCELED.")),
    ] {
        let found = change_state(&from, &state(wanted, Some(transaction)), NOW);
        match (found, outcome) {
            (Ok(Next::Changed(next, reports)), Ok(word)) => {
                assert_eq!((next.state.as_str(), reports.len()), (word, 1));
                assert_eq!(text(&next.attributes, STATE), Some(word), "attribute and state agree");
                assert!(!next.attributes.contains_key(TRANSACTION), "no answer holds the transaction UID");
            }
            (Ok(Next::Same(words)), Ok(word)) => assert_eq!(words, word),
            (Err(fault), Err((status, words))) => assert_eq!((fault.status, fault.words.as_str()), (status, words)),
            (found, wanted) => panic!("{:?} to {wanted:?}: {found:?}", from.state),
        }
    }
    assert!(text(items(&canceled.attributes, PROGRESS)[0], CANCELED_AT).is_some());
    for (asked, words) in [
        (state("IN PROGRESS", None), TRANSACTION_MISSING),
        (state("DONE", Some(TUID)), "none of"),
        (state("IN PROGRESS", Some("x")), "digits"),
        (DataSet::new(), "missing"),
    ] {
        let fault = change_state(&item(), &asked, NOW).unwrap_err();
        assert!(fault.status == 400 && fault.words.contains(words), "{fault}");
    }
}

#[test]
fn updates() {
    let label = set(json!({ "00741204": { "vr": "LO", "Value": ["Other"] } }));
    let uid = Uid::parse(TUID).unwrap();
    let (next, reports) = changed(update(&item(), label.clone(), None, NOW));
    assert_eq!((text(&next.attributes, LABEL), reports.len()), (Some("Other"), 0));
    for (item, shown, status, words) in [
        (item(), Some(&uid), 409, INCONSISTENT),
        (claimed(), None, 400, TRANSACTION_MISSING),
        (claimed(), Some(&Uid::parse("1.9").unwrap()), 409, TRANSACTION_INCORRECT),
        (completed(), Some(&uid), 409, INCONSISTENT),
    ] {
        let fault = update(&item, label.clone(), shown, NOW).unwrap_err();
        assert_eq!((fault.status, fault.words.as_str()), (status, words), "{:?}", item.state);
    }
    for tag in [STATE, SOP_INSTANCE, "00100010"] {
        let wrong = data_set_of(tag);
        assert_eq!(update(&item(), wrong, None, NOW).unwrap_err().status, 400, "{tag}");
    }
    // In the body, as older clients send it.
    let mut progress =
        set(json!({ "00741002": { "vr": "SQ", "Value": [{ "00741004": { "vr": "DS", "Value": ["50"] } }] } }));
    progress.insert(TRANSACTION.to_owned(), attribute("UI", TUID));
    let (next, reports) = changed(update(&claimed(), progress, None, NOW));
    assert!(!next.attributes.contains_key(TRANSACTION));
    assert_eq!(reports[0]["00001002"]["Value"][0], 3, "a progress report");
    let ready = set(json!({ "00404041": { "vr": "CS", "Value": ["INCOMPLETE"] } }));
    let (_, reports) = changed(update(&item(), ready, None, NOW));
    assert_eq!(reports[0]["00404041"]["Value"][0], "INCOMPLETE");
}

fn data_set_of(tag: &str) -> DataSet {
    DataSet::from_iter([(tag.to_owned(), attribute("CS", "x"))])
}

#[test]
fn cancellation_by_others() {
    let why = set(json!({ "00741238": { "vr": "LT", "Value": ["wrong patient"] } }));
    let (next, reports) = changed(request_cancel(&item(), &why, "PACS", NOW));
    assert_eq!((next.state, text(&reports[0], "00741238")), (UpsState::Canceled, Some("wrong patient")));
    let (next, reports) = changed(request_cancel(&claimed(), &why, "PACS", NOW));
    assert_eq!((next.state, &reports[0]["00001002"]["Value"][0]), (UpsState::InProgress, &json!(2)));
    assert_eq!(text(&reports[0], "00741236"), Some("PACS"));
    let fault = request_cancel(&completed(), &why, "PACS", NOW).unwrap_err();
    assert_eq!((fault.status, fault.words.as_str()), (409, "The UPS is already COMPLETED."));
    let canceled = changed(request_cancel(&item(), &why, "PACS", NOW)).0;
    assert!(matches!(request_cancel(&canceled, &why, "PACS", NOW), Ok(Next::Same(_))));
}

#[test]
fn a_workitem_does_not_grow_without_end() {
    let label = |length| set(json!({ "00741204": { "vr": "LO", "Value": ["x".repeat(length)] } }));
    assert_eq!(check_size(&update(&item(), label(100), None, NOW).unwrap(), 4096), Ok(()));
    let fault = check_size(&update(&item(), label(5000), None, NOW).unwrap(), 4096).unwrap_err();
    assert!(fault.status == 413 && fault.words.contains("4096"), "{fault}");
}
