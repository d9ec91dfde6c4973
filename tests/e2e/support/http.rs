//! Just enough HTTP to ask Orthanc on loopback: HTTP/1.0, so that answers are neither chunked nor kept open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// GETs `path` and returns the body of a 200 answer.
pub(crate) fn get(port: u16, path: &str) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("connect: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(|e| e.to_string())?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|e| format!("read: {e}"))?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no end of the header")?;
    let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("GET {path}: {status}"));
    }
    Ok(answer.split_off(end + 4))
}

/// GETs a JSON document.
pub(crate) fn get_json(port: u16, path: &str) -> Result<serde_json::Value, String> {
    serde_json::from_slice(&get(port, path)?).map_err(|e| format!("GET {path}: {e}"))
}
