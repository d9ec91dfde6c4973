//! A PACS that is away for ten minutes with two hundred studies queued for it: the healthy one beside it does not notice, and
//! everything arrives once after the return.
//!
//! Latency is from the outbox to the peer's acceptance, as the job log has it. What it is without the one that is away is
//! measured in the same minutes: a second daemon, which knows of no other destination, gets the same studies in turn.
//! `make outage` runs it at full length; here a short outage stands for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, seconds};

/// How long the PACS is away at least, in seconds, unless `OUTAGE_SECONDS` says otherwise.
const SECONDS: u64 = 20;
/// Studies that are queued for it before anything is measured, unless `OUTAGE_STUDIES` says otherwise.
const STUDIES: u64 = 10;
/// Fewest pairs of studies, one by each daemon.
const PAIRS: usize = 12;
/// From so many pairs on the ratio of the medians itself is held against the bar; fewer are held against it as far as
/// chance allows.
const ENOUGH: usize = 60;
/// How much slower the healthy one may be.
const BAR: f64 = 1.1;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
}

fn destination(name: &str, pacs: &Orthanc) -> String {
    format!(
        "[[destination]]\nname = {name:?}\nkind = \"c-store\"\naddress = \"127.0.0.1:{}\"\nae_title = \"ORTHANC\"\n\
         first_backoff_s = 0.5\nmax_backoff_s = 5.0\ntimeout_s = 10.0\nobjects = [\"segmentation\", \"report\"]\n\n",
        pacs.dicom_port
    )
}

fn daemon(sections: String) -> Daemon {
    Daemon::start(&Settings { sections, ..Settings::default() })
}

fn phantom(number: u64) -> Phantom {
    Phantom { seed: 40_000 + number, positive: number.is_multiple_of(2), slices: 8, matrix: 64 }
}

fn send(daemon: &Daemon, study: &Study) {
    StoreScu::to(daemon.port).send(study).expect_all(study.instances.len());
}

/// Deliveries of the job log.
fn deliveries(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let output = daemon.command(&[&["deliveries", "list", "--json", "--limit", "100000"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().clone()
}

fn uids(deliveries: &[Value], field: &str) -> BTreeSet<String> {
    deliveries.iter().map(|delivery| delivery[field].as_str().unwrap().to_owned()).collect()
}

/// Sends a study and waits; from the outbox to the acceptance of its last object by the healthy PACS, in milliseconds.
fn latency(daemon: &Daemon, study: &Study) -> f64 {
    send(daemon, study);
    std::thread::sleep(seconds(1));
    let taken = eventually(seconds(120), "accepted by the healthy one", || {
        let all = deliveries(daemon, &["--study", &study.study_uid, "--destination", "healthy"]);
        let accepted = !all.is_empty() && all.iter().all(|delivery| delivery["status"] == "accepted");
        if accepted { Ok(all) } else { Err(format!("{all:?}")) }
    });
    let moments = |field: &str| -> Vec<i64> { taken.iter().map(|one| one[field].as_i64().unwrap()).collect() };
    (moments("finished_at").iter().max().unwrap() - moments("queued_at").iter().min().unwrap()) as f64
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] }
}

/// What of the ratio of two medians chance explains: its 5th percentile, pairs being drawn again and again.
fn lower_bound(pairs: &[(f64, f64)]) -> f64 {
    let mut random = StdRng::seed_from_u64(1);
    let mut ratios: Vec<f64> = (0..2_000)
        .map(|_| {
            let drawn: Vec<(f64, f64)> = (0..pairs.len()).map(|_| pairs[random.random_range(0..pairs.len())]).collect();
            ratio(&drawn)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 20]
}

fn ratio(pairs: &[(f64, f64)]) -> f64 {
    let (beside, alone): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    median(&beside) / median(&alone)
}

/// Sends studies to both daemons in turn, each first as often as the other, until a moment and at least so many.
fn measure(both: (&Daemon, &Daemon), numbers: &mut u64, least: usize, until: Instant) -> Vec<(f64, f64)> {
    let (beside, alone) = both;
    let mut pairs = Vec::new();
    while pairs.len() < least || Instant::now() < until {
        let study = phantom(*numbers).write(&beside.folder(&format!("study-{numbers}")));
        pairs.push(if pairs.len().is_multiple_of(2) {
            let first = latency(beside, &study);
            (first, latency(alone, &study))
        } else {
            let first = latency(alone, &study);
            (latency(beside, &study), first)
        });
        *numbers += 1;
    }
    pairs
}

/// Everything that was queued for the PACS is there, each object once, and was sent once.
fn all_arrived_once(daemon: &Daemon, pacs: &Orthanc) -> usize {
    let sent = eventually(seconds(300), "everything accepted", || {
        let all = deliveries(daemon, &["--destination", "away"]);
        let waiting = all.iter().filter(|delivery| delivery["status"] != "accepted").count();
        if waiting == 0 { Ok(all) } else { Err(format!("{waiting} of {}", all.len())) }
    });
    for delivery in &sent {
        assert_eq!(delivery["attempts"], 1, "what waits costs no attempt: {delivery}");
    }
    let kept = pacs.every_instance();
    assert_eq!(kept.len(), sent.len(), "none twice");
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), uids(&sent, "sop_instance"), "none missing, none else");
    sent.len()
}

#[test]
fn outage_slows_no_other_and_everything_arrives_once() {
    requires!(Dcmtk, Orthanc);
    let (away_for, queued) = (seconds(number("OUTAGE_SECONDS", SECONDS)), number("OUTAGE_STUDIES", STUDIES));
    let (mut away, healthy, reference) = (Orthanc::start(), Orthanc::start(), Orthanc::start());
    let beside = daemon(destination("away", &away) + &destination("healthy", &healthy));
    let alone = daemon(destination("healthy", &reference));
    let mut numbers = 0;
    let before = measure((&beside, &alone), &mut numbers, PAIRS, Instant::now());

    eventually(seconds(30), "all of before accepted by the one that will be away", || {
        let all = deliveries(&beside, &["--destination", "away"]);
        if all.iter().all(|one| one["status"] == "accepted") { Ok(()) } else { Err(format!("{all:?}")) }
    });
    away.kill();
    let since = Instant::now();
    for number in numbers..numbers + queued {
        send(&beside, &phantom(number).write(&beside.folder(&format!("study-{number}"))));
    }
    numbers += queued;
    eventually(seconds(60 + 10 * queued), "all studies queued for it", || {
        let found =
            uids(&deliveries(&beside, &["--destination", "away", "--status", "queued"]), "study_instance").len();
        if found as u64 == queued { Ok(()) } else { Err(format!("{found} of {queued}")) }
    });
    let filled = since.elapsed();
    let during = measure((&beside, &alone), &mut numbers, PAIRS, since + away_for);
    let lasted = since.elapsed();

    away.start_again();
    let back = Instant::now();
    let objects = all_arrived_once(&beside, &away);
    say(&before, &during, (queued, filled, lasted));
    println!(
        "{objects} objects at the PACS that was away, each once, {:.1} s after its return",
        back.elapsed().as_secs_f64()
    );
    let (found, least) = (ratio(&during), lower_bound(&during));
    let held = if during.len() >= ENOUGH { found } else { least };
    assert!(held <= BAR, "{found:.2} times as slow beside one that is away; {least:.2} at the least");
}

fn say(before: &[(f64, f64)], during: &[(f64, f64)], (queued, filled, lasted): (u64, Duration, Duration)) {
    println!(
        "away for {:.0} s, {queued} studies queued for it within the first {:.0} s",
        lasted.as_secs_f64(),
        filled.as_secs_f64()
    );
    for (name, pairs) in [("both there", before), ("one away", during)] {
        let (beside, alone): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        println!(
            "{name}: outbox to acceptance by the healthy one, median of {}: {:.1} ms, alone {:.1} ms: {:.3} times, at least {:.3}",
            pairs.len(),
            median(&beside),
            median(&alone),
            ratio(pairs),
            lower_bound(pairs)
        );
    }
}
