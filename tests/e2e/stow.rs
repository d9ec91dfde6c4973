//! Studies that come by STOW-RS: the same promises, and the same ends, as by C-STORE.

use std::io::Write;
use std::process::Command;

use dicom_dictionary_std::tags;

use crate::main_job::check_segmentation;
use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Destination, Settings, WEB_TOKEN, repository};
use crate::support::orthanc::Orthanc;
use crate::support::raw::RawAssociation;
use crate::support::stow::{body, connect, files, head, part_head, post, read_answer, tail};
use crate::support::study::{Instance, Phantom, Study, append_to_uid};
use crate::support::tools::{python, requires};
use crate::support::{eventually, part10, seconds};

/// Small, because what is in it does not matter here.
const SMALL: Phantom = Phantom { slices: 8, matrix: 128, ..Phantom::BLEEDING };

fn with_stow() -> Settings {
    Settings { stow: true, ..Settings::default() }
}

fn uids<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Vec<String> {
    let mut uids: Vec<String> = instances.into_iter().map(|instance| instance.sop_instance.clone()).collect();
    uids.sort();
    uids
}

/// Each of these instances lies in the blobs once, byte for byte.
#[track_caller]
fn check_stored<'a>(daemon: &Daemon, instances: impl IntoIterator<Item = &'a Instance>) {
    let stored = daemon.stored_data_sets();
    for instance in instances {
        let copies = stored.get(&instance.sop_instance).map_or(&[][..], Vec::as_slice);
        let sent = part10::data_set(&instance.path);
        assert!(copies == [sent], "{}: {} copies, or other bytes", instance.sop_instance, copies.len());
    }
}

#[test]
fn study_sent_by_orthanc_comes_back_as_segmentation() {
    requires!(Orthanc, Dciodvfy, Highdicom);
    let (router, pacs) = (Orthanc::start(), Orthanc::start());
    let settings = Settings { stow: true, ..Settings::to([Destination::c_store(&pacs)]) };
    let daemon = Daemon::start(&settings);
    let study = called_positive()[0].write(&daemon.folder("study"));
    router.stow(&daemon.web_url(), WEB_TOKEN, &study).unwrap();
    let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(60));
    check_segmentation(&pacs.fetch(&segmentation), &study);
    let story = daemon.why(&study.study_uid);
    assert!(story.contains("WEB at 127.0.0.1") && story.contains("with STOW-RS"), "{story}");
    // A token that is not ours: Orthanc hears of it.
    let refused = router.stow(&daemon.web_url(), "not the token of this test", &study).unwrap_err();
    assert!(refused.contains("/stow"), "{refused}");
    eventually(seconds(5), "the refusal in the log", || match daemon.log().contains("no bearer token") {
        true => Ok(()),
        false => Err(daemon.log()),
    });
}

#[test]
fn study_sent_by_dicomweb_client_is_analysed() {
    requires!(DicomwebClient);
    let daemon = Daemon::start(&with_stow());
    let study = SMALL.write(&daemon.folder("study"));
    let send = |study_uid: &str| {
        let script = repository("tests/counterparts/stow.py");
        let mut command = Command::new(python());
        command.arg(script).args([&daemon.web_url(), WEB_TOKEN, study_uid]).args(study.paths());
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(output.stdout) } else { Err(errors) }
    };
    let stored = send(&study.study_uid).unwrap();
    let mut stored: Vec<String> = serde_json::from_slice(&stored).unwrap();
    stored.sort();
    assert_eq!(stored, uids(&study.instances));
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    let refused = send("1.2.3").unwrap_err();
    assert!(refused.contains("409"), "{refused}");
    assert!(daemon.find("1.2.3").is_none());
}

#[test]
fn same_instance_by_either_way_is_one() {
    let daemon = Daemon::start(&with_stow());
    let study = SMALL.write(&daemon.folder("study"));
    let (early, late) = study.instances.split_at(4);
    let by_c_store = |instances: &[Instance]| {
        let mut association = RawAssociation::open(daemon.port).unwrap();
        for instance in instances {
            assert_eq!(association.store(instance).unwrap().code, 0);
        }
        association.release().unwrap();
    };
    by_c_store(early);
    let answer = post(&daemon, "studies", &body(files(&study.instances)));
    assert_eq!((answer.status, answer.stored()), (200, uids(&study.instances)), "{answer:?}");
    by_c_store(late);
    check_stored(&daemon, &study.instances);
    let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    assert_eq!(entry["instances"], 8, "{entry}");
    let story = daemon.why(&study.study_uid);
    assert!(story.contains("duplicate") && !story.contains("conflict"), "{story}");
}

#[test]
fn bad_parts_are_refused_and_good_ones_stay() {
    let daemon = Daemon::start(&with_stow());
    let study = SMALL.write(&daemon.folder("study"));
    let file = |index: usize| std::fs::read(&study.instances[index].path).unwrap();
    let uid = |index: usize| study.instances[index].sop_instance.clone();

    let cut = file(1)[..file(1).len() - 1000].to_vec();
    let stranger = study.edited(&daemon.folder("stranger"), |index, object| {
        append_to_uid(object, tags::STUDY_INSTANCE_UID, "77");
        append_to_uid(object, tags::SOP_INSTANCE_UID, &format!("77{index}"));
    });
    let mut lying = file(2);
    let at = lying.windows(uid(2).len()).position(|window| window == uid(2).as_bytes()).unwrap();
    let last = at + uid(2).len() - 1;
    lying[last] = if lying[last] == b'1' { b'2' } else { b'1' };
    let lying_uid = String::from_utf8(lying[at..=last].to_vec()).unwrap();
    let mut class = file(3);
    let text = b"1.2.840.10008.5.1.4.1.1.2\0";
    let at = class.windows(text.len()).position(|window| window == text).unwrap();
    class[at..at + text.len() - 1].copy_from_slice(b"1.2.840.10008.5.1.4.1.1.4");
    let parts =
        vec![file(0), cut, files(&stranger.instances)[0].clone(), lying, class, b"no DICOM".to_vec(), Vec::new()];
    let answer = post(&daemon, &format!("studies/{}", study.study_uid), &body(parts));
    assert_eq!((answer.status, answer.stored()), (202, vec![uid(0)]), "{answer:?}");
    let mut failed = answer.failed();
    let mut wanted = vec![
        (uid(1), Some(0xC000)),
        (stranger.instances[0].sop_instance.clone(), Some(0xA900)),
        (lying_uid, Some(0xA900)),
        (uid(3), Some(0x0122)),
    ];
    failed.sort();
    wanted.sort();
    assert_eq!(failed, wanted);
    assert_eq!(answer.items("0008119A"), [(String::new(), Some(0xC000)), (String::new(), Some(0xC000))]);
    assert!(answer.head.contains("the URL said"), "{answer:?}");
    assert_eq!(daemon.stored_data_sets().len(), 1, "something that was refused lies there");
    assert!(daemon.find(&stranger.study_uid).is_none());

    let text = body([b"{}".to_vec()]);
    let text = String::from_utf8(text).unwrap().replace("application/dicom\r\n", "application/dicom+json\r\n");
    assert_eq!(post(&daemon, "studies", text.as_bytes()).status, 415);
    let answer = post(&daemon, "studies", &body(files(&study.instances)));
    assert_eq!(answer.status, 200, "{answer:?}");
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
}

#[test]
fn peer_that_hangs_up_leaves_whole_parts_only() {
    let daemon = Daemon::start(&with_stow());
    let study = SMALL.write(&daemon.folder("study"));
    let body = body(files(&study.instances));
    let mut stream = connect(&daemon);
    stream.write_all(head("studies", WEB_TOKEN, body.len() as u64).as_bytes()).unwrap();
    stream.write_all(&body[..body.len() * 5 / 8 + 100]).unwrap();
    drop(stream);
    eventually(seconds(20), "the end of the request", || match daemon.log().contains("the body was cut") {
        true => Ok(()),
        false => Err(daemon.log()),
    });
    let stored = daemon.stored_data_sets();
    assert!((1..=5).contains(&stored.len()), "{} instances", stored.len());
    check_stored(&daemon, study.instances.iter().filter(|i| stored.contains_key(&i.sop_instance)));
    assert_eq!(std::fs::read_dir(daemon.blobs.join("incoming")).unwrap().count(), 0);
    daemon.wait_for_end(&study.study_uid, seconds(60));
}

#[test]
fn killed_in_the_middle_of_a_request() {
    let mut daemon = Daemon::start(&Settings { quiet_period_s: 8.0, ..with_stow() });
    let study = SMALL.slices(24).write(&daemon.folder("study"));
    let mut acknowledged: Vec<Instance> = Vec::new();
    for round in study.instances.chunks(8) {
        let answer = post(&daemon, "studies", &body(files(&round[..5])));
        assert_eq!((answer.status, answer.stored()), (200, uids(&round[..5])), "{answer:?}");
        acknowledged.extend_from_slice(&round[..5]);
        // The next request is cut by the kill, in the middle of its last part.
        let rest = body(files(&round[5..]));
        let mut stream = connect(&daemon);
        stream.write_all(head("studies", WEB_TOKEN, rest.len() as u64).as_bytes()).unwrap();
        stream.write_all(&rest[..rest.len() - 10_000]).unwrap();
        daemon.kill();
        assert!(read_answer(stream).is_err());
        daemon.start_again();
        check_stored(&daemon, &acknowledged);
        let half = &round[7].sop_instance;
        assert!(!daemon.stored_data_sets().contains_key(half), "half an instance was kept");
    }
    let answer = post(&daemon, "studies", &body(files(&study.instances)));
    assert_eq!((answer.status, answer.stored()), (200, uids(&study.instances)), "{answer:?}");
    check_stored(&daemon, &study.instances);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
}

#[test]
fn memory_is_flat_under_a_body_of_a_gibibyte() {
    let daemon = Daemon::start(&with_stow());
    let study = SMALL.write(&daemon.folder("study"));
    let file = std::fs::read(&study.instances[0].path).unwrap();
    let before = daemon.memory();
    // One file with a gibibyte of padding: Data Set Trailing Padding (FFFC,FFFC), which every reader skips.
    const PADDING: u64 = 1 << 30;
    let mut tag = vec![0xFC, 0xFF, 0xFC, 0xFF, b'O', b'B', 0, 0];
    tag.extend(u32::try_from(PADDING).unwrap().to_le_bytes());
    let length = part_head().len() + file.len() + tag.len() + tail().len();
    let mut stream = connect(&daemon);
    stream.write_all(head("studies", WEB_TOKEN, length as u64 + PADDING).as_bytes()).unwrap();
    stream.write_all(&[part_head().as_bytes(), &file, &tag].concat()).unwrap();
    let block = vec![0u8; 1 << 20];
    for _ in 0..PADDING / block.len() as u64 {
        stream.write_all(&block).unwrap();
    }
    // All of it is on its way through, and none of it may be there.
    let during = daemon.memory();
    stream.write_all(tail().as_bytes()).unwrap();
    let answer = read_answer(stream).unwrap();
    assert_eq!((answer.status, answer.stored()), (200, uids(&study.instances[..1])), "{answer:?}");
    let after = daemon.memory();
    println!("before {before:?}, during {during:?}, after {after:?}");
    assert!(during.resident <= before.resident + 32, "{before:?} MiB before, {during:?} during");
    assert!(after.peak <= before.peak + 32, "{before:?} MiB before, {after:?} after");
}

#[test]
fn drain_lets_a_request_finish() {
    let mut daemon = Daemon::start(&with_stow());
    let study: Study = SMALL.write(&daemon.folder("study"));
    let body = body(files(&study.instances));
    let mut stream = connect(&daemon);
    stream.write_all(head("studies", WEB_TOKEN, body.len() as u64).as_bytes()).unwrap();
    let (first, rest) = body.split_at(body.len() / 2);
    stream.write_all(first).unwrap();
    eventually(seconds(10), "instances on their way", || match daemon.stored_data_sets().len() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    let rest = rest.to_vec();
    let sender = std::thread::spawn(move || {
        std::thread::sleep(seconds(1));
        stream.write_all(&rest).unwrap();
        read_answer(stream).unwrap()
    });
    assert!(daemon.terminate(seconds(20)), "SIGTERM did not end the daemon with success");
    let answer = sender.join().unwrap();
    assert_eq!((answer.status, answer.stored()), (200, uids(&study.instances)), "{answer:?}");
}
