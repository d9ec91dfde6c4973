//! The event channel (PS3.18 11.13): a WebSocket over which a subscriber hears what it has subscribed to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::shelf::WorkitemShelf;

/// Reports that are read at a time.
const AT_ONCE: u32 = 64;
/// Longest time between two looks, whatever the wake-ups say.
const POLL: Duration = Duration::from_millis(500);
/// Pause between two pings.
const PING: Duration = Duration::from_secs(20);
/// A subscriber of whom nothing is heard for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest message of a subscriber, in bytes: it has nothing to say.
const LONGEST: usize = 4 << 10;

/// What becomes of a connection after the answer 101.
#[derive(Clone)]
pub(in crate::server) struct Upgrade {
    pub(super) subscriber: String,
    pub(super) shelf: Arc<dyn WorkitemShelf>,
}

impl Upgrade {
    /// Tells the subscriber what it has not heard yet, as it comes, until it leaves or `stop`. A report is forgotten once it
    /// was written.
    pub(in crate::server) async fn run<S>(self, stream: S, read: Bytes, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
        let mut socket = WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, Some(config)).await;
        info!(subscriber = self.subscriber, "event channel opened");
        let ended = tokio::select! {
            ended = self.tell(&mut socket) => ended,
            () = stop.cancelled() => Ok(()),
        };
        // Either way it is over.
        let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
        match ended {
            Ok(()) => info!(subscriber = self.subscriber, "event channel closed"),
            Err(error) => info!(subscriber = self.subscriber, %error, "event channel lost"),
        }
    }

    async fn tell<S>(&self, socket: &mut WebSocketStream<S>) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut heard, mut next_ping) = (Instant::now(), Instant::now() + PING);
        loop {
            let changed = self.shelf.changed();
            match self.shelf.pending(&self.subscriber, AT_ONCE).await {
                Ok(pending) => {
                    for report in pending {
                        socket.send(Message::text(report.body)).await?;
                        if let Err(error) = self.shelf.forget(&self.subscriber, report.id).await {
                            debug!(%error, "a report will be told again");
                            sleep(POLL).await;
                        }
                    }
                }
                Err(error) => debug!(%error, "reports cannot be read"),
            }
            tokio::select! {
                () = changed => {}
                () = sleep(POLL) => {}
                message = socket.next() => match message {
                    None | Some(Ok(Message::Close(_))) => return Ok(()),
                    Some(Ok(_)) => heard = Instant::now(),
                    Some(Err(error)) => return Err(error),
                },
                () = sleep_until(next_ping) => {
                    socket.send(Message::Ping(Bytes::new())).await?;
                    next_ping = Instant::now() + PING;
                }
            }
            if heard.elapsed() > SILENCE {
                return Ok(());
            }
        }
    }
}
