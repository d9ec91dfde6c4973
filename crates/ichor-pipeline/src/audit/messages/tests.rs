use std::process::Command;

use ichor_audit::AuditSource;
use ichor_core::Uid;
use ichor_store::{AuditPlace, Timestamp};
use serde_json::json;

use super::*;

/// The schema of PS3.15 A.5.1.1.
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/judges/dicom-audit-message.rng");

/// Every action that stands in an audit trail, and whether it is about a study.
const ACTIONS: [(&str, bool); 46] = [
    ("application-started", false),
    ("application-stopped", false),
    ("logged-in", false),
    ("logged-out", false),
    ("login-failed", false),
    ("login-limited", false),
    ("password-chosen", false),
    ("user-added", false),
    ("user-changed", false),
    ("user-invited", false),
    ("user-admitted", false),
    ("user-withdrawn", false),
    ("token-added", false),
    ("token-revoked", false),
    ("configuration-viewed", false),
    ("worklist-viewed", false),
    ("studies-searched", false),
    ("series-searched", true),
    ("instances-searched", true),
    ("studies-exported", false),
    ("study-viewed", true),
    ("slices-viewed", true),
    ("object-downloaded", true),
    ("study-retrieved", true),
    ("frames-retrieved", true),
    ("pictures-retrieved", true),
    ("study-retried", true),
    ("study-reanalysed", true),
    ("study-held", true),
    ("study-hold-released", true),
    ("analysis-released", true),
    ("delivery-retried", false),
    ("deliveries-retried", false),
    ("delivery-released", false),
    ("message-retried", false),
    ("messages-retried", false),
    ("message-released", false),
    ("model-activation-requested", false),
    ("model-rollback-requested", false),
    ("workitem-created", true),
    ("workitem-viewed", true),
    ("workitem-updated", true),
    ("workitem-state-changed", false),
    ("workitem-cancel-requested", true),
    ("workitems-subscribed", false),
    ("something-of-tomorrow", true),
];

fn by() -> Told {
    Told {
        ae_title: "ICHOR".to_owned(),
        host: "ichor.example".to_owned(),
        destinations: vec![("pacs".to_owned(), "10.1.2.3:104".to_owned())],
    }
}

fn study(name: &str) -> AuditedStudy {
    AuditedStudy {
        study_instance: Uid::parse("1.2.3").unwrap(),
        patient_id: Some("4711".to_owned()),
        patient_name: Some(name.to_owned()),
        accession_number: Some("A<1>".to_owned()),
    }
}

fn record(study: Option<AuditedStudy>, matter: AuditMatter) -> AuditRecord {
    let at = Timestamp::from_millis(1_767_225_600_123);
    AuditRecord { after: AuditPlace { audit: 1, event: 1 }, at, study, matter }
}

fn entry(action: &str, study: Option<AuditedStudy>) -> AuditRecord {
    let entry = AuditEntry {
        id: 1,
        at: Timestamp::from_millis(1_767_225_600_123),
        actor: "anna".to_owned(),
        role: Some("operator".to_owned()),
        address: "192.0.2.7".to_owned(),
        action: action.to_owned(),
        study_instance: study.as_ref().map(|study| study.study_instance.clone()),
        detail: json!({ "query": "PatientName=O'Brien*&<x>" }),
    };
    record(study, AuditMatter::Entry(entry))
}

fn classes() -> Vec<ClassCount> {
    vec![(Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(), 32)]
}

fn received() -> AuditMatter {
    AuditMatter::Received {
        peer_address: "10.0.0.5:40000".to_owned(),
        calling_ae: "CT_ROUTER".to_owned(),
        called_ae: "ICHOR".to_owned(),
        classes: classes(),
    }
}

fn refused() -> AuditMatter {
    AuditMatter::Refused {
        peer_address: "[2001:db8::1]:40000".to_owned(),
        calling_ae: "STRANGER".to_owned(),
        called_ae: "ICHOR".to_owned(),
        reason: "calling AE title not recognized".to_owned(),
    }
}

fn removed() -> AuditMatter {
    AuditMatter::Removed { what: "pixels-removed".to_owned(), text: "32 files go".to_owned() }
}

/// The message as XML.
fn xml(record: &AuditRecord) -> String {
    let source = AuditSource { site: None, id: "ichor".to_owned() };
    String::from_utf8(told(record, &by()).0.xml(&source).unwrap()).unwrap()
}

#[test]
fn every_message_fits_the_schema_of_the_standard() {
    if Command::new("xmllint").arg("--version").output().is_err() {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none_or(|value| value != "1"), "xmllint is not installed");
        eprintln!("SKIPPED: xmllint is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut write = |record: &AuditRecord| {
        let file = folder.path().join(format!("{}.xml", files.len()));
        std::fs::write(&file, xml(record)).unwrap();
        files.push(file);
    };
    for name in ["Test^Anna", "O'Brien^<script>&", "Yamada^Tarou=山田^太郎", "a\0b\u{1}\n", ""] {
        for (action, has_study) in ACTIONS {
            write(&entry(action, has_study.then(|| study(name))));
        }
        let delivered = AuditMatter::Delivered { destination: "pacs".to_owned(), classes: classes() };
        for matter in [received(), delivered, removed()] {
            write(&record(Some(study(name)), matter));
        }
        let nameless = AuditedStudy { patient_id: None, patient_name: None, accession_number: None, ..study(name) };
        write(&record(Some(nameless), received()));
        write(&record(None, refused()));
    }
    let judged = Command::new("xmllint").args(["--noout", "--relaxng", SCHEMA]).args(&files).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));

    // The judge can say no.
    let broken = folder.path().join("broken.xml");
    std::fs::write(&broken, xml(&entry("study-viewed", Some(study("x")))).replace("UserIsRequestor", "UserAsks"))
        .unwrap();
    let judged = Command::new("xmllint").args(["--noout", "--relaxng", SCHEMA]).arg(&broken).output().unwrap();
    assert!(!judged.status.success());
}

/// Kind of event, its type, action and outcome.
fn kind(record: &AuditRecord) -> (&'static str, Option<&'static str>, Action, Outcome) {
    let (AuditMessage { subject, .. }, severity) = told(record, &by());
    assert_eq!(severity == Severity::Notice, subject.outcome == Outcome::Success);
    (subject.id.value, subject.types.first().map(|code| code.value), subject.action, subject.outcome)
}

#[test]
fn actions_become_the_events_of_the_standard() {
    use Action::{Create, Delete, Execute, Read, Update};
    use Outcome::{MinorFailure, SeriousFailure, Success};
    let viewed = |action: &str| kind(&entry(action, Some(study("x"))));
    let done = |action: &str| kind(&entry(action, None));
    assert_eq!(done("application-started"), ("110100", Some("110120"), Execute, Success));
    assert_eq!(done("application-stopped"), ("110100", Some("110121"), Execute, Success));
    assert_eq!(done("logged-in"), ("110114", Some("110122"), Execute, Success));
    assert_eq!(done("logged-out"), ("110114", Some("110123"), Execute, Success));
    assert_eq!(done("login-failed"), ("110114", Some("110122"), Execute, MinorFailure));
    let mut refused_login = entry("login-failed", None);
    assert_eq!(told(&refused_login, &by()).0.subject.words.as_deref(), Some("name or password is not right"));
    if let AuditMatter::Entry(entry) = &mut refused_login.matter {
        entry.detail = json!({ "by": "oidc", "why": "the provider refused" });
    }
    assert_eq!(told(&refused_login, &by()).0.subject.words.as_deref(), Some("the provider refused"));
    assert_eq!(done("login-limited"), ("110113", Some("110132"), Execute, SeriousFailure));
    assert_eq!(done("user-changed"), ("110113", Some("110137"), Execute, Success));
    assert_eq!(done("studies-searched"), ("110112", None, Execute, Success));
    assert_eq!(viewed("study-viewed"), ("110103", None, Read, Success));
    assert_eq!(viewed("study-retried"), ("110103", None, Update, Success));
    assert_eq!(viewed("study-retrieved"), ("110104", None, Read, Success));
    assert_eq!(done("something-of-tomorrow"), ("110113", Some("110132"), Execute, Success));
    assert_eq!(kind(&record(Some(study("x")), received())), ("110104", None, Create, Success));
    assert_eq!(kind(&record(Some(study("x")), removed())), ("110105", None, Delete, Success));
    assert_eq!(kind(&record(None, refused())), ("110113", Some("110126"), Execute, MinorFailure));
}

#[test]
fn who_took_part_is_said() {
    let (message, _) = told(&record(Some(study("Test^Anna")), received()), &by());
    let [source, destination] = &message.participants[..] else { panic!("{:?}", message.participants) };
    assert_eq!((source.user.as_str(), source.place.as_deref()), ("CT_ROUTER", Some("10.0.0.5")));
    assert_eq!(destination.alternative.as_deref(), Some("AETITLES=ICHOR"));
    assert!(source.is_requestor && !destination.is_requestor);
    let [of_study, patient] = &message.objects[..] else { panic!("{:?}", message.objects) };
    assert_eq!((of_study.id.as_str(), patient.id.as_str(), patient.name.as_str()), ("1.2.3", "4711", "Test^Anna"));

    let delivered = AuditMatter::Delivered { destination: "pacs".to_owned(), classes: classes() };
    let (message, _) = told(&record(Some(study("x")), delivered), &by());
    assert_eq!(message.participants[1].place.as_deref(), Some("10.1.2.3"));
    assert!(message.participants[0].is_requestor && !message.participants[1].is_requestor);

    // Who fetches a study asks for it.
    let (message, _) = told(&entry("study-retrieved", Some(study("x"))), &by());
    assert!(!message.participants[0].is_requestor && message.participants[1].is_requestor);
    assert_eq!(message.participants[1].user, "anna");
    let askers =
        |record: &AuditRecord| told(record, &by()).0.participants.iter().filter(|one| one.is_requestor).count();
    for (action, has_study) in ACTIONS {
        assert!(askers(&entry(action, has_study.then(|| study("x")))) <= 1, "{action}: one asks at most");
    }
}
