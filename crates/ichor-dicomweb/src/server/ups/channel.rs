//! The event channel (PS3.18 11.13): a WebSocket over which a subscriber hears what it has subscribed to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout};
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
/// A subscriber of whom nothing is heard, or who does not take a message, for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest message of a subscriber, in bytes: it has nothing to say.
const LONGEST: usize = 4 << 10;
/// Most channels that a client has open at once: they last, and must not take the connections of everybody.
pub(super) const MOST_CHANNELS: usize = 8;

/// How many channels each client has open.
#[derive(Default)]
pub(in crate::server) struct Channels(Mutex<HashMap<String, usize>>);

impl Channels {
    /// A place for one more channel of a client, until it is dropped; `None` if there is none.
    pub(super) fn take(self: &Arc<Self>, client: &str) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client.to_owned()).or_default();
        if *count >= MOST_CHANNELS {
            return None;
        }
        *count += 1;
        Some(Place { channels: Arc::clone(self), client: client.to_owned() })
    }
}

/// An open channel of a client.
pub(super) struct Place {
    channels: Arc<Channels>,
    client: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.channels.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// What becomes of a connection after the answer 101.
#[derive(Clone)]
pub(in crate::server) struct Upgrade {
    pub(super) subscriber: String,
    pub(super) shelf: Arc<dyn WorkitemShelf>,
    pub(super) _place: Arc<Place>,
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
        let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
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
                        send(socket, Message::text(report.body), SILENCE).await?;
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
                    send(socket, Message::Ping(Bytes::new()), SILENCE).await?;
                    next_ping = Instant::now() + PING;
                }
            }
            if heard.elapsed() > SILENCE {
                return Ok(());
            }
        }
    }
}

/// Sends a message; a subscriber that does not take it within a time is gone.
async fn send<S>(socket: &mut WebSocketStream<S>, message: Message, within: Duration) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let late = || Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the subscriber does not read"));
    timeout(within, socket.send(message)).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_subscriber_that_does_not_read_is_not_waited_for() {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let mut socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        let within = Duration::from_millis(100);
        send(&mut socket, Message::text("x"), within).await.unwrap();
        let sent = send(&mut socket, Message::text("x".repeat(1 << 20)), within);
        let sent = timeout(Duration::from_secs(10), sent).await.expect("the channel is held for ever");
        assert!(matches!(sent, Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut));
        drop(theirs);
    }

    #[test]
    fn each_client_has_so_many_channels() {
        let channels = Arc::new(Channels::default());
        let mut places: Vec<_> = (0..MOST_CHANNELS).map(|_| channels.take("A").unwrap()).collect();
        assert!(channels.take("A").is_none());
        assert!(channels.take("B").is_some());
        places.pop();
        assert!(channels.take("A").is_some());
    }
}
