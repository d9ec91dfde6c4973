//! From rows of the audit trail and of the event log to audit messages (PS3.15 A.5.3).

use ichor_audit::{
    Action, AuditMessage, Code, Object, ObjectDescription, ObjectKind, Outcome, Participant, Severity, Subject, codes,
};
use ichor_store::{AuditEntry, AuditMatter, AuditRecord, AuditedStudy, ClassCount, DICOMWEB_ACTOR};
use serde_json::Value;
use time::OffsetDateTime;

use crate::peer::host_of;

/// Who tells: this machine and its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// AE title.
    pub ae_title: String,
    /// Name of the machine.
    pub host: String,
    /// Destinations, each with its address, for those that have one.
    pub destinations: Vec<(String, String)>,
}

/// The message of a record, and how grave it is.
#[must_use]
pub fn told(record: &AuditRecord, by: &Told) -> (AuditMessage, Severity) {
    let at = i128::from(record.at.as_millis()) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let study = record.study.as_ref();
    let message = match &record.matter {
        AuditMatter::Entry(entry) => of_entry(entry, study, by, at),
        AuditMatter::Received { peer_address, calling_ae, called_ae, classes } => {
            let (source, destination) = (peer(calling_ae, peer_address), by.process(called_ae));
            transferred(at, Action::Create, (source, destination), (study, classes))
        }
        AuditMatter::Delivered { destination, classes } => {
            let place = by.destinations.iter().find(|(name, _)| name == destination);
            let place = place.map(|(_, address)| host_of(address));
            let receiver = Participant { user: destination.clone(), place, ..Participant::default() };
            let source = Participant { is_requestor: true, ..by.process(&by.ae_title) };
            transferred(at, Action::Read, (source, receiver), (study, classes))
        }
        AuditMatter::Refused { peer_address, calling_ae, called_ae, reason } => {
            let peer = Participant { is_requestor: true, ..peer(calling_ae, peer_address) };
            refused(at, peer, by.process(called_ae), reason)
        }
        AuditMatter::Removed { what, text } => AuditMessage {
            subject: Subject { words: Some(text.clone()), ..subject(codes::STUDY_DELETED, Action::Delete, at) },
            participants: vec![Participant { is_requestor: true, ..by.process(&by.ae_title) }],
            objects: of_study(study, &[], vec![("Files", what.as_bytes().to_vec())]),
        },
    };
    let severity = if message.subject.outcome == Outcome::Success { Severity::Notice } else { Severity::Warning };
    (message, severity)
}

impl Told {
    /// Ourselves, called so.
    fn process(&self, ae_title: &str) -> Participant {
        Participant {
            user: "ichor".to_owned(),
            alternative: Some(format!("AETITLES={ae_title}")),
            place: Some(self.host.clone()),
            role: Some(codes::APPLICATION),
            ..Participant::default()
        }
    }
}

fn peer(title: &str, address: &str) -> Participant {
    Participant {
        user: title.to_owned(),
        alternative: Some(format!("AETITLES={title}")),
        place: Some(host_of(address)),
        ..Participant::default()
    }
}

fn subject(id: Code, action: Action, at: OffsetDateTime) -> Subject {
    Subject { id, types: Vec::new(), action, at, outcome: Outcome::Success, words: None }
}

/// Study and patient.
fn of_study(
    study: Option<&AuditedStudy>,
    classes: &[ClassCount],
    details: Vec<(&'static str, Vec<u8>)>,
) -> Vec<Object> {
    let Some(study) = study else { return Vec::new() };
    let description = ObjectDescription {
        accession: study.accession_number.clone().filter(|number| !number.is_empty()),
        classes: classes.iter().map(|(class, count)| (class.to_string(), *count)).collect(),
    };
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    vec![
        Object {
            kind: ObjectKind::Study,
            id_type: codes::STUDY_INSTANCE_UID,
            id: study.study_instance.to_string(),
            name: text(&study.accession_number).unwrap_or_else(|| study.study_instance.to_string()),
            query: None,
            details,
            description: Some(description),
        },
        Object {
            kind: ObjectKind::Patient,
            id_type: codes::PATIENT_NUMBER,
            id: text(&study.patient_id).unwrap_or_else(|| "unknown".to_owned()),
            name: text(&study.patient_name).unwrap_or_else(|| "unknown".to_owned()),
            query: None,
            details: Vec::new(),
            description: None,
        },
    ]
}

/// Instances went from one to the other (PS3.15 A.5.3.7).
fn transferred(
    at: OffsetDateTime,
    action: Action,
    (source, destination): (Participant, Participant),
    (study, classes): (Option<&AuditedStudy>, &[ClassCount]),
) -> AuditMessage {
    let is_requested_by_source = action == Action::Create || source.is_requestor;
    AuditMessage {
        subject: subject(codes::INSTANCES_TRANSFERRED, action, at),
        participants: vec![
            Participant { role: Some(codes::SOURCE_ROLE), is_requestor: is_requested_by_source, ..source },
            Participant { role: Some(codes::DESTINATION_ROLE), is_requestor: !is_requested_by_source, ..destination },
        ],
        objects: of_study(study, classes, Vec::new()),
    }
}

/// Somebody was not let in (PS3.15 A.5.3.11).
fn refused(at: OffsetDateTime, peer: Participant, ourselves: Participant, why: &str) -> AuditMessage {
    let node = Object {
        kind: ObjectKind::SecurityResource,
        id_type: codes::NODE_ID,
        id: peer.place.clone().unwrap_or_default(),
        name: peer.user.clone(),
        query: None,
        details: vec![("Alert Description", why.as_bytes().to_vec())],
        description: None,
    };
    AuditMessage {
        subject: Subject {
            types: vec![codes::NODE_AUTHENTICATION],
            outcome: Outcome::MinorFailure,
            words: Some(why.to_owned()),
            ..subject(codes::SECURITY_ALERT, Action::Execute, at)
        },
        participants: vec![ourselves, peer],
        objects: vec![node],
    }
}

/// What an action of the audit trail is to a repository.
enum Meaning {
    Activity(Code),
    Authentication(Code, Outcome),
    /// A study, or the worklist, was looked at or changed.
    Accessed(Action),
    /// A study was fetched.
    Fetched,
    /// Something was searched for.
    Asked,
    /// Security has to know.
    Alert(Code, Outcome),
}

fn meaning(action: &str, has_study: bool) -> Meaning {
    match action {
        "application-started" => Meaning::Activity(codes::APPLICATION_START),
        "application-stopped" => Meaning::Activity(codes::APPLICATION_STOP),
        "logged-in" => Meaning::Authentication(codes::LOGIN, Outcome::Success),
        "logged-out" => Meaning::Authentication(codes::LOGOUT, Outcome::Success),
        "login-failed" => Meaning::Authentication(codes::LOGIN, Outcome::MinorFailure),
        "login-limited" => Meaning::Alert(codes::USE_OF_RESTRICTED_FUNCTION, Outcome::SeriousFailure),
        "studies-searched" | "series-searched" | "instances-searched" | "workitems-searched" | "worklist-viewed"
        | "studies-exported" => Meaning::Asked,
        "study-retrieved" | "object-downloaded" => Meaning::Fetched,
        "model-activation-requested" | "model-rollback-requested" => {
            Meaning::Alert(codes::SOFTWARE_CONFIGURATION, Outcome::Success)
        }
        _ if action.starts_with("user-") || action.starts_with("token-") || action.starts_with("password-") => {
            Meaning::Alert(codes::USER_SECURITY_ATTRIBUTES_CHANGED, Outcome::Success)
        }
        _ if has_study && (action.ends_with("-viewed") || action.ends_with("-retrieved")) => {
            Meaning::Accessed(Action::Read)
        }
        "workitem-created" if has_study => Meaning::Accessed(Action::Create),
        _ if has_study => Meaning::Accessed(Action::Update),
        // Whatever else somebody may do, it is said, too.
        _ => Meaning::Alert(codes::USE_OF_RESTRICTED_FUNCTION, Outcome::Success),
    }
}

fn of_entry(entry: &AuditEntry, study: Option<&AuditedStudy>, by: &Told, at: OffsetDateTime) -> AuditMessage {
    let AuditEntry { actor, role, address, action, detail, .. } = entry;
    let is_address = address.parse::<std::net::IpAddr>().is_ok();
    let person = Participant {
        user: actor.clone(),
        name: role.as_ref().map(|role| format!("{actor} ({role})")),
        is_requestor: true,
        place: Some(if is_address { address.clone() } else { by.host.clone() }),
        ..Participant::default()
    };
    let ourselves = by.process(&by.ae_title);
    let words = detail_text(detail);
    let details = || vec![("Action", action.as_bytes().to_vec()), ("Detail", words.as_bytes().to_vec())];
    match meaning(action, study.is_some()) {
        Meaning::Activity(kind) => AuditMessage {
            subject: Subject { types: vec![kind], ..subject(codes::APPLICATION_ACTIVITY, Action::Execute, at) },
            participants: vec![Participant { user: process_of(detail), ..ourselves }],
            objects: Vec::new(),
        },
        Meaning::Authentication(kind, outcome) => AuditMessage {
            subject: Subject {
                types: vec![kind],
                outcome,
                words: (outcome != Outcome::Success)
                    .then(|| detail["why"].as_str().unwrap_or("name or password is not right").to_owned()),
                ..subject(codes::USER_AUTHENTICATION, Action::Execute, at)
            },
            participants: vec![person, ourselves],
            objects: Vec::new(),
        },
        Meaning::Accessed(what) => AuditMessage {
            subject: subject(codes::INSTANCES_ACCESSED, what, at),
            participants: vec![person, ourselves],
            objects: of_study(study, &[], details()),
        },
        Meaning::Fetched => {
            let (source, destination) = (Participant { role: None, ..ourselves }, person);
            let mut message = transferred(at, Action::Read, (source, destination), (study, &[]));
            if let Some(object) = message.objects.first_mut() {
                object.details = details();
            }
            message
        }
        Meaning::Asked => AuditMessage {
            subject: subject(codes::QUERY, Action::Execute, at),
            participants: vec![
                Participant { role: Some(codes::SOURCE_ROLE), ..person },
                Participant { role: Some(codes::DESTINATION_ROLE), ..ourselves },
            ],
            objects: vec![asked(actor, action, &words)],
        },
        Meaning::Alert(kind, outcome) => AuditMessage {
            subject: Subject {
                types: vec![kind],
                outcome,
                words: Some(action.clone()),
                ..subject(codes::SECURITY_ALERT, Action::Execute, at)
            },
            objects: alert_objects(study, by, details()),
            participants: vec![ourselves, person],
        },
    }
}

/// A question, and what it was put to.
fn asked(actor: &str, action: &str, words: &str) -> Object {
    let by = if actor.starts_with(DICOMWEB_ACTOR) { "DICOMweb" } else { "administration" };
    Object {
        kind: ObjectKind::Query,
        id_type: codes::SEARCH_CRITERIA,
        id: format!("{by} {action}"),
        name: String::new(),
        query: Some(words.as_bytes().to_vec()),
        details: Vec::new(),
        description: None,
    }
}

fn alert_objects(study: Option<&AuditedStudy>, by: &Told, details: Vec<(&'static str, Vec<u8>)>) -> Vec<Object> {
    let node = Object {
        kind: ObjectKind::SecurityResource,
        id_type: codes::NODE_ID,
        id: by.host.clone(),
        name: "ichor".to_owned(),
        query: None,
        details,
        description: None,
    };
    std::iter::once(node).chain(of_study(study, &[], Vec::new())).collect()
}

/// The process that started or stopped, which need not be the one that tells.
fn process_of(detail: &Value) -> String {
    detail["process"].as_u64().map_or_else(|| "ichor".to_owned(), |process| format!("ichor {process}"))
}

fn detail_text(detail: &Value) -> String {
    if detail.is_null() { String::new() } else { detail.to_string() }
}

#[cfg(test)]
mod tests;
