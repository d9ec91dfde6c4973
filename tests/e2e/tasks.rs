//! Workitems of others, performed: a strict task manager in Python that misbehaves when told to, ichor's own worklist in another
//! process, and Orthanc as the source of inputs and the destination of results.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, Destination, Settings, WEB_TOKEN, repository};
use crate::support::orthanc::Orthanc;
use crate::support::study::{Phantom, Study};
use crate::support::task_manager::{TaskManager, Wanted};
use crate::support::tools::{python, requires};
use crate::support::{eventually, free_port, http, seconds, stays};

const CODE: &str = "ICH";

/// A performer for a list, whose inputs come from `sources`.
pub(crate) fn performer(list: &str, sources: &[&str], keys: &str) -> String {
    let sources: String =
        sources.iter().map(|url| format!("[[task_list.source]]\nurl = {url:?}\n")).collect::<Vec<_>>().concat();
    format!(
        "[[task_list]]\nname = \"TASKS\"\nurl = {list:?}\nworkitem_codes = [\"{CODE}^99TEST\"]\npoll_s = 0.3\n\
         first_backoff_s = 0.2\nmax_backoff_s = 0.5\nquiet_period_s = 0.3\ntimeout_s = 20.0\nmax_answer_mib = 1\n{keys}\n{sources}"
    )
}

fn settings(pacs: &Orthanc, list: &str, keys: &str) -> Settings {
    let sections = performer(list, &[&pacs.dicom_web_url()], keys);
    Settings { sections, ..Settings::to([Destination::c_store(pacs)]) }
}

pub(crate) fn wanted<'a>(uid: &'a str, study: &'a str, url: &'a str) -> Wanted<'a> {
    Wanted { uid, code: CODE, study, priority: "MEDIUM", url: Some(url), title: None, instances: &[] }
}

pub(crate) fn place(pacs: &Orthanc, study: &Study) -> String {
    format!("{}/studies/{}", pacs.dicom_web_url().trim_end_matches('/'), study.study_uid)
}

/// `ichor tasks list`.
fn tasks(daemon: &Daemon) -> Value {
    let output = daemon.command(&["tasks", "list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn task(daemon: &Daemon, uid: &str) -> Value {
    let all = tasks(daemon);
    all["tasks"].as_array().unwrap().iter().find(|task| task["workitem"] == uid).cloned().unwrap_or(Value::Null)
}

#[track_caller]
pub(crate) fn wait_for_task(daemon: &Daemon, uid: &str, status: &str) -> Value {
    eventually(seconds(60), &format!("task {status}"), || match task(daemon, uid) {
        task if task["status"] == status => Ok(task),
        task => Err(format!("{task}\n{}", daemon.log())),
    })
}

fn first<'a>(set: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(set, |set, tag| &set[*tag]["Value"][0])
}

/// Found, claimed, fetched, analysed, delivered, and told with references to what was made. A second workitem for the same study
/// costs no second analysis.
#[test]
fn workitem_is_performed_and_its_outputs_are_named() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let daemon = Daemon::start(&settings(&pacs, &manager.url(), ""));
    let study = called_positive()[0].write(&daemon.folder("study"));
    pacs.keep(&study);
    let instances: Vec<&str> = study.instances.iter().map(|one| one.sop_instance.as_str()).collect();
    let url = place(&pacs, &study);
    manager.schedule(&Wanted { code: "SOMETHING-ELSE", ..wanted("2.25.1", &study.study_uid, &url) });
    manager.schedule(&Wanted { priority: "HIGH", instances: &instances, ..wanted("2.25.2", &study.study_uid, &url) });

    let item = manager.wait_for("2.25.2", "COMPLETED", 120);
    let performed = first(&item["data"], &["00741216"]);
    let found = pacs.segmentations(&study.study_uid);
    assert_eq!(found.len(), 1, "the result was accepted before it was told");
    let outputs = performed["00404033"]["Value"].as_array().unwrap();
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    assert_eq!(first(&outputs[0], &["00081199", "00081155"]), &json!(found[0].sop_instance));
    assert_eq!(first(&outputs[0], &["00081199", "00081150"]), &json!("1.2.840.10008.5.1.4.1.1.66.4"));
    assert_eq!(first(&outputs[0], &["0020000D"]), &json!(study.study_uid));
    assert_eq!(first(&outputs[0], &["0040E021", "00080054"]), &json!("ORTHANC"));
    assert_eq!(first(performed, &["00404019", "00080100"]), &json!(CODE));
    assert_eq!(first(performed, &["00404028", "00080100"]), &json!("ICHOR"));
    let told: Vec<f64> = item["updates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|update| first(update, &["00741002", "00741004"]).as_f64().unwrap())
        .collect();
    assert!(told.is_sorted() && told.last() == Some(&100.0) && told.contains(&10.0), "{told:?}");
    assert!(first(&item["data"], &["00741002", "00741006"]).as_str().unwrap().contains("hemorrhage found"));
    // Neither what is not ours nor what is done is touched again.
    let (claims, why) = (manager.answered("PUT", "/state", 200), daemon.why(&study.study_uid));
    assert_eq!((manager.workitem("2.25.1")["state"].as_str(), claims), (Some("SCHEDULED"), 2));
    assert_eq!(task(&daemon, "2.25.2")["status"], "completed");
    for word in ["its input was fetched", "urgent by task list", "COMPLETED: version 1: hemorrhage found"] {
        assert!(why.contains(word), "{word}: {why}");
    }

    manager.schedule(&Wanted { instances: &instances, url: None, ..wanted("2.25.3", &study.study_uid, "") });
    let again = manager.wait_for("2.25.3", "COMPLETED", 60);
    assert_eq!(first(&again["data"], &["00741216", "00404033"]), &outputs[0], "the same objects");
    assert_eq!(daemon.show(&study.study_uid)["summary"]["version"], 1, "{}", daemon.log());
    assert_eq!(pacs.segmentations(&study.study_uid).len(), 1);
    assert!(!daemon.log().contains("P-TASK"));
}

/// A claim whose answer is lost, a death while it waits, and an end whose answer is lost: one claim, one end, one analysis.
#[test]
fn deaths_between_the_steps_lose_nothing_and_do_nothing_twice() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let mut daemon = Daemon::start(&settings(&pacs, &manager.url(), ""));
    let study = called_positive()[0].write(&daemon.folder("study"));
    pacs.keep(&study);
    let (uid, url) = ("2.25.7", place(&pacs, &study));
    manager.make(&json!({ "drop": "state" }));
    manager.schedule(&wanted(uid, &study.study_uid, &url));
    manager.wait_for(uid, "IN PROGRESS", 30);
    daemon.kill();
    assert!(["claiming", "claimed", "waiting"].contains(&task(&daemon, uid)["status"].as_str().unwrap()));
    daemon.start_again();
    // Whole: what a death leaves of half a fetch is closed as a version of its own.
    eventually(seconds(60), "its input", || match daemon.find(&study.study_uid) {
        Some(found) if found["instances"] == study.instances.len() => Ok(()),
        found => Err(format!("{found:?}\n{}", daemon.log())),
    });
    daemon.kill();
    manager.make(&json!({ "drop": "state" }));
    daemon.start_again();
    manager.wait_for(uid, "COMPLETED", 120);
    daemon.kill();
    daemon.start_again();
    let ended = wait_for_task(&daemon, uid, "completed");
    stays(seconds(1), || assert_eq!(manager.workitem(uid)["state"], "COMPLETED"));
    let changes: Vec<Value> = manager.log().into_iter().filter(|entry| entry["method"] == "PUT").collect();
    let taken = changes.iter().filter(|entry| entry["status"] == 200 && entry["words"].is_null()).count();
    assert_eq!(taken, 2, "one claim and one end: {changes:?} {ended}");
    let summary = daemon.show(&study.study_uid)["summary"].clone();
    assert_eq!((summary["version"].as_u64(), pacs.segmentations(&study.study_uid).len()), (Some(1), 1), "{summary}");
}

/// What is not analysed is CANCELED with a reason; what others have claimed, what may not be fetched and what makes no sense is left
/// alone; and each stands in the list of tasks.
#[test]
fn what_is_not_done_is_said() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let daemon = Daemon::start(&settings(&pacs, &manager.url(), ""));
    let small = Phantom { slices: 3, matrix: 128, ..Phantom::BLEEDING }.write(&daemon.folder("small"));
    pacs.keep(&small);
    let url = place(&pacs, &small);
    manager.schedule(&wanted("2.25.10", &small.study_uid, &url));
    let item = manager.wait_for("2.25.10", "CANCELED", 60);
    let progress = first(&item["data"], &["00741002"]);
    assert_eq!(first(progress, &["0074100E", "00080100"]), &json!("110522"));
    assert!(first(progress, &["00741238"]).as_str().unwrap().starts_with("not analysed: "), "{progress}");
    assert_eq!(wait_for_task(&daemon, "2.25.10", "canceled")["study_instance"], small.study_uid.as_str());

    // Nobody is asked but the configured source.
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let (other, trap_url) = ("1.2.3.4.5", format!("http://{}/studies/1.2.3.4.5", trap.local_addr().unwrap()));
    manager.schedule(&wanted("2.25.11", other, &trap_url));
    let left = wait_for_task(&daemon, "2.25.11", "left");
    assert!(left["last_words"].as_str().unwrap().contains("below no address"), "{left}");
    manager.schedule(&wanted("2.25.12", other, &url));
    let left = wait_for_task(&daemon, "2.25.12", "left");
    assert!(left["last_words"].as_str().unwrap().contains("another study"), "{left}");
    manager.schedule(&Wanted { url: None, ..wanted("2.25.13", other, "") });
    let left = wait_for_task(&daemon, "2.25.13", "left");
    assert!(left["last_words"].as_str().unwrap().contains("not here"), "{left}");
    assert!(trap.accept().is_err(), "somebody asked where nothing may be fetched from");
    for uid in ["2.25.11", "2.25.12", "2.25.13"] {
        assert_eq!(manager.workitem(uid)["state"], "SCHEDULED");
    }

    // Somebody else is first, between our look and our claim; another vanishes there.
    manager.make(&json!({ "hold": "state" }));
    manager.schedule(&wanted("2.25.20", &small.study_uid, &url));
    manager.schedule(&wanted("2.25.21", &small.study_uid, &url));
    wait_for_task(&daemon, "2.25.20", "claiming");
    wait_for_task(&daemon, "2.25.21", "claiming");
    manager.make(&json!({ "steal": "2.25.20" }));
    manager.make(&json!({ "forget": "2.25.21", "hold": null }));
    let lost = wait_for_task(&daemon, "2.25.20", "lost");
    assert!(lost["last_words"].as_str().unwrap().contains("somebody else was first"), "{lost}");
    assert!(wait_for_task(&daemon, "2.25.21", "lost")["last_words"].as_str().unwrap().contains("gone"));
    assert_eq!(manager.workitem("2.25.20")["state"], "IN PROGRESS", "theirs");
    assert_eq!(manager.workitem("2.25.20")["updates"], json!([]));
}

/// A list that lies, that answers without end, and that is out of order for a while.
#[test]
fn a_list_that_misbehaves_is_outlasted() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let mut daemon = Daemon::start(&settings(&pacs, &manager.url(), ""));
    let study = called_negative().write(&daemon.folder("study"));
    pacs.keep(&study);
    let list_is = |daemon: &Daemon, is_up: bool| {
        eventually(seconds(30), "the state of the list", || match tasks(daemon)["lists"][0].clone() {
            list if list["is_up"] == is_up => Ok(list),
            list => Err(list.to_string()),
        })
    };
    list_is(&daemon, true);
    manager.make(&json!({ "lie": "huge" }));
    let list = list_is(&daemon, false);
    assert!(list["last_words"].as_str().unwrap().contains("longer than"), "{list}");
    manager.make(&json!({ "lie": "uid" }));
    list_is(&daemon, true);
    let (uid, url) = ("2.25.30", place(&pacs, &study));
    manager.schedule(&wanted(uid, &study.study_uid, &url));
    // A name that is none, and one of nothing, are asked for no further.
    stays(seconds(1), || assert_eq!(manager.workitem(uid)["state"], "SCHEDULED"));
    manager.make(&json!({ "lie": null }));
    manager.wait_for(uid, "IN PROGRESS", 30);
    manager.make(&json!({ "lie": "scheduled", "status": 503 }));
    list_is(&daemon, false);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(90));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(manager.workitem(uid)["state"], "IN PROGRESS");
    manager.make(&json!({ "status": 0 }));
    let item = manager.wait_for(uid, "COMPLETED", 30);
    assert!(first(&item["data"], &["00741002", "00741006"]).as_str().unwrap().contains("no hemorrhage detected"));
    // The list goes on saying that it is to be done.
    stays(seconds(2), || assert_eq!(task(&daemon, uid)["status"], "completed"));
    assert_eq!(manager.answered("PUT", &format!("{uid}/state"), 200), 2);
    assert!(daemon.is_running());
}

fn party(manager: &Daemon, arguments: &[&str]) -> String {
    let script = repository("tests/counterparts/ups.py");
    let output =
        Command::new(python()).arg(script).args([&manager.web_url(), WEB_TOKEN]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two performers at one worklist of ichor's: each workitem is done once. Whoever has claimed hears by the event channel that it is
/// to be canceled.
#[test]
fn of_two_performers_one_performs() {
    requires!(Orthanc, WebsocketClient);
    let pacs = Orthanc::start();
    let manager = Daemon::start(&Settings {
        stow: true,
        sections: "[worklist]\nreading = false\n".to_owned(),
        ..Settings::default()
    });
    let token = manager.folder("tokens").join("token");
    std::fs::write(&token, WEB_TOKEN).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = |title: &str| format!("bearer_token_file = {token:?}\nevents = true\nae_title = {title:?}\n");
    let [one, two] =
        ["ONE", "TWO"].map(|title| Daemon::start(&settings(&pacs, &manager.web_url(), &keys(title)).slow_poll()));
    let study = called_positive()[0].write(&one.folder("study"));
    pacs.keep(&study);
    for (title, daemon) in [("ONE", &one), ("TWO", &two)] {
        eventually(seconds(30), &format!("{title} hears events"), || match daemon.log().contains("hears the events") {
            true => Ok(()),
            false => Err(daemon.log()),
        });
    }
    // A poll would come after a minute: it is the event that wakes them.
    party(&manager, &["schedule", "2.25.50", CODE, &study.study_uid, "MEDIUM", &place(&pacs, &study)]);
    let item = eventually(seconds(45), "COMPLETED", || {
        let item: Value = serde_json::from_str(&party(&manager, &["get", "2.25.50"])).unwrap();
        if item["00741000"]["Value"][0] == "COMPLETED" {
            Ok(item)
        } else {
            Err(format!("{item} {} {}", one.log(), two.log()))
        }
    });
    let segmentation = pacs.segmentations(&study.study_uid);
    assert_eq!(segmentation.len(), 1);
    assert_eq!(first(&item, &["00741216", "00404033", "00081199", "00081155"]), &json!(segmentation[0].sop_instance));
    let analysed = [&one, &two].map(|daemon| daemon.find(&study.study_uid).is_some());
    assert_eq!(analysed.iter().filter(|is| **is).count(), 1, "one of them performed it");
    let states = [&one, &two].map(|daemon| task(daemon, "2.25.50")["status"].clone());
    assert!(states.contains(&json!("completed")), "{states:?}");
    assert!(states.iter().any(|state| state.is_null() || state == "lost"), "{states:?}");

    // Its input does not come: it is claimed, nothing is begun, and whoever asks has it canceled.
    let nowhere = format!("{}/studies/1.2.3.999", pacs.dicom_web_url().trim_end_matches('/'));
    party(&manager, &["schedule", "2.25.51", CODE, "1.2.3.999", "MEDIUM", &nowhere]);
    let state = || party(&manager, &["get", "2.25.51"]);
    let claimed = || [&one, &two].iter().any(|daemon| task(daemon, "2.25.51")["status"] == "claimed");
    eventually(seconds(30), "a claim", || if claimed() { Ok(()) } else { Err(one.log() + &two.log()) });
    party(&manager, &["cancel", "2.25.51"]);
    let item = eventually(seconds(30), "CANCELED", || {
        let item: Value = serde_json::from_str(&state()).unwrap();
        if item["00741000"]["Value"][0] == "CANCELED" { Ok(item) } else { Err(one.log() + &two.log()) }
    });
    assert_eq!(first(&item, &["00741002", "0074100E", "00080100"]), &json!("110513"));
}

/// What matches the question and cannot be begun stays in front: it does not hide what stands behind it.
#[test]
fn what_stands_behind_a_full_answer_is_found() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let daemon = Daemon::start(&settings(&pacs, &manager.url(), "max_found = 1"));
    let study = called_negative().write(&daemon.folder("study"));
    pacs.keep(&study);
    let url = place(&pacs, &study);
    manager.schedule(&Wanted { url: None, ..wanted("2.25.80", "2.25.81", "") });
    manager.schedule(&wanted("2.25.82", &study.study_uid, &url));
    manager.wait_for("2.25.82", "COMPLETED", 120);
    assert_eq!(manager.workitem("2.25.80")["state"], "SCHEDULED");
}

/// A list that takes a claim and never its end: tried within bounds, then shown wherever somebody looks, and resolved by people. It
/// takes no other's place meanwhile.
#[test]
fn a_refused_end_is_bounded_shown_and_resolved() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let mut settings = settings(&pacs, &manager.url(), "most_refusals = 3\nat_once = 1\n");
    let admin = free_port();
    settings.sections = format!("[admin]\naddress = \"127.0.0.1:{admin}\"\n{}", settings.sections);
    let daemon = Daemon::start(&settings);
    let study = called_negative().write(&daemon.folder("study"));
    pacs.keep(&study);
    let url = place(&pacs, &study);
    for uid in ["2.25.90", "2.25.91"] {
        manager.make(&json!({ "refuse": { "2.25.90": 409, "2.25.91": 400 } }));
        manager.schedule(&wanted(uid, &study.study_uid, &url));
        let refused = wait_for_task(&daemon, uid, "refused");
        assert!(refused["last_words"].as_str().unwrap().contains("ichor tasks retry"), "{refused}");
        assert_eq!(manager.workitem(uid)["state"], "IN PROGRESS");
        let asked = manager.log().iter().filter(|entry| entry["words"] == "this is not taken").count();
        stays(seconds(2), || {
            let again = manager.log().iter().filter(|entry| entry["words"] == "this is not taken").count();
            assert_eq!(again, asked, "it is not asked any more");
        });
    }
    let why = daemon.why(&study.study_uid);
    assert!(why.contains("does not take that it is at") && why.contains("this is not taken"), "{why}");
    let ready = http::get_json(admin, "/health/ready").unwrap();
    let check = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "tasks").unwrap().clone();
    assert_eq!((check["passed"].as_bool(), ready["ready"].as_bool()), (Some(false), Some(true)), "{ready}");
    assert!(check["words"].as_str().unwrap().contains("2 by TASKS"), "{check}");
    let metrics = String::from_utf8(http::get(admin, "/metrics").unwrap()).unwrap();
    assert!(metrics.contains("ichor_tasks{name=\"TASKS\",status=\"refused\"} 2"), "{metrics}");
    let doctor = daemon.command(&["doctor", "--json"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("2 are refused"), "{doctor:?}");

    // Others are performed, with room for one at once.
    manager.schedule(&wanted("2.25.92", &study.study_uid, &url));
    manager.wait_for("2.25.92", "COMPLETED", 60);

    let number = task(&daemon, "2.25.91")["id"].to_string();
    let transaction = manager.workitem("2.25.91")["transaction"].as_str().unwrap().to_owned();
    let given_up = daemon.command(&["tasks", "give-up", &number, "--why", "ended by hand"]);
    assert!(String::from_utf8_lossy(&given_up.stdout).contains(&transaction), "{given_up:?}");
    assert_eq!(task(&daemon, "2.25.91")["last_words"], "given up: ended by hand");
    let twice = daemon.command(&["tasks", "retry", &number]);
    assert!(!twice.status.success() && String::from_utf8_lossy(&twice.stderr).contains("given-up"), "{twice:?}");
    manager.make(&json!({ "refuse": {} }));
    let retried = daemon.command(&["tasks", "retry"]);
    assert!(String::from_utf8_lossy(&retried.stdout).contains("1 task is tried again"), "{retried:?}");
    manager.wait_for("2.25.90", "COMPLETED", 30);
    wait_for_task(&daemon, "2.25.90", "completed");
    assert_eq!(manager.workitem("2.25.91")["state"], "IN PROGRESS", "nobody tells it any more");
}

/// Workitems that the list never answers for do not hide what stands behind them on the same page.
#[test]
fn workitems_that_never_answer_hide_no_others() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let mut settings = settings(&pacs, &manager.url(), "");
    settings.sections = settings.sections.replace("timeout_s = 20.0", "timeout_s = 1.0");
    let mute: Vec<String> = (100..105).map(|number| format!("2.25.{number}")).collect();
    manager.make(&json!({ "mute": mute }));
    let nowhere = format!("{}/studies/1.2.3", pacs.dicom_web_url().trim_end_matches('/'));
    for uid in &mute {
        manager.schedule(&Wanted { priority: "HIGH", ..wanted(uid, "1.2.3", &nowhere) });
    }
    let daemon = Daemon::start(&settings);
    let study = called_negative().write(&daemon.folder("study"));
    pacs.keep(&study);
    manager.schedule(&wanted("2.25.110", &study.study_uid, &place(&pacs, &study)));
    manager.wait_for("2.25.110", "COMPLETED", 90);
    for uid in &mute {
        let left = wait_for_task(&daemon, uid, "left");
        assert!(left["last_words"].as_str().unwrap().contains("not to be had"), "{left}");
    }
    assert_eq!(tasks(&daemon)["lists"][0]["is_up"], true, "the list itself answers");
}

trait SlowPoll {
    fn slow_poll(self) -> Self;
}

impl SlowPoll for Settings {
    /// Looks at the list once a minute: what comes sooner, an event has brought.
    fn slow_poll(mut self) -> Self {
        self.sections = self.sections.replace("poll_s = 0.3", "poll_s = 60.0");
        self
    }
}

#[test]
fn mistakes_keep_the_daemon_from_starting() {
    let url = "http://127.0.0.1:9";
    let with = |keys: &str| Settings { sections: performer(url, &[], keys), ..Settings::default() };
    let unsaid = |settings: Settings, key: &str| {
        let sections = settings.sections.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n");
        Settings { sections, ..settings }
    };
    for (settings, word) in [
        (unsaid(with(""), "workitem_codes"), "every workitem would be claimed"),
        (unsaid(with(""), "url"), "missing field `url`"),
        (with("at_once = 0"), "at_once"),
        (with("most_refusals = 0"), "most_refusals"),
        (with("most_stuck = 0"), "most_stuck"),
        (with("station_names = [\"A^B^C\"]"), "neither value nor value^scheme"),
        (with("bearer_token_file = \"a\"\nuser = \"b\""), "bearer_token_file, or user and password_file"),
        (with("tls_ca_file = \"a\""), "TLS"),
        (with("give_up_after_s = -1.0"), "give_up_after_s"),
        (with("secret = 1"), "secret"),
        (with(&performer(url, &[], "")), "stands twice"),
        (Settings { sections: performer("ftp://x", &[], ""), ..Settings::default() }, "http://"),
        (Settings { sections: performer(url, &["pacs"], ""), ..Settings::default() }, "source"),
        (with("[[task_list.source]]\nkind = \"c-move\"\naddress = \"pacs:104\""), "kind c-move needs the key ae_title"),
        (with("[[task_list.source]]\nkind = \"c-move\"\nurl = \"http://pacs\""), "url does not belong to kind c-move"),
        (with("[[task_list.source]]\nurl = \"http://pacs\"\ntls = true"), "tls does not belong to kind wado-rs"),
    ] {
        let said = Daemon::refuses_to_start(&settings);
        assert!(said.contains(word), "{word}: {said}");
    }
}
