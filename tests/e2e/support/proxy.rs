//! A destination that misbehaves: a TCP proxy before a real one, told what to spoil.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the proxy does with each connection. A change takes effect on the connections that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toxic {
    /// Nothing: everything passes.
    None,
    /// Passes so many bytes to the destination, and then keeps the connection open without passing any more.
    StallAfter(usize),
    /// Passes everything to the destination; once it has had so many bytes, its next answer is lost and the
    /// connection cut.
    LoseAnswerAfter(usize),
    /// Accepts connections and never says anything.
    BlackHole,
}

struct Shared {
    toxic: Mutex<Toxic>,
    stop: AtomicBool,
    connections: AtomicUsize,
    stalled: AtomicUsize,
    lost_answers: AtomicUsize,
}

/// The proxy; it ends with the value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

/// How long a pump waits before it looks at its orders again.
const TICK: Duration = Duration::from_millis(20);

impl Proxy {
    /// Listens on a free port and passes connections to `target` on loopback.
    pub(crate) fn before(target: u16, toxic: Toxic) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", super::free_port())).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            toxic: Mutex::new(toxic),
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            lost_answers: AtomicUsize::new(0),
        });
        let orders = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, target, &orders));
        Self { port, shared }
    }

    /// Changes what is spoilt.
    pub(crate) fn set(&self, toxic: Toxic) {
        *self.shared.toxic.lock().unwrap() = toxic;
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that have been stalled so far.
    pub(crate) fn stalled(&self) -> usize {
        self.shared.stalled.load(Ordering::SeqCst)
    }

    /// Answers lost so far.
    pub(crate) fn lost_answers(&self) -> usize {
        self.shared.lost_answers.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn toxic(&self) -> Toxic {
        *self.toxic.lock().unwrap()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, target: u16, shared: &Arc<Shared>) {
    while !shared.stopped() {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(TICK);
            continue;
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || connection(client, target, &shared));
    }
}

fn connection(client: TcpStream, target: u16, shared: &Arc<Shared>) {
    while shared.toxic() == Toxic::BlackHole {
        if shared.stopped() {
            return;
        }
        std::thread::sleep(TICK);
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
    for stream in [&client, &server] {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TICK)).unwrap();
    }
    let passed = Arc::new(AtomicUsize::new(0));
    let (to_server, to_client) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
    let (counter, orders) = (Arc::clone(&passed), Arc::clone(shared));
    std::thread::spawn(move || upstream(to_server, &counter, &orders));
    downstream(to_client, &passed, shared);
}

/// Client → destination.
fn upstream((mut from, mut to): (TcpStream, TcpStream), passed: &AtomicUsize, shared: &Shared) {
    let mut buffer = [0u8; 4096];
    let mut is_stalled = false;
    while !shared.stopped() {
        if matches!(shared.toxic(), Toxic::StallAfter(most) if passed.load(Ordering::SeqCst) >= most) {
            if !is_stalled {
                shared.stalled.fetch_add(1, Ordering::SeqCst);
                is_stalled = true;
            }
            // A peer that went away meanwhile is noticed when the stall ends.
            std::thread::sleep(TICK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                // Counted first: the destination may answer before this thread goes on.
                passed.fetch_add(count, Ordering::SeqCst);
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Destination → client.
fn downstream((mut from, mut to): (TcpStream, TcpStream), passed: &AtomicUsize, shared: &Shared) {
    let mut buffer = [0u8; 4096];
    while !shared.stopped() {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let had = passed.load(Ordering::SeqCst);
                if matches!(shared.toxic(), Toxic::LoseAnswerAfter(least) if had >= least) {
                    shared.lost_answers.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
