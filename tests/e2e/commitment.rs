//! Storage commitment as a PACS asks for it: Orthanc sends, asks, and hears.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Settings};
use crate::support::orthanc::Orthanc;
use crate::support::proxy::{Proxy, Toxic};
use crate::support::study::Phantom;
use crate::support::tools::requires;
use crate::support::{eventually, seconds};

const SMALL: Phantom = Phantom { slices: 8, matrix: 128, ..Phantom::BLEEDING };

/// Orthanc may send, and takes reports on a port.
fn reporting_to(port: u16) -> Settings {
    let sections = format!(
        "[[source]]\nae_title = \"ORTHANC\"\nnetworks = [\"127.0.0.0/8\"]\nquiet_period_s = 1.0\n\
         report_address = \"127.0.0.1:{port}\"\n\n\
         [commitment]\nwait_s = 1.0\nfirst_backoff_s = 0.3\nmax_backoff_s = 1.0\ntimeout_s = 2.0\n"
    );
    Settings { sections, ..Settings::default() }
}

fn wait_for_report(orthanc: &Orthanc, transaction: &str) -> Value {
    eventually(seconds(20), "a storage commitment report in Orthanc", || {
        let report = orthanc.commitment_report(transaction);
        if report["Status"] == "Pending" { Err(report.to_string()) } else { Ok(report) }
    })
}

#[test]
fn orthanc_hears_what_is_safe_and_what_is_not_there() {
    requires!(Orthanc);
    let orthanc = Orthanc::start();
    let daemon = Daemon::start(&reporting_to(orthanc.dicom_port));
    let study = SMALL.write(&daemon.folder("study"));
    let transaction = orthanc.store_and_commit(daemon.port, &study);
    let report = wait_for_report(&orthanc, &transaction);
    assert_eq!(report["Status"], "Success", "{report}");
    assert_eq!(report["Success"].as_array().unwrap().len(), study.instances.len(), "{report}");

    let class = "1.2.840.10008.5.1.4.1.1.2";
    let known = &study.instances[0].sop_instance;
    let transaction = orthanc.ask_for_commitment(&[(class, known), (class, "2.25.404")]);
    let report = wait_for_report(&orthanc, &transaction);
    assert_eq!(report["Status"], "Failure", "{report}");
    let failures = report["Failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{report}");
    assert_eq!(failures[0]["SOPInstanceUID"], "2.25.404");
    assert_eq!(failures[0]["FailureReason"], 0x0112, "no such object instance: {report}");
    let listed = daemon.commitments();
    let of = |index: usize, field: &str| listed[index][field].clone();
    assert_eq!(listed.len(), 2, "{listed:#?}");
    assert_eq!((of(0, "status"), of(0, "failed")), (json!("answered"), json!(1)));
    assert_eq!((of(1, "status"), of(1, "failed")), (json!("answered"), json!(0)));
}

#[test]
fn report_that_could_not_be_given_survives_kill_9() {
    requires!(Orthanc);
    let orthanc = Orthanc::start();
    let silent = Proxy::before(orthanc.dicom_port, Toxic::BlackHole);
    let mut daemon = Daemon::start(&reporting_to(silent.port));
    let study = SMALL.write(&daemon.folder("study"));
    let transaction = orthanc.store_and_commit(daemon.port, &study);
    eventually(seconds(10), "a connection for the report", || match silent.connections() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    daemon.kill();
    assert_eq!(orthanc.commitment_report(&transaction)["Status"], "Pending");
    silent.set(Toxic::None);
    daemon.start_again();
    let report = wait_for_report(&orthanc, &transaction);
    assert_eq!(report["Status"], "Success", "{report}");
    let answered = |daemon: &Daemon| match daemon.commitments().as_slice() {
        [one] if one["status"] == "answered" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually(seconds(10), "the report noted as taken", || answered(&daemon));
}
