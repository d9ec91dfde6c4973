//! `kill -9` at the worst moments: nothing acknowledged is lost, nothing is done twice.

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::proxy::{Proxy, Toxic};
use crate::support::raw::{CT_IMAGE, RawAssociation};
use crate::support::study::Study;
use crate::support::tools::requires;
use crate::support::{eventually, part10, seconds};

/// Every slice in `acknowledged` lies in the blobs once, byte for byte.
fn check_acknowledged(daemon: &Daemon, study: &Study, acknowledged: &[String]) {
    let stored = daemon.stored_data_sets();
    for instance in study.instances.iter().filter(|i| acknowledged.contains(&i.sop_instance)) {
        let copies = stored.get(&instance.sop_instance).map_or(&[][..], Vec::as_slice);
        let sent = part10::data_set(&instance.path);
        assert!(copies == [sent], "{}: {} copies, or other bytes", instance.sop_instance, copies.len());
    }
}

#[test]
fn killed_while_receiving() {
    requires!(Orthanc);
    let pacs = Orthanc::start();
    // Long enough for the study to stay open over three restarts.
    let settings = Settings { quiet_period_s: 8.0, ..Settings::to([Destination::c_store(&pacs)]) };
    let mut daemon = Daemon::start(&settings);
    let study = called_positive()[0].write(&daemon.folder("study"));
    let mut acknowledged: Vec<String> = Vec::new();
    // Three times, each in the middle of a slice; the scanner goes on where it was.
    for cut in [5, 11, 17] {
        let mut association = RawAssociation::open(daemon.port).unwrap();
        for instance in &study.instances[acknowledged.len()..cut] {
            assert_eq!(association.store(instance).unwrap().code, 0);
            acknowledged.push(instance.sop_instance.clone());
        }
        let instance = &study.instances[cut];
        let data = part10::data_set(&instance.path);
        association.begin_store(CT_IMAGE, &instance.sop_instance).unwrap();
        association.send_data(CT_IMAGE, &data[..data.len() / 2], false).unwrap();
        daemon.kill();
        assert!(association.response().is_err());
        daemon.start_again();
        check_acknowledged(&daemon, &study, &acknowledged);
        assert!(!daemon.stored_data_sets().contains_key(&instance.sop_instance), "half a slice was kept");
    }
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances[acknowledged.len()..] {
        assert_eq!(association.store(instance).unwrap().code, 0);
        acknowledged.push(instance.sop_instance.clone());
    }
    association.release().unwrap();
    check_acknowledged(&daemon, &study, &acknowledged);
    let first = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    pacs.keeps_only(&study.study_uid, &first, seconds(3));
    assert_eq!(acknowledged.len(), study.instances.len());
}

#[test]
fn killed_between_the_last_slice_and_the_result() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let mut daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.kill();
    assert_eq!(daemon.find(&study.study_uid).unwrap()["status"], "receiving");
    daemon.start_again();
    let first = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    pacs.keeps_only(&study.study_uid, &first, seconds(3));
}

#[test]
fn killed_while_analysing() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let mut daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));
    let mut positive = 0;
    for phantom in called_positive() {
        // Large enough that the analysis takes a while.
        let study = phantom.slices(60).matrix(512).write(&daemon.folder(&format!("study-{}", phantom.seed)));
        StoreScu::to(daemon.port).send(&study).expect_all(60);
        daemon.wait_for_status(&study.study_uid, "analysing", seconds(20));
        daemon.kill();
        assert_eq!(daemon.find(&study.study_uid).unwrap()["status"], "analysing", "killed too late");
        assert!(pacs.segmentations(&study.study_uid).is_empty());
        daemon.start_again();
        let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
        // The weights may see these finer slices otherwise; then there is no Segmentation, now or later.
        if entry["positive"] == true {
            let first = pacs.wait_for_segmentation(&study.study_uid, seconds(20));
            pacs.keeps_only(&study.study_uid, &first, seconds(3));
            positive += 1;
        } else {
            crate::support::stays(seconds(2), || assert!(pacs.segmentations(&study.study_uid).is_empty()));
        }
    }
    assert!(positive > 0, "no study was positive, so nothing was shown");
}

#[test]
fn killed_while_sending() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    // More than the association's negotiation, less than the object.
    let proxy = Proxy::before(pacs.dicom_port, Toxic::StallAfter(4_000));
    let mut daemon =
        Daemon::start(&Settings::to([Destination::CStore { name: "pacs", port: proxy.port, timeout_s: 30.0 }]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    eventually(seconds(30), "a stalled delivery", || match proxy.stalled() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    daemon.kill();
    assert_eq!(pacs.instance_count(), 0);
    proxy.set(Toxic::None);
    daemon.start_again();
    let first = pacs.wait_for_segmentation(&study.study_uid, seconds(20));
    pacs.keeps_only(&study.study_uid, &first, seconds(3));
    assert_eq!(daemon.find(&study.study_uid).unwrap()["status"], "analysed");
}

#[test]
fn killed_after_the_destination_took_it_and_before_its_answer_came() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let proxy = Proxy::before(pacs.dicom_port, Toxic::LoseAnswerAfter(4_000));
    let mut daemon =
        Daemon::start(&Settings::to([Destination::CStore { name: "pacs", port: proxy.port, timeout_s: 30.0 }]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let first = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    daemon.kill();
    proxy.set(Toxic::None);
    daemon.start_again();
    daemon.wait_for_acceptance(&study.study_uid, "pacs", seconds(20));
    assert_eq!(pacs.segmentations(&study.study_uid), [first]);
}
