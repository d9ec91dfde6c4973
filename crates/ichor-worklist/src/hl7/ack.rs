//! Acknowledgements (HL7 v2.5.1, chapter 2.9.2 and segments MSA and ERR).

use std::fmt;

use thiserror::Error;

/// MSA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckCode {
    /// AA: the application has it.
    ApplicationAccept,
    /// AE: the application found an error.
    ApplicationError,
    /// AR: the application rejects it.
    ApplicationReject,
    /// CA: received and kept safe (enhanced mode).
    CommitAccept,
    /// CE: cannot be kept (enhanced mode).
    CommitError,
    /// CR: rejected (enhanced mode).
    CommitReject,
}

impl AckCode {
    const ALL: [(Self, &'static str); 6] = [
        (Self::ApplicationAccept, "AA"),
        (Self::ApplicationError, "AE"),
        (Self::ApplicationReject, "AR"),
        (Self::CommitAccept, "CA"),
        (Self::CommitError, "CE"),
        (Self::CommitReject, "CR"),
    ];

    /// Whether the peer takes responsibility.
    #[must_use]
    pub const fn is_acceptance(self) -> bool {
        matches!(self, Self::ApplicationAccept | Self::CommitAccept)
    }
}

impl fmt::Display for AckCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::ALL.iter().find(|(code, _)| code == self);
        f.write_str(known.map_or("", |(_, text)| text))
    }
}

/// What a receiver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// MSA-1.
    pub code: AckCode,
    /// MSA-2: which message.
    pub control_id: String,
    /// MSA-3, which may speak of the patient.
    pub text: String,
    /// ERR-3, the error's code: letters, digits and hyphens only.
    pub error: Option<String>,
}

/// An answer that is no acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AckError {
    /// It does not begin with MSH.
    #[error("no MSH segment")]
    NoHeader,
    /// MSA is missing.
    #[error("no MSA segment")]
    NoAcknowledgement,
    /// MSA-1 is none of AA, AE, AR, CA, CE, CR.
    #[error("unknown acknowledgement code {0:?}")]
    Code(String),
}

impl Ack {
    /// Reads an answer, whatever its separators are.
    ///
    /// # Errors
    /// [`AckError`] if it is no acknowledgement.
    pub fn parse(bytes: &[u8]) -> Result<Self, AckError> {
        let text = String::from_utf8_lossy(bytes);
        let header = text.trim_start().strip_prefix("MSH").ok_or(AckError::NoHeader)?;
        let mut separators = header.chars();
        let field = separators.next().ok_or(AckError::NoHeader)?;
        let component = separators.next().unwrap_or('^');
        // Some receivers end segments with a line feed.
        let segments = || text.split(['\r', '\n']).map(|segment| segment.split(field).collect::<Vec<_>>());
        let msa = segments().find(|fields| fields[0].trim() == "MSA").ok_or(AckError::NoAcknowledgement)?;
        let part = |number: usize| msa.get(number).map_or("", |field| field.trim());
        let code = AckCode::ALL.iter().find(|(_, text)| *text == part(1));
        let (code, _) = code.ok_or_else(|| AckError::Code(super::short(part(1))))?;
        let error = segments()
            .find(|fields| fields[0].trim() == "ERR")
            .and_then(|fields| Some(fields.get(3)?.split(component).next()?.trim().to_owned()))
            .filter(|code| !code.is_empty() && code.len() <= 20)
            .filter(|code| code.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        Ok(Self { code: *code, control_id: part(2).to_owned(), text: part(3).to_owned(), error })
    }

    /// What may stand in the job log.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.error {
            Some(error) => format!("{}, error {error}", self.code),
            None => self.code.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read() {
        let ack = Ack::parse(b"MSH|^~\\&|RIS|H|ICHOR|H|20260101||ACK^R01|9|P|2.5.1\rMSA|AA|M-1\r").unwrap();
        assert_eq!(
            (ack.code, ack.control_id.as_str(), ack.words().as_str()),
            (AckCode::ApplicationAccept, "M-1", "AA")
        );
        let refused = Ack::parse(
            b"MSH|^~\\&|RIS\nMSA|AE|M-1|unknown patient Smith\nERR||PID^1^3|204^Unknown key identifier^HL70357|E\n",
        )
        .unwrap();
        assert_eq!(refused.words(), "AE, error 204");
        assert!(!refused.code.is_acceptance() && !refused.words().contains("Smith"));
        let other = Ack::parse(b"MSH#!~\\&#RIS\rMSA#CA#M-2\r").unwrap();
        assert!(other.code.is_acceptance() && other.control_id == "M-2");
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let error = |bytes: &[u8]| Ack::parse(bytes).unwrap_err();
        assert_eq!(error(b""), AckError::NoHeader);
        assert_eq!(error(b"HTTP/1.1 400 Bad Request\r\n"), AckError::NoHeader);
        assert_eq!(error(b"MSH"), AckError::NoHeader);
        assert_eq!(error(b"MSH|^~\\&|RIS\r"), AckError::NoAcknowledgement);
        assert_eq!(error(b"MSH|^~\\&|RIS\rMSA|OK|M-1\r"), AckError::Code("OK".to_owned()));
        assert_eq!(error(b"MSH|^~\\&|RIS\rMSA\r"), AckError::Code(String::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ack::parse(&bytes);
            let mut answer = b"MSH|^~\\&|R\rMSA|AA|".to_vec();
            answer.extend_from_slice(&bytes);
            let _ = Ack::parse(&answer);
        }
    }
}
