//! Minimal Lower Layer Protocol: a block begins with VT and ends with FS CR.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const BEGIN: u8 = 0x0B;
const END: [u8; 2] = [0x1C, 0x0D];

/// No block came.
#[derive(Debug, Error)]
pub(super) enum ReceiveError {
    /// The connection broke, or ended within the block.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came does not begin a block.
    #[error("the answer is no MLLP block")]
    NoBlock,
    /// The block does not end.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Sends one block.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let mut block = Vec::with_capacity(message.len() + 3);
    block.push(BEGIN);
    block.extend_from_slice(message);
    block.extend_from_slice(&END);
    stream.write_all(&block).await?;
    stream.flush().await
}

/// Receives one block of at most `most` bytes. Line ends before it, which some receivers send, are passed over.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin), most: usize) -> Result<Vec<u8>, ReceiveError> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was complete").into());
        }
        received.extend_from_slice(&buffer[..count]);
        let Some(begin) = received.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) else { continue };
        if received[begin] != BEGIN {
            return Err(ReceiveError::NoBlock);
        }
        let block = &received[begin + 1..];
        if let Some(end) = block.windows(END.len()).position(|bytes| bytes == END) {
            return Ok(block[..end].to_vec());
        }
        if received.len() > most {
            return Err(ReceiveError::TooLong(most));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is received of bytes that come in pieces of `piece`.
    fn received(bytes: &[u8], piece: usize) -> Result<Vec<u8>, ReceiveError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(piece.max(1));
            let writing = async move {
                let _ = near.write_all(bytes).await;
            };
            let (_, received) = tokio::join!(writing, async {
                let received = receive(&mut far, 1_000).await;
                drop(far);
                received
            });
            received
        })
    }

    #[test]
    fn blocks_are_told_from_the_rest() {
        assert_eq!(received(b"\x0bMSH|\x1c\r", 3).unwrap(), b"MSH|");
        assert_eq!(received(b"\r\n\x0bMSH|\x1c\rmore", 100).unwrap(), b"MSH|");
        assert_eq!(received(b"\x0ba\x1cb\x1c\r", 1).unwrap(), b"a\x1cb");
        assert!(matches!(received(b"HTTP/1.1 400", 5), Err(ReceiveError::NoBlock)));
        assert!(matches!(received(b"\x0bMSH|", 5), Err(ReceiveError::Io(_))));
        assert!(matches!(received(b"", 5), Err(ReceiveError::Io(_))));
        let endless: Vec<u8> = std::iter::once(BEGIN).chain(std::iter::repeat_n(b'x', 100_000)).collect();
        assert!(matches!(received(&endless, 512), Err(ReceiveError::TooLong(1_000))));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_received(message in proptest::collection::vec(0x20u8..=0xFF, 0..300), piece in 1usize..64) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut block = Vec::new();
            runtime.block_on(send(&mut block, &message)).unwrap();
            prop_assert_eq!(received(&block, piece).unwrap(), message);
        }
    }
}
