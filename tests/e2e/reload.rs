//! The configuration, read again while the daemon works.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::proxy::{Proxy, Toxic};
use crate::support::raw::RawAssociation;
use crate::support::scratch::Scratch;
use crate::support::tools::requires;
use crate::support::{eventually, seconds};

/// Writes the configuration anew and has it read; waits until the daemon has said so `times` times.
pub(crate) fn reload(daemon: &Daemon, config: &str, said: &str, times: usize) {
    std::fs::write(&daemon.config, config).unwrap();
    let pid = daemon.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    eventually(seconds(20), said, || {
        let found = daemon.log().matches(said).count();
        if found == times { Ok(()) } else { Err(format!("{found} times\n{}", daemon.log())) }
    });
}

#[test]
fn a_delivery_under_way_outlives_a_new_configuration() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let proxy = Proxy::before(pacs.dicom_port, Toxic::StallAfter(4_000));
    let destination = Destination::CStore { name: "pacs", port: proxy.port, timeout_s: 60.0 };
    let mut daemon = Daemon::start(&Settings::to([destination]));
    let first = called_positive()[0].write(&daemon.folder("first"));
    StoreScu::to(daemon.port).send(&first).expect_all(first.instances.len());
    eventually(seconds(120), "a delivery in the middle", || {
        if proxy.stalled() == 1 { Ok(()) } else { Err("not yet".into()) }
    });

    // The destination of that very delivery changes, another comes, and a key that cannot change now.
    let archive = daemon.folder("archive");
    let old = std::fs::read_to_string(&daemon.config).unwrap();
    let new = old
        .replace("max_backoff_s = 1.0", "max_backoff_s = 1.5")
        .replace("max_associations = 16", "max_associations = 17")
        + &format!("\n[[destination]]\nname = \"archive\"\nkind = \"folder\"\npath = {archive:?}\n");
    assert!(new.contains("= 1.5") && new.contains("= 17"));
    reload(&daemon, &new, "configuration read again", 1);
    let log = daemon.log();
    assert!(
        log.contains("destination \"pacs\" max_backoff_s") || log.contains("destination \\\"pacs\\\" max_backoff_s"),
        "{log}"
    );
    assert!(log.contains("needs a restart") && log.contains("listen.max_associations"), "{log}");
    assert_eq!(daemon.deliveries(&first.study_uid, "pacs"), [("sending".to_owned(), 1)], "it goes on");
    proxy.set(Toxic::None);
    assert_eq!(daemon.wait_for_acceptance(&first.study_uid, "pacs", seconds(60)), 1, "the first attempt");
    assert_eq!(pacs.objects(&first.study_uid, "SEG").len(), 1);

    let second = called_positive()[1].write(&daemon.folder("second"));
    StoreScu::to(daemon.port).send(&second).expect_all(second.instances.len());
    for name in ["pacs", "archive"] {
        daemon.wait_for_acceptance(&second.study_uid, name, seconds(120));
    }
    assert!(archive.join(&second.study_uid).is_dir());

    // A file with a fault changes nothing, however much else is in it.
    let faulty = new.replace("name = \"archive\"", "name = \"elsewhere\"\nnonsense = 1");
    reload(&daemon, &faulty, "nothing changes", 1);
    assert!(daemon.log().contains("nonsense"), "{}", daemon.log());
    assert!(RawAssociation::open(daemon.port).is_ok());
    // Nor does one that names a secret which is not there, though only a restart would need it.
    let gone =
        "\n[dicomweb]\naddress = \"127.0.0.1:0\"\n\n[[dicomweb.client]]\nname = \"WEB\"\ntoken_file = \"gone.token\"\n";
    reload(&daemon, &(new.clone() + gone), "nothing changes", 2);
    assert!(daemon.log().contains("gone.token"), "{}", daemon.log());

    // Who may come, what is logged, and a destination that goes.
    let strict = old
        .replace("ae_title = \"STORESCU\"", "ae_title = \"NOBODY\"")
        .replace("level = \"info\"", "level = \"debug\"");
    assert_ne!(strict, old);
    reload(&daemon, &strict, "configuration read again", 2);
    assert!(RawAssociation::open(daemon.port).is_err(), "no source lets it in");
    eventually(seconds(10), "debug lines", || if daemon.log().contains("DEBUG") { Ok(()) } else { Err("none".into()) });
    assert!(daemon.log().contains("destination archive is served no more"), "{}", daemon.log());
    reload(&daemon, &old, "configuration read again", 3);
    assert!(RawAssociation::open(daemon.port).and_then(|mut association| association.echo()).is_ok());
    assert!(daemon.is_running());
}

#[test]
fn another_time_zone_opens_a_window_at_once() {
    requires!(Dcmtk);
    // By UTC the window opens in five hours; in India, five and a half hours ahead, it is open.
    let clock = |hours| {
        let at = OffsetDateTime::now_utc() + Duration::hours(hours);
        format!("{:02}:{:02}", at.hour(), at.minute())
    };
    let scratch = Scratch::new("archive");
    let archive = scratch.path();
    let sections = format!(
        "[[destination]]\nname = \"archive\"\nkind = \"folder\"\npath = {archive:?}\nobjects = [\"report\"]\n\
         hours = \"{}-{}\"\n",
        clock(5),
        clock(6)
    );
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let study = called_negative().write(&daemon.folder("negative"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(120));
    std::thread::sleep(seconds(3));
    assert_eq!(daemon.deliveries(&study.study_uid, "archive"), [("queued".to_owned(), 0)], "its hour has not come");

    let old = std::fs::read_to_string(&daemon.config).unwrap();
    reload(&daemon, &format!("time_zone = \"Asia/Kolkata\"\n{old}"), "configuration read again", 1);
    assert_eq!(daemon.wait_for_acceptance(&study.study_uid, "archive", seconds(20)), 1);
    let log = daemon.log();
    assert!(log.contains("time_zone") && log.contains("destination archive is served anew"), "{log}");
    // A zone that there is not changes nothing.
    reload(&daemon, &format!("time_zone = \"Asia/Calcuta\"\n{old}"), "nothing changes", 1);
    assert!(daemon.log().contains("is no time zone"), "{}", daemon.log());
}

#[test]
fn differences_are_told_before_they_come_in_force() {
    let daemon = Daemon::start(&Settings::default());
    let old = std::fs::read_to_string(&daemon.config).unwrap();
    let other = daemon.config.with_file_name("other.toml");
    std::fs::write(
        &other,
        old.replace("level = \"info\"", "level = \"warn\"").replace("min_free_mib = 16", "min_free_mib = 17"),
    )
    .unwrap();
    let output = std::process::Command::new(crate::support::daemon::ICHOR)
        .args(["config", "diff", "--json"])
        .args([&daemon.config, &other])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let differences: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<(&str, bool)> = (differences.as_array().unwrap().iter())
        .map(|one| (one["key"].as_str().unwrap(), one["live"].as_bool().unwrap()))
        .collect();
    assert_eq!(keys, [("log.level", true), ("store.min_free_mib", false)]);
}
