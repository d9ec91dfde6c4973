//! Delivery against destinations that are absent, silent or lose their answers.

use std::time::Instant;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::proxy::{Proxy, Toxic};
use crate::support::storage_scp::StorageScp;
use crate::support::tools::requires;
use crate::support::{eventually, free_port, seconds};

#[test]
fn destination_absent_at_start_gets_the_result_when_it_is_back() {
    requires!(Dcmtk, Orthanc);
    let (http_port, dicom_port) = (free_port(), free_port());
    let late = Destination::CStore { name: "pacs", port: dicom_port, timeout_s: 5.0 };
    let daemon = Daemon::start(&Settings::to([late]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
    eventually(seconds(10), "two attempts that found nobody", || {
        let output = daemon.command(&["deliveries", "destinations", "--json"]);
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if state["destinations"][0]["failures"].as_u64() >= Some(2) { Ok(()) } else { Err(state.to_string()) }
    });
    assert_ne!(daemon.deliveries(&study.study_uid, "pacs")[0].0, "accepted");

    let pacs = Orthanc::start_on(http_port, dicom_port);
    let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(10));
    assert_eq!(daemon.wait_for_acceptance(&study.study_uid, "pacs", seconds(5)), 1, "an absent peer costs no attempt");
    pacs.keeps_only(&study.study_uid, &segmentation, seconds(2));
}

#[test]
fn dead_destinations_delay_no_other() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let silent = Proxy::before(pacs.dicom_port, Toxic::BlackHole);
    let daemon = Daemon::start(&Settings::to([
        Destination::CStore { name: "refusing", port: free_port(), timeout_s: 60.0 },
        Destination::CStore { name: "silent", port: silent.port, timeout_s: 60.0 },
        Destination::c_store(&pacs),
    ]));
    for phantom in called_positive() {
        let study = phantom.write(&daemon.folder(&format!("study-{}", phantom.seed)));
        StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
        let sent = Instant::now();
        pacs.wait_for_segmentation(&study.study_uid, seconds(15));
        assert!(sent.elapsed() < seconds(11), "{:?} beside two dead destinations", sent.elapsed());
    }
    eventually(seconds(5), "a connection to the silent destination", || match silent.connections() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
}

#[test]
fn lost_answer_leads_to_the_same_object_again() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let proxy = Proxy::before(pacs.dicom_port, Toxic::LoseAnswerAfter(4_000));
    let daemon = Daemon::start(&Settings::to([Destination::CStore { name: "pacs", port: proxy.port, timeout_s: 5.0 }]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    eventually(seconds(30), "a lost answer", || match proxy.lost_answers() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    let deliveries = daemon.deliveries(&study.study_uid, "pacs");
    assert!(deliveries.iter().all(|(status, _)| status != "accepted"), "{deliveries:?} without the peer's word");
    proxy.set(Toxic::None);
    daemon.wait_for_acceptance(&study.study_uid, "pacs", seconds(10));
    assert_eq!(pacs.segmentations(&study.study_uid).len(), 1);
}

#[test]
fn peers_status_decides() {
    requires!(Dcmtk, Pynetdicom);
    // Duplicate: UIDs are derived, so the peer has this very object. A warning: it has it, changed. 0xA900 speaks of the
    // object and will be said again; 0xA700 passes.
    let peers = [("duplicate", 0x0111), ("coercing", 0xb000), ("refusing", 0xa900), ("full", 0xa700)];
    let servers = peers.map(|(name, status)| (name, StorageScp::answering(status)));
    let destination =
        |(name, server): &(&'static str, StorageScp)| Destination::CStore { name, port: server.port, timeout_s: 20.0 };
    let daemon = Daemon::start(&Settings::to(servers.iter().map(destination).collect::<Vec<_>>()));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
    for name in ["duplicate", "coercing"] {
        assert_eq!(daemon.wait_for_acceptance(&study.study_uid, name, seconds(20)), 1, "{name}");
    }
    eventually(seconds(20), "one try where it is refused for good, and several where it is not", || {
        let of = |name| daemon.deliveries(&study.study_uid, name);
        match (of("refusing").as_slice(), of("full").as_slice()) {
            ([(dead, 1)], [(queued, 2..)]) if dead == "dead" && queued != "accepted" && queued != "dead" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let why = daemon.why(&study.study_uid);
    for words in ["0x0111", "0xB000", "0xA900", "0xA700"] {
        assert!(why.contains(words), "{words} is missing in\n{why}");
    }
}
