//! Traces: one a version of a study, at a collector that is not always there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::collector::Collector;
use crate::support::daemon::{Daemon, Settings};
use crate::support::mllp::{Answer, Receiver};
use crate::support::proving_pacs::ProvingPacs;
use crate::support::raw::RawAssociation;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, free_port, seconds};
use crate::support::{fhir, http, webhook};

fn telemetry(port: u16, more: &str) -> String {
    format!(
        "[telemetry]\nendpoint = \"http://127.0.0.1:{port}/v1/traces\"\nsettle_s = 1.0\nfirst_backoff_s = 0.2\n\
         max_backoff_s = 0.4\ntimeout_s = 1.0\n{more}\n"
    )
}

/// A PACS that is asked for proof, and a reading list that refuses once.
fn around(pacs: u16, ris: u16) -> String {
    format!(
        "[alert]\nthreshold = 0.0\nslices = 4\n\n\
         [[destination]]\nname = \"pacs\"\nkind = \"c-store\"\naddress = \"127.0.0.1:{pacs}\"\nae_title = \"PACS\"\n\
         objects = [\"report\"]\nfirst_backoff_s = 0.2\nmax_backoff_s = 0.5\n\n\
         [destination.proof]\nask = [\"commitment\"]\nafter_s = 0.1\nfirst_backoff_s = 0.2\nmax_backoff_s = 0.5\n\n[destination.report]\nnot_analysed = true\n\n\
         [[channel]]\nname = \"ris\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{ris}\"\nfirst_backoff_s = 0.1\n\
         max_backoff_s = 0.2\ntimeout_s = 2.0\n"
    )
}

fn send(daemon: &Daemon, instances: &[crate::support::study::Instance]) {
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
}

fn small(daemon: &Daemon) -> Study {
    Phantom::BLEEDING.slices(12).matrix(128).write(&daemon.folder("study"))
}

/// The spans once there are so many roots of the study.
fn with_roots(collector: &Collector, study: &Study, roots: usize) -> Vec<Value> {
    eventually(seconds(60), "a trace", || {
        let spans = collector.spans();
        let of_study = |span: &&Value| span["attributes"]["ichor.study_instance_uid"] == study.study_uid.as_str();
        let found = spans.iter().filter(of_study).count();
        if found >= roots { Ok(spans) } else { Err(format!("{found} roots in {} spans", spans.len())) }
    })
}

fn text<'a>(span: &'a Value, key: &str) -> &'a str {
    span[key].as_str().unwrap()
}

fn number(span: &Value, key: &str) -> u64 {
    span[key].as_u64().unwrap()
}

/// Every child has its parent in the trace, and lies within the root.
fn hangs_together(spans: &[Value], root: &Value) {
    let of_trace: Vec<&Value> = spans.iter().filter(|span| span["trace"] == root["trace"]).collect();
    let ids: BTreeSet<&str> = of_trace.iter().map(|span| text(span, "span")).collect();
    assert_eq!(ids.len(), of_trace.len(), "each span once");
    for span in of_trace {
        assert!(number(span, "start") <= number(span, "end"), "{span}");
        assert!(span == root || ids.contains(text(span, "parent")), "an orphan: {span}");
        assert!(number(span, "start") >= number(root, "start") && number(span, "end") <= number(root, "end"), "{span}");
    }
}

#[test]
fn one_trace_a_study_with_all_its_stages() {
    requires!(OpentelemetryProto, Pynetdicom);
    let (collector_port, ris) = (free_port(), Receiver::start(&[Answer::Code("AE")]));
    let (collector, pacs) =
        (Collector::start_on(collector_port, &json!([])), ProvingPacs::start(&json!({ "report": "same" })));
    let sections = telemetry(collector_port, "service_name = \"ct\"\n") + &around(pacs.port, ris.port);
    let daemon = Daemon::start(&Settings { quiet_period_s: 2.0, sections, ..Settings::default() });
    let study = small(&daemon);
    // The alert comes while the second half is still to come.
    send(&daemon, &study.instances[..8]);
    send(&daemon, &study.instances[8..11]);
    daemon.wait_for_end(&study.study_uid, seconds(60));
    let spans = with_roots(&collector, &study, 1);

    let root = spans.iter().find(|span| span["name"] == "study").unwrap();
    assert_eq!((text(root, "parent"), root["attributes"]["ichor.instances"].as_i64()), ("", Some(11)));
    hangs_together(&spans, root);
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name).collect::<Vec<_>>();
    for name in
        ["triage", "quiet period", "wait for analysis", "analyse", "gate", "classify", "mask", "objects", "deliver"]
    {
        assert_eq!(named(name).len(), 1, "{name} in {spans:#?}");
    }
    assert_eq!(named("receive").len(), 2, "one an association");
    assert!(!named("attempt").is_empty() && named("prove").len() == 1);
    assert_eq!(named("prove")[0]["attributes"]["ichor.proof"], "committed");
    assert!(named("tell").len() >= 2, "the alert, and the outcome");
    assert!(named("tell").iter().any(|span| !span["events"].as_array().unwrap().is_empty()), "one attempt failed");
    // In the order in which a study meets them.
    let begins = |name: &str| number(named(name)[0], "start");
    let order = ["receive", "quiet period", "wait for analysis", "analyse", "deliver", "prove"].map(begins);
    assert!(order.is_sorted(), "{order:?}");
    let resource = &collector.requests()[0]["resources"][0];
    assert_eq!((text(resource, "service.name"), text(resource, "service.instance.id")), ("ct", "ICHOR"));
    assert!(collector.requests().iter().all(|request| request["path"] == "/v1/traces"));

    // A late slice: another trace, which leads to the first.
    send(&daemon, &study.instances[11..]);
    let spans = with_roots(&collector, &study, 2);
    let roots: Vec<&Value> = spans.iter().filter(|span| span["name"] == "study").collect();
    assert_eq!(roots.len(), 2);
    assert_eq!(roots[1]["attributes"]["ichor.version"], 2);
    assert_ne!(roots[1]["trace"], roots[0]["trace"]);
    assert_eq!(
        (&roots[1]["links"][0]["trace"], &roots[1]["links"][0]["span"]),
        (&roots[0]["trace"], &roots[0]["span"])
    );
    hangs_together(&spans, roots[1]);

    let summary = daemon.find(&study.study_uid).unwrap();
    let bytes = collector.bytes();
    for key in ["patient_name", "patient_id", "accession_number"] {
        let Some(value) = summary[key].as_str().filter(|value| !value.is_empty()) else { continue };
        let parts = value.split('^').filter(|part| part.len() > 2);
        for part in parts {
            assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()), "{key} {part:?} was exported");
        }
    }
}

/// What goes out by HTTP names the trace of the version that it is about, at every receiver, and no trace where there is none.
#[test]
fn receivers_join_the_trace_of_the_study() {
    requires!(OpentelemetryProto);
    let collector_port = free_port();
    let collector = Collector::start_on(collector_port, &json!([]));
    let (chat, ehr) = (webhook::Receiver::start(&[]), fhir::Server::start(&[]));
    // A service that takes nothing hears of the trace all the same.
    let web = webhook::Receiver::start(&[400; 32]);
    let scratch = tempfile::tempdir().unwrap();
    let secret = file(scratch.path(), "a secret of at least twenty-four bytes\n", 0o600);
    let with_telemetry = telemetry(collector_port, "");
    let sections = format!(
        "{with_telemetry}\n[alert]\nthreshold = 0.0\nslices = 4\n\n\
         [[destination]]\nname = \"web\"\nkind = \"stow-rs\"\nurl = \"http://127.0.0.1:{}/dicom-web\"\n\
         objects = [\"report\"]\n[destination.report]\nnot_analysed = true\nnegative = true\n\n\
         [[channel]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/hook\"\nsecret_file = {secret:?}\n\n\
         [[channel]]\nname = \"ehr\"\nkind = \"fhir\"\nurl = \"http://127.0.0.1:{}/fhir\"\n",
        web.port, chat.port, ehr.port
    );
    let mut daemon = Daemon::start(&Settings { quiet_period_s: 3.0, sections, ..Settings::default() });
    let study = small(&daemon);
    send(&daemon, &study.instances[..11]);
    let spans = with_roots(&collector, &study, 1);
    let of_version = |spans: &[Value], version: u64| {
        let is_root = |span: &&Value| span["name"] == "study" && span["attributes"]["ichor.version"] == version;
        let root = spans.iter().find(is_root).unwrap_or_else(|| panic!("no version {version} in {spans:#?}"));
        format!("00-{}-{}-01", text(root, "trace"), text(root, "span"))
    };
    let first = of_version(&spans, 1);
    let posted = |receiver: &webhook::Receiver| -> Vec<String> {
        receiver.posted().iter().map(|one| one.header("traceparent").to_owned()).collect()
    };
    let told = (posted(&chat), ehr.traceparents(), posted(&web));
    assert!(told.0.len() >= 2 && told.1.len() >= 2 && !told.2.is_empty(), "{told:?}");
    for traceparent in told.0.iter().chain(&told.1).chain(&told.2) {
        assert_eq!(*traceparent, first);
    }

    // A late slice: what is told of the other version belongs to its trace.
    send(&daemon, &study.instances[11..]);
    let second = of_version(&with_roots(&collector, &study, 2), 2);
    let later = (posted(&chat), ehr.traceparents(), posted(&web));
    assert_ne!(first, second);
    for (later, before) in [(&later.0, &told.0), (&later.1, &told.1), (&later.2, &told.2)] {
        assert!(later.len() > before.len() && later[before.len()..].iter().all(|one| *one == second), "{later:?}");
    }

    daemon.kill();
    let settings = std::fs::read_to_string(&daemon.config).unwrap();
    std::fs::write(&daemon.config, settings.replace(&with_telemetry, "")).unwrap();
    daemon.start_again();
    let other = study.restamped(&daemon.folder("other"), "78");
    send(&daemon, &other.instances);
    eventually(seconds(60), "messages of another study", || match posted(&chat).len() > later.0.len() {
        true => Ok(()),
        false => Err(format!("{:?}", posted(&chat))),
    });
    assert!(posted(&chat)[later.0.len()..].iter().all(String::is_empty), "{:?}", posted(&chat));
}

/// Every span by its number; a repetition is the same to the byte.
fn each_once(spans: &[Value]) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for span in spans {
        let id = format!("{} {}", text(span, "trace"), text(span, "span"));
        let digest = text(span, "digest").to_owned();
        let before = known.insert(id, digest.clone());
        assert!(before.is_none_or(|before| before == digest), "another span under the same number: {span}");
    }
    known
}

#[test]
fn a_collector_that_is_away_loses_nothing_and_holds_nothing_up() {
    requires!(OpentelemetryProto, Pynetdicom);
    let (collector_port, admin, ris) = (free_port(), free_port(), Receiver::start(&[]));
    let pacs = ProvingPacs::start(&json!({ "report": "same" }));
    let sections = telemetry(collector_port, "spans_a_request = 5\n")
        + &around(pacs.port, ris.port)
        + &format!("[admin]\naddress = \"127.0.0.1:{admin}\"\n");
    let mut daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let study = small(&daemon);
    send(&daemon, &study.instances);
    daemon.wait_for_end(&study.study_uid, seconds(60));
    let metric = |name: &str| -> f64 {
        let text = String::from_utf8(http::get(admin, "/metrics").unwrap()).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    eventually(seconds(30), "attempts that fail", || match metric("ichor_trace_export_failures_total") {
        failures if failures >= 2.0 => Ok(()),
        failures => Err(failures.to_string()),
    });
    assert_eq!((metric("ichor_traces_waiting"), metric("ichor_trace_spans_total")), (1.0, 0.0));
    assert!(ris.received().len() >= 2, "who reads was told all the same");
    daemon.kill();
    daemon.start_again();

    // Back, and in a bad mood: the second chunk is refused, then there is silence, and one span is refused for good.
    let moods = json!([200, 503, "silent", 429, 200, "partial"]);
    let collector = Collector::start_on(collector_port, &moods);
    eventually(seconds(60), "everything exported", || match metric("ichor_traces_waiting") {
        0.0 if metric("ichor_trace_exports_total") >= 1.0 => Ok(()),
        waiting => Err(waiting.to_string()),
    });
    let spans = with_roots(&collector, &study, 1);
    let known = each_once(&spans);
    assert!(spans.len() > known.len(), "some were sent twice, under the same numbers");
    let refused = metric("ichor_trace_spans_refused_total");
    assert_eq!((metric("ichor_trace_spans_total") + refused, refused), (known.len() as f64, 1.0));
    let log = daemon.log();
    assert!(log.contains("traces are not taken") && log.contains("the collector refused spans"), "{log}");
    let names: BTreeSet<&str> = spans.iter().map(|span| text(span, "name")).collect();
    assert!(["study", "receive", "analyse", "deliver", "prove", "tell"].iter().all(|name| names.contains(name)));
}

fn file(folder: &Path, words: &str, mode: u32) -> std::path::PathBuf {
    let path = folder.join("collector.headers");
    std::fs::write(&path, words).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn headers_are_secrets_and_a_ratio_of_nothing_sends_nothing() {
    requires!(OpentelemetryProto);
    let scratch = tempfile::tempdir().unwrap();
    let words = "Authorization: Bearer a-token-of-the-site\n";
    let port = free_port();
    let with = |path: &Path, more: &str| telemetry(port, &format!("headers_file = {path:?}\n{more}"));
    let refusal = |sections: String| Daemon::refuses_to_start(&Settings { sections, ..Settings::default() });
    let said = refusal(with(&file(scratch.path(), words, 0o644), ""));
    assert!(said.contains("anybody may read it") && !said.contains("a-token"), "{said}");
    let said = refusal(with(&file(scratch.path(), "a-token-of-the-site\n", 0o600), ""));
    assert!(said.contains("line 1") && !said.contains("a-token"), "{said}");
    let said = refusal(telemetry(port, "sampling_ratio = 2.0"));
    assert!(said.contains("telemetry.sampling_ratio"), "{said}");

    let collector = Collector::start_on(port, &json!([]));
    let mut daemon = {
        let sections = with(&file(scratch.path(), words, 0o600), "");
        Daemon::start(&Settings { sections, ..Settings::default() })
    };
    let study = small(&daemon);
    send(&daemon, &study.instances);
    with_roots(&collector, &study, 1);
    assert!(collector.requests().iter().all(|r| r["authorization"] == "Bearer a-token-of-the-site"));
    assert!(!daemon.log().contains("a-token"));
    let doctor = daemon.command(&["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("collector of traces"), "{doctor:?}");

    // None of what follows is sampled.
    daemon.kill();
    let text = std::fs::read_to_string(&daemon.config).unwrap();
    std::fs::write(&daemon.config, text.replace("settle_s = 1.0", "settle_s = 1.0\nsampling_ratio = 0.0")).unwrap();
    daemon.start_again();
    let before = collector.requests().len();
    let other = study.restamped(&daemon.folder("other"), "77");
    send(&daemon, &other.instances);
    daemon.wait_for_end(&other.study_uid, seconds(60));
    // Longer than it took the first.
    std::thread::sleep(seconds(4));
    assert_eq!(collector.requests().len(), before);
}
