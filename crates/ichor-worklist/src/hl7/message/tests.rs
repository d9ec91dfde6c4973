use super::*;
use crate::SetupError;
use crate::hl7::Template;

fn options(template: Template, charset: Charset) -> Hl7Options {
    Hl7Options {
        address: "127.0.0.1:1".to_owned(),
        template,
        sending: ("ICHOR".to_owned(), "A&B".to_owned()),
        receiving: ("RIS".to_owned(), "HOSPITAL".to_owned()),
        processing_id: "P".to_owned(),
        charset,
        timeout: std::time::Duration::from_secs(1),
        tls: None,
    }
}

fn sample(subject: Subject) -> Announcement {
    Announcement::samples().into_iter().find(|sample| sample.subject == subject).unwrap()
}

/// The fields of the segments of that name; a field's number is its index.
fn segments(message: &[u8], name: &str) -> Vec<Vec<String>> {
    let text = String::from_utf8(message.to_vec()).unwrap();
    let fields = |segment: &str| {
        let mut fields: Vec<String> = segment.split('|').map(str::to_owned).collect();
        if fields[0] == "MSH" {
            // The separator itself is MSH-1.
            fields.insert(1, "|".to_owned());
        }
        fields
    };
    text.split('\r').map(fields).filter(|fields| fields[0] == name).collect()
}

fn made(subject: Subject) -> Vec<u8> {
    Encoder::new(&options(Template::Oru, Charset::Utf8)).unwrap().message(&sample(subject)).unwrap()
}

#[test]
fn a_positive_says_what_and_how_much() {
    let message = made(Subject::Positive);
    let header = &segments(&message, "MSH")[0];
    assert_eq!(header[3..7], ["ICHOR", "A\\T\\B", "RIS", "HOSPITAL"]);
    assert_eq!(
        (header[9].as_str(), header[10].as_str(), header[12].as_str()),
        ("ORU^R01^ORU_R01", "SAMPLE-8", "2.5.1")
    );
    assert_eq!(header[18], "UNICODE UTF-8");
    let patient = &segments(&message, "PID")[0];
    assert_eq!(patient[3], "P\\T\\C");
    assert_eq!(patient[5], "O'Brien\\F\\^Seán\\R\\^\\E\\X^^Dr^^L^A~山田^太郎^^^^^L^I");
    let request = &segments(&message, "OBR")[0];
    assert_eq!(request[3], "A\\F\\1\\S\\2\\T\\3\\R\\4\\E\\5");
    assert_eq!(
        (request[7].as_str(), request[22].as_str(), request[24].as_str(), request[25].as_str()),
        ("20241004", "20241004000000.000+0000", "CT", "F")
    );
    assert_eq!(segments(&message, "TQ1")[0][9], "S");
    assert!(segments(&message, "NTE")[0][3].contains("not for clinical use"));
    let observed: Vec<(String, String)> =
        segments(&message, "OBX").into_iter().map(|obx| (obx[3].clone(), obx[5].clone())).collect();
    let value = |code: &str| &observed.iter().find(|(identifier, _)| identifier.starts_with(code)).unwrap().1;
    assert_eq!(value("1386000^"), "52101004^Present^SCT");
    assert_eq!((value("ICH-PROBABILITY^").as_str(), value("ICH-VOLUME^").as_str()), ("0.938", "12.5"));
    assert_eq!(value("111001^"), "ichor-demo@0.1.0+0123456789ab");
    for (number, obx) in segments(&message, "OBX").iter().enumerate() {
        assert_eq!((obx[1].clone(), obx[11].as_str(), obx.len()), ((number + 1).to_string(), "F", 18), "{obx:?}");
    }
}

#[test]
fn each_subject_has_its_status() {
    for (subject, status, observed) in [
        (Subject::Alert, "P", "415684004^Suspected^SCT"),
        (Subject::Negative, "F", "260415000^Not detected^SCT"),
        (Subject::NotAnalysed, "X", "no series shows a head (no-head)"),
        (Subject::Failed, "X", "no series shows a head"),
        (Subject::AlertWithdrawn, "C", "a sample of alert-withdrawn"),
        (Subject::DeliveryDead, "P", "a sample of delivery-dead"),
    ] {
        let message = made(subject);
        assert_eq!(segments(&message, "OBR")[0][25], status, "{subject}");
        let values: Vec<String> = segments(&message, "OBX").into_iter().map(|obx| obx[5].clone()).collect();
        assert!(values.iter().any(|value| value.contains(observed)), "{subject}: {values:?}");
        assert_eq!(segments(&message, "TQ1")[0][9], if subject.is_urgent() { "S" } else { "R" });
    }
    let later = Announcement { version: Some(2), ..sample(Subject::Negative) };
    let message = Encoder::new(&options(Template::Oru, Charset::Utf8)).unwrap().message(&later).unwrap();
    assert_eq!(segments(&message, "OBR")[0][25], "C", "another version corrects");
}

#[test]
fn an_order_gets_its_priority() {
    let encoder = Encoder::new(&options(Template::Orm, Charset::Utf8)).unwrap();
    let message = encoder.message(&sample(Subject::Alert)).unwrap();
    assert_eq!(segments(&message, "MSH")[0][9], "ORM^O01^ORM_O01");
    let encoder = Encoder::new(&options(Template::Omg, Charset::Utf8)).unwrap();
    let newer = encoder.message(&sample(Subject::Negative)).unwrap();
    assert_eq!((segments(&newer, "ORC")[0][1].as_str(), segments(&newer, "TQ1")[0][9].as_str()), ("XO", "R"));
    let order = &segments(&message, "ORC")[0];
    assert_eq!((order[1].as_str(), order[7].as_str()), ("XO", "^^^^^S"));
}

#[test]
fn an_order_without_a_number_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.hl7");
    // A site that knows its orders by another number.
    let text = include_str!("../../../templates/orm_o01.hl7");
    std::fs::write(&own, text.replace("|{{ study.accession_number }}|", "|{{ study.uid }}|")).unwrap();
    let (mut unknown, mut empty) = (sample(Subject::Alert), sample(Subject::Alert));
    unknown.study.accession_number = None;
    empty.study.accession_number = Some(String::new());
    for (template, of_unknown) in
        [(Template::Orm, true), (Template::Omg, true), (Template::Oru, false), (Template::File(own), false)]
    {
        let encoder = Encoder::new(&options(template.clone(), Charset::Utf8)).unwrap();
        let names_none = |told: &Announcement| changes_no_order(&encoder.message(told).unwrap());
        assert!(!names_none(&sample(Subject::Alert)), "{template:?}");
        assert_eq!((names_none(&unknown), names_none(&empty)), (of_unknown, of_unknown), "{template:?}");
    }
}

#[test]
fn what_a_character_set_lacks_becomes_a_question_mark() {
    let name = |charset| {
        let message = Encoder::new(&options(Template::Oru, charset)).unwrap().message(&sample(Subject::Alert)).unwrap();
        let begin = message.windows(7).position(|bytes| bytes == b"O'Brien").unwrap();
        message[begin..begin + 30].to_vec()
    };
    assert!(name(Charset::Latin1).windows(4).any(|bytes| bytes == b"Se\xE1n"));
    assert!(name(Charset::Ascii).windows(4).any(|bytes| bytes == b"Se?n"));
    assert!(!name(Charset::Latin1).is_ascii() && name(Charset::Ascii).is_ascii());
}

#[test]
fn faults_of_a_template_show_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.hl7");
    let set_up = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Encoder::new(&options(Template::File(path.clone()), Charset::Utf8))
    };
    let fault = |text: &str| set_up(text).unwrap_err().to_string();
    assert!(fault("MSH|^~\\&|{{ sender.applicaton }}\n").contains("undefined"), "a key that is not there");
    assert!(fault("MSH|^~\\&|{{ sender.application }\n").contains("own.hl7"));
    assert!(fault("PID|1\n").contains("MSH"));
    assert!(fault("").contains("MSH"));
    // Only alerts have one: a template that forgets that would fail on the first study.
    assert!(fault("MSH|^~\\&|X\nZZZ|{{ alert.probability }}\n").contains("undefined"));
    let missing = Encoder::new(&options(Template::File(folder.path().join("none.hl7")), Charset::Utf8));
    assert!(matches!(missing, Err(SetupError::File { .. })));
    let own =
        set_up("MSH|^~\\&|X\n\n  \nZZZ|{{ study.description }}|{% if alert %}{{ alert.probability }}{% endif %}\n")
            .unwrap();
    let message = own.message(&sample(Subject::Alert)).unwrap();
    assert_eq!(message, b"MSH|^~\\&|X\rZZZ|CT head\\.br\\without contrast|0.875\r");
}

#[test]
fn an_alert_that_stands_is_not_cancelled() {
    let stands = Announcement { alert: sample(Subject::Alert).alert, ..sample(Subject::NotAnalysed) };
    let message = Encoder::new(&options(Template::Oru, Charset::Utf8)).unwrap().message(&stands).unwrap();
    assert_eq!(segments(&message, "OBR")[0][25], "P");
    let values: Vec<String> = segments(&message, "OBX").into_iter().map(|obx| obx[5].clone()).collect();
    for wanted in ["415684004^Suspected^SCT", "0.875", "a sample of not-analysed"] {
        assert!(values.iter().any(|value| value == wanted), "{wanted}: {values:?}");
    }
}

#[test]
fn a_positive_that_stands_is_not_cancelled() {
    let finding = sample(Subject::Positive).finding;
    for subject in [Subject::NotAnalysed, Subject::Failed] {
        let stands = Announcement { finding: finding.clone(), ..sample(subject) };
        let message = Encoder::new(&options(Template::Oru, Charset::Utf8)).unwrap().message(&stands).unwrap();
        assert_eq!(segments(&message, "OBR")[0][25], "C");
        let values: Vec<String> = segments(&message, "OBX").into_iter().map(|obx| obx[5].clone()).collect();
        for wanted in ["52101004^Present^SCT", "0.938", "12.5", &format!("a sample of {subject}")] {
            assert!(values.iter().any(|value| value == wanted), "{wanted}: {values:?}");
        }
        assert!(values.iter().any(|value| value.ends_with("(no-head)")), "the reason too: {values:?}");
    }
}
