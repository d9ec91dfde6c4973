//! STOW-RS requests written byte by byte, without any of ichor's own code.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::daemon::{Daemon, WEB_TOKEN};
use super::seconds;
use super::study::Instance;

const BOUNDARY: &str = "=_boundary of the tests";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The SOP Instance UIDs of a sequence of the answer, each with its failure reason.
    pub(crate) fn items(&self, sequence: &str) -> Vec<(String, Option<u64>)> {
        let json: Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        let items = json[sequence]["Value"].as_array().cloned().unwrap_or_default();
        let uid = |item: &Value| item["00081155"]["Value"][0].as_str().unwrap_or_default().to_owned();
        items.iter().map(|item| (uid(item), item["00081197"]["Value"][0].as_u64())).collect()
    }

    /// What was stored.
    pub(crate) fn stored(&self) -> Vec<String> {
        let mut stored: Vec<String> = self.items("00081199").into_iter().map(|(uid, _)| uid).collect();
        stored.sort();
        stored
    }

    /// What was not, with its failure reason.
    pub(crate) fn failed(&self) -> Vec<(String, Option<u64>)> {
        self.items("00081198")
    }
}

/// The head of a request whose body has this length.
pub(crate) fn head(path: &str, token: &str, length: u64) -> String {
    format!(
        "POST /dicom-web/{path} HTTP/1.1\r\nHost: ichor\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/dicom+json\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: multipart/related; type=\"application/dicom\"; boundary=\"{BOUNDARY}\"\r\n\r\n"
    )
}

/// What stands before each part.
pub(crate) fn part_head() -> String {
    format!("\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n")
}

/// What stands behind the last part.
pub(crate) fn tail() -> String {
    format!("\r\n--{BOUNDARY}--\r\n")
}

/// A body of parts.
pub(crate) fn body(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend(part_head().into_bytes());
        body.extend(part);
    }
    body.extend(tail().into_bytes());
    body
}

/// The files of instances.
pub(crate) fn files<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Vec<Vec<u8>> {
    instances.into_iter().map(|instance| std::fs::read(&instance.path).unwrap()).collect()
}

/// Opens a connection.
pub(crate) fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", daemon.web_port)).unwrap();
    stream.set_read_timeout(Some(seconds(60))).unwrap();
    stream
}

/// Posts a body with the client's token.
pub(crate) fn post(daemon: &Daemon, path: &str, body: &[u8]) -> Answer {
    let mut stream = connect(daemon);
    stream.write_all(head(path, WEB_TOKEN, body.len() as u64).as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    read_answer(stream).unwrap()
}

/// Reads the answer, up to the end of the connection.
pub(crate) fn read_answer(mut stream: TcpStream) -> Result<Answer, String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// GETs what is below the service's root with the client's token: status, head and body, which must be whole.
pub(crate) fn get(daemon: &Daemon, path: &str, accept: &str) -> (u16, String, Vec<u8>) {
    let (head, body, is_whole) = get_raw(daemon, path, accept);
    assert!(is_whole, "{path}: the answer breaks off: {head}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, head, body)
}

/// The head of an answer, and whether the body has its end.
pub(crate) fn get_cut(daemon: &Daemon, path: &str) -> (String, bool) {
    let (head, _, is_whole) = get_raw(daemon, path, "*/*");
    (head, is_whole)
}

fn get_raw(daemon: &Daemon, path: &str, accept: &str) -> (String, Vec<u8>, bool) {
    let mut stream = connect(daemon);
    let head = format!(
        "GET /dicom-web/{path} HTTP/1.1\r\nHost: ichor\r\nAuthorization: Bearer {WEB_TOKEN}\r\nAccept: {accept}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    // A connection that is reset ends an answer, too.
    let _ = stream.read_to_end(&mut bytes);
    // What breaks before its head has left ends without any.
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return (String::new(), bytes, false) };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    if head.starts_with("HTTP/1.1 204 ") {
        return (head, rest.to_vec(), rest.is_empty());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    match length {
        Some(length) => (head, rest.to_vec(), rest.len() == length),
        None => {
            let (body, is_whole) = unchunked(rest);
            (head, body, is_whole)
        }
    }
}

/// A body that came in chunks, and whether the last one is there.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, rest == b"\r\n");
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return (body, false);
        }
        rest = &rest[size + 2..];
    }
    (body, false)
}
