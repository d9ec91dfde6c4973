//! Just enough HTTP to speak with Orthanc on loopback: HTTP/1.0, so that answers are neither chunked nor kept open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// GETs `path` and returns the body of a 200 answer.
pub(crate) fn get(port: u16, path: &str) -> Result<Vec<u8>, String> {
    ask(port, "GET", path, &[])
}

/// POSTs a body and returns that of the 200 answer.
pub(crate) fn post(port: u16, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    ask(port, "POST", path, body)
}

/// PUTs a body and returns that of the 200 answer.
pub(crate) fn put(port: u16, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    ask(port, "PUT", path, body)
}

/// DELETEs what is at `path`.
pub(crate) fn delete(port: u16, path: &str) -> Result<Vec<u8>, String> {
    ask(port, "DELETE", path, &[])
}

fn ask(port: u16, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("connect: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(|e| e.to_string())?;
    let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{length}Connection: close\r\n\r\n");
    stream.write_all(&[request.as_bytes(), body].concat()).map_err(|e| format!("write: {e}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|e| format!("read: {e}"))?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no end of the header")?;
    let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer[end + 4..])));
    }
    Ok(answer.split_off(end + 4))
}

/// GETs a JSON document.
pub(crate) fn get_json(port: u16, path: &str) -> Result<serde_json::Value, String> {
    serde_json::from_slice(&get(port, path)?).map_err(|e| format!("GET {path}: {e}"))
}
