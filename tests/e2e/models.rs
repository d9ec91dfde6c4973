//! Several models: some look on, one is active, another takes its place.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Settings, repository};
use crate::support::http;
use crate::support::raw::RawAssociation;
use crate::support::scratch::Scratch;
use crate::support::study::Study;
use crate::support::weights::{perturbed, renamed};
use crate::support::{eventually, free_port, seconds};

/// The demonstration weights, which are active first.
const DEMO: &str = "ichor-demo@";

struct Site {
    daemon: Daemon,
    admin: u16,
    /// Calls nothing positive.
    strict: String,
    /// Says what the demonstration weights say.
    twin: String,
    /// Does not pass its self-test.
    broken: String,
    out: PathBuf,
    // Dropped after the daemon that has the weights.
    _scratch: Scratch,
}

impl Site {
    fn start() -> Self {
        let scratch = Scratch::new("models");
        let (strict_weights, strict) = renamed(scratch.path(), "strict", |manifest| {
            manifest["model"]["study_rule"]["threshold"] = Value::from(0.999_999)
        });
        let (twin_weights, twin) = renamed(scratch.path(), "twin", |_| {});
        let (broken_weights, broken) = perturbed(scratch.path(), "broken");
        let admin = free_port();
        let out = scratch.folder("out");
        let mut sections = format!("[admin]\naddress = \"127.0.0.1:{admin}\"\n\n[shadow]\nquiet_s = 0.5\n");
        for weights in [&strict_weights, &twin_weights, &broken_weights] {
            let _ = write!(sections, "\n[[model.also]]\nweights = {weights:?}\ndevice = \"cpu\"\nthreads = 1\n");
        }
        let _ = write!(sections, "\n[[destination]]\nname = \"folder\"\nkind = \"folder\"\npath = {out:?}\n");
        let daemon = Daemon::start(&Settings { quiet_period_s: 0.5, sections, ..Settings::default() });
        Self { daemon, admin, strict, twin, broken, out, _scratch: scratch }
    }

    fn send(&self, study: &Study) {
        let mut association = RawAssociation::open(self.daemon.port).unwrap();
        for instance in &study.instances {
            assert_eq!(association.store(instance).unwrap().code, 0);
        }
        association.release().unwrap();
    }

    fn models(&self) -> Value {
        json(&self.daemon.command(&["model", "list", "--json"]))
    }

    fn active(&self) -> String {
        self.models()["active"]["model"].as_str().unwrap().to_owned()
    }

    fn agreement(&self, model: &str) -> Value {
        json(&self.daemon.command(&["model", "agreement", model, "--json"]))[0].clone()
    }

    fn metrics(&self) -> String {
        String::from_utf8(http::get(self.admin, "/metrics").unwrap()).unwrap()
    }

    fn shadow_process(&self) -> String {
        eventually(seconds(60), "the process of the shadow", || {
            let found =
                Command::new("pgrep").args(["-P", &self.daemon.pid().to_string(), "-f", "shadow-process"]).output();
            let found = String::from_utf8(found.unwrap().stdout).unwrap().trim().to_owned();
            if found.is_empty() { Err("there is none".to_owned()) } else { Ok(found) }
        })
    }
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command that fails says.
fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn shadows_look_on_and_another_model_takes_over_and_back() {
    let mut site = Site::start();
    let study = called_positive()[0].write(&site.daemon.folder("study"));
    site.shadow_process();
    site.send(&study);
    let summary = site.daemon.wait_for_status(&study.study_uid, "analysed", seconds(90));
    assert_eq!(summary["positive"], true);
    assert!(summary["model"].as_str().unwrap().starts_with(DEMO));
    let settled = |site: &Site, model: &str| {
        eventually(seconds(120), "a study scored in the shadow", || match site.agreement(model) {
            report if report["agreement"]["studies"] == 1 => Ok(report),
            report => Err(format!("{report}\n{}", site.daemon.log())),
        })
    };
    let apart = settled(&site, &site.strict);
    assert_eq!(apart["agreement"]["only_active"], 1, "{apart}");
    assert_eq!(apart["disagreements"][0]["study_instance"], study.study_uid.as_str());
    let twin = settled(&site, &site.twin);
    assert_eq!(twin["agreement"]["both_positive"], 1, "{twin}");
    assert!(twin["agreement"]["dice"]["mean"].as_f64().unwrap() > 0.999, "the same weights, the same masks: {twin}");
    assert!(twin["agreement"]["probability_difference"].as_f64().unwrap() < 1e-4, "{twin}");
    // Nothing of it leaves, and nothing shows in the study.
    let detail = site.daemon.show(&study.study_uid);
    assert_eq!(detail["deliveries"].as_array().unwrap().len(), detail["objects"].as_array().unwrap().len());
    assert!(!detail.to_string().contains("strict@") && !site.daemon.why(&study.study_uid).contains("strict@"));

    // A model that is not what its self-test says is an error, and not the active one's.
    let failed = eventually(seconds(60), "a failed model", || {
        let models = site.models();
        let of = models["offered"].as_array().unwrap().iter().find(|offer| offer["model"] == site.broken.as_str());
        match of {
            Some(offer) if offer["state"] == "failed" => Ok(offer.clone()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(failed["words"].as_str().unwrap().contains("self-test"), "{failed}");
    assert!(site.metrics().contains(&format!("ichor_model_usable{{model=\"{}\"}} 0", site.broken)));
    let said = refusal(&site.daemon.command(&["model", "activate", &site.broken, "--why", "newest"]));
    assert!(said.contains("does not become active") && said.contains("self-test"), "{said}");
    assert!(site.active().starts_with(DEMO));
    let said = refusal(&site.daemon.command(&["model", "activate", "nobody@1", "--why", "x"]));
    assert!(said.contains("nobody@1") && said.contains("strict@"), "it names those that there are: {said}");

    // Another model, in the same process, for the next study.
    let pid = site.daemon.pid();
    let without_hash = site.strict.split('+').next().unwrap().to_owned();
    json(&site.daemon.command(&["model", "activate", &without_hash, "--why", "stricter", "--by", "anna", "--json"]));
    assert_eq!((site.active(), site.daemon.pid()), (site.strict.clone(), pid));
    eventually(seconds(10), "the model on the metrics", || {
        let metrics = site.metrics();
        let build = metrics.lines().find(|line| line.starts_with("ichor_build_info")).unwrap().to_owned();
        if build.contains(&site.strict) { Ok(()) } else { Err(build) }
    });
    let second = study.restamped(&site.daemon.folder("second"), "42");
    site.send(&second);
    let summary = site.daemon.wait_for_status(&second.study_uid, "analysed", seconds(90));
    assert_eq!((&summary["positive"], summary["model"].as_str()), (&Value::from(false), Some(site.strict.as_str())));
    assert!(site.daemon.is_running());

    // The choice holds over a restart; the former one comes back by one command.
    site.daemon.kill();
    site.daemon.start_again();
    assert_eq!(site.active(), site.strict);
    json(&site.daemon.command(&["model", "rollback", "--why", "too strict", "--json"]));
    assert!(site.active().starts_with(DEMO));
    let history = site.models()["history"].as_array().unwrap().clone();
    let statuses: Vec<&str> = history.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["active", "former", "refused", "former"], "{history:?}");
    assert_eq!((history[1]["actor"].as_str(), history[1]["why"].as_str()), (Some("anna"), Some("stricter")));

    // The second study again, by the model of somebody's choice: a new version.
    let arguments = ["studies", "reanalyse", &second.study_uid, "--model", &site.twin, "--why", "second opinion"];
    assert!(site.daemon.command(&arguments).status.success());
    let anew = eventually(seconds(90), "the second version", || match site.daemon.find(&second.study_uid) {
        Some(study) if study["version"] == 2 && study["status"] == "analysed" => Ok(study),
        other => Err(format!("{other:?}")),
    });
    assert_eq!((&anew["positive"], anew["model"].as_str()), (&Value::from(true), Some(site.twin.as_str())));
    assert!(site.daemon.why(&second.study_uid).contains("second opinion"));
    eventually(seconds(30), "the object of the second version", || {
        let files = crate::support::part10::part10_files_below(&site.out).len();
        // One of the first study, one of the second study's second version.
        if files == 2 { Ok(()) } else { Err(format!("{files} files")) }
    });
}

#[test]
fn end_of_the_shadow_and_a_choice_that_is_gone_lose_no_study() {
    let mut site = Site::start();
    let first = site.shadow_process();
    // It writes that itself, a moment after it is there.
    eventually(seconds(10), "the first to be ended when memory runs out", || {
        let adjustment = std::fs::read_to_string(format!("/proc/{first}/oom_score_adj")).unwrap();
        if adjustment.trim() == "1000" { Ok(()) } else { Err(adjustment) }
    });
    // It follows from its first look on.
    eventually(seconds(60), "a first look", || {
        let log = site.daemon.log();
        if log.contains("in the shadow model=strict@") { Ok(()) } else { Err(log) }
    });
    let killed = Command::new("kill").args(["-9", &first]).status().unwrap();
    assert!(killed.success());
    eventually(seconds(30), "word of the end", || {
        let log = site.daemon.log();
        if log.contains("the process of the shadow ended with signal: 9") { Ok(()) } else { Err(log) }
    });
    let study = called_positive()[0].write(&site.daemon.folder("study"));
    site.send(&study);
    site.daemon.wait_for_status(&study.study_uid, "analysed", seconds(90));
    let next = site.shadow_process();
    assert_ne!(next, first);
    eventually(seconds(120), "a study scored by the next process", || match site.agreement(&site.strict) {
        report if report["agreement"]["studies"] == 1 => Ok(()),
        report => Err(report.to_string()),
    });

    // Somebody chooses a model, and later it is gone from the configuration.
    json(&site.daemon.command(&["model", "activate", &site.strict, "--why", "stricter", "--json"]));
    assert!(site.daemon.terminate(seconds(30)));
    let gone = || !PathBuf::from(format!("/proc/{next}")).exists();
    eventually(seconds(10), "the end of the shadow", || if gone() { Ok(()) } else { Err(next.clone()) });
    let config = std::fs::read_to_string(&site.daemon.config).unwrap();
    let without: String = config
        .split("\n[[model.also]]")
        .enumerate()
        .filter(|(number, part)| *number == 0 || !part.contains("strict.safetensors"))
        .map(|(number, part)| if number == 0 { part.to_owned() } else { format!("\n[[model.also]]{part}") })
        .collect();
    assert_ne!(without, config);
    std::fs::write(&site.daemon.config, without).unwrap();
    site.daemon.start_again();
    let later = study.restamped(&site.daemon.folder("later"), "43");
    site.send(&later);
    site.daemon.wait_for_status(&later.study_uid, "queued", seconds(20));
    std::thread::sleep(seconds(2));
    site.daemon.wait_for_status(&later.study_uid, "queued", seconds(1));
    assert!(site.daemon.log().contains("No other takes its place"), "{}", site.daemon.log());
    assert!(site.metrics().contains("ichor_model_missing 1"));
    let list = site.daemon.command(&["model", "list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("MISSING"), "{list:?}");
    let doctor = site.daemon.command(&["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("is not configured: studies will be"), "{doctor:?}");
    let ready: Value = serde_json::from_slice(&http::get(site.admin, "/health/ready").unwrap()).unwrap();
    let model = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "model").unwrap();
    assert_eq!((&ready["ready"], &model["passed"]), (&Value::from(true), &Value::from(false)), "{ready}");
    json(&site.daemon.command(&["model", "rollback", "--why", "the other is gone", "--json"]));
    let summary = site.daemon.wait_for_status(&later.study_uid, "analysed", seconds(90));
    assert!(summary["model"].as_str().unwrap().starts_with(DEMO), "{summary}");
    eventually(seconds(10), "a metric that is well again", || {
        let metrics = site.metrics();
        if metrics.contains("ichor_model_missing 0") { Ok(()) } else { Err(metrics) }
    });
}

/// The dashboard and the alert rules speak of metrics that there are.
#[test]
fn dashboard_and_alerts_speak_of_metrics_that_there_are() {
    let site = Site::start();
    let study = called_positive()[0].write(&site.daemon.folder("study"));
    site.send(&study);
    site.daemon.wait_for_status(&study.study_uid, "analysed", seconds(90));
    let text = site.metrics();
    assert!(text.contains("ichor_score_studies{window=\"24h\",upto=\""), "{text}");
    let counted: f64 = (text.lines())
        .filter(|line| line.starts_with("ichor_score_slices{window=\"24h\""))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert_eq!(counted, study.instances.len() as f64, "each slice once");
    let dashboard = std::fs::read_to_string(repository("deploy/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut spoken: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(spoken.len() >= 20, "{spoken:?}");
    spoken.push(dashboard["annotations"]["list"][0]["expr"].as_str().unwrap().to_owned());
    spoken.push(std::fs::read_to_string(repository("deploy/prometheus-alerts.yml")).unwrap());
    let mut names = std::collections::BTreeSet::new();
    for expression in &spoken {
        for part in expression.split("ichor_").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            // In a text a full stop or a bracket ends it; what is left is the metric's name.
            names.insert(format!("ichor_{name}"));
        }
    }
    // Of a folder nobody asks for proof, nobody is told and nobody asked: those families have no series here. admin.rs and the
    // service's own tests ask for them.
    let elsewhere = ["ichor_message", "ichor_task", "ichor_lookups", "ichor_audit"];
    for name in names.iter().filter(|name| !elsewhere.iter().any(|family| name.starts_with(family))) {
        // As Prometheus knows it: by the name of its samples, `_total` and `_info` included.
        let is_there =
            text.lines().any(|line| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' '])));
        assert!(is_there, "{name} is spoken of and not among the metrics:\n{text}");
    }
    // The other way round: what is shown by no panel is at least known here.
    let all = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    let dashboard = dashboard.to_string();
    for name in all {
        assert!(dashboard.contains(name), "{name} is on no panel of the dashboard");
    }
}
