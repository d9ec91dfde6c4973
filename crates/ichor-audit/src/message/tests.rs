use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::*;
use crate::codes;

fn message(name: &str) -> AuditMessage {
    let person = Participant {
        user: name.to_owned(),
        name: Some(name.to_owned()),
        alternative: Some(format!("AETITLES={name}")),
        is_requestor: true,
        place: Some("192.0.2.1".to_owned()),
        role: Some(codes::SOURCE_ROLE),
    };
    let study = Object {
        kind: ObjectKind::Study,
        id_type: codes::STUDY_INSTANCE_UID,
        id: "1.2.3".to_owned(),
        name: name.to_owned(),
        query: None,
        details: vec![("Detail", name.as_bytes().to_vec())],
        description: Some(ObjectDescription {
            accession: Some(name.to_owned()),
            classes: vec![("1.2.840.10008.5.1.4.1.1.2".to_owned(), 32)],
        }),
    };
    AuditMessage {
        subject: Subject {
            id: codes::INSTANCES_ACCESSED,
            types: vec![codes::LOGIN],
            action: Action::Read,
            at: OffsetDateTime::UNIX_EPOCH,
            outcome: Outcome::Success,
            words: Some(name.to_owned()),
        },
        participants: vec![person.clone(), Participant { role: None, place: Some("host".to_owned()), ..person }],
        objects: vec![study],
    }
}

fn source() -> AuditSource {
    AuditSource { site: Some("A & B".to_owned()), id: "ichor".to_owned() }
}

/// Every attribute's and element's text, as a reader understands it; what is no XML is an error.
fn texts(xml: &[u8]) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut reader = Reader::from_reader(xml);
    reader.config_mut().check_end_names = true;
    let (mut texts, mut buffer, mut text) = (Vec::new(), Vec::new(), String::new());
    loop {
        match reader.read_event_into(&mut buffer)? {
            Event::Start(element) | Event::Empty(element) => {
                for attribute in element.attributes() {
                    let value = attribute?.value.to_string();
                    texts.push(quick_xml::escape::unescape(&value)?.into_owned());
                }
            }
            Event::Text(part) => text.push_str(&part),
            Event::GeneralRef(entity) => text.push_str(&format!("&{};", &*entity)),
            Event::End(_) => texts.push(quick_xml::escape::unescape(&std::mem::take(&mut text))?.into_owned()),
            Event::Eof => return Ok(texts),
            _ => {}
        }
        buffer.clear();
    }
}

#[test]
fn names_arrive_as_they_are() {
    for name in
        ["O'Brien^<script>alert(\"&\")</script>", "Yamada^Tarou=山田^太郎=やまだ^たろう", "]]>&amp;", "قباني^لنزار"]
    {
        let xml = message(name).xml(&source()).unwrap();
        let found = texts(&xml).unwrap();
        let count = found.iter().filter(|text| text.as_str() == name).count();
        // UserID and UserName of both, the object's name, its accession number, and the outcome.
        assert_eq!(count, 7, "{name}: {found:?}");
        assert!(found.contains(&format!("AETITLES={name}")) && found.contains(&"A & B".to_owned()));
    }
}

#[test]
fn what_xml_cannot_say_is_replaced() {
    let xml = message("a\0b\u{1}c\nd\u{7f}e\u{fffe}f\u{2028}g").xml(&source()).unwrap();
    let found = texts(&xml).unwrap();
    assert!(found.contains(&"a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g".to_owned()), "{found:?}");
    assert!(!xml.iter().any(|byte| *byte < 0x20), "one line, whatever a name holds");
}

#[test]
fn what_is_too_long_is_cut() {
    let long = "<".repeat(5_000);
    let mut message = message(&long);
    message.objects[0].details = vec![("Detail", vec![b'x'; 100_000]); 50];
    let xml = message.xml(&source()).unwrap();
    assert!(xml.len() <= MOST_BYTES, "{}", xml.len());
    let found = texts(&xml).unwrap();
    assert!(found.iter().any(|text| text.chars().count() == LONGEST_TEXT + 1 && text.ends_with('…')));
}

#[test]
fn moments_are_utc() {
    let at = time::macros::datetime!(2026-03-01 01:02:03.456789 +2);
    assert_eq!(moment(at), "2026-02-28T23:02:03.456Z");
}

proptest! {
    #[test]
    fn any_name_makes_a_message(name in proptest::collection::vec(any::<char>(), 0..400)) {
        let name: String = name.into_iter().collect();
        let xml = message(&name).xml(&source()).unwrap();
        prop_assert!(xml.len() <= MOST_BYTES);
        prop_assert!(std::str::from_utf8(&xml).is_ok() && texts(&xml).is_ok());
    }
}
