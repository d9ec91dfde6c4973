//! What the server hands over, and to whom.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use ichor_core::Uid;

use super::options::Right;

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Name of the client rule that admits it; empty if none does.
    pub client: String,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No client rule covers the address: 403.
    UnknownAddress,
    /// No credentials, or not those of a client: 401.
    Unauthorized,
    /// The credentials of a client, from an address that is not the client's: 403.
    WrongAddress,
    /// A client that may do other things: 403.
    NotAllowed(Right),
    /// What is asked for is not what this service does, or not in a form that it takes: a status from 400 to 499.
    NotTaken {
        /// HTTP status.
        status: u16,
        /// What is wrong.
        why: String,
    },
    /// As many requests or connections as are allowed are open: 503.
    Busy(&'static str),
    /// There is no room for instances: 503.
    NoRoom(String),
    /// Something needed is not available just now: 503.
    Unavailable(String),
    /// The server stops: 503.
    Stopping,
}

impl Refusal {
    /// The HTTP status that says so.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::UnknownAddress | Self::WrongAddress | Self::NotAllowed(_) => 403,
            Self::Unauthorized => 401,
            Self::NotTaken { status, .. } => *status,
            Self::Busy(_) | Self::NoRoom(_) | Self::Unavailable(_) | Self::Stopping => 503,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAddress => f.write_str("no client may come from this address"),
            Self::NotAllowed(right) => write!(f, "this client may not {right}"),
            Self::Unauthorized => f.write_str("no bearer token, or one of no client"),
            Self::WrongAddress => f.write_str("this client may not come from this address"),
            Self::Busy(what) => write!(f, "too many {what} at once"),
            Self::NotTaken { why, .. } | Self::NoRoom(why) | Self::Unavailable(why) => f.write_str(why),
            Self::Stopping => f.write_str("the server is stopping"),
        }
    }
}

/// The end of a request that was opened, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestEnd {
    /// HTTP status of the answer; `None` if the peer is not there to hear one.
    pub status: Option<u16>,
    /// How it ended, in words.
    pub outcome: String,
    /// Instances stored, whether or not the peer still heard of it.
    pub instances: u64,
    /// Parts that were answered with a failure.
    pub failures: u64,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// Why a part was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFailure {
    /// Failure Reason (0008,1197): the codes of the Storage service (PS3.18 table I.2-2, PS3.4 table B.2-1).
    pub reason: u16,
    /// What is wrong, for people. Patient data has no place in it.
    pub text: String,
    /// Whether the same part may be taken later: full disks pass, wrong objects do not.
    pub is_temporary: bool,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartOutcome {
    /// Durable, as it is.
    Stored,
    /// Durable, with a Warning Reason (0008,1196).
    Warning {
        /// The code.
        reason: u16,
        /// What it is about, for people.
        text: String,
    },
    /// Not stored.
    Failed(PartFailure),
}

/// What became of a part, and what it was, as far as that could be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartResult {
    /// SOP Class UID.
    pub sop_class: Option<Uid>,
    /// SOP Instance UID.
    pub sop_instance: Option<Uid>,
    /// What became of it.
    pub outcome: PartOutcome,
}

/// Takes the bytes of one part, a DICOM file. Dropped before [`Self::commit`] has returned, it must leave nothing that
/// counts.
pub trait PartSink: Send + 'static {
    /// Takes the next bytes. What goes wrong is told by [`Self::commit`]; bytes after that are discarded.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = ()> + Send;

    /// Gives the part up for a reason of the server's, and says what it was.
    fn refuse(self, failure: PartFailure) -> PartResult;

    /// The part is complete: makes it durable. The peer hears of success after this has returned it.
    fn commit(self) -> impl Future<Output = PartResult> + Send;
}

/// Whom the server works for.
pub trait StowHandler: Send + Sync + 'static {
    /// What the handler keeps of an open request.
    type Request: Send + Sync + 'static;
    /// Takes one part.
    type Sink: PartSink;

    /// Decides on a request that a client rule admits, before its body is read. `study` is the one of the URL.
    fn request_opened(
        &self,
        sender: &Sender,
        study: Option<&Uid>,
    ) -> impl Future<Output = Result<Self::Request, Refusal>> + Send;

    /// Hears of each request that was refused, so that none is refused in silence.
    fn request_refused(&self, sender: &Sender, refusal: &Refusal) -> impl Future<Output = ()> + Send;

    /// Hears of the end of each request that was opened.
    fn request_closed(&self, request: Self::Request, end: RequestEnd) -> impl Future<Output = ()> + Send;

    /// Makes a sink for a part that is about to come.
    fn begin(&self, request: &Self::Request) -> Self::Sink;
}
