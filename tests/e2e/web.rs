//! What is kept, searched and retrieved by DICOMweb: held against Orthanc's answers to the same questions, and shown in a
//! viewer.

use std::process::Command;

use serde_json::Value;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Destination, Settings, WEB_TOKEN, repository};
use crate::support::dcmtk::{StoreScu, converted};
use crate::support::orthanc::Orthanc;
use crate::support::stow::{body, files, get, post};
use crate::support::study::Phantom;
use crate::support::tools::{python, requires};
use crate::support::{eventually, seconds};

const SMALL: Phantom = Phantom { slices: 6, matrix: 128, ..Phantom::BLEEDING };

fn with_web() -> Settings {
    Settings { stow: true, ..Settings::default() }
}

#[test]
fn ichor_and_orthanc_answer_the_same() {
    requires!(Dcmtk, Gdcm, Orthanc, DicomwebClient);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings { stow: true, ..Settings::to([Destination::c_store(&pacs)]) });
    let plain = called_positive()[0].write(&daemon.folder("study"));
    let restamped = |number: &str| plain.restamped(&daemon.folder(&format!("plain-{number}")), number);
    let jpeg_ls = converted(&restamped("1"), &daemon.folder("jls"), "dcmcjpls", &["+el"]);
    let jpeg_2000 = converted(&restamped("2"), &daemon.folder("j2k"), "gdcmconv", &["--j2k"]);
    let implicit = converted(&restamped("3"), &daemon.folder("implicit"), "dcmconv", &["+ti"]);
    let studies = [(&plain, "-xe"), (&jpeg_ls, "-xt"), (&jpeg_2000, "-xv"), (&implicit, "-xi")];
    for (study, proposed) in studies {
        StoreScu::to(daemon.port).option(proposed).send(study).expect_all(study.instances.len());
        pacs.keep(study);
    }
    for (study, _) in studies {
        pacs.wait_for_segmentation(&study.study_uid, seconds(90));
    }
    let mut command = Command::new(python());
    command.arg(repository("tests/counterparts/compare_dicomweb.py"));
    command.args([&daemon.web_url(), WEB_TOKEN, &pacs.dicom_web_url()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), daemon.log());
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    let slices = plain.instances.len() as u64;
    assert_eq!(compared["instances"], 4 * (slices + 1), "{compared}");
    assert!(compared["attributes"].as_u64() > Some(4000) && compared["frames"].as_u64() >= Some(16), "{compared}");
    // Whoever looked stands in the audit trail.
    let audited = daemon.audited();
    for (action, study) in [("studies-searched", None), ("study-retrieved", Some(plain.study_uid.clone()))] {
        let row = ("dicomweb:WEB".to_owned(), action.to_owned(), study);
        assert!(audited.contains(&row), "{row:?} is not in {audited:?}");
    }
}

#[test]
fn what_was_stored_is_had_where_the_answer_says() {
    let daemon = Daemon::start(&with_web());
    let study = SMALL.write(&daemon.folder("study"));
    let answer = post(&daemon, "studies", &body(files(&study.instances)));
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    let items = json["00081199"]["Value"].as_array().unwrap();
    assert_eq!(items.len(), study.instances.len());
    for item in items {
        let url = item["00081190"]["Value"][0].as_str().unwrap_or_else(|| panic!("no Retrieve URL: {item}"));
        let path = url.strip_prefix("http://ichor/dicom-web/").unwrap_or_else(|| panic!("{url}"));
        let uid = item["00081155"]["Value"][0].as_str().unwrap();
        let sent = study.instances.iter().find(|instance| instance.sop_instance == uid).unwrap();
        let (status, head, file) = get(&daemon, path, "application/dicom");
        assert_eq!(status, 200, "{head}");
        let kept = std::env::temp_dir().join(format!("ichor-web-{}-{uid}.dcm", std::process::id()));
        std::fs::write(&kept, file).unwrap();
        let same = crate::support::part10::data_set(&kept) == crate::support::part10::data_set(&sent.path);
        std::fs::remove_file(&kept).unwrap();
        assert!(same, "{uid} came back with other bytes");
    }
}

#[test]
fn a_file_that_is_lost_is_not_passed_over() {
    let daemon = Daemon::start(&with_web());
    let study = SMALL.write(&daemon.folder("study"));
    assert_eq!(post(&daemon, "studies", &body(files(&study.instances))).status, 200);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    let uid = &study.study_uid;
    // The slices, and what was made of them.
    let held = study.instances.len() + daemon.show(uid)["objects"].as_array().unwrap().len();
    let (status, _, whole) = get(&daemon, &format!("studies/{uid}/metadata"), "application/dicom+json");
    let metadata: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!((status, metadata.as_array().unwrap().len()), (200, held));
    let lost = &study.instances[3].sop_instance;
    let files = crate::support::part10::part10_files_below(&daemon.blobs);
    let is_lost = |file: &&std::path::PathBuf| {
        let header = crate::support::part10::header(file);
        crate::support::part10::text(&header, dicom_dictionary_std::tags::SOP_INSTANCE_UID) == *lost
    };
    std::fs::remove_file(files.iter().find(is_lost).unwrap()).unwrap();
    let (status, _, words) = get(&daemon, &format!("studies/{uid}"), "*/*");
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(status == 500 && words.contains(lost), "{status} {words}");
    // Metadata have begun when it shows: they break off.
    let broken = crate::support::stow::get_cut(&daemon, &format!("studies/{uid}/metadata"));
    assert!(!broken.1, "metadata without an instance ended as if they were whole: {}", broken.0);
    let (status, _, found) = get(&daemon, &format!("studies/{uid}/instances"), "application/dicom+json");
    let found: Vec<Value> = serde_json::from_slice(&found).unwrap();
    let availability = |item: &Value| item["00080056"]["Value"][0].as_str().unwrap_or_default().to_owned();
    let unavailable: Vec<&Value> = found.iter().filter(|item| availability(item) == "UNAVAILABLE").collect();
    assert_eq!((status, found.len(), unavailable.len()), (200, held, 1));
    assert_eq!(unavailable[0]["00080018"]["Value"][0], *lost);
    eventually(seconds(5), "the loss in the log", || match daemon.log().contains("breaks off") {
        true => Ok(()),
        false => Err(daemon.log()),
    });
}

#[test]
fn questions_that_are_none_are_told_so() {
    requires!(Dcmtk);
    let settings = Settings {
        sections:
            "[[destination]]\nname = \"shelf\"\nkind = \"c-store\"\naddress = \"127.0.0.1:9\"\nae_title = \"X\"\n\
                   objects = [\"segmentation\", \"report\"]\n"
                .to_owned(),
        ..with_web()
    };
    let daemon = Daemon::start(&settings);
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(90));
    let uid = &study.study_uid;
    let (_, _, reports) = get(&daemon, &format!("studies/{uid}/instances?Modality=SR"), "application/dicom+json");
    let reports: Vec<Value> = serde_json::from_slice(&reports).unwrap();
    let report = reports.first().expect("a report of ours is found");
    let report = report["00081190"]["Value"][0].as_str().unwrap().replace("http://ichor/dicom-web/", "");
    let (status, _, sr) = get(&daemon, &report, "application/dicom");
    assert!(status == 200 && sr.len() > 1000);
    let (_, _, found) = get(&daemon, &format!("studies/{uid}/instances?Modality=CT&limit=1"), "application/dicom+json");
    let found: Vec<Value> = serde_json::from_slice(&found).unwrap();
    let slice = found[0]["00081190"]["Value"][0].as_str().unwrap().replace("http://ichor/dicom-web/", "");
    for (path, accept, status, word) in [
        (format!("{report}/rendered"), "image/png", 406, "no image"),
        (format!("{report}/frames/1"), "*/*", 406, "no image"),
        (format!("{slice}/frames/2"), "*/*", 404, "no frame 2"),
        (format!("{slice}/rendered?viewport=0,0"), "image/png", 400, "viewport"),
        (format!("{slice}/bulkdata/00100010"), "*/*", 404, "no such binary value"),
        ("studies/..%2f..%2fetc%2fpasswd/metadata".to_owned(), "*/*", 400, "no UID"),
        ("studies?StudyDate=20269999".to_owned(), "*/*", 400, "no date"),
        (format!("studies?{}", "PatientID=1&".repeat(3000)), "*/*", 400, "more than 100"),
    ] {
        let (found, _, words) = get(&daemon, &path, accept);
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(found == status && words.contains(word), "{path:.80}: {found} {words}");
    }
    let (status, head, png) =
        get(&daemon, &format!("{slice}/rendered?window=40,80,linear&viewport=64,64"), "image/png");
    assert!(status == 200 && png.starts_with(b"\x89PNG"), "{head}");
    let (status, head, jpeg) = get(&daemon, &format!("studies/{uid}/thumbnail"), "image/jpeg");
    assert!(status == 200 && jpeg.starts_with(b"\xFF\xD8"), "{head}");
}
