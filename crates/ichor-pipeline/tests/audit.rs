//! An audit repository that is away, hangs, or breaks the connection: it hears everything, in order, all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ichor_audit::{AuditSource, Header, SyslogClient, SyslogOptions, Transport};
use ichor_dimse::tls::ClientTls;
use ichor_pipeline::audit::{self, Repository, Told};
use ichor_pipeline::backoff::Backoff;
use ichor_store::{NewAudit, Store, StoreOptions, Timestamp};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;

/// A test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a repository does with a connection.
#[derive(Clone, Copy)]
enum Mood {
    /// Reads everything.
    Good,
    /// Reads so many frames, and half of the next, and resets the connection.
    Cuts(usize),
    /// Reads so many frames, nothing for a while, and ends the connection in order.
    Ends(usize, Duration),
    /// Reads everything, and ends a connection in order that has been idle for so long.
    EndsIdle(Duration),
    /// Reads nothing for a while, and resets the connection.
    Hangs(Duration),
}

/// A repository on loopback.
struct Listener {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate for localhost, and where its own authority lies.
struct Identity {
    config: Arc<ServerConfig>,
    ca_file: PathBuf,
}

fn identity(folder: &TempDir) -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca_file = folder.path().join("repository.crt");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    Identity { config: Arc::new(config), ca_file }
}

impl Listener {
    async fn start(identity: &Identity, port: u16, moods: &[Mood]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (acceptor, mut moods) =
            (TlsAcceptor::from(Arc::clone(&identity.config)), moods.iter().copied().collect::<VecDeque<_>>());
        let into = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mood = moods.pop_front().unwrap_or(Mood::Good);
                if !matches!(mood, Mood::Good | Mood::Ends(..) | Mood::EndsIdle(_)) {
                    stream.set_zero_linger().unwrap();
                }
                hear(acceptor.clone(), stream, mood, &into).await;
            }
        });
        Self { address, heard, task }
    }

    /// What was said, once it is as much as is expected.
    async fn heard(&self, is_enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let waiting = async {
            loop {
                let heard = self.heard.lock().unwrap().clone();
                if is_enough(&heard) {
                    return heard;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let heard = tokio::time::timeout(PATIENCE, waiting).await;
        heard.unwrap_or_else(|_| panic!("not enough: {:?}", self.heard.lock().unwrap()))
    }
}

async fn hear(acceptor: TlsAcceptor, stream: TcpStream, mood: Mood, heard: &Mutex<Vec<String>>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    if let Mood::Hangs(time) = mood {
        return tokio::time::sleep(time).await;
    }
    for number in 0.. {
        if let Mood::Ends(frames, after) = mood
            && frames == number
        {
            tokio::time::sleep(after).await;
            let _ = stream.shutdown().await;
            return;
        }
        let patience = if let Mood::EndsIdle(patience) = mood { patience } else { PATIENCE };
        let next = tokio::time::timeout(patience, frame_length(&mut stream)).await.ok().flatten();
        let Some(length) = next else {
            let _ = stream.shutdown().await;
            return;
        };
        let cut = matches!(mood, Mood::Cuts(frames) if frames == number);
        let mut frame = vec![0; if cut { length / 2 } else { length }];
        if stream.read_exact(&mut frame).await.is_err() || cut {
            return;
        }
        heard.lock().unwrap().push(said(&frame));
    }
}

/// `MSG-LEN SP` (RFC 5425 4.3), and nothing else; `None` at the end.
async fn frame_length(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<usize> {
    let mut digits = String::new();
    loop {
        let byte = stream.read_u8().await.ok()?;
        match byte {
            b' ' if !digits.is_empty() => return digits.parse().ok(),
            b'1'..=b'9' => digits.push(char::from(byte)),
            b'0' if !digits.is_empty() => digits.push('0'),
            other => panic!("{other} within a length"),
        }
    }
}

/// Which entry a frame is about, by its number; the frame is held against RFC 5424 and PS3.15 A.6.
fn said(frame: &[u8]) -> String {
    let text = std::str::from_utf8(frame).unwrap();
    let (header, message) = text.split_once('\u{feff}').expect("a byte order mark");
    let fields: Vec<&str> = header.split(' ').collect();
    assert!(matches!(fields[0], "<85>1" | "<84>1") && fields[5] == "DICOM+RFC3881" && fields.len() == 8, "{header}");
    assert!(message.starts_with("<?xml") && message.ends_with("</AuditMessage>"), "{message}");
    let user = message.split_once("UserID=\"user-").expect("who it was").1;
    user.split('"').next().unwrap().to_owned()
}

struct Site {
    store: Store,
    identity: Identity,
    _folder: TempDir,
}

impl Site {
    async fn new() -> Self {
        // What is tested here does not depend on the medium; in memory the fsyncs are free.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
        let store = Store::open(&options).await.unwrap();
        store.feed_audit(true).await.unwrap();
        Self { store, identity: identity(&folder), _folder: folder }
    }

    /// Writes rows about these users.
    async fn write(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let entry = NewAudit {
                at: Timestamp::from_millis(1_767_225_600_000 + number as i64),
                actor: format!("user-{number}"),
                role: None,
                address: "192.0.2.1".to_owned(),
                action: "worklist-viewed",
                study: None,
                detail: json!({ "padding": "x".repeat(2_000) }),
            };
            self.store.audit(&entry).await.unwrap();
        }
    }

    fn tell(&self, address: String, transport: Transport) -> (CancellationToken, JoinHandle<()>) {
        let options = SyslogOptions { address, transport, timeout: Duration::from_millis(500) };
        let repository = Repository {
            client: SyslogClient::new(options).unwrap(),
            source: AuditSource { site: None, id: "ichor".to_owned() },
            header: Header::new("ichor.example"),
            told_by: Told { ae_title: "ICHOR".to_owned(), host: "ichor.example".to_owned(), destinations: Vec::new() },
            backoff: Backoff { first: Duration::from_millis(50), longest: Duration::from_millis(200), attempts: 0 },
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(audit::run(self.store.clone(), repository, CancellationToken::new(), stop.clone()));
        (stop, task)
    }

    fn tell_by_tls(&self, port: u16) -> (CancellationToken, JoinHandle<()>) {
        let tls = ClientTls { ca_file: Some(self.identity.ca_file.clone()), ..ClientTls::default() };
        self.tell(format!("localhost:{port}"), Transport::Tls(Box::new(tls)))
    }
}

fn has_all(count: usize) -> impl Fn(&[String]) -> bool {
    move |heard| (0..count).all(|number| heard.contains(&number.to_string()))
}

/// That nothing is missing, and what was heard first was heard in order, whatever was repeated.
#[track_caller]
fn check_order(heard: &[String], count: usize) {
    let mut first = Vec::new();
    for one in heard {
        if !first.contains(one) {
            first.push(one.clone());
        }
    }
    assert_eq!(first, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Below the range from which the system hands out ports: no listener of another test takes it before it is used.
fn free_port() -> u16 {
    let begin = 15_000 + (std::process::id() % 10_000) as u16;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (begin..30_000).find(is_free).expect("a free port")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_is_away_hears_everything_once_when_it_is_back() {
    let site = Site::new().await;
    let port = free_port();
    let (stop, task) = site.tell_by_tls(port);
    site.write(0..150).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let figures = site.store.audit_feed_figures().await.unwrap().unwrap();
    assert!(figures.failures >= 2 && figures.waiting == 150, "{figures:?}");
    assert!(figures.words.unwrap().contains("localhost"));
    let listener = Listener::start(&site.identity, port, &[]).await;
    let heard = listener.heard(has_all(150)).await;
    assert_eq!(heard, (0..150).map(|number| number.to_string()).collect::<Vec<_>>(), "once, in order");
    // Ended in order, everything is sure to have arrived: the next start repeats nothing.
    stop.cancel();
    task.await.unwrap();
    let figures = site.store.audit_feed_figures().await.unwrap().unwrap();
    assert_eq!((figures.told, figures.waiting, figures.words), (150, 0, None));
    site.write(150..151).await;
    let (stop, task) = site.tell_by_tls(port);
    assert_eq!(listener.heard(has_all(151)).await.len(), 151);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_within_a_frame_is_told_again() {
    let site = Site::new().await;
    site.write(0..40).await;
    let moods = [Mood::Cuts(7), Mood::Cuts(0), Mood::Cuts(30), Mood::Good];
    let listener = Listener::start(&site.identity, 0, &moods).await;
    let (stop, task) = site.tell_by_tls(listener.address.port());
    let heard = listener.heard(has_all(40)).await;
    check_order(&heard, 40);
    assert!(heard.len() > 40, "some twice rather than one never");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_repository_read_before_it_ended_an_idle_connection_is_told() {
    let site = Site::new().await;
    site.write(0..10).await;
    // Sooner than the 5.5 s after which it would count as told.
    let moods = [Mood::Ends(10, Duration::from_secs(3)), Mood::Good];
    let listener = Listener::start(&site.identity, 0, &moods).await;
    let (stop, task) = site.tell_by_tls(listener.address.port());
    let told = async {
        while site.store.audit_feed_figures().await.unwrap().unwrap().told < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("it does not count as told");
    site.write(10..12).await;
    let heard = listener.heard(has_all(12)).await;
    assert_eq!(heard.len(), 12, "nothing twice");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_ends_idle_connections_at_once_hears_nothing_for_ever() {
    let site = Site::new().await;
    site.write(0..10).await;
    // Sooner than the 2 s after which what it has read counts as told.
    let moods = [Mood::EndsIdle(Duration::from_millis(300)); 40];
    let listener = Listener::start(&site.identity, 0, &moods).await;
    let (stop, task) = site.tell_by_tls(listener.address.port());
    let told = |count: u64| {
        let store = site.store.clone();
        async move {
            let told = async {
                while store.audit_feed_figures().await.unwrap().unwrap().told < count {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, told).await.expect("it does not count as told");
        }
    };
    told(10).await;
    site.write(10..12).await;
    told(12).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.write(12..14).await;
    told(14).await;
    let heard = listener.heard(has_all(14)).await;
    check_order(&heard, 14);
    assert_eq!(heard.len(), 24, "what was sent before it was found out once more, and nothing else twice");
    let figures = site.store.audit_feed_figures().await.unwrap().unwrap();
    assert_eq!((figures.told, figures.waiting, figures.failures, figures.words), (14, 0, 1, None));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_hanging_repository_never_read_is_told_again() {
    let site = Site::new().await;
    site.write(0..30).await;
    let moods = [Mood::Hangs(Duration::from_secs(2)), Mood::Good];
    let listener = Listener::start(&site.identity, 0, &moods).await;
    let (stop, task) = site.tell_by_tls(listener.address.port());
    let heard = listener.heard(has_all(30)).await;
    check_order(&heard, 30);
    assert_eq!(heard.len(), 30, "it heard nothing at first");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_just_before_a_crash_is_told_again() {
    let site = Site::new().await;
    let listener = Listener::start(&site.identity, 0, &[]).await;
    site.write(0..10).await;
    let (_stop, task) = site.tell_by_tls(listener.address.port());
    listener.heard(has_all(10)).await;
    task.abort();
    let _ = task.await;
    site.write(10..12).await;
    let (stop, task) = site.tell_by_tls(listener.address.port());
    let heard = listener.heard(has_all(12)).await;
    check_order(&heard, 12);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_of_another_name_hears_nothing() {
    let site = Site::new().await;
    site.write(0..3).await;
    let listener = Listener::start(&site.identity, 0, &[]).await;
    let tls = ClientTls { ca_file: Some(site.identity.ca_file.clone()), ..ClientTls::default() };
    // The certificate says localhost.
    let (stop, task) = site.tell(listener.address.to_string(), Transport::Tls(Box::new(tls)));
    let failing = async {
        while site.store.audit_feed_figures().await.unwrap().unwrap().failures < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, failing).await.expect("no failure");
    assert!(listener.heard.lock().unwrap().is_empty());
    stop.cancel();
    task.await.unwrap();
    assert_eq!(site.store.audit_feed_figures().await.unwrap().unwrap().waiting, 3, "it is told later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_hears_datagrams() {
    let site = Site::new().await;
    site.write(0..5).await;
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (stop, task) = site.tell(relay.local_addr().unwrap().to_string(), Transport::Udp);
    for number in 0..5 {
        let mut datagram = vec![0; 65_536];
        let length = tokio::time::timeout(PATIENCE, relay.recv(&mut datagram)).await.unwrap().unwrap();
        assert_eq!(said(&datagram[..length]), number.to_string());
    }
    stop.cancel();
    task.await.unwrap();
}
