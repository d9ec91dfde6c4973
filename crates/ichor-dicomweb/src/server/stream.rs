//! Bodies of answers: whole ones, and those that are made while they are sent, by a thread that waits for the peer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

/// Bytes that go out in one piece.
const CHUNK: usize = 64 << 10;
/// Pieces that wait for the peer; whoever makes more waits.
const WAITING: usize = 4;

/// Body of an answer.
pub(super) enum AnswerBody {
    Whole(Full<Bytes>),
    /// Made while it is sent. Without an end it is cut, so that the peer does not take it for complete.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl From<Full<Bytes>> for AnswerBody {
    fn from(whole: Full<Bytes>) -> Self {
        Self::Whole(whole)
    }
}

impl AnswerBody {
    /// A body, and the way into it.
    pub(super) fn stream(permit: OwnedSemaphorePermit) -> (Self, Pipe) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let pipe = Pipe { sender, buffer: Vec::with_capacity(CHUNK), _permit: permit };
        (Self::Stream(receiver), pipe)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context).map_err(|never| match never {}),
            Self::Stream(receiver) => receiver.poll_recv(context).map(|next| match next {
                // The sender says when it is done: an empty piece.
                Some(Ok(bytes)) if bytes.is_empty() => None,
                Some(piece) => Some(piece.map(Frame::data)),
                None => Some(Err(io::Error::other("the answer broke off"))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(whole) if whole.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The way into a body, for a thread that may block.
pub(super) struct Pipe {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

/// The peer is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Pipe {
    /// Writes; waits while the peer has not taken what was written before.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let fits = bytes.len().min(CHUNK - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
            if self.buffer.len() >= CHUNK {
                self.send()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Gone> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(Bytes::from(full))).map_err(|_| Gone)
    }

    /// The body is complete. Dropped without this, it is cut.
    pub(super) fn finish(mut self) -> Result<(), Gone> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        self.sender.blocking_send(Ok(Bytes::new())).map_err(|_| Gone)
    }
}

/// A body whose progress is told: since when the peer has had something to take, and has not taken it.
pub(super) struct Watched {
    pub(super) body: AnswerBody,
    pub(super) idle_since: watch::Sender<Option<Instant>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // While a piece is being made, it is not the peer who keeps us waiting.
        self.idle_since.send_replace(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
