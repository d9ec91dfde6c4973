//! The client against a server that answers what the test tells it to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ichor_core::Uid;
use ichor_dicomweb::{Credentials, FailureReason, InstanceOutcome, StowClient, StowError, StowInstance, StowOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const OURS: &str = "2.25.1";

/// What the server does once it has read the request.
enum Script {
    /// Answers with these bytes and closes.
    Answer(Vec<u8>),
    /// Answers with these bytes as soon as it has seen the head, and closes without reading the body.
    AnswerEarly(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Closes without an answer.
    HangUp,
    /// Sends head and then one byte of body every so often, for ever.
    Drip,
}

/// A request as it arrived.
struct Received {
    head: String,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Serves one connection; the URL to store to, and the request once it is there.
async fn serve(script: Script) -> (String, JoinHandle<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/dicom-web/", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = read_head(&mut stream).await;
        if let Script::AnswerEarly(bytes) = &script {
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            return received;
        }
        let length: usize = received.header("content-length").unwrap().parse().unwrap();
        let missing = length - received.body.len();
        let mut rest = vec![0u8; missing];
        stream.read_exact(&mut rest).await.unwrap();
        received.body.extend(rest);
        match script {
            Script::Answer(bytes) => {
                // The client may have stopped reading; that is its right.
                drop(stream.write_all(&bytes).await);
            }
            Script::Silence => tokio::time::sleep(Duration::from_secs(20)).await,
            Script::Drip => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Script::HangUp | Script::AnswerEarly(_) => {}
        }
        received
    });
    (url, task)
}

async fn read_head(stream: &mut TcpStream) -> Received {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Received { head: String::from_utf8(bytes).unwrap(), body };
        }
        let mut chunk = [0u8; 4096];
        let n = stream.read(&mut chunk).await.unwrap();
        assert!(n > 0, "the client hung up in the middle of the head");
        bytes.extend(&chunk[..n]);
    }
}

fn answer(status: &str, content_type: &str, body: &str) -> Script {
    Script::Answer(
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

fn json(status: &str, body: &str) -> Script {
    answer(status, "application/dicom+json", body)
}

fn referenced(uid: &str) -> String {
    format!(r#"{{"00081199":{{"vr":"SQ","Value":[{{"00081155":{{"vr":"UI","Value":["{uid}"]}}}}]}}}}"#)
}

fn failed(uid: &str, reason: u16) -> String {
    format!(
        r#"{{"00081198":{{"vr":"SQ","Value":[{{"00081155":{{"vr":"UI","Value":["{uid}"]}},
           "00081197":{{"vr":"US","Value":[{reason}]}}}}]}}}}"#
    )
}

fn options(url: &str) -> StowOptions {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut options = StowOptions::new(url);
    options.connect_timeout = Duration::from_secs(5);
    options.timeout = Duration::from_secs(10);
    options
}

/// A file of so many bytes.
fn file(bytes: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("object.dcm");
    std::fs::write(&path, (0..bytes).map(|i| (i % 251) as u8).collect::<Vec<_>>()).unwrap();
    (dir, path)
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

/// Stores one small file at a server with this script.
async fn store(script: Script, change: impl FnOnce(&mut StowOptions)) -> Result<String, StowError> {
    let (url, server) = serve(script).await;
    let mut options = options(&url);
    change(&mut options);
    let (_dir, path) = file(1000);
    let result = StowClient::new(options).unwrap().store_one(&uid(OURS), &path).await;
    server.abort();
    result
}

#[tokio::test]
async fn the_request_is_what_the_standard_asks_for() {
    let (url, server) = serve(json("200 OK", &referenced(OURS))).await;
    let mut options = options(&url);
    options.credentials = Some(Credentials::Bearer("token".to_owned()));
    let (_dir, path) = file(3_000_000);
    let client = StowClient::new(options).unwrap();
    let instance = StowInstance { sop_instance: uid(OURS), path: path.clone() };
    let outcome = client.store(Some(&uid("1.2.3")), &[instance]).await.unwrap();
    assert_eq!(outcome.instances, [(uid(OURS), InstanceOutcome::Accepted { warning: None })]);
    let request = server.await.unwrap();
    assert!(request.head.starts_with("POST /dicom-web/studies/1.2.3 HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("accept"), Some("application/dicom+json"));
    assert_eq!(request.header("authorization"), Some("Bearer token"));
    assert_eq!(request.header("transfer-encoding"), None);
    let content_type = request.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/related; type=\"application/dicom\"; boundary=").unwrap();
    let mut expected = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
    expected.extend(std::fs::read(path).unwrap());
    expected.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(request.body == expected, "the body is not the file in its frame");
}

#[tokio::test]
async fn basic_authentication() {
    let (url, server) = serve(json("200 OK", &referenced(OURS))).await;
    let mut options = options(&url);
    options.credentials = Some(Credentials::Basic { user: "ichor".to_owned(), password: "s:ecret".to_owned() });
    let (_dir, path) = file(10);
    StowClient::new(options).unwrap().store_one(&uid(OURS), &path).await.unwrap();
    let request = server.await.unwrap();
    assert!(request.head.starts_with("POST /dicom-web/studies HTTP/1.1\r\n"), "{}", request.head);
    // base64 of ichor:s:ecret
    assert_eq!(request.header("authorization"), Some("Basic aWNob3I6czplY3JldA=="));
}

#[tokio::test]
async fn accepted_only_on_the_peers_own_word() {
    let words = store(json("200 OK", &referenced(OURS)), |_| {}).await.unwrap();
    assert_eq!(words, "HTTP 200, referenced");
    let warned = referenced(OURS).replace("]}}]}}", r#"]},"00081196":{"vr":"US","Value":[45056]}}]}}"#);
    assert_eq!(store(json("202 Accepted", &warned), |_| {}).await.unwrap(), "HTTP 202, referenced with warning 0xB000");
    let xml = r#"<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081199" vr="SQ"><Item number="1">
        <DicomAttribute tag="00081155" vr="UI"><Value number="1">2.25.1</Value></DicomAttribute></Item></DicomAttribute>
        </NativeDicomModel>"#;
    store(answer("200 OK", "application/dicom+xml", xml), |_| {}).await.unwrap();

    // Success without our name in it is no acceptance.
    for body in [referenced("2.25.11"), "{}".to_owned(), String::new(), "stored!".to_owned(), "[1,2".to_owned()] {
        let error = store(json("200 OK", &body), |_| {}).await.unwrap_err();
        assert!(matches!(&error, StowError::Unconfirmed { status: 200, .. }), "{body}: {error}");
        assert!(!error.is_permanent());
    }
    let error = store(answer("200 OK", "text/html", "<html>login, please</html>"), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("login, please"), "{error}");
}

#[tokio::test]
async fn refusals_carry_the_peers_reason() {
    for (status, reason, permanent) in [
        ("409 Conflict", 0xa900, true),
        ("409 Conflict", 0xa700, false),
        ("202 Accepted", 0x0122, true),
        ("200 OK", 0x0110, false),
    ] {
        let error = store(json(status, &failed(OURS, reason)), |_| {}).await.unwrap_err();
        let StowError::Refused { reason: found, .. } = &error else { panic!("{status}: {error}") };
        assert_eq!((*found, error.is_permanent()), (FailureReason(Some(reason)), permanent));
    }
    let other = r#"{"0008119A":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[49152]}}]}}"#;
    let error = store(json("409 Conflict", other), |_| {}).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("cannot understand (0xC000)"), "{error}");
}

#[tokio::test]
async fn statuses() {
    for (status, permanent) in [
        ("400 Bad Request", true),
        ("401 Unauthorized", false),
        ("408 Request Timeout", false),
        ("409 Conflict", true),
        ("413 Too Large", true),
        ("429 Too Many", false),
        ("500 Oops", false),
        ("503 Busy", false),
    ] {
        let error = store(answer(status, "text/plain", "the peer's\r\nown  words"), |_| {}).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{error}");
        assert!(error.to_string().contains("the peer's own words"), "{error}");
    }
    let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n".to_vec();
    let error = store(Script::Answer(busy), |_| {}).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    let moved = b"HTTP/1.1 307 Moved\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n".to_vec();
    let error =
        store(Script::Answer(moved), |o| o.credentials = Some(Credentials::Bearer("t".to_owned()))).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("http://elsewhere/"), "{error}");
}

#[tokio::test]
async fn a_peer_that_is_slow_or_gone_may_come_back() {
    let short = |o: &mut StowOptions| o.timeout = Duration::from_millis(300);
    for script in [Script::Silence, Script::Drip] {
        let start = Instant::now();
        let error = store(script, short).await.unwrap_err();
        assert!(matches!(error, StowError::Timeout(_)) && !error.is_permanent(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let error = store(Script::HangUp, |_| {}).await.unwrap_err();
    assert!(matches!(error, StowError::Connection(_)) && !error.is_permanent(), "{error}");
    let garbage = Script::Answer(b"\x00\x01 this is not HTTP at all\r\n\r\n".to_vec());
    let error = store(garbage, |_| {}).await.unwrap_err();
    assert!(matches!(error, StowError::Connection(_)) && !error.is_permanent(), "{error}");
    let cut = Script::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".to_vec());
    let error = store(cut, |_| {}).await.unwrap_err();
    assert!(matches!(error, StowError::Connection(_)) && !error.is_permanent(), "{error}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_dir, path) = file(10);
    let client = StowClient::new(options(&format!("http://{closed}"))).unwrap();
    let error = client.store_one(&uid(OURS), &path).await.unwrap_err();
    assert!(matches!(error, StowError::Connect(_)) && !error.is_permanent() && error.is_of_peer(), "{error}");
}

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    let body = format!("{}{}", " ".repeat(200_000), referenced(OURS));
    let error = store(json("200 OK", &body), |o| o.max_response_bytes = 100_000).await.unwrap_err();
    assert!(matches!(error, StowError::ResponseTooLarge { status: 200, limit: 100_000 }), "{error}");
    assert!(!error.is_permanent());
    store(json("200 OK", &body), |o| o.max_response_bytes = 300_000).await.unwrap();
}

#[tokio::test]
async fn an_early_refusal_of_a_big_file_is_heard() {
    let refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno token".to_vec();
    let (url, server) = serve(Script::AnswerEarly(refusal)).await;
    let (_dir, path) = file(20_000_000);
    let error = StowClient::new(options(&url)).unwrap().store_one(&uid(OURS), &path).await.unwrap_err();
    drop(server.await);
    // Whether the answer or the broken connection is seen first is the kernel's choice; neither may be success.
    assert!(matches!(&error, StowError::Status { status: 401, .. } | StowError::Connection(_)), "{error}");
}

#[tokio::test]
async fn several_instances_each_with_its_fate() {
    let (stored, refused) = (referenced("2.25.1"), failed("2.25.2", 0xc000));
    let body = format!("{},{}", &stored[..stored.len() - 1], &refused[1..]);
    let (url, server) = serve(json("202 Accepted", &body)).await;
    let (_dir, path) = file(10);
    let instances: Vec<StowInstance> = ["2.25.1", "2.25.2", "2.25.3"]
        .map(|u| StowInstance { sop_instance: uid(u), path: path.clone() })
        .into_iter()
        .collect();
    let outcome = StowClient::new(options(&url)).unwrap().store(None, &instances).await.unwrap();
    server.await.unwrap();
    let fates: Vec<InstanceOutcome> = outcome.instances.iter().map(|(_, fate)| *fate).collect();
    let expected = [
        InstanceOutcome::Accepted { warning: None },
        InstanceOutcome::Failed(FailureReason(Some(0xc000))),
        InstanceOutcome::Unmentioned,
    ];
    assert_eq!(fates, expected);
}
