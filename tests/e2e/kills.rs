//! `kill -9` of either side at random: every result is at the PACS, once.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, seconds};

/// Kills unless `ICHOR_DELIVERY_KILLS` says another number.
const KILLS: u64 = 6;

/// Numbers that look random, from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
fn killed_on_either_side_nothing_is_missing_and_nothing_twice() {
    requires!(Dcmtk, Orthanc);
    let kills = std::env::var("ICHOR_DELIVERY_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    println!("{kills} kills, seed {seed}");
    let mut dice = Dice(u64::from(seed));
    let mut pacs = Orthanc::start();
    let sections = format!(
        "[[destination]]\nname = \"pacs\"\nkind = \"c-store\"\naddress = \"127.0.0.1:{}\"\nae_title = \"ORTHANC\"\n\
         first_backoff_s = 0.2\nmax_backoff_s = 0.5\ntimeout_s = 5.0\nobjects = [\"segmentation\", \"report\"]\n\n\
         [destination.proof]\nask = [\"read-back\"]\nafter_s = 0.2\nfirst_backoff_s = 0.2\nmax_backoff_s = 0.5\n\
         attempts = 4\nresends = 20\n",
        pacs.dicom_port
    );
    // A study whose analysis is cut off each time is given up after some: what is asked here is what comes of results.
    let analysis = "idle_cores_only = false\nattempts = 1000\n".to_owned();
    let settings = Settings { sections, analysis, quiet_period_s: 0.3, ..Settings::default() };
    let mut daemon = Daemon::start(&settings);
    let mut studies: Vec<Study> = Vec::new();
    let (mut daemons, mut peers) = (0, 0);
    for kill in 0..kills {
        let phantom = Phantom { seed: 9_000 + kill, ..Phantom::BLEEDING }.slices(8).matrix(128);
        let study = phantom.write(&daemon.folder(&format!("study-{kill}")));
        StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
        studies.push(study);
        std::thread::sleep(Duration::from_millis(dice.below(2_500)));
        if dice.below(2) == 0 {
            daemon.kill();
            daemon.start_again();
            daemons += 1;
        } else {
            pacs.kill();
            std::thread::sleep(Duration::from_millis(dice.below(1_000)));
            pacs.start_again();
            peers += 1;
        }
    }
    for study in &studies {
        daemon.wait_for_status(&study.study_uid, "analysed", seconds(120));
        eventually(seconds(60), "every result proven", || {
            let states = daemon.deliveries(&study.study_uid, "pacs");
            let proven = !states.is_empty() && states.iter().all(|(status, _)| status == "visible");
            if proven { Ok(()) } else { Err(format!("{states:?}")) }
        });
        let shown = daemon.show(&study.study_uid);
        let made: BTreeSet<&str> = shown["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| object["sop_instance"].as_str().unwrap())
            .collect();
        let kept: Vec<String> = ["SEG", "SR"]
            .iter()
            .flat_map(|modality| pacs.objects(&study.study_uid, modality))
            .map(|object| object.sop_instance)
            .collect();
        assert_eq!(kept.len(), made.len(), "none twice: {kept:?}");
        assert_eq!(kept.iter().map(String::as_str).collect::<BTreeSet<_>>(), made, "none missing");
    }
    println!("{} studies, {daemons} kills of ichor and {peers} of Orthanc", studies.len());
}
