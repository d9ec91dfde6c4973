//! A receiver of webhooks on loopback, which checks signatures by its own arithmetic.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Posted {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it was signed with this key, by Standard Webhooks 1.0.0.
    pub(crate) fn is_signed_with(&self, key: &[u8]) -> bool {
        let head = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let mac = hmac_sha256(key, &[head.as_bytes(), &self.body].concat());
        self.header("webhook-signature") == format!("v1,{}", base64(&mac))
    }
}

/// The receiver; it goes with the test's process.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl Receiver {
    /// Answers with these statuses, and with 204 once they are used up.
    pub(crate) fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let posted = Arc::new(Mutex::new(Vec::new()));
        let (log, mut statuses) = (Arc::clone(&posted), statuses.iter().copied().collect::<VecDeque<_>>());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let status = statuses.pop_front().unwrap_or(204);
                if let Some(request) = answer(stream, status) {
                    log.lock().unwrap().push(request);
                }
            }
        });
        Self { port, posted }
    }

    /// What has come, in order.
    pub(crate) fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, status: u16) -> Option<Posted> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut posted = Posted { path, headers, body: Vec::new() };
    posted.body = vec![0; posted.header("content-length").parse().ok()?];
    reader.read_exact(&mut posted.body).ok()?;
    let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(posted)
}

/// RFC 2104, for keys of at most a block.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    Sha256::digest([&pad(0x5C)[..], &inner].concat()).to_vec()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([0, 0].iter()).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for sextet in 0..4 {
            let is_padding = sextet > chunk.len();
            let character = ALPHABET[(word >> (18 - 6 * sextet) & 63) as usize];
            text.push(if is_padding { '=' } else { char::from(character) });
        }
    }
    text
}
