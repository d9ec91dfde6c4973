//! DIMSE messages over an established association (PS3.7 chapter 9, PS3.8 Annex E).

use std::collections::VecDeque;
use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::pdu::{AbortRQServiceProviderReason as AbortReason, AbortRQSource, PDataValue};
use thiserror::Error;
use tokio::time::Instant;

use crate::command::CommandSet;
use crate::pdv::{Assembler, Fragment, Part, PdvError};
use crate::wire::{FragmentKind, Stream, Wire, WireError};

/// What the peer does next.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A whole command set, still to be decoded.
    Command { context: u8, bytes: Vec<u8> },
    /// A-RELEASE-RQ.
    ReleaseRequest,
    /// A-RELEASE-RP.
    ReleaseResponse,
}

/// Why the exchange cannot go on.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("aborted by the peer ({})", abort_words(.0))]
    Aborted(AbortRQSource),
    #[error("protocol error: {0}")]
    Order(#[from] PdvError),
    #[error("protocol error: unexpected {0}")]
    Unexpected(&'static str),
    #[error("protocol error: unrecognized PDU type 0x{0:02x}")]
    Unrecognized(u8),
}

impl ExchangeError {
    /// The reason to give in an A-ABORT of our own (PS3.8 table 9-26).
    pub(crate) fn abort_reason(&self) -> AbortReason {
        match self {
            Self::Wire(WireError::Malformed(_)) => AbortReason::InvalidPduParameter,
            Self::Order(_) => AbortReason::UnexpectedPduParameter,
            Self::Unexpected(_) => AbortReason::UnexpectedPdu,
            Self::Unrecognized(_) => AbortReason::UnrecognizedPdu,
            Self::Wire(_) | Self::Aborted(_) => AbortReason::ReasonNotSpecified,
        }
    }
}

/// Who aborted, and why, in words.
pub(crate) fn abort_words(source: &AbortRQSource) -> String {
    match source {
        AbortRQSource::ServiceUser => "service user".to_owned(),
        AbortRQSource::ServiceProvider(reason) => format!("service provider, {reason}"),
        AbortRQSource::Reserved => "reserved source".to_owned(),
    }
}

/// One side of an association.
#[derive(Debug)]
pub(crate) struct Exchange<S> {
    wire: Wire<S>,
    assembler: Assembler,
    pending: VecDeque<PDataValue>,
}

impl<S: Stream> Exchange<S> {
    pub(crate) fn new(wire: Wire<S>) -> Self {
        Self { wire, assembler: Assembler::new(), pending: VecDeque::new() }
    }

    /// Gives the connection back, to end it.
    pub(crate) fn into_wire(self) -> Wire<S> {
        self.wire
    }

    /// The connection, for control PDUs.
    pub(crate) fn wire(&mut self) -> &mut Wire<S> {
        &mut self.wire
    }

    /// Whether a message has begun to arrive.
    pub(crate) fn has_begun_message(&self) -> bool {
        !self.pending.is_empty() || self.assembler.is_inside_message() || self.wire.has_received_part()
    }

    /// Waits for the next command or the end of the association: for its first PDU as long as `idle`, for all others
    /// together as long as `pdu`, so that nobody stretches a command fragment by fragment. Dropping the future loses
    /// nothing but the time that was counted.
    pub(crate) async fn next_command(&mut self, idle: Duration, pdu: Duration) -> Result<Incoming, ExchangeError> {
        let mut deadline = None;
        loop {
            while let Some(pdv) = self.pending.pop_front() {
                if let Part::Command(context, bytes) = self.assembler.accept(pdv)? {
                    return Ok(Incoming::Command { context, bytes });
                }
            }
            let inside = self.assembler.is_inside_message();
            let limit = if inside {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + pdu);
                deadline.saturating_duration_since(Instant::now())
            } else {
                idle
            };
            let received = self.wire.receive(limit).await;
            match received.map_err(|error| if inside { error.within(pdu) } else { error })? {
                Pdu::PData { data } if !data.is_empty() => self.pending.extend(data),
                Pdu::ReleaseRQ if !inside => return Ok(Incoming::ReleaseRequest),
                Pdu::ReleaseRP if !inside => return Ok(Incoming::ReleaseResponse),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Says that a data set follows the last command, on its context.
    pub(crate) fn expect_data(&mut self, context: u8) {
        self.assembler.expect_data(context);
    }

    /// Waits for the next fragment of the data set.
    pub(crate) async fn next_fragment(&mut self, limit: Duration) -> Result<Fragment, ExchangeError> {
        loop {
            if let Some(pdv) = self.pending.pop_front() {
                match self.assembler.accept(pdv)? {
                    Part::Data(fragment) => return Ok(fragment),
                    Part::Pending | Part::Command(..) => return Err(PdvError::CommandInsideData.into()),
                }
            }
            match self.wire.receive(limit).await? {
                Pdu::PData { data } if !data.is_empty() => self.pending.extend(data),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Sends a command set, in as many fragments as the peer's PDU length asks for.
    pub(crate) async fn send_command(
        &mut self,
        context: u8,
        command: &CommandSet,
        limit: Duration,
    ) -> Result<(), WireError> {
        let bytes = command.encode();
        let mut chunks = bytes.chunks(self.wire.max_fragment()).peekable();
        while let Some(chunk) = chunks.next() {
            let is_last = chunks.peek().is_none();
            self.wire.send_fragment(context, FragmentKind::Command, chunk, is_last, limit).await?;
        }
        Ok(())
    }
}

fn unexpected(pdu: Pdu) -> ExchangeError {
    match pdu {
        Pdu::AbortRQ { source } => ExchangeError::Aborted(source),
        Pdu::Unknown { pdu_type, .. } => ExchangeError::Unrecognized(pdu_type),
        Pdu::AssociationRQ(_) => ExchangeError::Unexpected("A-ASSOCIATE-RQ"),
        Pdu::AssociationAC(_) => ExchangeError::Unexpected("A-ASSOCIATE-AC"),
        Pdu::AssociationRJ(_) => ExchangeError::Unexpected("A-ASSOCIATE-RJ"),
        // PS3.8 9.3.5 asks for at least one value; a peer could send empty ones for ever.
        Pdu::PData { .. } => ExchangeError::Unexpected("P-DATA-TF without presentation data values"),
        Pdu::ReleaseRQ => ExchangeError::Unexpected("A-RELEASE-RQ"),
        Pdu::ReleaseRP => ExchangeError::Unexpected("A-RELEASE-RP"),
    }
}
