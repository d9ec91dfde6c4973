//! Channels: HL7 over MLLP and webhooks, told by a daemon to receivers that do not always behave.

use std::process::{Command, Output};
use std::time::Duration;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use serde_json::Value;

use crate::support::daemon::{Daemon, Settings};
use crate::support::mllp::{Answer, Received, Receiver};
use crate::support::raw::RawAssociation;
use crate::support::study::{Phantom, Study, put_text};
use crate::support::tools::python;
use crate::support::webhook::{self, Posted};
use crate::support::{eventually, seconds};

/// A small study: what is told of it does not depend on its verdict.
const STUDY: Phantom = Phantom::BLEEDING.slices(12).matrix(128);

/// The key of the webhooks.
const SECRET: &str = "a secret of at least twenty-four bytes";

fn hl7(port: u16, more: &str) -> String {
    format!(
        "[[channel]]\nname = \"ris\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{port}\"\nreceiving_application = \"RIS\"\n\
         receiving_facility = \"H\"\nfirst_backoff_s = 0.1\nmax_backoff_s = 0.2\ntimeout_s = 1.0\n{more}\n"
    )
}

fn hook(port: u16, secret: &std::path::Path, more: &str) -> String {
    format!(
        "[[channel]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/hook?room=1\"\n\
         secret_file = {secret:?}\nfirst_backoff_s = 0.1\nmax_backoff_s = 0.2\ntimeout_s = 2.0\n{more}\n"
    )
}

/// A file that only its owner may read.
fn secret_file(folder: &std::path::Path, mode: u32) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("hook.secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn send(daemon: &Daemon, study: &Study) {
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
}

fn messages(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let output = daemon.command(&[&["messages", "list", "--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The messages once none is on its way any more.
fn settled(daemon: &Daemon, count: usize) -> Vec<Value> {
    eventually(seconds(30), "messages that came to an end", || {
        let all = messages(daemon, &[]);
        let ended = |message: &&Value| ["acknowledged", "dead"].contains(&message["status"].as_str().unwrap());
        if all.iter().filter(ended).count() == count && all.len() == count { Ok(all) } else { Err(format!("{all:?}")) }
    })
}

/// What an independent reader of HL7 says.
fn judge(daemon: &Daemon, received: &[Received]) -> Vec<Vec<(String, Vec<String>)>> {
    let folder = daemon.folder("hl7");
    let mut command = Command::new(python());
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/judges/read_hl7.py"));
    for (number, message) in received.iter().enumerate() {
        let path = folder.join(format!("{number}.hl7"));
        std::fs::write(&path, &message.text).unwrap();
        command.arg(path);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "hl7apy refuses: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

/// The story that everything is for: an alert reaches the reading list while the study still arrives.
#[test]
fn alert_reaches_the_reading_list_before_the_study_is_complete() {
    let (ris, orders, chat) = (Receiver::start(&[]), Receiver::start(&[]), webhook::Receiver::start(&[]));
    let scratch = tempfile::tempdir().unwrap();
    let secret = secret_file(scratch.path(), 0o640);
    let mut sections = "[alert]\nthreshold = 0.0\nslices = 4\n".to_owned();
    sections += &hl7(ris.port, "");
    sections += &hook(chat.port, &secret, "subjects = [\"alert\"]");
    let priority = "template = \"omg\"\nsubjects = [\"alert\"]";
    sections += &hl7(orders.port, priority).replace("\"ris\"", "\"orders\"");
    let daemon = Daemon::start(&Settings { quiet_period_s: 2.0, sections, ..Settings::default() });
    let study = Phantom::BLEEDING.write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    let mut instances = study.instances.iter();
    for instance in instances.by_ref().take(6) {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    eventually(seconds(10), "an alert at the receivers", || {
        match (ris.received().len(), orders.received().len(), chat.posted().len()) {
            (1, 1, 1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(daemon.find(&study.study_uid).unwrap()["status"], "receiving", "the study is not complete");
    for instance in instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    eventually(seconds(20), "everything acknowledged", || {
        let told = messages(&daemon, &[]);
        let has = |subject: &str| told.iter().any(|message| message["subject"] == subject);
        let ended = told.iter().all(|message| message["status"] == "acknowledged");
        // With such a threshold a negative takes its alert back.
        if ended && (has("positive") || has("negative") && has("alert-withdrawn")) {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });

    let received = ris.received();
    let read = judge(&daemon, &received);
    let field = |message: usize, segment: &str, number: usize| {
        let (_, fields) = read[message].iter().find(|(name, _)| name == segment).unwrap();
        fields.get(number - 1).cloned().unwrap_or_default()
    };
    assert_eq!((field(0, "OBR", 25), field(0, "TQ1", 9)), ("P".to_owned(), "S".to_owned()));
    assert_eq!(field(0, "OBX", 5), "415684004^Suspected^SCT");
    assert_eq!(field(1, "OBR", 25), "F");
    assert!(["52101004^Present^SCT", "260415000^Not detected^SCT"].contains(&field(1, "OBX", 5).as_str()));
    assert!(field(0, "NTE", 3).contains("not for clinical use"), "the weights' notice");
    let priority = &judge(&daemon, &orders.received())[0];
    let order =
        |name: &str, number: usize| priority.iter().find(|(segment, _)| segment == name).unwrap().1[number - 1].clone();
    assert_eq!((order("ORC", 1), order("TQ1", 9)), ("XO".to_owned(), "S".to_owned()));
    let summary = daemon.find(&study.study_uid).unwrap();
    assert_eq!(Some(field(1, "PID", 3).as_str()), summary["patient_id"].as_str());
    assert!(read[1].iter().any(|(name, fields)| name == "OBX" && fields[4] == study.study_uid));

    let alert = &chat.posted()[0];
    assert!(alert.is_signed_with(SECRET.as_bytes()) && !alert.is_signed_with(b"another"));
    assert_eq!((alert.path.as_str(), alert.header("content-type")), ("/hook?room=1", "application/json"));
    let body = alert.json();
    assert_eq!(
        (body["subject"].as_str(), body["study"]["study_instance_uid"].as_str()),
        (Some("alert"), Some(study.study_uid.as_str()))
    );
    assert!(body["alert"]["slices"].as_array().unwrap().len() >= 4);
    assert!(body["study"]["patient"].is_null(), "a chat is not told who it is");
    let name = summary["patient_name"].as_str().unwrap();
    assert!(!String::from_utf8_lossy(&alert.body).contains(name) && !daemon.log().contains(name));

    daemon.is_told_in_time(&study.study_uid);
}

/// An order that nobody names cannot be changed: its message waits, is given up aloud, and goes once the number is known.
#[test]
fn an_order_without_a_number_waits_and_delays_no_result() {
    let (ris, orders) = (Receiver::start(&[]), Receiver::start(&[]));
    let results = "subjects = [\"positive\", \"negative\", \"not-analysed\"]";
    let order = format!("template = \"omg\"\norder_wait_s = 2.0\n{results}");
    let sections = hl7(ris.port, results) + &hl7(orders.port, &order).replace("\"ris\"", "\"orders\"");
    // Longer than it takes to find that the number is known: the old message goes before the next version is analysed.
    let daemon = Daemon::start(&Settings { quiet_period_s: 6.0, sections, ..Settings::default() });
    let made = STUDY.write(&daemon.folder("made"));
    let study = made.edited(&daemon.folder("sent"), |_, object| put_text(object, tags::ACCESSION_NUMBER, VR::SH, ""));
    let (last, first) = study.instances.split_last().unwrap();
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in first {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    let told = settled(&daemon, 2);
    let of = |channel: &str| told.iter().find(|message| message["channel"] == channel).unwrap();
    assert_eq!(of("ris")["status"], "acknowledged");
    assert_eq!((&of("orders")["status"], &of("orders")["attempts"]), (&Value::from("dead"), &Value::from(1)));
    assert!(of("orders")["last_words"].as_str().unwrap().contains("no-order"), "{told:?}");
    assert_eq!((ris.received().len(), orders.received().len()), (1, 0), "nothing that changes no order is sent");
    let why = daemon.why(&study.study_uid);
    assert_eq!(why.matches("message-waits").count(), 1, "{why}");
    assert!(why.contains("message-dead") && why.contains("the accession number that names the order"), "{why}");

    // A late slice brings the number: the dead message goes, before the one of the new version.
    let late =
        made.edited(&daemon.folder("late"), |_, object| put_text(object, tags::ACCESSION_NUMBER, VR::SH, "LATE-1"));
    let late = late.instances.iter().find(|instance| instance.sop_instance == last.sop_instance).unwrap();
    let mut association = RawAssociation::open(daemon.port).unwrap();
    assert_eq!(association.store(late).unwrap().code, 0);
    association.release().unwrap();
    eventually(seconds(60), "the order, twice", || match orders.received().len() {
        2 => Ok(()),
        count => Err(format!("{count} of 2: {:?}", messages(&daemon, &[]))),
    });
    for message in judge(&daemon, &orders.received()) {
        let order = message.iter().find(|(field, _)| field == "ORC").unwrap();
        assert!(order.1.iter().any(|field| field == "LATE-1"), "{message:?}");
    }
    let why = daemon.why(&study.study_uid);
    assert!(why.contains("the accession number is known now"), "{why}");
}

/// The same message, under the same number, until the receiver itself says that it has it.
#[test]
fn a_receiver_that_misbehaves_is_told_again() {
    let script = [
        Answer::Code("AE"),
        Answer::Nothing,
        Answer::OfAnother,
        Answer::Late(Duration::from_millis(1_500)),
        Answer::Close,
        Answer::Garbage,
        Answer::Code("AR"),
    ];
    let ris = Receiver::start(&script);
    let daemon = Daemon::start(&Settings { sections: hl7(ris.port, ""), ..Settings::default() });
    let study = STUDY.write(&daemon.folder("study"));
    send(&daemon, &study);
    let told = settled(&daemon, 1);
    assert_eq!((told[0]["status"].as_str(), told[0]["attempts"].as_u64()), (Some("acknowledged"), Some(8)), "{told:?}");
    let received = ris.received();
    assert_eq!(received.len(), script.len() + 1);
    assert!(received.iter().all(|message| message.id() == received[0].id()));
    let why = daemon.why(&study.study_uid);
    for words in ["refused", "AE", "no answer within", "it acknowledges", "no MLLP block", "AR", "acknowledged"] {
        assert!(why.contains(words), "{words:?} is not in {why}");
    }
    assert!(!why.contains("Doe") && !daemon.log().contains("Doe"), "the receiver's words speak of a patient");
    let waited = received[1].at - received[0].at;
    assert!(waited >= Duration::from_millis(50), "{waited:?} between attempts");
}

/// Given up after so many attempts, told once somebody asks for it; and killed in the middle, told all the same.
#[test]
fn dead_messages_are_retried_and_a_kill_loses_none() {
    let ris = Receiver::start(&[Answer::Code("AE"), Answer::Code("AE"), Answer::Nothing]);
    let sections = hl7(ris.port, "attempts = 2");
    let mut daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let study = STUDY.write(&daemon.folder("study"));
    send(&daemon, &study);
    let dead = settled(&daemon, 1);
    assert_eq!(dead[0]["status"], "dead");
    assert_eq!(messages(&daemon, &["--status", "dead", "--study", &study.study_uid]).len(), 1);
    assert!(messages(&daemon, &["--status", "queued"]).is_empty());
    let number = dead[0]["id"].to_string();
    let refused = daemon.command(&["messages", "retry", "4711"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("4711"));
    assert!(daemon.command(&["messages", "retry", &number]).status.success());
    let again = daemon.command(&["messages", "retry", &number]);
    assert!(!again.status.success(), "another operator was first");
    assert!(daemon.command(&["messages", "retry", "--by", "anna"]).status.success(), "nothing is dead any more");
    let told = daemon.audit_details("message-retried");
    assert!(told.len() == 1 && told[0]["message"] == dead[0]["id"] && told[0]["what"] == 1, "once: {told:?}");
    assert!(daemon.audit_details("messages-retried").is_empty(), "what changes nothing leaves no row");
    eventually(seconds(10), "the third attempt", || match ris.received().len() {
        3 => Ok(()),
        other => Err(other.to_string()),
    });
    daemon.kill();
    daemon.start_again();
    let told = settled(&daemon, 1);
    assert_eq!(told[0]["status"], "acknowledged", "{told:?}");
    let received = ris.received();
    assert_eq!(received.len(), 4);
    assert!(received.iter().all(|message| message.id() == received[0].id()), "the receiver can tell repetitions");
}

/// Webhooks: what may pass is tried again, what will not is given up at once, and who is told of the patient is a setting.
#[test]
fn webhooks_are_signed_and_tried_again() {
    let scratch = tempfile::tempdir().unwrap();
    let secret = secret_file(scratch.path(), 0o600);
    let chat = webhook::Receiver::start(&[503, 429]);
    let sections = hook(chat.port, &secret, "with_patient = true");
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let study = STUDY.write(&daemon.folder("study"));
    send(&daemon, &study);
    assert_eq!(settled(&daemon, 1)[0]["attempts"], 3);
    let posted = chat.posted();
    assert!(posted.len() == 3 && posted.iter().all(|one| one.is_signed_with(SECRET.as_bytes())));
    let id = |one: &Posted| one.header("webhook-id").to_owned();
    assert!(posted.iter().all(|one| id(one) == id(&posted[0])) && !id(&posted[0]).is_empty());
    let body = posted[2].json();
    assert_eq!(posted[0].body, posted[2].body, "the same at every attempt");
    let summary = daemon.find(&study.study_uid).unwrap();
    assert_eq!(body["study"]["patient"]["id"], summary["patient_id"]);
    assert!(["positive", "negative", "not-analysed"].contains(&body["subject"].as_str().unwrap()));
    assert!(body["notice"].as_str().unwrap().contains("not for clinical use"));
    drop(daemon);

    let gone = webhook::Receiver::start(&[410]);
    let daemon = Daemon::start(&Settings { sections: hook(gone.port, &secret, ""), ..Settings::default() });
    let study = STUDY.write(&daemon.folder("study"));
    send(&daemon, &study);
    let dead = settled(&daemon, 1);
    assert_eq!((dead[0]["status"].as_str(), dead[0]["attempts"].as_u64()), (Some("dead"), Some(1)), "{dead:?}");
    assert!(daemon.why(&study.study_uid).contains("HTTP 410"));
}

/// A channel that is down delays neither the other channel nor the delivery of results.
#[test]
fn a_dead_channel_delays_nobody() {
    let ris = Receiver::start(&[]);
    let scratch = tempfile::tempdir().unwrap();
    let secret = secret_file(scratch.path(), 0o600);
    // Nobody listens there.
    let mut sections = hook(crate::support::free_port(), &secret, "");
    sections += &hl7(ris.port, "");
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let study = STUDY.write(&daemon.folder("study"));
    send(&daemon, &study);
    eventually(seconds(30), "the healthy channel", || match ris.received().len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    // Received is not recorded yet.
    eventually(seconds(10), "its acknowledgement", || match messages(&daemon, &["--status", "acknowledged"]).len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    eventually(seconds(10), "attempts at the dead one", || {
        let all = messages(&daemon, &[]);
        let dead = all.iter().find(|message| message["channel"] == "chat").unwrap();
        if dead["attempts"].as_u64() >= Some(2) { Ok(()) } else { Err(dead.to_string()) }
    });
}

/// What a site gets wrong is said before the port is opened, without the secret.
#[test]
fn mistakes_in_a_channel_keep_the_daemon_from_starting() {
    let scratch = tempfile::tempdir().unwrap();
    let refusal = |sections: String| Daemon::refuses_to_start(&Settings { sections, ..Settings::default() });
    let open = secret_file(scratch.path(), 0o644);
    let said = refusal(hook(1, &open, ""));
    assert!(said.contains("chat") && said.contains("anybody may read it") && !said.contains(SECRET), "{said}");
    let template = scratch.path().join("own.hl7");
    std::fs::write(&template, "MSH|^~\\&|{{ sender.aplication }}\n").unwrap();
    let said = refusal(hl7(2575, &format!("template = {template:?}")));
    assert!(said.contains("ris") && said.contains("own.hl7") && said.contains("undefined"), "{said}");
    for (sections, word) in [
        (hl7(2575, "url = \"http://x\""), "url"),
        (hl7(2575, "subjects = []"), "subjects"),
        (hl7(2575, "subjects = [\"everything\"]"), "everything"),
        (hl7(2575, "processing_id = \"X\""), "processing_id"),
        (hl7(2575, "order_wait_s = -1.0"), "order_wait_s"),
        (hl7(2575, "") + &hl7(2576, ""), "stands twice"),
        ("[[channel]]\nname = \"x\"\nkind = \"hl7\"\n".to_owned(), "address"),
        ("[[channel]]\nname = \"x\"\nkind = \"webhook\"\nurl = \"ftp://x\"\n".to_owned(), "http"),
        ("[[channel]]\nname = \"x\"\nkind = \"pigeon\"\n".to_owned(), "pigeon"),
    ] {
        let said = refusal(sections);
        assert!(said.contains(word), "{word}: {said}");
    }
}
