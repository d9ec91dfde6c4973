//! A server of the test's own, and what is said to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ichor_core::Uid;
use ichor_dicomweb::server::{
    Archive, ClientRule, PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Right, Sender,
    ServerOptions, StowHandler, StowServer,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the handler heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) opened: Vec<(Sender, Option<Uid>)>,
    pub(crate) refused: Vec<(Sender, Refusal)>,
    pub(crate) closed: Vec<RequestEnd>,
    /// Parts that were committed, as `name:bytes` with the bytes counted, in the order of their commits.
    pub(crate) committed: Vec<(String, u64)>,
    /// Sinks that were made and are gone.
    pub(crate) begun: usize,
    pub(crate) dropped: usize,
    /// Most bytes handed over at once.
    pub(crate) largest_write: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(pub(crate) Arc<Mutex<Heard>>);

/// A part is `NAME` followed by anything: the name, digits and dots up to a space, is its SOP Instance UID, and what
/// becomes of it is told by how it begins.
pub(crate) struct Sink {
    pub(crate) heard: Arc<Mutex<Heard>>,
    pub(crate) head: Vec<u8>,
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
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) heard: Arc<Mutex<Heard>>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) fn open_to_all() -> ServerOptions {
    let anyone = ClientRule {
        name: "ANYONE".to_owned(),
        token: None,
        networks: Vec::new(),
        may: vec![Right::Store, Right::Search, Right::Retrieve],
        subscribers: Vec::new(),
    };
    ServerOptions { clients: vec![anyone], ..ServerOptions::default() }
}

impl Server {
    pub(crate) async fn start(options: ServerOptions) -> Self {
        Self::start_with(options, None).await
    }

    /// Where there is an archive, what it holds can be had.
    pub(crate) async fn start_with(options: ServerOptions, archive: Option<Arc<dyn Archive>>) -> Self {
        let recorder = Recorder::default();
        let heard = Arc::clone(&recorder.0);
        let server = StowServer::bind_with("127.0.0.1:0", options, recorder, archive).await.unwrap();
        let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop.clone()));
        Self { address, heard, stop, task }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes in chunks and reads one answer.
    pub(crate) async fn say(&self, chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Answer {
        let mut stream = self.connect().await;
        for chunk in chunks {
            if stream.write_all(chunk.as_ref()).await.is_err() {
                break;
            }
        }
        Answer::read(&mut stream).await.expect("an answer")
    }

    pub(crate) async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.say([request(path, headers, body)]).await
    }

    /// GETs what is at a path behind the prefix, to the end of the connection.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> Answer {
        let (head, body, is_complete) = self.get_raw(path, headers).await;
        assert!(is_complete, "{path}: the answer breaks off: {head}");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body }
    }

    /// Head and body of an answer, and whether it has the end that it announced.
    pub(crate) async fn get_to_the_end(&self, path: &str) -> (String, Vec<u8>, bool) {
        self.get_raw(path, "").await
    }

    async fn get_raw(&self, path: &str, headers: &str) -> (String, Vec<u8>, bool) {
        let mut stream = self.connect().await;
        let bytes = format!("GET /dicom-web{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
        // A connection that is reset ends an answer, too.
        let _ = read.expect("an answer in time");
        // What breaks before its head has left ends without any.
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return (String::new(), bytes, false) };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let rest = &bytes[end + 4..];
        match field(&head, "content-length") {
            Some(length) => {
                let is_complete = rest.len() == length.parse::<usize>().unwrap();
                (head, rest.to_vec(), is_complete)
            }
            None if head.starts_with("HTTP/1.1 304") || head.starts_with("HTTP/1.1 204") => (head, Vec::new(), true),
            None => {
                assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
                let (body, is_complete) = unchunked(rest);
                (head, body, is_complete)
            }
        }
    }

    /// Waits until so many requests have ended, and gives the last end.
    pub(crate) async fn closed(&self, count: usize) -> RequestEnd {
        for _ in 0..1000 {
            if let Some(end) = self.heard.lock().unwrap().closed.get(count - 1) {
                return end.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the request did not end")
    }

    pub(crate) fn last_refusal(&self) -> Refusal {
        self.heard.lock().unwrap().refused.last().unwrap().1.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

pub(crate) fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

pub(crate) const RELATED: &str = "Content-Type: multipart/related; type=\"application/dicom\"; boundary=\"b-1\"\r\n";

pub(crate) fn multipart(parts: &[&[u8]]) -> Vec<u8> {
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
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads one answer; `None` if the connection ends without.
    pub(crate) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let read = async {
            loop {
                if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                    // An answer without content says no length.
                    let length: usize = field(&head, "content-length").unwrap_or("0").parse().unwrap();
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

    pub(crate) fn json(&self) -> Value {
        assert_eq!(field(&self.head, "content-type"), Some("application/dicom+json"), "{}", self.words());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Content-Type and bytes of each part.
    pub(crate) fn parts(&self) -> Vec<(String, Vec<u8>)> {
        let kind = field(&self.head, "content-type").unwrap();
        let boundary = kind.split("boundary=").nth(1).unwrap_or_else(|| panic!("no parts: {kind}: {}", self.words()));
        let boundary = format!("\r\n--{boundary}");
        let at = memchr::memmem::find_iter(&self.body, boundary.as_bytes()).collect::<Vec<_>>();
        assert!(self.body.ends_with(format!("{boundary}--\r\n").as_bytes()), "no end of the parts");
        let part = |pair: &[usize]| {
            let part = &self.body[pair[0] + boundary.len() + 2..pair[1]];
            let end = part.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            let head = String::from_utf8(part[..end].to_vec()).unwrap();
            (field(&head, "content-type").unwrap().to_owned(), part[end + 4..].to_vec())
        };
        at.windows(2).map(part).collect()
    }

    pub(crate) fn words(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The UIDs of a sequence, with the failure reasons.
    pub(crate) fn items(&self, sequence: &str) -> Vec<(String, Option<u64>)> {
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

    pub(crate) fn stored(&self) -> Vec<String> {
        self.items("00081199").into_iter().map(|(uid, _)| uid).collect()
    }
}

/// The body in chunks, and whether the last one is there.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, rest == b"\r\n");
        }
        let there = size.min(rest.len());
        body.extend_from_slice(&rest[..there]);
        if rest.len() < size + 2 {
            return (body, false);
        }
        rest = &rest[size + 2..];
    }
    (body, false)
}

pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(crate) const STUDIES: &str = "/dicom-web/studies";
