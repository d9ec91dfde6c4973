//! PDUs over a stream (PS3.8 chapter 9): bounded in length before a byte of them is waited for, bounded in time. dicom-ul
//! encodes and decodes them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AbortRQSource, PDU_HEADER_SIZE, PDV_HEADER_SIZE, read_pdu, write_pdu,
};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::associate::{overlook, user_items_hold_together};

/// Bounds of the PDU length that is announced. The lower one holds any response in one PDU; the upper one bounds what
/// an association may take of memory.
pub(crate) const PDU_LENGTHS: std::ops::RangeInclusive<u32> = 4_096..=131_072;
/// Longest A-ASSOCIATE PDU, whatever was announced for data: 128 presentation contexts with a dozen transfer syntaxes
/// each come to some 60 KiB.
const MAX_ASSOCIATE_PDU: u32 = 131_072;
/// Shortest PDU length that a peer may ask for. With less, every PDU is mostly header; PS3.8 sets no bound.
pub(crate) const MIN_PEER_PDU: u32 = 128;
/// Least room for a read, in bytes.
const READ_AHEAD: usize = 16 * 1024;
/// How long to wait for a peer to take notice of our last PDU before the socket is closed.
const LINGER: Duration = Duration::from_secs(1);

/// Why nothing could be received or sent.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    /// The peer closed the connection at the boundary of a PDU.
    #[error("connection closed")]
    Closed,
    /// The peer closed the connection inside a PDU, or it broke.
    #[error("connection broken: {0}")]
    Broken(String),
    /// Nothing, or not a whole PDU, within the time.
    #[error("no whole PDU within {0:?}")]
    TimedOut(Duration),
    /// What came is no PDU, or one that is too long.
    #[error("{0}")]
    Malformed(String),
}

impl WireError {
    /// Names the whole limit where only the rest of it was waited for.
    pub(crate) fn within(self, whole: Duration) -> Self {
        if matches!(self, Self::TimedOut(_)) { Self::TimedOut(whole) } else { self }
    }
}

/// A TCP stream whose receptions are acknowledged at once: a peer that has Nagle's algorithm on holds its last segment
/// back until then, which costs 40 ms an instance. The option is not lasting, hence set after each read.
#[derive(Debug)]
pub(crate) struct PromptStream(TcpStream);

impl PromptStream {
    /// Switches Nagle's algorithm off on our side and takes the stream.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }
}

impl AsyncRead for PromptStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        #[cfg(target_os = "linux")]
        if polled.is_ready() {
            // An optimisation: if it fails, reading still works.
            let _ = self.0.set_quickack(true);
        }
        polled
    }
}

impl AsyncWrite for PromptStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A stream of bytes that PDUs can travel on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FragmentKind {
    Command,
    DataSet,
}

/// Sends and receives PDUs.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    read: BytesMut,
    write: Vec<u8>,
    max_receive: u32,
    max_send: u32,
}

impl<S: Stream> Wire<S> {
    /// Takes a stream on which no association stands yet.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            write: Vec::new(),
            max_receive: MAX_ASSOCIATE_PDU,
            max_send: MIN_PEER_PDU,
        }
    }

    /// Sets the PDU lengths that were agreed on; a peer's 0 means no limit, which is ours then.
    pub(crate) fn agree(&mut self, own: u32, peer: u32) {
        self.max_receive = own;
        let largest = *PDU_LENGTHS.end();
        self.max_send = if peer == 0 { largest } else { peer.min(largest) };
    }

    /// Longest fragment that fits a PDU of the peer's length, even as PS3.8 9.3.5.1 wants it.
    pub(crate) fn max_fragment(&self) -> usize {
        (self.max_send.saturating_sub(PDV_HEADER_SIZE) & !1) as usize
    }

    /// Whether bytes of the next PDU are here already.
    pub(crate) fn has_received_part(&self) -> bool {
        !self.read.is_empty()
    }

    /// Receives the next PDU. Dropping the future loses nothing: what has come stays for the next call.
    pub(crate) async fn receive(&mut self, limit: Duration) -> Result<Pdu, WireError> {
        let frame = timeout(limit, self.frame()).await.map_err(|_| WireError::TimedOut(limit))??;
        if !user_items_hold_together(&frame) {
            return Err(WireError::Malformed("user information whose lengths contradict each other".to_owned()));
        }
        match read_pdu(overlook(frame), self.max_receive, true) {
            Ok(Some(pdu)) => Ok(pdu),
            Ok(None) => Err(WireError::Malformed("PDU shorter than its own length".to_owned())),
            Err(error) => Err(WireError::Malformed(error.to_string())),
        }
    }

    /// Reads the bytes of one PDU, header included.
    async fn frame(&mut self) -> Result<Bytes, WireError> {
        loop {
            let mut wanted = PDU_HEADER_SIZE as usize;
            if let Some([kind, second, length @ ..]) = self.read.first_chunk::<6>() {
                // A record of a TLS handshake; no PDU has this type.
                if (*kind, *second) == (0x16, 0x03) {
                    return Err(WireError::Malformed("a TLS handshake where TLS is not spoken".to_owned()));
                }
                let length = u32::from_be_bytes(*length);
                if length > self.max_receive {
                    let what = format!("PDU of {length} bytes, at most {} are accepted", self.max_receive);
                    return Err(WireError::Malformed(what));
                }
                wanted += length as usize;
                if self.read.len() >= wanted {
                    return Ok(self.read.split_to(wanted).freeze());
                }
            }
            // Room for the rest of this PDU, or for the next one whole: few reads, and no more memory than two PDUs.
            self.read.reserve((wanted - self.read.len()).max(READ_AHEAD));
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) if self.read.is_empty() => return Err(WireError::Closed),
                Ok(0) => return Err(WireError::Broken("closed inside a PDU".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(WireError::Broken(error.to_string())),
            }
        }
    }

    /// Sends a PDU of the association's control: everything but data.
    pub(crate) async fn send(&mut self, pdu: &Pdu, limit: Duration) -> Result<(), WireError> {
        self.write.clear();
        write_pdu(&mut self.write, pdu).map_err(|error| WireError::Malformed(error.to_string()))?;
        self.flush(limit).await
    }

    /// Sends one fragment of at most [`Self::max_fragment`] bytes in a P-DATA-TF PDU of its own (PS3.8 9.3.5).
    pub(crate) async fn send_fragment(
        &mut self,
        context: u8,
        kind: FragmentKind,
        bytes: &[u8],
        is_last: bool,
        limit: Duration,
    ) -> Result<(), WireError> {
        let too_long =
            || WireError::Malformed(format!("fragment of {} bytes is longer than the peer takes", bytes.len()));
        let length = u32::try_from(bytes.len()).ok().and_then(|length| length.checked_add(2)).ok_or_else(too_long)?;
        if bytes.len() > self.max_fragment() {
            return Err(too_long());
        }
        let is_command = u8::from(kind == FragmentKind::Command);
        self.write.clear();
        self.write.extend_from_slice(&[0x04, 0x00]);
        self.write.extend_from_slice(&(length + 4).to_be_bytes());
        self.write.extend_from_slice(&length.to_be_bytes());
        self.write.extend_from_slice(&[context, is_command | u8::from(is_last) << 1]);
        self.write.extend_from_slice(bytes);
        self.flush(limit).await
    }

    async fn flush(&mut self, limit: Duration) -> Result<(), WireError> {
        let sent = async {
            self.stream.write_all(&self.write).await?;
            self.stream.flush().await
        };
        match timeout(limit, sent).await {
            Err(_) => Err(WireError::TimedOut(limit)),
            Ok(Err(error)) => Err(WireError::Broken(error.to_string())),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// Sends A-ABORT if the peer still listens, and closes.
    pub(crate) async fn abort(mut self, source: AbortRQSource) {
        if self.send(&Pdu::AbortRQ { source }, LINGER).await.is_ok() {
            self.close().await;
        }
    }

    /// Aborts as the service provider, for a reason of PS3.8 table 9-26.
    pub(crate) async fn abort_as_provider(self, reason: AbortRQServiceProviderReason) {
        self.abort(AbortRQSource::ServiceProvider(reason)).await;
    }

    /// Closes our side, and gives the peer a moment to close its own: a socket that is closed with unread bytes is
    /// reset, and a reset may overtake the PDU that says why.
    pub(crate) async fn close(mut self) {
        let drained = async {
            self.stream.shutdown().await?;
            let mut sink = [0; 4096];
            while self.stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        // Whatever happens now, the connection ends here.
        let _ = timeout(LINGER, drained).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_ul::pdu::PDataValueType;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Wire<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        (Wire::new(ours), theirs)
    }

    #[tokio::test]
    async fn fragments_are_what_the_decoder_reads() {
        let (mut sender, theirs) = pair();
        let mut receiver = Wire::new(theirs);
        sender.agree(4096, 4096);
        let bytes = vec![7; sender.max_fragment()];
        assert_eq!(bytes.len(), 4090);
        sender.send_fragment(3, FragmentKind::DataSet, &bytes, false, SOON).await.unwrap();
        sender.send_fragment(3, FragmentKind::Command, b"ab", true, SOON).await.unwrap();
        receiver.agree(4096, 4096);
        let Pdu::PData { data } = receiver.receive(SOON).await.unwrap() else { panic!() };
        assert_eq!((data.len(), data[0].presentation_context_id, data[0].is_last), (1, 3, false));
        assert_eq!((&data[0].value_type, &data[0].data), (&PDataValueType::Data, &bytes));
        let Pdu::PData { data } = receiver.receive(SOON).await.unwrap() else { panic!() };
        assert_eq!((&data[0].value_type, data[0].is_last), (&PDataValueType::Command, true));
        let long = vec![7; sender.max_fragment() + 1];
        assert!(sender.send_fragment(3, FragmentKind::DataSet, &long, false, SOON).await.is_err());
    }

    #[tokio::test]
    async fn a_claimed_gigabyte_is_refused_at_its_header() {
        let (mut wire, mut peer) = pair();
        wire.agree(16_384, 16_384);
        peer.write_all(&[0x04, 0, 0x40, 0, 0, 0]).await.unwrap();
        assert!(matches!(wire.receive(SOON).await, Err(WireError::Malformed(_))));
        assert!(wire.read.capacity() < 1 << 20);
    }

    #[tokio::test]
    async fn ends_are_told_apart() {
        let (mut wire, peer) = pair();
        drop(peer);
        assert!(matches!(wire.receive(SOON).await, Err(WireError::Closed)));
        let (mut wire, mut peer) = pair();
        peer.write_all(&[0x05, 0, 0]).await.unwrap();
        drop(peer);
        assert!(matches!(wire.receive(SOON).await, Err(WireError::Broken(_))));
        let (mut wire, _peer) = pair();
        assert!(matches!(wire.receive(Duration::from_millis(10)).await, Err(WireError::TimedOut(_))));
    }

    #[tokio::test]
    async fn a_dropped_receive_loses_nothing() {
        let (mut wire, mut peer) = pair();
        let release = [0x05, 0, 0, 0, 0, 4, 0, 0, 0, 0];
        peer.write_all(&release[..5]).await.unwrap();
        assert!(matches!(wire.receive(Duration::from_millis(20)).await, Err(WireError::TimedOut(_))));
        peer.write_all(&release[5..]).await.unwrap();
        assert_eq!(wire.receive(SOON).await.unwrap(), Pdu::ReleaseRQ);
    }
}
