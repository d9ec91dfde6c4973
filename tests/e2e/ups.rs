//! The worklist: workitems by UPS-RS, with an independent party in Python; and those that our own analyses leave.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::daemon::{Daemon, Settings, WEB_TOKEN, repository};
use crate::support::raw::RawAssociation;
use crate::support::study::{Instance, Phantom};
use crate::support::tools::{python, requires};
use crate::support::{eventually, seconds};

fn with_worklist(more: &str) -> Settings {
    Settings { stow: true, sections: format!("[worklist]\n{more}\n"), quiet_period_s: 0.5, ..Settings::default() }
}

fn party(daemon: &Daemon, arguments: &[&str]) -> Output {
    let script = repository("tests/counterparts/ups.py");
    Command::new(python()).arg(script).args([&daemon.web_url(), WEB_TOKEN]).args(arguments).output().unwrap()
}

#[track_caller]
fn does(daemon: &Daemon, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = party(daemon, arguments);
    assert!(status.success(), "{arguments:?}: {}\n{}", String::from_utf8_lossy(&stderr), daemon.log());
    String::from_utf8(stdout).unwrap()
}

fn json(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    serde_json::from_str(&does(daemon, arguments)).unwrap()
}

fn send(daemon: &Daemon, instances: &[Instance]) {
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
}

fn value<'a>(set: &'a Value, tag: &str) -> &'a Value {
    &set[tag]["Value"][0]
}

#[test]
fn a_workitem_from_schedule_to_end() {
    requires!(WebsocketClient);
    let mut daemon = Daemon::start(&with_worklist("max_workitem_kib = 64"));
    does(&daemon, &["lifecycle"]);
    for _ in 0..3 {
        does(&daemon, &["race", "8"]);
    }
    // Whoever saw or changed a workitem stands in the audit trail.
    let audited = daemon.audited();
    for action in ["workitem-created", "workitem-viewed", "workitems-searched", "workitem-state-changed"] {
        let is_there = audited.iter().any(|(actor, what, _)| actor == "dicomweb:WEB" && what == action);
        assert!(is_there, "{action} is not in {audited:?}");
    }
    assert!(daemon.is_running() && !daemon.log().contains("P-UPS"), "{}", daemon.log());
}

/// One workitem for each version of a study, urgent if positive; neither it nor what a subscriber has not heard is forgotten.
#[test]
fn finished_studies_wait_to_be_read() {
    requires!(WebsocketClient);
    let mut daemon = Daemon::start(&with_worklist("retrieve_ae_title = \"PACS\""));
    does(&daemon, &["subscribe", "READER"]);
    let study = Phantom::BLEEDING.write(&daemon.folder("study"));
    let (late, first) = study.instances.split_last().unwrap();
    send(&daemon, first);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    let query = format!("ReferencedRequestSequence.StudyInstanceUID={}", study.study_uid);
    let found = json(&daemon, &["search", &query]);
    assert_eq!(found.len(), 1, "{found:?}");
    let summary = daemon.find(&study.study_uid).unwrap();
    let priority = if summary["positive"] == true { "HIGH" } else { "LOW" };
    assert_eq!((value(&found[0], "00741200"), value(&found[0], "00741000")), (&priority.into(), &"SCHEDULED".into()));
    assert_eq!(value(&found[0], "00100020"), &summary["patient_id"]);
    assert!(value(&found[0], "00400400").as_str().unwrap().contains("not for clinical use"), "the weights' notice");
    let inputs = found[0]["00404021"]["Value"].as_array().unwrap();
    let referenced: Vec<&Value> = inputs
        .iter()
        .flat_map(|series| series["00081199"]["Value"].as_array().unwrap())
        .map(|one| value(one, "00081155"))
        .collect();
    assert!(first.iter().all(|one| referenced.contains(&&Value::from(one.sop_instance.as_str()))), "{referenced:?}");
    assert_eq!(value(value(&inputs[0], "0040E021"), "00080054"), "PACS");

    daemon.kill();
    daemon.start_again();
    // Told, and not heard: whoever loses the connection before the Pong is told again.
    let lost = json(&daemon, &["hear", "READER", "1", "deaf"]);
    let heard = json(&daemon, &["hear", "READER", "1"]);
    assert_eq!(lost, heard);
    assert_eq!(
        (value(&heard[0], "00001000"), value(&heard[0], "00741000")),
        (value(&found[0], "00080018"), &"SCHEDULED".into())
    );

    // A late slice: the workitem of the first version is over.
    send(&daemon, std::slice::from_ref(late));
    let both =
        eventually(seconds(60), "a workitem of the second version", || match json(&daemon, &["search", &query]) {
            found if found.len() == 2 => Ok(found),
            found => Err(format!("{found:?}")),
        });
    let states: Vec<&Value> = both.iter().map(|one| value(one, "00741000")).collect();
    assert!(states.contains(&&"SCHEDULED".into()) && states.contains(&&"CANCELED".into()), "{states:?}");
    let heard = json(&daemon, &["hear", "READER", "2"]);
    assert_eq!((value(&heard[0], "00741000"), value(&heard[1], "00741000")), (&"SCHEDULED".into(), &"CANCELED".into()));
    assert_eq!(value(&heard[1], "00001000"), value(&found[0], "00080018"), "that of the first version");
    let name = summary["patient_name"].as_str().unwrap();
    assert!(!daemon.log().contains(name));
}

/// A subscriber that a client names is nobody else's: neither channel nor subscription.
#[test]
fn a_subscriber_is_its_clients_own() {
    requires!(WebsocketClient);
    let client = |name: &str, titles: &str| {
        format!(
            "[[dicomweb.client]]\nname = \"{name}\"\ntoken_file = \"{name}.token\"\nmay = [\"worklist\"]\n\
             subscriber_ae_titles = [{titles}]\n"
        )
    };
    let folder = tokens(&["OWNER", "OTHER"]);
    let sections = [client("OWNER", "\"READER\""), client("OTHER", "")].concat();
    let sections = sections.replace("token_file = \"", &format!("token_file = \"{}/", folder.path().display()));
    let settings = Settings { sections: format!("[worklist]\n{sections}"), ..with_worklist("") };
    let daemon = Daemon::start(&settings);
    let asks = |token: &str, arguments: &[&str]| {
        let script = repository("tests/counterparts/ups.py");
        let output = Command::new(python()).arg(script).args([&daemon.web_url(), token]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    asks(&token_of("OWNER"), &["subscribe", "READER"]);
    asks(&token_of("OWNER"), &["listen", "READER", "101"]);
    asks(&token_of("OTHER"), &["listen", "READER", "403"]);
    asks(&token_of("OTHER"), &["listen", "ANYBODY", "101"]);
    asks(WEB_TOKEN, &["listen", "READER", "403"]);
}

fn token_of(client: &str) -> String {
    format!("token-of-the-client-{client}")
}

fn tokens(clients: &[&str]) -> crate::support::scratch::Scratch {
    use std::os::unix::fs::PermissionsExt;
    let folder = crate::support::scratch::Scratch::new("tokens");
    for client in clients {
        let file = folder.path().join(format!("{client}.token"));
        std::fs::write(&file, token_of(client)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

#[test]
fn mistakes_keep_the_daemon_from_starting() {
    let refusal = |settings: &Settings| Daemon::refuses_to_start(settings);
    let said = refusal(&Settings { stow: false, ..with_worklist("") });
    assert!(said.contains("worklist") && said.contains("[dicomweb]"), "{said}");
    for (keys, word) in
        [("max_results = 0", "max_results"), ("max_workitem_kib = 0", "max_workitem_kib"), ("pages = 1", "pages")]
    {
        let said = refusal(&with_worklist(keys));
        assert!(said.contains(word), "{keys}: {said}");
    }
}
