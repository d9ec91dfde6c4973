//! Slices classified as they arrive, and a daemon that only receives.

use serde_json::Value;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::raw::RawAssociation;
use crate::support::study::Phantom;
use crate::support::{eventually, seconds};

/// Scheduling policies (sched(7)).
const SCHED_OTHER: i64 = 0;
const SCHED_IDLE: i64 = 5;

/// The events of a kind in a study's timeline.
fn events(daemon: &Daemon, study_uid: &str, kind: &str) -> Vec<Value> {
    let output = daemon.studies(&["why", study_uid, "--json"]);
    let why: Value = serde_json::from_slice(&output.stdout).unwrap();
    let timeline = why["timeline"].as_array().unwrap().iter();
    timeline.filter(|event| event["kind"] == kind).cloned().collect()
}

/// Whatever the weights say: from a probability of 0 on every slice is suspicious.
#[test]
fn alert_before_the_study_is_complete() {
    let sections = "[alert]\nthreshold = 0.0\nslices = 4\n".to_owned();
    let daemon = Daemon::start(&Settings { quiet_period_s: 2.0, sections, ..Settings::default() });
    let study = Phantom::BLEEDING.write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    let mut instances = study.instances.iter();
    for instance in instances.by_ref().take(6) {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    eventually(seconds(10), "an alert while the study arrives", || match daemon.find(&study.study_uid) {
        Some(entry) if entry["alerted_at"].is_null() => Err(entry.to_string()),
        Some(entry) if entry["status"] == "receiving" => Ok(()),
        other => panic!("the study was complete before its alert: {other:?}"),
    });
    for instance in instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    assert!(entry["alerted_at"].is_string() || entry["alerted_at"].is_i64(), "{entry}");
    let alerts = events(&daemon, &study.study_uid, "alert");
    let [alert] = alerts.as_slice() else { panic!("one alert: {alerts:?}") };
    let latency = alert["detail"]["latency_ms"].as_i64().unwrap();
    assert!((0..10_000).contains(&latency), "{latency} ms");
    assert!(alert["detail"]["slices"].as_array().unwrap().len() >= 4);
    let analysed = events(&daemon, &study.study_uid, "analysed");
    assert!(analysed[0]["detail"]["slices_known"].as_u64().unwrap() >= 6, "{analysed:?}");
    // Who decodes and classifies stands back behind who receives.
    let model = daemon.priorities_of("ichor-model");
    assert!(!model.is_empty() && model.iter().all(|thread| *thread == (10, SCHED_OTHER)), "{model:?}");
}

/// With the defaults the model has the cores that nobody else wants, and gives them back at once.
#[test]
fn model_has_idle_cores_only() {
    let daemon = Daemon::start(&Settings { analysis: String::new(), ..Settings::default() });
    let model = daemon.priorities_of("ichor-model");
    assert!(!model.is_empty() && model.iter().all(|thread| *thread == (10, SCHED_IDLE)), "{model:?}");
    assert!(daemon.priorities_of("tokio").iter().all(|thread| *thread == (0, SCHED_OTHER)));
    assert!(daemon.priorities_of("ichor-record").iter().all(|thread| *thread == (0, SCHED_OTHER)));
    let study = Phantom::BLEEDING.write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(120));
}

/// The verdict of a study does not depend on when its slices were classified.
#[test]
fn verdict_is_the_same_with_and_without_triage() {
    let study_of = |while_receiving: bool| {
        let analysis = format!("idle_cores_only = false\nwhile_receiving = {while_receiving}\n");
        let daemon = Daemon::start(&Settings { analysis, ..Settings::default() });
        let study = called_positive()[0].write(&daemon.folder("study"));
        let mut association = RawAssociation::open(daemon.port).unwrap();
        for instance in &study.instances {
            assert_eq!(association.store(instance).unwrap().code, 0);
        }
        association.release().unwrap();
        daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
        let known = events(&daemon, &study.study_uid, "analysed")[0]["detail"]["slices_known"].as_u64().unwrap();
        (daemon.show(&study.study_uid), known)
    };
    let (with, known) = study_of(true);
    let (without, none) = study_of(false);
    assert!(known > 0 && none == 0, "{known} and {none} slices were known");
    assert_eq!(with["summary"]["positive"], without["summary"]["positive"]);
    // Batches differ, and with them the order of sums.
    let number = |study: &Value, field: &str| study["summary"][field].as_f64().unwrap();
    for field in ["probability", "volume_ml"] {
        let (a, b) = (number(&with, field), number(&without, field));
        assert!((a - b).abs() <= 1e-4 * (1.0 + a.abs()), "{field}: {a} and {b}");
    }
    assert_eq!(with["objects"][0]["sop_instance"], without["objects"][0]["sop_instance"]);
}

#[test]
fn studies_that_were_only_received_are_analysed_by_the_next_start() {
    let mut daemon = Daemon::start(&Settings { quiet_period_s: 0.5, ..Settings::default() });
    assert!(daemon.terminate(seconds(20)));
    daemon.start_with(&["--receive-only"]);
    let memory = daemon.memory();
    assert!(memory.peak < 150, "{memory:?} MiB without a model");
    let study = Phantom::BLEEDING.write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    daemon.wait_for_status(&study.study_uid, "queued", seconds(10));
    assert!(daemon.log().contains("receiving only"), "it must not go unnoticed");
    daemon.kill();
    daemon.start_again();
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
}
