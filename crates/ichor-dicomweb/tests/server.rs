//! The server against raw HTTP over TCP: what is said, in which order, and what the handler is given.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ichor_core::Uid;
use ichor_dicomweb::server::{
    ClientRule, PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Sender, ServerOptions,
    StowHandler, StowServer, Token,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the handler heard.
#[derive(Debug, Default)]
struct Heard {
    opened: Vec<(Sender, Option<Uid>)>,
    refused: Vec<(Sender, Refusal)>,
    closed: Vec<RequestEnd>,
    /// Parts that were committed, as `name:bytes` with the bytes counted, in the order of their commits.
    committed: Vec<(String, u64)>,
    /// Sinks that were made and are gone.
    begun: usize,
    dropped: usize,
    /// Most bytes handed over at once.
    largest_write: usize,
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Heard>>);

/// A part is `NAME` followed by anything: the name, digits and dots up to a space, is its SOP Instance UID, and what
/// becomes of it is told by how it begins.
struct Sink {
    heard: Arc<Mutex<Heard>>,
    head: Vec<u8>,
    length: u64,
}

impl Sink {
    fn name(&self) -> String {
        let text = String::from_utf8_lossy(&self.head);
        text.split(' ').next().unwrap_or_default().to_owned()
    }

    fn result(&self, outcome: PartOutcome) -> PartResult {
        let sop_instance = Uid::parse(&self.name()).ok();
        let sop_class = sop_instance.as_ref().map(|_| Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap());
        PartResult { sop_class, sop_instance, outcome }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.heard.lock().unwrap().dropped += 1;
    }
}

impl PartSink for Sink {
    async fn write(&mut self, bytes: &[u8]) {
        let room = 64 - self.head.len().min(64);
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        self.length += bytes.len() as u64;
        let mut heard = self.heard.lock().unwrap();
        heard.largest_write = heard.largest_write.max(bytes.len());
    }

    fn refuse(self, failure: PartFailure) -> PartResult {
        self.result(PartOutcome::Failed(failure))
    }

    async fn commit(self) -> PartResult {
        let name = self.name();
        let failed = |reason, is_temporary| {
            PartOutcome::Failed(PartFailure { reason, text: "as the test wants".to_owned(), is_temporary })
        };
        let outcome = match name.as_str() {
            full if full.starts_with("9.1") => failed(0xA700, true),
            wrong if wrong.starts_with("9.2") => failed(0xA900, false),
            slow if slow.starts_with("9.3") => {
                tokio::time::sleep(Duration::from_millis(600)).await;
                PartOutcome::Stored
            }
            panics if panics.starts_with("9.4") => panic!("as the test wants"),
            good if Uid::parse(good).is_ok() => PartOutcome::Stored,
            _ => failed(0xC000, false),
        };
        if outcome == PartOutcome::Stored {
            self.heard.lock().unwrap().committed.push((name, self.length));
        }
        self.result(outcome)
    }
}

impl StowHandler for Recorder {
    type Request = ();
    type Sink = Sink;

    async fn request_opened(&self, sender: &Sender, study: Option<&Uid>) -> Result<(), Refusal> {
        if study.is_some_and(|study| study.as_str() == "9.9") {
            return Err(Refusal::NoRoom("the disk is almost full".to_owned()));
        }
        self.0.lock().unwrap().opened.push((sender.clone(), study.cloned()));
        Ok(())
    }

    async fn request_refused(&self, sender: &Sender, refusal: &Refusal) {
        self.0.lock().unwrap().refused.push((sender.clone(), refusal.clone()));
    }

    async fn request_closed(&self, (): (), end: RequestEnd) {
        self.0.lock().unwrap().closed.push(end);
    }

    fn begin(&self, (): &()) -> Sink {
        self.0.lock().unwrap().begun += 1;
        Sink { heard: Arc::clone(&self.0), head: Vec::new(), length: 0 }
    }
}

/// A server that ends with the value.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn open_to_all() -> ServerOptions {
    let anyone = ClientRule { name: "ANYONE".to_owned(), token: None, networks: Vec::new() };
    ServerOptions { clients: vec![anyone], ..ServerOptions::default() }
}

impl Server {
    async fn start(options: ServerOptions) -> Self {
        let recorder = Recorder::default();
        let heard = Arc::clone(&recorder.0);
        let server = StowServer::bind("127.0.0.1:0", options, recorder).await.unwrap();
        let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop.clone()));
        Self { address, heard, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes in chunks and reads one answer.
    async fn say(&self, chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Answer {
        let mut stream = self.connect().await;
        for chunk in chunks {
            if stream.write_all(chunk.as_ref()).await.is_err() {
                break;
            }
        }
        Answer::read(&mut stream).await.expect("an answer")
    }

    async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.say([request(path, headers, body)]).await
    }

    /// Waits until so many requests have ended, and gives the last end.
    async fn closed(&self, count: usize) -> RequestEnd {
        for _ in 0..1000 {
            if let Some(end) = self.heard.lock().unwrap().closed.get(count - 1) {
                return end.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the request did not end")
    }

    fn last_refusal(&self) -> Refusal {
        self.heard.lock().unwrap().refused.last().unwrap().1.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

const RELATED: &str = "Content-Type: multipart/related; type=\"application/dicom\"; boundary=\"b-1\"\r\n";

fn multipart(parts: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend(b"--b-1\r\nContent-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n");
        body.extend(*part);
        body.extend(b"\r\n");
    }
    body.extend(b"--b-1--\r\n");
    body
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// Reads one answer; `None` if the connection ends without.
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let read = async {
            loop {
                if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                    let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
                    if bytes.len() >= end + 4 + length {
                        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                        let body = bytes[end + 4..end + 4 + length].to_vec();
                        if status != 100 {
                            return Some(Self { status, head, body });
                        }
                    }
                }
                let mut chunk = [0u8; 4096];
                match stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => return None,
                    Ok(n) => bytes.extend(&chunk[..n]),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer in time")
    }

    fn json(&self) -> Value {
        assert_eq!(field(&self.head, "content-type"), Some("application/dicom+json"), "{}", self.words());
        serde_json::from_slice(&self.body).unwrap()
    }

    fn words(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The UIDs of a sequence, with the failure reasons.
    fn items(&self, sequence: &str) -> Vec<(String, Option<u64>)> {
        let json = self.json();
        let items = json[sequence]["Value"].as_array().cloned().unwrap_or_default();
        let read = |item: &Value| {
            let uid = item["00081155"]["Value"][0].as_str().unwrap_or_default().to_owned();
            (uid, item["00081197"]["Value"][0].as_u64())
        };
        let mut items: Vec<_> = items.iter().map(read).collect();
        items.sort();
        items
    }

    fn stored(&self) -> Vec<String> {
        self.items("00081199").into_iter().map(|(uid, _)| uid).collect()
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

const STUDIES: &str = "/dicom-web/studies";

#[tokio::test]
async fn stored_some_and_none() {
    let server = Server::start(open_to_all()).await;
    let all = server.post(STUDIES, RELATED, &multipart(&[b"1.1 a", b"1.2 b"])).await;
    assert_eq!((all.status, all.stored()), (200, vec!["1.1".to_owned(), "1.2".to_owned()]));
    assert!(all.json().get("00081198").is_none());

    let some = server.post(&format!("{STUDIES}/1.2.3"), RELATED, &multipart(&[b"9.2.1 x", b"1.3 b", b"junk"])).await;
    assert_eq!((some.status, some.stored()), (202, vec!["1.3".to_owned()]));
    assert_eq!(some.items("00081198"), [("9.2.1".to_owned(), Some(0xA900))]);
    assert_eq!(some.items("0008119A"), [(String::new(), Some(0xC000))]);
    assert!(
        some.head.to_lowercase().contains("warning: 299 ichor \"9.2.1: 0xa900 as the test wants\""),
        "{}",
        some.head
    );

    let none = server.post(STUDIES, RELATED, &multipart(&[b"9.2.1 x", b"9.1.1 x"])).await;
    assert_eq!((none.status, none.stored()), (409, vec![]));

    let full = server.post(STUDIES, RELATED, &multipart(&[b"9.1.1 x", b"9.1.2 x"])).await;
    assert_eq!((full.status, field(&full.head, "retry-after")), (503, Some("10")));
    assert_eq!(full.items("00081198").len(), 2);

    let heard = server.heard.lock().unwrap();
    assert_eq!(heard.opened[0].0.client, "ANYONE");
    assert_eq!(heard.opened[1].1.as_ref().unwrap().as_str(), "1.2.3");
    let counts: Vec<_> = heard.closed.iter().map(|end| (end.status, end.instances, end.failures)).collect();
    assert_eq!(counts, [(Some(200), 2, 0), (Some(202), 1, 2), (Some(409), 0, 2), (Some(503), 0, 2)]);
    assert!(heard.closed[1].outcome.starts_with("answered 202: 2 not stored, the first: "), "{:?}", heard.closed[1]);
    assert_eq!(heard.begun, heard.dropped);
}

#[tokio::test]
async fn xml_for_who_asks_for_it() {
    let server = Server::start(open_to_all()).await;
    let headers = format!("{RELATED}Accept: application/dicom+xml\r\n");
    let answer = server.post(STUDIES, &headers, &multipart(&[b"1.1 a"])).await;
    assert_eq!((answer.status, field(&answer.head, "content-type")), (200, Some("application/dicom+xml")));
    assert!(answer.words().contains("<Value number=\"1\">1.1</Value>"), "{}", answer.words());
}

#[tokio::test]
async fn a_panic_costs_one_part() {
    let server = Server::start(open_to_all()).await;
    let answer = server.post(STUDIES, RELATED, &multipart(&[b"9.4 x", b"1.1 a"])).await;
    assert_eq!((answer.status, answer.stored()), (202, vec!["1.1".to_owned()]));
    assert_eq!(answer.items("0008119A"), [(String::new(), Some(0x0110))]);
}

#[tokio::test]
async fn chunked_single_part_and_byte_by_byte() {
    let server = Server::start(open_to_all()).await;
    let body = multipart(&[b"1.1 one", b"1.2 two\r\n--b-"]);
    let head = format!("POST {STUDIES}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{RELATED}\r\n");
    let mut chunked = vec![head.into_bytes()];
    chunked.extend(body.chunks(3).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()));
    chunked.push(b"0\r\n\r\n".to_vec());
    let answer = server.say(chunked).await;
    assert_eq!((answer.status, answer.stored().len()), (200, 2));

    let single = server.post(STUDIES, "Content-Type: application/dicom\r\n", b"1.3 alone").await;
    assert_eq!((single.status, single.stored()), (200, vec!["1.3".to_owned()]));

    let bytes = request(STUDIES, RELATED, &body);
    let answer = server.say(bytes.chunks(1)).await;
    assert_eq!((answer.status, answer.stored().len()), (200, 2));
    let committed = &server.heard.lock().unwrap().committed;
    let mut lengths: Vec<_> = committed.iter().map(|(_, length)| *length).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [7, 7, 9, 13, 13]);
}

#[tokio::test]
async fn a_connection_takes_one_request_after_the_other() {
    let server = Server::start(open_to_all()).await;
    let mut stream = server.connect().await;
    for name in ["1.1", "1.2", "1.3"] {
        stream.write_all(&request(STUDIES, RELATED, &multipart(&[name.as_bytes()]))).await.unwrap();
        assert_eq!(Answer::read(&mut stream).await.unwrap().stored(), [name]);
    }
}

#[tokio::test]
async fn requests_that_are_not_taken() {
    let options = ServerOptions { max_body_bytes: 1000, ..open_to_all() };
    let server = Server::start(options).await;
    let body = multipart(&[b"1.1 a"]);
    let related_of = |kind: &str| format!("Content-Type: multipart/related; type=\"{kind}\"; boundary=b-1\r\n");
    for (path, headers, status, words) in [
        ("/", RELATED.to_owned(), 404, "nothing here"),
        ("/dicom-web/studiesx", RELATED.to_owned(), 404, "nothing here"),
        ("/dicom-web/studies/1.2/series", RELATED.to_owned(), 404, "nothing here"),
        ("/dicom-web/studies/..%2f", RELATED.to_owned(), 400, "study in the URL"),
        (STUDIES, format!("{RELATED}Accept: text/html\r\n"), 406, "dicom+json"),
        (STUDIES, String::new(), 415, "no Content-Type"),
        (STUDIES, "Content-Type: application/zip\r\n".to_owned(), 415, "application/zip"),
        (STUDIES, format!("{RELATED}Content-Encoding: gzip\r\n"), 415, "Content-Encoding"),
        (STUDIES, related_of("application/dicom+json"), 415, "application/dicom+json"),
        (STUDIES, related_of("application/dicom+xml"), 415, "application/dicom+xml"),
        (STUDIES, "Content-Type: multipart/related; type=\"application/dicom\"\r\n".to_owned(), 400, "no boundary"),
        ("/dicom-web/studies/9.9", RELATED.to_owned(), 503, "disk is almost full"),
    ] {
        let answer = server.post(path, &headers, &body).await;
        assert_eq!(answer.status, status, "{path} {headers}");
        assert!(answer.words().contains(words), "{}", answer.words());
        assert_eq!(server.last_refusal().status(), status);
    }
    let long = server.post(STUDIES, RELATED, &multipart(&[&[b'1'; 2000]])).await;
    assert_eq!(long.status, 413);
    let get = server.say(["GET /dicom-web/studies HTTP/1.1\r\nHost: x\r\n\r\n"]).await;
    assert_eq!((get.status, field(&get.head, "allow")), (405, Some("POST")));
    assert!(server.heard.lock().unwrap().opened.is_empty());
}

#[tokio::test]
async fn bodies_that_are_malformed() {
    let server = Server::start(open_to_all()).await;
    let good = multipart(&[b"1.1 a"]);
    let cut = &good[..good.len() - 4];
    let cases: [(&[u8], &str); 5] = [
        (b"", "boundary"),
        (b"--b-1--\r\n", "no part"),
        (b"--b-1\n\n1.1 a\n--b-1--\n", "end of its line"),
        (b"--b-1\r\nnonsense\r\n\r\n1.1 a\r\n--b-1--\r\n", "header of a part"),
        (b"--other\r\n\r\n1.1 a\r\n--other--\r\n", "boundary"),
    ];
    for (body, words) in cases {
        let answer = server.post(STUDIES, RELATED, body).await;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(body));
        assert!(answer.words().contains(words), "{}", answer.words());
    }
    assert!(server.heard.lock().unwrap().committed.is_empty());

    // A whole part stays, and the answer says so; what is cut is not taken.
    let two = [&multipart(&[b"1.7 whole"])[..], b""].concat();
    let body = [&two[..two.len() - b"--b-1--\r\n".len()], cut].concat();
    let answer = server.post(STUDIES, RELATED, &body).await;
    assert_eq!((answer.status, answer.stored()), (400, vec!["1.7".to_owned()]));
    assert!(answer.head.contains("closing boundary"), "{}", answer.head);
    let metadata = b"--b-1\r\n\r\n1.8 whole\r\n--b-1\r\nContent-Type: application/dicom+json\r\n\r\n[]\r\n--b-1--";
    let answer = server.post(STUDIES, RELATED, metadata).await;
    assert_eq!((answer.status, answer.stored()), (415, vec!["1.8".to_owned()]));
    let encoded =
        b"--b-1\r\nContent-Type: application/dicom\r\nContent-Transfer-Encoding: base64\r\n\r\nMS4x\r\n--b-1--";
    assert_eq!(server.post(STUDIES, RELATED, encoded).await.status, 415);
}

#[tokio::test]
async fn limits_of_parts_and_bodies() {
    let options = ServerOptions { max_part_bytes: 100, max_parts: 3, max_body_bytes: 5000, ..open_to_all() };
    let server = Server::start(options).await;
    let long = [b"1.1 ".as_slice(), &[b'x'; 97]].concat();
    let fits = [b"1.2 ".as_slice(), &[b'x'; 96]].concat();
    let answer = server.post(STUDIES, RELATED, &multipart(&[&long, &fits])).await;
    assert_eq!((answer.status, answer.stored()), (202, vec!["1.2".to_owned()]));
    assert_eq!(answer.items("00081198"), [("1.1".to_owned(), Some(0xA700))]);
    let answer = server.post(STUDIES, RELATED, &multipart(&[b"1.1", b"1.2", b"1.3", b"1.4"])).await;
    assert_eq!((answer.status, answer.stored().len()), (413, 3));

    // Without a length there is nothing to refuse by: it ends at the cap, and what was whole is told.
    let head = format!("POST {STUDIES} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{RELATED}\r\n");
    let body = [&multipart(&[b"1.5 whole"])[..], &vec![b'x'; 6000]].concat();
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let answer = server.say([head.into_bytes(), chunk]).await;
    assert_eq!((answer.status, answer.stored()), (413, vec!["1.5".to_owned()]));
}

#[tokio::test]
async fn a_peer_that_hangs_up_keeps_what_was_whole() {
    let server = Server::start(open_to_all()).await;
    let body = multipart(&[b"1.1 whole", b"9.3 slow", b"1.2 cut"]);
    let bytes = request(STUDIES, RELATED, &body);
    let mut stream = server.connect().await;
    stream.write_all(&bytes[..bytes.len() - 14]).await.unwrap();
    drop(stream);
    let end = server.closed(1).await;
    assert_eq!((end.status, end.instances, end.failures), (None, 2, 0), "{end:?}");
    assert!(end.outcome.contains("cut"), "{end:?}");
    let heard = server.heard.lock().unwrap();
    let names: Vec<&str> = heard.committed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["1.1", "9.3"]);
    assert_eq!((heard.begun, heard.dropped), (3, 3));
}

#[tokio::test]
async fn a_peer_that_closes_its_half_hears_its_answer() {
    let server = Server::start(open_to_all()).await;
    let mut stream = server.connect().await;
    stream.write_all(&request(STUDIES, RELATED, &multipart(&[b"9.3 slow"]))).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
}

#[tokio::test]
async fn silent_and_slow_peers_are_ended() {
    let options = ServerOptions {
        header_timeout: Duration::from_millis(300),
        body_idle_timeout: Duration::from_millis(300),
        answer_timeout: Duration::from_millis(300),
        min_bytes_per_second: 1000,
        ..open_to_all()
    };
    let server = Server::start(options).await;
    let begun = Instant::now();
    // Nothing, half a header, half a body.
    let body = multipart(&[b"1.1 whole", b"1.2 cut"]);
    let bytes = request(STUDIES, RELATED, &body);
    for said in [&b""[..], b"POST /dicom-web/studies HTTP/1.1\r\nHost", &bytes[..bytes.len() - 14]] {
        let mut stream = server.connect().await;
        stream.write_all(said).await.unwrap();
        let answer = Answer::read(&mut stream).await;
        match said.len() {
            0..100 => assert!(answer.is_none_or(|answer| answer.status == 408)),
            _ => assert_eq!(answer.map(|answer| (answer.status, answer.stored())), Some((408, vec!["1.1".to_owned()]))),
        }
    }
    // A header, byte by byte: slow, but never silent.
    let mut stream = server.connect().await;
    let mut sent = 0;
    while stream.write_all(b"x").await.is_ok() && sent < 200 {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(sent < 200, "a header that never ends was read for {:?}", begun.elapsed());
    // A body, byte by byte.
    let mut stream = server.connect().await;
    stream.write_all(&bytes[..bytes.len() - body.len()]).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = tokio::spawn(async move {
        for byte in &body {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer).await;
    drip.abort();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("less than 1000 bytes a second"), "{answer}");
    // A peer that has heard its answer and goes on holding the connection.
    let mut stream = server.connect().await;
    stream.write_all(&request(STUDIES, RELATED, &multipart(&[b"1.3"]))).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
    assert!(Answer::read(&mut stream).await.is_none());
}

#[tokio::test]
async fn who_may_send() {
    let rule = |name: &str, token: &str, network: &str| ClientRule {
        name: name.to_owned(),
        token: Some(Token::new(token)),
        networks: vec![network.parse().unwrap()],
    };
    let clients =
        vec![rule("ROUTER", "a good secret", "127.0.0.0/8"), rule("ELSEWHERE", "another secret", "10.0.0.0/8")];
    let server = Server::start(ServerOptions { clients, ..ServerOptions::default() }).await;
    // Larger than what sockets hold: the refusal must be heard although nobody reads the body.
    let large = multipart(&[&vec![b'1'; 3 << 20]]);
    for (authorization, status) in [
        ("", 401),
        ("Authorization: Bearer a bad secret\r\n", 401),
        ("Authorization: Basic YTpi\r\n", 401),
        ("Authorization: Bearer another secret\r\n", 403),
        ("Authorization: Bearer a good secret\r\n", 200),
    ] {
        let body = if status == 200 { multipart(&[b"1.1"]) } else { large.clone() };
        let mut stream = server.connect().await;
        let bytes = request(STUDIES, &format!("{RELATED}{authorization}"), &body);
        let (mut reader, mut writer) = stream.split();
        let mut heard = Vec::new();
        let hear = async {
            let mut chunk = [0u8; 4096];
            while let Ok(n) = reader.read(&mut chunk).await
                && n > 0
            {
                heard.extend(&chunk[..n]);
                if status == 200 {
                    break;
                }
            }
        };
        let _ = tokio::join!(writer.write_all(&bytes), hear);
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{authorization:?}: {heard}");
        assert_eq!(status == 401, field(&heard, "www-authenticate").is_some());
    }
    {
        let heard = server.heard.lock().unwrap();
        assert_eq!(heard.refused.iter().map(|(_, refusal)| refusal.status()).collect::<Vec<_>>(), [401, 401, 401, 403]);
        assert_eq!(heard.opened.iter().map(|(sender, _)| sender.client.as_str()).collect::<Vec<_>>(), ["ROUTER"]);
    }
    let nobody = Server::start(ServerOptions::default()).await;
    assert_eq!(nobody.post(STUDIES, RELATED, &multipart(&[b"1.1"])).await.status, 403);
}

#[tokio::test]
async fn too_many_at_once_are_asked_to_wait() {
    let options = ServerOptions { max_requests: 1, max_connections: 2, ..open_to_all() };
    let server = Server::start(options).await;
    let bytes = request(STUDIES, RELATED, &multipart(&[b"1.1"]));
    let mut first = server.connect().await;
    first.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    while server.heard.lock().unwrap().opened.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut second = server.connect().await;
    second.write_all(&bytes).await.unwrap();
    let answer = Answer::read(&mut second).await.unwrap();
    assert_eq!((answer.status, field(&answer.head, "retry-after")), (503, Some("10")));
    assert_eq!(server.last_refusal(), Refusal::Busy("requests"));
    let mut third = server.connect().await;
    assert_eq!(Answer::read(&mut third).await.unwrap().status, 503);
    first.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
    assert_eq!(Answer::read(&mut first).await.unwrap().status, 200);
    drop((first, second, third));
    // The permits come back.
    for _ in 0..200 {
        let mut stream = server.connect().await;
        let _ = stream.write_all(&bytes).await;
        if Answer::read(&mut stream).await.is_some_and(|answer| answer.status == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server takes nothing any more");
}

#[tokio::test]
async fn drain_lets_open_requests_finish_and_ends_those_that_do_not() {
    let options = ServerOptions { drain_timeout: Duration::from_secs(2), ..open_to_all() };
    let mut server = Server::start(options).await;
    let bytes = request(STUDIES, RELATED, &multipart(&[b"1.1 a", b"9.3 slow"]));
    let (mut finishes, mut hangs) = (server.connect().await, server.connect().await);
    finishes.write_all(&bytes[..bytes.len() - 2]).await.unwrap();
    hangs.write_all(&bytes[..bytes.len() - 20]).await.unwrap();
    while server.heard.lock().unwrap().opened.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "a stopping server takes connections");
    finishes.write_all(&bytes[bytes.len() - 2..]).await.unwrap();
    let answer = Answer::read(&mut finishes).await.unwrap();
    assert_eq!((answer.status, answer.stored().len()), (200, 2));
    assert!(Answer::read(&mut hangs).await.is_none_or(|answer| answer.status == 400));
    tokio::time::timeout(Duration::from_secs(10), &mut server.task).await.expect("the drain ends").unwrap();
    let heard = server.heard.lock().unwrap();
    let mut ends: Vec<_> = heard.closed.iter().map(|end| (end.status, end.instances)).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(None, 1), (Some(200), 2)]);
}

#[tokio::test]
async fn a_large_body_passes_in_small_pieces() {
    let server = Server::start(open_to_all()).await;
    const LENGTH: usize = 64 << 20;
    let frame = multipart(&[b"1.1 "]);
    let split = frame.len() - b"\r\n--b-1--\r\n".len();
    let mut stream = server.connect().await;
    let head =
        format!("POST {STUDIES} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{RELATED}\r\n", frame.len() + LENGTH);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&frame[..split]).await.unwrap();
    let block = vec![b'-'; 1 << 20];
    for _ in 0..LENGTH / block.len() {
        stream.write_all(&block).await.unwrap();
    }
    stream.write_all(&frame[split..]).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
    let heard = server.heard.lock().unwrap();
    assert_eq!(heard.committed, [("1.1".to_owned(), LENGTH as u64 + 4)]);
    assert!(heard.largest_write <= 512 << 10, "{} bytes at once", heard.largest_write);
}
