//! Codecs in child processes: what kills one costs a slice at most, and none outlives the daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::daemon::{Daemon, ICHOR, Settings};
use crate::support::dcmtk::{StoreScu, converted};
use crate::support::study::{Instance, Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, seconds};

/// The daemon's living children.
fn children(daemon: &Daemon) -> Vec<u32> {
    let parent = daemon.pid().to_string();
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().take(2).collect();
        matches!(fields[..], [state, its_parent] if state != "Z" && its_parent == parent)
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(is_child).collect()
}

fn signal(name: &str, pid: u32) {
    // It may be gone by itself.
    let _ = Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status();
}

fn jpeg_2000(daemon: &Daemon, slices: u32, matrix: u32) -> Study {
    let plain = Phantom::BLEEDING.slices(slices).matrix(matrix).write(&daemon.folder("plain"));
    converted(&plain, &daemon.folder("encoded"), "gdcmconv", &["--j2k"])
}

/// Changes one instance's bytes, from its codestream's size on.
fn change(instance: &Instance, change: impl FnOnce(&mut [u8])) {
    let mut bytes = std::fs::read(&instance.path).unwrap();
    let siz = bytes.windows(4).position(|window| window == [0xFF, 0x4F, 0xFF, 0x51]).unwrap();
    change(&mut bytes[siz..]);
    std::fs::write(&instance.path, bytes).unwrap();
}

#[test]
fn a_slice_that_lies_is_left_out_and_the_study_goes_on() {
    requires!(Dcmtk, Gdcm);
    let daemon = Daemon::start(&Settings::default());
    let study = jpeg_2000(&daemon, 24, 128);
    let (liar, broken) = (&study.instances[5], &study.instances[6]);
    // 60,000 × 60,000 in one; the other's tiles are torn.
    change(liar, |siz| {
        for field in [8, 12, 24, 28] {
            siz[field..field + 4].copy_from_slice(&60_000u32.to_be_bytes());
        }
    });
    change(broken, |siz| siz[120..200].fill(0xFF));
    StoreScu::to(daemon.port).option("-xv").send(&study).expect_all(24);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(40));
    let reasons = daemon.reasons(&study.study_uid);
    let lie = reasons.iter().find(|reason| reason.contains(&liar.sop_instance)).unwrap();
    assert!(lie.contains("pixel-data-mismatch") && lie.contains("60000 rows"), "{reasons:?}");
    assert!(daemon.memory().peak < 700, "{:?}", daemon.memory());
}

#[test]
fn a_child_killed_in_the_middle_loses_no_slice() {
    requires!(Dcmtk, Gdcm);
    let daemon = Daemon::start(&Settings::default());
    let study = jpeg_2000(&daemon, 40, 512);
    let [child] = children(&daemon)[..] else { panic!("not one child, that of the check at the start") };
    StoreScu::to(daemon.port).option("-xv").send(&study).expect_all(40);
    // Until it has used a good part of the processor time that its share of the slices takes.
    eventually(seconds(40), "the child at work", || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(11)?.parse::<u64>().ok());
        if ticks.is_some_and(|ticks| ticks >= 5) { Ok(()) } else { Err(stat) }
    });
    signal("-KILL", child);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    let slices = daemon.show(&study.study_uid)["slices"].as_array().unwrap().len();
    let reasons = daemon.reasons(&study.study_uid);
    assert_eq!(slices, 40, "{reasons:?}");
    assert!(!reasons.iter().any(|reason| reason.starts_with("decoder-")), "{reasons:?}");
}

#[test]
fn no_child_outlives_a_killed_daemon() {
    requires!(Dcmtk, Gdcm);
    let mut daemon = Daemon::start(&Settings::default());
    let study = jpeg_2000(&daemon, 12, 512);
    let child = children(&daemon)[0];
    // It stands still, so that no end of its input can end it.
    signal("-STOP", child);
    StoreScu::to(daemon.port).option("-xv").send(&study).expect_all(12);
    daemon.wait_for_status(&study.study_uid, "analysing", seconds(20));
    daemon.kill();
    let gone = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
    eventually(seconds(10), "the end of the child", || if gone(child) { Ok(()) } else { Err(child.to_string()) });
    // And the study was not lost with it.
    daemon.start_again();
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
}

#[test]
fn without_its_decoder_the_daemon_does_not_start() {
    let mut daemon = Daemon::start(&Settings::default());
    daemon.kill();
    let alone: PathBuf = daemon.folder("alone").join("ichor");
    std::fs::copy(ICHOR, &alone).unwrap();
    std::fs::copy(Path::new(ICHOR).with_file_name("ichor-torch"), alone.with_file_name("ichor-torch")).unwrap();
    let output = Command::new(&alone).args(["serve", "--config"]).arg(&daemon.config).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("ichor-decode cannot be started: No such file"), "{error}");
    // Not executable is as bad.
    std::fs::write(alone.with_file_name("ichor-decode"), "").unwrap();
    let output = Command::new(&alone).args(["serve", "--config"]).arg(&daemon.config).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("ichor-decode cannot be started: Permission"), "{error}");
}
