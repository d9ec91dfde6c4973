//! A C-STORE user written out by hand, byte by byte, so that it can do what a well-behaved one never would: stop in
//! the middle of a slice, send what is no data set, claim one thing and send another (PS3.7 chapter 9, PS3.8
//! chapter 9).

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::part10;
use super::study::Instance;

/// Verification SOP Class.
pub(crate) const VERIFICATION: &str = "1.2.840.10008.1.1";
/// CT Image Storage.
pub(crate) const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Implicit VR Little Endian.
pub(crate) const IMPLICIT_LITTLE: &str = "1.2.840.10008.1.2";
/// Explicit VR Little Endian.
pub(crate) const EXPLICIT_LITTLE: &str = "1.2.840.10008.1.2.1";

/// How much data goes into one PDV: less than what any peer announces as its largest PDU.
const FRAGMENT: usize = 16_000;

/// Why there is no association, or none any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RawError {
    /// A-ASSOCIATE-RJ with result, source and reason (PS3.8 table 9-21).
    Rejected { result: u8, source: u8, reason: u8 },
    /// A-ABORT from the peer.
    Aborted,
    /// The connection ended.
    Closed(String),
    /// Nothing came for as long as this peer waits.
    Silent,
}

impl From<std::io::Error> for RawError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silent,
            _ => Self::Closed(error.to_string()),
        }
    }
}

/// The status of a response, with the Error Comment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) comment: String,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04X} {:?}", self.code, self.comment)
    }
}

/// An open association.
pub(crate) struct RawAssociation {
    stream: TcpStream,
    /// Per proposed context: its accepted transfer syntax, or the negative result.
    contexts: Vec<Result<String, u8>>,
    proposed: Vec<String>,
    message_id: u16,
}

impl RawAssociation {
    /// Opens an association as STORESCU for Verification and CT images.
    pub(crate) fn open(port: u16) -> Result<Self, RawError> {
        let syntaxes: &[&str] = &[EXPLICIT_LITTLE];
        Self::propose(port, "STORESCU", &[(VERIFICATION, &[IMPLICIT_LITTLE]), (CT_IMAGE, syntaxes)])
    }

    /// Opens an association with given presentation contexts; the n-th has the id 2n + 1.
    pub(crate) fn propose(port: u16, calling: &str, contexts: &[(&str, &[&str])]) -> Result<Self, RawError> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&associate_request(calling, contexts))?;
        let (kind, body) = read_pdu(&mut stream)?;
        match kind {
            0x02 => {}
            0x03 => return Err(RawError::Rejected { result: body[1], source: body[2], reason: body[3] }),
            0x07 => return Err(RawError::Aborted),
            other => return Err(RawError::Closed(format!("PDU type {other:#04x} in answer to A-ASSOCIATE-RQ"))),
        }
        let contexts_accepted = accepted_contexts(&body, contexts.len());
        let proposed = contexts.iter().map(|(abstract_syntax, _)| (*abstract_syntax).to_owned()).collect();
        Ok(Self { stream, contexts: contexts_accepted, proposed, message_id: 0 })
    }

    /// What became of the n-th proposed context: the transfer syntax, or the result (PS3.8 table 9-18).
    pub(crate) fn context(&self, index: usize) -> &Result<String, u8> {
        &self.contexts[index]
    }

    fn context_for(&self, sop_class: &str) -> u8 {
        let index = (0..self.proposed.len())
            .find(|i| self.proposed[*i] == sop_class && self.contexts[*i].is_ok())
            .unwrap_or_else(|| panic!("no accepted context for {sop_class}"));
        index as u8 * 2 + 1
    }

    /// Stores an instance as it lies on disk.
    pub(crate) fn store(&mut self, instance: &Instance) -> Result<Status, RawError> {
        self.store_bytes(&instance.sop_class, &instance.sop_instance, &part10::data_set(&instance.path))
    }

    /// Stores bytes as whatever the command is to claim.
    pub(crate) fn store_bytes(&mut self, class: &str, instance: &str, data: &[u8]) -> Result<Status, RawError> {
        self.begin_store(class, instance)?;
        self.send_data(class, data, true)?;
        self.response()
    }

    /// Sends a C-STORE-RQ without any of its data.
    pub(crate) fn begin_store(&mut self, class: &str, instance: &str) -> Result<(), RawError> {
        self.message_id += 1;
        let command = command_set(&[
            (0x0002, uid(class)),
            (0x0100, 0x0001u16.to_le_bytes().to_vec()),
            (0x0110, self.message_id.to_le_bytes().to_vec()),
            (0x0700, 0u16.to_le_bytes().to_vec()),
            (0x0800, 0u16.to_le_bytes().to_vec()),
            (0x1000, uid(instance)),
        ]);
        let context = self.context_for(class);
        self.write_pdv(context, 0b11, &command)
    }

    /// Sends data fragments of the present message; only `last` ends it.
    pub(crate) fn send_data(&mut self, class: &str, data: &[u8], last: bool) -> Result<(), RawError> {
        let context = self.context_for(class);
        let count = data.len().div_ceil(FRAGMENT).max(1);
        for (index, fragment) in data.chunks(FRAGMENT).chain(data.is_empty().then_some(data)).enumerate() {
            let is_last = last && index + 1 == count;
            self.write_pdv(context, if is_last { 0b10 } else { 0b00 }, fragment)?;
        }
        Ok(())
    }

    /// C-ECHO: the proof that the association lives.
    pub(crate) fn echo(&mut self) -> Result<Status, RawError> {
        self.message_id += 1;
        let command = command_set(&[
            (0x0002, uid(VERIFICATION)),
            (0x0100, 0x0030u16.to_le_bytes().to_vec()),
            (0x0110, self.message_id.to_le_bytes().to_vec()),
            (0x0800, 0x0101u16.to_le_bytes().to_vec()),
        ]);
        let context = self.context_for(VERIFICATION);
        self.write_pdv(context, 0b11, &command)?;
        self.response()
    }

    /// Releases the association and waits for the answer.
    pub(crate) fn release(mut self) -> Result<(), RawError> {
        self.stream.write_all(&pdu(0x05, &[0; 4]))?;
        match read_pdu(&mut self.stream)?.0 {
            0x06 => Ok(()),
            0x07 => Err(RawError::Aborted),
            other => Err(RawError::Closed(format!("PDU type {other:#04x} in answer to A-RELEASE-RQ"))),
        }
    }

    /// Cuts the connection without a word.
    pub(crate) fn drop_connection(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Waits for the response to the last request.
    pub(crate) fn response(&mut self) -> Result<Status, RawError> {
        let mut command = Vec::new();
        loop {
            let (kind, body) = read_pdu(&mut self.stream)?;
            match kind {
                0x04 => {}
                0x07 => return Err(RawError::Aborted),
                other => return Err(RawError::Closed(format!("PDU type {other:#04x} instead of P-DATA-TF"))),
            }
            let mut rest = &body[..];
            while rest.len() >= 6 {
                let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                let (flags, data) = (rest[5], &rest[6..4 + length]);
                assert_eq!(flags & 1, 1, "a response carries no data set");
                command.extend_from_slice(data);
                if flags & 2 != 0 {
                    return Ok(status_of(&command));
                }
                rest = &rest[4 + length..];
            }
        }
    }

    fn write_pdv(&mut self, context: u8, flags: u8, data: &[u8]) -> Result<(), RawError> {
        let mut body = ((data.len() + 2) as u32).to_be_bytes().to_vec();
        body.extend([context, flags]);
        body.extend_from_slice(data);
        Ok(self.stream.write_all(&pdu(0x04, &body))?)
    }
}

/// Puts a PDU's header before its body.
pub(crate) fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn read_pdu(stream: &mut TcpStream) -> Result<(u8, Vec<u8>), RawError> {
    let mut head = [0u8; 6];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[2..].try_into().unwrap());
    assert!(length < 1 << 20, "a PDU of {length} bytes");
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A-ASSOCIATE-RQ (PS3.8 9.3.2).
fn associate_request(calling: &str, contexts: &[(&str, &[&str])]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(format!("{:<16}{calling:<16}", "ICHOR").as_bytes());
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    for (index, (abstract_syntax, transfer_syntaxes)) in contexts.iter().enumerate() {
        let mut context = vec![index as u8 * 2 + 1, 0, 0, 0];
        context.extend(item(0x30, abstract_syntax.as_bytes()));
        for syntax in *transfer_syntaxes {
            context.extend(item(0x40, syntax.as_bytes()));
        }
        body.extend(item(0x20, &context));
    }
    let user = [item(0x51, &(64u32 << 10).to_be_bytes()), item(0x52, b"2.25.1"), item(0x55, b"RAW_TEST")].concat();
    body.extend(item(0x50, &user));
    pdu(0x01, &body)
}

/// The presentation context results of an A-ASSOCIATE-AC, by index (PS3.8 9.3.3).
fn accepted_contexts(body: &[u8], count: usize) -> Vec<Result<String, u8>> {
    let mut results = vec![Err(u8::MAX); count];
    let mut rest = &body[68..];
    while rest.len() >= 4 {
        let length = u16::from_be_bytes([rest[2], rest[3]]) as usize;
        let (kind, value) = (rest[0], &rest[4..4 + length]);
        if kind == 0x21 {
            let (id, result) = (value[0], value[2]);
            let syntax = String::from_utf8_lossy(&value[8..]).trim_end_matches('\0').to_owned();
            results[usize::from(id / 2)] = if result == 0 { Ok(syntax) } else { Err(result) };
        }
        rest = &rest[4 + length..];
    }
    results
}

fn uid(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes
}

/// A command set in Implicit VR Little Endian with its group length (PS3.7 6.3.1).
fn command_set(elements: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let element = |number: u16, value: &[u8]| {
        let mut bytes = vec![0, 0];
        bytes.extend(number.to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
        bytes
    };
    let rest: Vec<u8> = elements.iter().flat_map(|(number, value)| element(*number, value)).collect();
    [element(0, &(rest.len() as u32).to_le_bytes()), rest].concat()
}

fn status_of(command: &[u8]) -> Status {
    let (mut code, mut comment) = (None, String::new());
    let mut rest = command;
    while rest.len() >= 8 {
        let number = u16::from_le_bytes([rest[2], rest[3]]);
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let value = &rest[8..8 + length];
        match number {
            0x0900 => code = Some(u16::from_le_bytes([value[0], value[1]])),
            0x0902 => comment = String::from_utf8_lossy(value).trim_end().to_owned(),
            _ => {}
        }
        rest = &rest[8 + length..];
    }
    Status { code: code.expect("a response without a status"), comment }
}
