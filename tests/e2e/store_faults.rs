//! A database that somebody holds locked, a folder that becomes read-only: refused while it lasts, nothing lost, and on
//! it goes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::daemon::{Daemon, Settings};
use crate::support::disk::SmallDisk;
use crate::support::raw::RawAssociation;
use crate::support::study::{Phantom, Study};
use crate::support::tools::python;
use crate::support::{part10, seconds};

const SMALL: Phantom = Phantom { slices: 8, matrix: 128, ..Phantom::BLEEDING };

/// Processing failure (PS3.7 C.5.20).
const PROCESSING_FAILURE: u16 = 0x0110;

/// Somebody who holds the write lock of a database, as a backup or an administrator's shell may.
struct Lock(Child);

impl Lock {
    fn on(database: &Path) -> Self {
        let program = "import sqlite3, sys\n\
                       c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)\n\
                       c.execute('BEGIN IMMEDIATE')\n\
                       print('locked', flush=True)\n\
                       sys.stdin.readline()\n\
                       c.execute('ROLLBACK')";
        let mut command = Command::new(python());
        command.args(["-c", program]).arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "locked");
        Self(child)
    }

    fn release(mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn check_stored(daemon: &Daemon, study: &Study) {
    let stored = daemon.stored_data_sets();
    assert_eq!(stored.len(), study.instances.len());
    for instance in &study.instances {
        assert!(stored[&instance.sop_instance] == [part10::data_set(&instance.path)], "{}", instance.sop_instance);
    }
}

#[test]
fn database_locked_for_a_moment_delays_and_for_long_refuses() {
    let daemon = Daemon::start(&Settings { pdu_timeout_s: 60.0, idle_timeout_s: 60.0, ..Settings::default() });
    let study = SMALL.write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    assert_eq!(association.store(&study.instances[0]).unwrap().code, 0);

    // A moment: the answer waits with it.
    let lock = Lock::on(&daemon.database());
    let begun = Instant::now();
    let released = std::thread::spawn(move || {
        std::thread::sleep(seconds(2));
        lock.release();
    });
    assert_eq!(association.store(&study.instances[1]).unwrap().code, 0);
    assert!(begun.elapsed() >= seconds(2), "answered while the index could not know");
    released.join().unwrap();

    // Longer than anybody should wait: refused, and the association lives.
    let lock = Lock::on(&daemon.database());
    let status = association.store(&study.instances[2]).unwrap();
    assert_eq!(status.code, PROCESSING_FAILURE, "{status:?}");
    assert_eq!(association.echo().unwrap().code, 0);
    lock.release();
    for instance in &study.instances[2..] {
        let status = association.store(instance).unwrap();
        assert_eq!(status.code, 0, "{status:?} after the lock was gone");
    }
    association.release().unwrap();
    check_stored(&daemon, &study);
    daemon.wait_for_end(&study.study_uid, seconds(60));
}

#[test]
fn folder_that_becomes_read_only_refuses_until_it_is_not() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let daemon = Daemon::start(&Settings { blobs: Some(disk.folder.join("blobs")), ..Settings::default() });
    let study = SMALL.write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    assert_eq!(association.store(&study.instances[0]).unwrap().code, 0);
    disk.set_read_only(true);
    let status = association.store(&study.instances[1]).unwrap();
    assert_eq!(status.code, PROCESSING_FAILURE, "{status:?}");
    assert!(daemon.log().to_lowercase().contains("read-only"), "the log does not say why:\n{}", daemon.log());
    disk.set_read_only(false);
    for instance in &study.instances[1..] {
        let status = association.store(instance).unwrap();
        assert_eq!(status.code, 0, "{status:?} after the folder could be written again");
    }
    association.release().unwrap();
    check_stored(&daemon, &study);
}

#[test]
fn read_only_folder_at_start_is_named() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    disk.set_read_only(true);
    let blobs = disk.folder.join("blobs");
    let error = Daemon::refuses_to_start(&Settings { blobs: Some(blobs.clone()), ..Settings::default() });
    assert!(error.contains(blobs.to_str().unwrap()) && error.to_lowercase().contains("read-only"), "{error}");
}
