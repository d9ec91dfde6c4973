//! `kill -9` at random moments while eight senders push: what was acknowledged is there, byte for byte, once.
//!
//! `make chaos` runs it at full length; here a few kills stand for it. The seed is printed, and ICHOR_CHAOS_SEED repeats a
//! run as far as the scheduler lets it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use crate::support::daemon::{Daemon, Settings, repository};
use crate::support::part10;
use crate::support::raw::{CT_IMAGE, RawAssociation};
use crate::support::study::Phantom;
use crate::support::tools::{python, requires};

const SENDERS: u64 = 8;
/// Slices of one study before a sender begins the next.
const SLICES: usize = 50;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
}

/// Data sets without end, made from one by other UIDs of the same length.
struct Template {
    data: Vec<u8>,
    study: String,
    instance: String,
}

impl Template {
    fn make(&self, study: &str, instance: &str) -> Vec<u8> {
        let mut data = self.data.clone();
        for (old, new) in [(&self.study, study), (&self.instance, instance)] {
            assert_eq!(old.len(), new.len());
            let at = data.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
            data[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
        data
    }
}

/// A UID of a given length.
fn uid(random: &mut StdRng, length: usize) -> String {
    let digits = (5..length)
        .map(|at| char::from(b'0' + if at == 5 { random.random_range(1..=9) } else { random.random_range(0..=9) }));
    "2.25.".chars().chain(digits).take(length).collect()
}

/// What was answered with success, in the order of the answers.
#[derive(Default)]
struct Acknowledged {
    /// SHA-256 of the data set that came first under a UID.
    first: HashMap<String, String>,
    /// Other contents under a known UID.
    others: Vec<(String, String)>,
}

impl Acknowledged {
    fn lines(&self) -> String {
        let mut text = String::new();
        for (uid, digest) in &self.first {
            let _ = writeln!(text, "{uid} {digest}");
        }
        for (uid, digest) in &self.others {
            let _ = writeln!(text, "{uid} {digest} other");
        }
        text
    }
}

struct Chaos {
    port: u16,
    template: Template,
    acknowledged: Mutex<Acknowledged>,
    answers: AtomicU64,
    stop: AtomicBool,
    /// Held by each sender from a slice to its answer, and by who looks at the store.
    gate: RwLock<()>,
}

impl Chaos {
    /// Sends studies until told to stop. What has no answer is sent again, as a scanner does.
    fn send(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        while !self.stop.load(Ordering::SeqCst) {
            let study = uid(&mut random, self.template.study.len());
            let mut waiting: Vec<(String, Vec<u8>, bool)> = (0..SLICES)
                .map(|_| {
                    let instance = uid(&mut random, self.template.instance.len());
                    let data = self.template.make(&study, &instance);
                    (instance, data, false)
                })
                .collect();
            waiting.reverse();
            while !waiting.is_empty() && !self.stop.load(Ordering::SeqCst) {
                let Ok(mut association) = RawAssociation::open(self.port) else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                while let Some((instance, data, is_other)) = waiting.last() {
                    let _open = self.gate.read().unwrap();
                    match association.store_bytes(CT_IMAGE, instance, data) {
                        Ok(status) => assert_eq!(status.code, 0, "{instance}: {status:?}"),
                        Err(_) => break,
                    }
                    self.answers.fetch_add(1, Ordering::SeqCst);
                    let digest = hex::encode(Sha256::digest(data));
                    let mut acknowledged = self.acknowledged.lock().unwrap();
                    if *is_other {
                        acknowledged.others.push((instance.clone(), digest));
                    } else {
                        acknowledged.first.insert(instance.clone(), digest);
                    }
                    drop(acknowledged);
                    let (instance, mut data, is_other) = waiting.pop().unwrap();
                    match random.random_range(0..20) {
                        // The same again, and other pixels under the same UID.
                        0 if !is_other => waiting.push((instance, data, false)),
                        1 if !is_other => {
                            *data.last_mut().unwrap() ^= 1;
                            waiting.push((instance, data, true));
                        }
                        _ => {}
                    }
                    if self.stop.load(Ordering::SeqCst) {
                        break;
                    }
                }
                association.drop_connection();
            }
        }
    }

    /// Holds the store against what was acknowledged so far.
    fn check(&self, daemon: &Daemon) -> usize {
        let _closed = self.gate.write().unwrap();
        let acknowledged = self.acknowledged.lock().unwrap();
        let folder = daemon.folder("chaos");
        let list = folder.join("acknowledged");
        std::fs::write(&list, acknowledged.lines()).unwrap();
        let output = Command::new(python())
            .arg(repository("tests/judges/check_store.py"))
            .arg(daemon.config.with_file_name("ichor.db"))
            .args([&daemon.blobs, &list])
            .output()
            .unwrap();
        let found = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(found.is_empty(), "{found}");
        acknowledged.first.len()
    }
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    requires!(Highdicom);
    let (kills, seed) = (number("ICHOR_CHAOS_KILLS", 4), number("ICHOR_CHAOS_SEED", rand::random_range(0..1_000_000)));
    let wanted = number("ICHOR_CHAOS_SLICES", 200) as usize;
    println!("chaos: {kills} kills, seed {seed}");
    let begun = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    // Studies stay open: what is looked at is receiving, with the model at work beside it.
    let mut daemon = Daemon::start(&Settings { quiet_period_s: 3600.0, max_associations: 64, ..Settings::default() });
    let study = Phantom::BLEEDING.matrix(64).slices(12).write(&daemon.folder("study"));
    let first = &study.instances[0];
    let template = Template {
        data: part10::data_set(&first.path),
        study: study.study_uid.clone(),
        instance: first.sop_instance.clone(),
    };
    let chaos = Arc::new(Chaos {
        port: daemon.port,
        template,
        acknowledged: Mutex::default(),
        answers: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        gate: RwLock::new(()),
    });
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (chaos, seed) = (Arc::clone(&chaos), seed.wrapping_mul(SENDERS) + sender);
            std::thread::spawn(move || chaos.send(seed))
        })
        .collect();
    let (mut done, mut kept) = (0, 0);
    while done < kills || kept < wanted {
        let before = chaos.answers.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(random.random_range(5..400)));
        daemon.kill();
        done += 1;
        daemon.start_again();
        kept = chaos.check(&daemon);
        assert!(senders.iter().all(|sender| !sender.is_finished()), "a sender has failed");
        if done.is_multiple_of(20) {
            let answers = chaos.answers.load(Ordering::SeqCst);
            println!("chaos: {done} kills, {kept} slices kept, {} answers since the last", answers - before);
        }
    }
    chaos.stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().expect("a sender met a refusal");
    }
    kept = chaos.check(&daemon);
    let (answers, others) = (chaos.answers.load(Ordering::SeqCst), chaos.acknowledged.lock().unwrap().others.len());
    println!(
        "chaos: {done} kills, {answers} answers, {kept} instances kept, {others} of them with other contents kept apart, {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    assert!(kept >= wanted && done >= kills);
}
