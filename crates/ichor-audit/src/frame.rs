//! A message of the syslog protocol (RFC 5424), as PS3.15 A.6 wants it.

use time::OffsetDateTime;

use crate::message::moment;

/// Facility 10, security and authorization (RFC 5424 6.2.1; PS3.15 A.6).
const FACILITY: u8 = 10;
/// What kind of message it is (PS3.15 A.6).
const MESSAGE_ID: &str = "DICOM+RFC3881";
/// UTF-8 begins with it (RFC 5424 6.4).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// 4: a warning, where something failed.
    Warning,
    /// 5: normal but significant, as most are.
    Notice,
}

/// What stands before each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    host: String,
    process: u32,
}

impl Header {
    /// Of this process, on the machine of this name.
    #[must_use]
    pub fn new(host: &str) -> Self {
        // PRINTUSASCII, 1 to 255.
        let host: String = host.chars().filter(char::is_ascii_graphic).take(255).collect();
        Self { host: if host.is_empty() { "-".to_owned() } else { host }, process: std::process::id() }
    }

    /// The frame of a message.
    #[must_use]
    pub fn frame(&self, severity: Severity, at: OffsetDateTime, message: &[u8]) -> Vec<u8> {
        let severity = match severity {
            Severity::Warning => 4,
            Severity::Notice => 5,
        };
        let (priority, Self { host, process }) = (FACILITY * 8 + severity, self);
        let header = format!("<{priority}>1 {} {host} ichor {process} {MESSAGE_ID} - ", moment(at));
        [header.as_bytes(), BYTE_ORDER_MARK, message].concat()
    }
}

/// The name of this machine, as its kernel knows it; empty if it does not say.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_standard() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_767_225_600_123_000_000).unwrap();
        let header = Header { host: "ichor.example".to_owned(), process: 7 };
        let frame = header.frame(Severity::Notice, at, b"<AuditMessage/>");
        let expected = "<85>1 2026-01-01T00:00:00.123Z ichor.example ichor 7 DICOM+RFC3881 - \u{feff}<AuditMessage/>";
        assert_eq!(String::from_utf8(frame).unwrap(), expected);
        assert!(header.frame(Severity::Warning, at, b"").starts_with(b"<84>1 "));
    }

    #[test]
    fn a_host_without_a_name_is_said_to_have_none() {
        assert_eq!(Header::new(" ü\n").host, "-");
        assert_eq!(Header::new("a b").host, "ab");
        assert_eq!(Header::new(&"x".repeat(400)).host.len(), 255);
    }
}
