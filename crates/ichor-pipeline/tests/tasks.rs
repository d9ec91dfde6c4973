//! Task lists that answer wrongly, or not at all: nothing that is ours is lost, and nothing else waits for them.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ichor_core::{AeTitle, TaskStatus, Uid};
use ichor_dicomweb::{RetrieveLimits, StowClient, StowOptions};
use ichor_dimse::scp::ScpOptions;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::ingest::{StowClientRule, StowIngest};
use ichor_pipeline::now;
use ichor_pipeline::tasks::{Code, InputSource, Ours, TaskList, run_until_retired};
use ichor_store::{NewTask, Store, TaskStep};
use serde_json::{Value, json};
use support::House;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const STUDY: &str = "1.2.3.4.5";

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

/// A list on one port, and what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` is given method, path and the server's own URL; without an answer the connection stays open and silent.
    async fn start(answer: impl Fn(&str, &str, &str) -> Option<(u16, Value)> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url: url.clone(), asked: Arc::default() };
        let (asked, answer) = (Arc::clone(&server.asked), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (asked, answer, url) = (Arc::clone(&asked), Arc::clone(&answer), url.clone());
                tokio::spawn(async move {
                    let Some(line) = request_line(&mut stream).await else { return };
                    asked.lock().unwrap().push(line.clone());
                    let mut words = line.split(' ');
                    let (method, path) = (words.next().unwrap(), words.next().unwrap());
                    let Some((status, body)) = answer(method, path, &url) else {
                        return std::future::pending().await;
                    };
                    let body = body.to_string();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: application/dicom+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                });
            }
        });
        server
    }

    fn was_asked(&self, word: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|line| line.contains(word))
    }

    fn list(&self) -> TaskList {
        // Another test may have installed it.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let title = |text: &str| AeTitle::parse(text).unwrap();
        let client = StowClient::new(StowOptions::new(&self.url)).unwrap();
        let milliseconds = Duration::from_millis;
        TaskList {
            name: title("TASKS"),
            server: client.clone(),
            performer: title("ICHOR"),
            ours: Ours { workitem_codes: vec![Code { value: "ICH".to_owned(), scheme: None }], ..Ours::default() },
            is_leaving: false,
            sources: vec![InputSource { url: self.url.clone(), client }],
            movers: Vec::new(),
            limits: RetrieveLimits {
                max_bytes: 1 << 20,
                max_part_bytes: 1 << 20,
                max_parts: 10,
                idle: Duration::from_secs(60),
            },
            poll: milliseconds(50),
            events: false,
            at_once: 4,
            most_stuck: 20,
            most_found: 10,
            give_up_after: Duration::from_secs(3600),
            most_refusals: 2,
            tell_within: Duration::from_secs(3600),
            backoff: Backoff { first: milliseconds(10), longest: milliseconds(20), attempts: 0 },
            places: Vec::new(),
            own_place: None,
        }
    }
}

/// Reads a request; its first line.
async fn request_line(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let whole = head + length.unwrap_or(0_usize);
    while bytes.len() < whole {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    String::from_utf8_lossy(&bytes).lines().next().map(str::to_owned)
}

/// A workitem in this state, whose input is study [`STUDY`] below `url`.
fn workitem(name: &str, state: &str, url: &str) -> Value {
    let one = |vr: &str, value: Value| json!({ "vr": vr, "Value": [value] });
    let place = json!({ "00081190": one("UR", json!(format!("{url}/studies/{STUDY}"))) });
    json!({
        "00080018": one("UI", json!(name)),
        "00741000": one("CS", json!(state)),
        "00404018": one("SQ", json!({ "00080100": one("SH", json!("ICH")) })),
        "00404021": one("SQ", json!({ "0020000D": one("UI", json!(STUDY)), "0040E025": one("SQ", place) })),
    })
}

async fn begin(store: &Store, name: &str, urls: &[String]) {
    let input = json!({ "series": null, "instances": [], "urls": urls, "titles": [] });
    let new = NewTask {
        list: "TASKS".to_owned(),
        workitem: uid(name),
        transaction: Uid::derive(["transaction", name]),
        study_instance: uid(STUDY),
        urgent: false,
        request: json!({ "code": null, "station": null, "inputs": [input] }),
    };
    store.begin_task(&new, now()).await.unwrap().unwrap();
}

async fn advance(store: &Store, name: &str, step: TaskStep) {
    let open = store.open_tasks("TASKS").await.unwrap();
    let task = open.into_iter().find(|task| task.new.workitem == uid(name)).unwrap();
    store.advance_task(&task, &step, "as the test has it", now()).await.unwrap();
}

/// A task whose claim may have been heard, although nobody heard the answer.
async fn begin_and_claim_unheard(store: &Store, name: &str) {
    begin(store, name, &[]).await;
    advance(store, name, TaskStep::Again(now())).await;
}

async fn status(store: &Store, name: &str) -> Option<TaskStatus> {
    store.task_status("TASKS", &uid(name)).await.unwrap()
}

async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(15), waiting).await.is_ok(), "{what}");
}

async fn becomes(store: &Store, name: &str, wanted: TaskStatus) {
    eventually(&format!("{name} {wanted}"), async || status(store, name).await == Some(wanted)).await;
}

/// Who performs a list; it stops with the value.
struct Performer {
    work: JoinHandle<()>,
    retired: CancellationToken,
    shutdown: CancellationToken,
}

impl Performer {
    fn start(house: &House, list: TaskList) -> Self {
        let accepted = ScpOptions::new(AeTitle::parse("ICHOR").unwrap()).sop_classes;
        let rule = StowClientRule { name: list.name.clone(), quiet_period: Duration::from_millis(50) };
        let ingest = StowIngest::new(house.ingest(), vec![rule], accepted);
        let (retired, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let work = run_until_retired(house.store.clone(), ingest, Arc::new(list), retired.clone(), shutdown.clone());
        Self { work: tokio::spawn(work), retired, shutdown }
    }
}

impl Drop for Performer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn what_may_be_ours_is_not_lost_by_an_address_that_knows_nothing() {
    let house = House::new().await;
    let store = &house.store;
    let server = Server::start(|_, _, _| Some((404, Value::Null))).await;
    begin(store, "2.25.1", &[]).await;
    advance(store, "2.25.1", TaskStep::Claimed).await;
    advance(store, "2.25.1", TaskStep::InputHere).await;
    let ending = json!({ "is_completed": true, "update": {}, "words": "done" });
    advance(store, "2.25.1", TaskStep::Ending(ending)).await;
    begin_and_claim_unheard(store, "2.25.2").await;
    // By a process that was killed, perhaps behind its claim.
    begin(store, "2.25.4", &[]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let _performer = Performer::start(&house, server.list());
    eventually("a look", async || server.was_asked("GET /workitems?")).await;
    begin(store, "2.25.3", &[]).await;
    becomes(store, "2.25.1", TaskStatus::Refused).await;
    becomes(store, "2.25.2", TaskStatus::Refused).await;
    becomes(store, "2.25.4", TaskStatus::Refused).await;
    // Nothing was asked before: it cannot be ours.
    becomes(store, "2.25.3", TaskStatus::Lost).await;
    // Nor by somebody who has it tried again too early.
    assert_eq!(store.retry_tasks(None, now()).await.unwrap(), 3);
    becomes(store, "2.25.1", TaskStatus::Refused).await;
    becomes(store, "2.25.2", TaskStatus::Refused).await;
}

#[tokio::test]
async fn a_conflict_that_does_not_say_whose_it_is_is_settled_by_the_state() {
    let house = House::new().await;
    let store = &house.store;
    let server = Server::start(|method, path, url| {
        let name = path.split(['/', '?']).nth(2).unwrap_or_default();
        let state = match name {
            "2.25.2" => "COMPLETED",
            "2.25.3" => "SCHEDULED",
            _ => "IN PROGRESS",
        };
        Some(match (method, name) {
            ("GET", name) if name.starts_with("2.25") => (200, json!([workitem(name, state, url)])),
            ("GET", _) => (200, json!([])),
            // Neither update nor cancellation, and no word about the Transaction UID.
            (_, "2.25.5") => (400, Value::Null),
            _ => (409, Value::Null),
        })
    })
    .await;
    for name in ["2.25.1", "2.25.2", "2.25.3", "2.25.5"] {
        begin_and_claim_unheard(store, name).await;
    }
    let _performer = Performer::start(&house, server.list());
    eventually("a look", async || server.was_asked("GET /workitems?")).await;
    begin(store, "2.25.4", &[]).await;
    for (name, wanted) in [
        ("2.25.1", TaskStatus::Refused),
        ("2.25.2", TaskStatus::Lost),
        ("2.25.3", TaskStatus::Lost),
        ("2.25.4", TaskStatus::Lost),
        ("2.25.5", TaskStatus::Refused),
    ] {
        becomes(store, name, wanted).await;
    }
}

#[tokio::test]
async fn a_list_that_is_replaced_waits_for_no_input() {
    let house = House::new().await;
    let server = Server::start(|_, path, _| (!path.contains("/studies/")).then(|| (200, json!([])))).await;
    begin(&house.store, "2.25.1", &[format!("{}/studies/{STUDY}", server.url)]).await;
    advance(&house.store, "2.25.1", TaskStep::Claimed).await;
    let mut performer = Performer::start(&house, server.list());
    eventually("a request for the input", async || server.was_asked("/studies/")).await;
    performer.retired.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), &mut performer.work).await;
    assert!(ended.is_ok(), "it waits for an answer that does not come");
    assert_eq!(status(&house.store, "2.25.1").await, Some(TaskStatus::Claimed), "the next goes on with it");
}

#[tokio::test]
async fn a_workitem_that_nobody_answers_for_keeps_no_task_from_its_steps() {
    let house = House::new().await;
    let server = Server::start(|method, path, url| match (method, path.contains("2.25.8")) {
        ("GET", true) => None,
        ("GET", false) => Some((200, json!([workitem("2.25.8", "SCHEDULED", url)]))),
        _ => Some((200, Value::Null)),
    })
    .await;
    begin(&house.store, "2.25.1", &[]).await;
    // Due when the list is being looked at.
    advance(&house.store, "2.25.1", TaskStep::Again(now().after(Duration::from_secs(3)))).await;
    let _performer = Performer::start(&house, server.list());
    eventually("a look", async || server.was_asked("GET /workitems/2.25.8")).await;
    assert_eq!(status(&house.store, "2.25.1").await, Some(TaskStatus::Claiming));
    becomes(&house.store, "2.25.1", TaskStatus::Claimed).await;
}

#[tokio::test]
async fn a_list_that_takes_no_ends_is_claimed_from_no_more() {
    let house = House::new().await;
    let store = &house.store;
    let server = Server::start(|method, path, url| {
        Some(match (method, path.contains("2.25.9") || path.contains('?')) {
            ("GET", true) => (200, json!([workitem("2.25.9", "SCHEDULED", url)])),
            _ => (503, Value::Null),
        })
    })
    .await;
    for name in ["2.25.1", "2.25.2"] {
        begin(store, name, &[]).await;
        advance(store, name, TaskStep::LeftToPeople).await;
    }
    let _performer = Performer::start(&house, TaskList { most_stuck: 2, ..server.list() });
    eventually("words about it", async || {
        let lists = store.task_lists().await.unwrap();
        lists.iter().any(|list| list.last_words.as_ref().is_some_and(|words| words.contains("nothing more is claimed")))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(status(store, "2.25.9").await, None);
    let refused = store.tasks(Some(TaskStatus::Refused), 10).await.unwrap().remove(0);
    store.give_up_task(refused.id, "settled", now()).await.unwrap();
    becomes(store, "2.25.9", TaskStatus::Claiming).await;
}
