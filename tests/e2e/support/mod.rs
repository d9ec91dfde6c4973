//! What the scenarios are made of.

pub(crate) mod answering_peer;
pub(crate) mod chosen;
pub(crate) mod collector;
pub(crate) mod daemon;
pub(crate) mod dcmtk;
pub(crate) mod disk;
pub(crate) mod fhir;
pub(crate) mod http;
pub(crate) mod judge;
pub(crate) mod mllp;
pub(crate) mod orthanc;
pub(crate) mod part10;
pub(crate) mod proving_pacs;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod scratch;
pub(crate) mod storage_scp;
pub(crate) mod stow;
pub(crate) mod study;
pub(crate) mod task_manager;
pub(crate) mod tools;
pub(crate) mod viewer;
pub(crate) mod webhook;
pub(crate) mod weights;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A loopback port that nobody listens on. It lies below the range from which the system hands out ports of its own
/// accord, so that no connection of a test running beside this one takes it before it is used.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test processes at once begin at different places.
    let begin = (std::process::id() % 1_000) as u16 * 15;
    for _ in 0..COUNT {
        let port = FIRST + (begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// Asks again and again until there is an answer, and panics with the last refusal when `limit` has passed.
pub(crate) fn eventually<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if begun.elapsed() > limit => panic!("{what}: not within {limit:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Watches for `span` that something stays true.
pub(crate) fn stays(span: Duration, mut check: impl FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < span {
        check();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Shorthand for durations in the scenarios.
pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
