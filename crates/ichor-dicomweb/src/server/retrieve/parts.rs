//! The parts of a multipart/related answer.

use ichor_core::Uid;

use crate::server::stream::{Gone, Pipe};

/// Writes parts one after the other, each behind its header.
pub(super) struct Parts {
    boundary: String,
}

impl Parts {
    /// Parts whose boundary occurs in none of them but by a chance of one to 2¹²⁸.
    pub(super) fn new(seed: &str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let uid = Uid::derive([seed, &now.as_nanos().to_string()]);
        let boundary: String =
            format!("ichor-{uid}").chars().map(|c| if c == '.' { '-' } else { c }).take(70).collect();
        Self { boundary }
    }

    /// The Content-Type of an answer of such parts.
    pub(super) fn content_type(&self, part: &str) -> String {
        format!("multipart/related; type=\"{part}\"; boundary={}", self.boundary)
    }

    /// Begins a part.
    pub(super) fn begin(&self, pipe: &mut Pipe, content_type: &str, location: &str) -> Result<(), Gone> {
        let header =
            format!("\r\n--{}\r\nContent-Type: {content_type}\r\nContent-Location: {location}\r\n\r\n", self.boundary);
        pipe.write(header.as_bytes())
    }

    /// Ends the last part.
    pub(super) fn end(&self, pipe: &mut Pipe) -> Result<(), Gone> {
        pipe.write(format!("\r\n--{}--\r\n", self.boundary).as_bytes())
    }
}
