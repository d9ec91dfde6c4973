//! A disk that fills while instances arrive: 0xA700, the association lives, and it goes on when there is room.

use std::path::Path;

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::disk::{SmallDisk, free_kib};
use crate::support::raw::RawAssociation;
use crate::support::stow;
use crate::support::study::Phantom;
use crate::support::tools::requires;
use crate::support::{part10, seconds};

/// Out of resources (PS3.4 table B.2-1).
const OUT_OF_RESOURCES: u16 = 0xA700;

fn settings(disk: &SmallDisk, min_free_mib: u64) -> Settings {
    Settings { blobs: Some(disk.folder.join("blobs")), min_free_mib, ..Settings::default() }
}

/// Sends slices on one association until one is refused, frees the disk, and sends the refused one again on it.
fn refused_and_taken_again(disk: &SmallDisk, daemon: &Daemon, filler: &Path) {
    let study = Phantom::BLEEDING.matrix(512).slices(8).write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    let mut refused = None;
    for (index, instance) in study.instances.iter().enumerate() {
        let status = association.store(instance).unwrap();
        if status.code == OUT_OF_RESOURCES {
            refused = Some(index);
            break;
        }
        assert_eq!(status.code, 0, "{status:?}");
    }
    let refused = refused.unwrap_or_else(|| panic!("all taken, {} KiB free", free_kib(&disk.folder)));
    assert_eq!(association.echo().unwrap().code, 0, "the association did not live on");
    assert_eq!(association.store(&study.instances[refused]).unwrap().code, OUT_OF_RESOURCES);
    assert!(
        !daemon.stored_data_sets().contains_key(&study.instances[refused].sop_instance),
        "a refused slice lies there"
    );

    std::fs::remove_file(filler).unwrap();
    for instance in &study.instances[refused..] {
        let status = association.store(instance).unwrap();
        assert_eq!(status.code, 0, "{status:?} after there was room again");
    }
    association.release().unwrap();
    let stored = daemon.stored_data_sets();
    for instance in &study.instances {
        assert!(stored[&instance.sop_instance] == [part10::data_set(&instance.path)], "{}", instance.sop_instance);
    }
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
}

#[test]
fn disk_full_in_the_middle_of_a_slice() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let daemon = Daemon::start(&settings(&disk, 0));
    // Room for two slices and a half of 512 × 512.
    let filler = disk.fill_but(1_300);
    refused_and_taken_again(&disk, &daemon, &filler);
}

#[test]
fn disk_below_its_reserve() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let daemon = Daemon::start(&settings(&disk, 8));
    let filler = disk.fill_but(8 * 1024 + 1_300);
    refused_and_taken_again(&disk, &daemon, &filler);
}

#[test]
fn storescu_is_told_that_the_disk_is_full() {
    requires!(Dcmtk);
    let Some(disk) = SmallDisk::mount(24) else { return };
    let daemon = Daemon::start(&settings(&disk, 0));
    let study = Phantom::BLEEDING.matrix(512).slices(5).write(&daemon.folder("study"));
    let filler = disk.fill_but(100);
    let report = StoreScu::to(daemon.port).option("-nh").send(&study);
    assert_eq!(report.acknowledged(), 0, "{}", report.log);
    assert_eq!(report.log.matches("Refused: OutOfResources").count(), 5, "{}", report.log);
    std::fs::remove_file(filler).unwrap();
    StoreScu::to(daemon.port).send(&study).expect_all(5);
}

#[test]
fn disk_full_in_the_middle_of_a_stow_request() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let daemon = Daemon::start(&Settings { stow: true, ..settings(&disk, 0) });
    let study = Phantom::BLEEDING.matrix(512).slices(5).write(&daemon.folder("study"));
    let body = stow::body(stow::files(&study.instances));
    // Room for two slices and a half of 512 × 512; which ones get it is chance.
    let filler = disk.fill_but(1_300);
    let answer = stow::post(&daemon, "studies", &body);
    let (stored, failed) = (answer.stored(), answer.failed());
    assert!(stored.len() <= 2 && stored.len() + failed.len() == 5, "{answer:?}");
    assert_eq!(answer.status, if stored.is_empty() { 503 } else { 202 }, "{answer:?}");
    assert!(failed.iter().all(|(_, reason)| *reason == Some(u64::from(OUT_OF_RESOURCES))), "{answer:?}");
    let kept = daemon.stored_data_sets();
    assert!(stored.iter().all(|uid| kept.contains_key(uid)) && kept.len() == stored.len());
    std::fs::remove_file(filler).unwrap();
    let answer = stow::post(&daemon, "studies", &body);
    assert_eq!((answer.status, answer.stored().len()), (200, 5), "{answer:?}");
}

#[test]
fn stow_is_asked_to_come_back_when_the_disk_is_below_its_reserve() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let daemon = Daemon::start(&Settings { stow: true, ..settings(&disk, 8) });
    let study = Phantom::BLEEDING.matrix(512).slices(5).write(&daemon.folder("study"));
    let body = stow::body(stow::files(&study.instances));
    let filler = disk.fill_but(4 * 1024);
    let answer = stow::post(&daemon, "studies", &body);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.to_lowercase().contains("retry-after: 10"), "{answer:?}");
    assert!(daemon.stored_data_sets().is_empty());
    std::fs::remove_file(filler).unwrap();
    let answer = stow::post(&daemon, "studies", &body);
    assert_eq!((answer.status, answer.stored().len()), (200, 5), "{answer:?}");
}
