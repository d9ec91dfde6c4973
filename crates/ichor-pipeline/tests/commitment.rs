//! Storage commitment over a real listener and store, asked for by pynetdicom. Without `ICHOR_TEST_PYTHON` the tests say
//! so and pass; with `ICHOR_REQUIRE_TOOLS=1` they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::AeTitle;
use ichor_dimse::scp::{CommitmentLimits, PeerRule, ScpOptions, StorageScp};
use ichor_phantom::{PhantomOptions, WrittenStudy, write_study};
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::commit::{self, CommitOptions, ReportAddress};
use ichor_pipeline::ingest::{CommitmentOptions, DatasetLimits, Ingest, IngestOptions, Source};
use ichor_pipeline::now;
use ichor_store::{Store, StoreOptions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SLICES: usize = 4;

/// A listener with its stage.
struct House {
    folder: tempfile::TempDir,
    store: Store,
    study: WrittenStudy,
    port: u16,
    report_port: u16,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl House {
    async fn new(has_report_address: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = PhantomOptions::default().with_matrix(64).with_slices(u32::try_from(SLICES).unwrap());
        let study = write_study(5, &options, &folder.path().join("study")).unwrap();
        let store = open(folder.path()).await;
        let report_port = free_port();
        let (port, stop, tasks) = start(&store, has_report_address.then_some(report_port)).await;
        Self { folder, store, study, port, report_port, stop, tasks }
    }

    /// Stops without a word to anybody, as a killed process does, and starts over what it left.
    async fn killed_and_started_again(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        self.store.close().await;
        self.store = open(self.folder.path()).await;
        (self.port, self.stop, self.tasks) = start(&self.store, Some(self.report_port)).await;
    }

    fn ask(&self, python: &str, mut settings: Value) -> std::process::Child {
        settings["port"] = json!(self.port);
        if settings.get("files").is_none() {
            settings["files"] = json!(self.study.files);
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/counterparts/commitment_scu.py");
        std::process::Command::new(python).args([script, &settings.to_string()]).stdout(Stdio::piped()).spawn().unwrap()
    }

    async fn hear(&self, python: &str, settings: Value) -> Value {
        heard(self.ask(python, settings)).await
    }

    async fn wait_for(&self, status: &str) {
        let reached = async {
            while self.store.commitments(false, 1).await.unwrap().first().is_none_or(|c| c.status != status) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), reached).await;
        assert!(waited.is_ok(), "{status} in vain: {:?}", self.store.commitments(false, 1).await);
    }
}

async fn heard(child: std::process::Child) -> Value {
    // The script ends by itself, within its patience.
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn open(folder: &Path) -> Store {
    let store = Store::open(&StoreOptions::new(&folder.join("ichor.db"), &folder.join("blobs"))).await.unwrap();
    store.recover(now()).await.unwrap();
    store
}

async fn start(store: &Store, report_port: Option<u16>) -> (u16, CancellationToken, Vec<JoinHandle<()>>) {
    let anyone = || PeerRule { ae_title: None, networks: Vec::new(), user: None };
    let ingest = IngestOptions {
        sources: vec![Source { peer: anyone(), quiet_period: Duration::from_secs(60) }],
        min_free_bytes: 0,
        max_study_instances: 1_000,
        limits: DatasetLimits::default(),
        commitment: CommitmentOptions {
            wait: Duration::from_millis(300),
            backoff: Backoff { first: Duration::from_millis(100), longest: Duration::from_millis(100), attempts: 0 },
        },
    };
    let limits = CommitmentLimits { max_references: 1_000, ..CommitmentLimits::default() };
    let mut options = ScpOptions::new(AeTitle::parse("ICHOR").unwrap()).with_commitment(limits);
    options.peers = vec![anyone()];
    let scp = StorageScp::bind("127.0.0.1:0", options, Ingest::new(store.clone(), ingest)).await.unwrap();
    let port = scp.local_addr().unwrap().port();
    let commit = CommitOptions {
        ae_title: AeTitle::parse("ICHOR").unwrap(),
        addresses: vec![ReportAddress { peer: anyone(), address: report_port.map(|port| format!("127.0.0.1:{port}")) }],
        backoff: Backoff { first: Duration::from_millis(200), longest: Duration::from_millis(500), attempts: 40 },
        timeout: Duration::from_secs(5),
    };
    let stop = CancellationToken::new();
    let tasks = vec![
        tokio::spawn(scp.run(stop.clone())),
        tokio::spawn(commit::run(store.clone(), tokio::sync::watch::channel(Arc::new(commit)).1, stop.clone())),
    ];
    (port, stop, tasks)
}

/// The Python with pynetdicom, or why the test is left out.
fn python() -> Option<String> {
    let python = std::env::var("ICHOR_TEST_PYTHON").ok();
    if python.is_none() {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none(), "ICHOR_TEST_PYTHON is not set");
        eprintln!("left out: ICHOR_TEST_PYTHON is not set");
    }
    python
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_committed_on_the_same_association() {
    let Some(python) = python() else { return };
    let house = House::new(false).await;
    let heard = house.hear(&python, json!({})).await;
    assert_eq!((&heard["action"], &heard["alive"]), (&json!(0), &json!(true)), "{heard}");
    let report = &heard["reports"][0];
    assert_eq!((&report["event_type"], &report["instance"]), (&json!(1), &json!("1.2.840.10008.1.20.1.1")));
    assert_eq!((&report["transaction"], &report["own_association"]), (&heard["transaction"], &json!(false)));
    assert_eq!((report["committed"].as_array().unwrap().len(), &report["failed"]), (SLICES, &json!({})));
    house.wait_for("answered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_instances_and_lost_files_are_told() {
    let Some(python) = python() else { return };
    let house = House::new(false).await;
    house.hear(&python, json!({ "reports": 1 })).await;
    // Whichever file goes: the instance behind it must be told.
    let study = ichor_store::StudyKey::Uid(house.study.study_instance.clone());
    assert_eq!(house.store.study(&study).await.unwrap().summary.instances, SLICES as u32);
    let blobs = house.folder.path().join("blobs");
    let lost =
        std::process::Command::new("find").arg(&blobs).args(["-path", "*/*/*", "-size", "+4k"]).output().unwrap();
    let lost = String::from_utf8(lost.stdout).unwrap();
    std::fs::remove_file(lost.lines().next().unwrap()).unwrap();
    let uids: Vec<String> = house
        .study
        .files
        .iter()
        .map(|file| ichor_dimse::part10::read_header(file).unwrap().sop_instance.to_string())
        .collect();
    let mut extra = uids.clone();
    extra.push("1.2.3.4.5".to_owned());
    let heard = house.hear(&python, json!({ "files": [], "extra": extra })).await;
    let report = &heard["reports"][0];
    assert_eq!((&heard["action"], &report["event_type"]), (&json!(0), &json!(2)), "{heard}");
    let failed = report["failed"].as_object().unwrap();
    assert_eq!((failed.len(), &failed["1.2.3.4.5"]), (2, &json!(0x0112)), "{heard}");
    let (_, reason) = failed.iter().find(|(uid, _)| uids.contains(uid)).unwrap();
    assert_eq!(reason, &json!(0x0110));
    assert_eq!(report["committed"].as_array().unwrap().len(), SLICES - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_closes_at_once_hears_on_an_association_of_ours() {
    let Some(python) = python() else { return };
    let house = House::new(true).await;
    // The first report is refused, the second finds the association gone: the third counts.
    let settings = json!({ "close": true, "listen": house.report_port, "answers": [0x0110, null], "reports": 3 });
    let heard = house.hear(&python, settings).await;
    let reports = heard["reports"].as_array().unwrap();
    assert_eq!((reports.len(), &heard["action"]), (3, &json!(0)), "{heard}");
    for report in reports {
        assert_eq!((&report["event_type"], &report["own_association"]), (&json!(1), &json!(true)), "{heard}");
    }
    house.wait_for("answered").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_address_the_job_log_says_so() {
    let Some(python) = python() else { return };
    let house = House::new(false).await;
    let heard = house.hear(&python, json!({ "close": true, "extra": ["1.2.3.4.5"], "patience": 0 })).await;
    assert_eq!(heard["reports"], json!([]));
    house.wait_for("dead").await;
    let dead = &house.store.commitments(true, 1).await.unwrap()[0];
    assert!(dead.last_words.as_deref().unwrap().contains("no-report-address"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_outlives_the_process() {
    let Some(python) = python() else { return };
    let mut house = House::new(true).await;
    // One that is not there: the answer waits, and the process ends before it.
    let settings = json!({ "extra": ["1.2.3.4.5"], "close": true, "patience": 0 });
    let heard_first = house.hear(&python, settings).await;
    assert_eq!(heard_first["action"], json!(0));
    house.killed_and_started_again().await;
    let transaction = heard_first["transaction"].as_str().unwrap().to_owned();
    // A listener comes up; it asks for something of its own and hears of both.
    let listening =
        house.ask(&python, json!({ "files": [], "extra": ["1.2.3"], "listen": house.report_port, "reports": 2 }));
    let heard = heard(listening).await;
    let first =
        heard["reports"].as_array().unwrap().iter().find(|report| report["transaction"] == transaction.as_str());
    let first = first.unwrap_or_else(|| panic!("{heard}"));
    assert_eq!((&first["event_type"], &first["own_association"]), (&json!(2), &json!(true)));
    assert_eq!(first["failed"], json!({ "1.2.3.4.5": 0x0112 }));
    assert_eq!(first["committed"].as_array().unwrap().len(), SLICES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_cannot_be_met_are_refused_with_their_status() {
    let Some(python) = python() else { return };
    let house = House::new(false).await;
    let many: Vec<String> = (0..1_001).map(|number| format!("1.2.{number}")).collect();
    for (settings, status) in [
        (json!({ "action_type": 2 }), 0x0123),
        (json!({ "instance": "1.2.3" }), 0x0112),
        (json!({ "extra": [] }), 0x0115),
        (json!({ "extra": ["1.2.3", "1.2.3"] }), 0x0115),
        (json!({ "extra": many }), 0x0213),
        (json!({ "extra": many[..1_000], "transaction": "1.2.3.4", "reports": 1 }), 0x0000),
        (json!({ "extra": ["1.2.3"], "transaction": "1.2.3.4" }), 0x0115),
    ] {
        let mut settings = settings;
        settings["files"] = json!([]);
        if settings.get("reports").is_none() {
            settings["reports"] = json!(0);
        }
        if settings.get("extra").is_none() {
            settings["extra"] = json!(["1.2.3"]);
        }
        let heard = house.hear(&python, settings).await;
        assert_eq!(heard["action"], json!(status), "{} {}", heard["action"], heard["comment"]);
        assert_eq!(heard["comment"].is_string(), status != 0, "{heard}");
        if status == 0 {
            assert_eq!(heard["reports"][0]["failed"].as_object().unwrap().len(), 1_000);
        }
    }
}
