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
    /// Tells the subscriber what it has not heard yet, as it comes, until it leaves or `stop`. A report is forgotten once the
    /// subscriber has answered the Ping behind it (RFC 6455 5.5.3): what was under way when a connection breaks is told again.
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
        let (mut heard, mut next_ping, mut marks) = (Instant::now(), Instant::now() + PING, 0_u64);
        let mut unanswered: Option<Told> = None;
        loop {
            let changed = self.shelf.changed();
            if unanswered.is_none() {
                marks += 1;
                unanswered = self.tell_pending(socket, marks).await?;
            }
            tokio::select! {
                () = changed, if unanswered.is_none() => {}
                () = sleep(POLL) => {}
                message = socket.next() => match message {
                    None | Some(Ok(Message::Close(_))) => return Ok(()),
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        if let (Message::Pong(mark), Some(told)) = (&message, &unanswered)
                            && *mark == told.mark
                        {
                            self.forget(told).await;
                            unanswered = None;
                        }
                    }
                    Some(Err(error)) => return Err(error),
                },
                () = sleep_until(next_ping) => {
                    // Only the last Ping need be answered: it has the mark that is waited for.
                    let mark = unanswered.as_ref().map(|told| told.mark.clone()).unwrap_or_default();
                    send(socket, Message::Ping(mark), SILENCE).await?;
                    next_ping = Instant::now() + PING;
                }
            }
            let is_deaf = unanswered.as_ref().is_some_and(|told| told.at.elapsed() > SILENCE);
            if heard.elapsed() > SILENCE || is_deaf {
                return Ok(());
            }
        }
    }

    /// Tells what is pending, with a Ping behind it; `None` if nothing is.
    async fn tell_pending<S>(&self, socket: &mut WebSocketStream<S>, number: u64) -> Result<Option<Told>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let pending = match self.shelf.pending(&self.subscriber, AT_ONCE).await {
            Ok(pending) => pending,
            Err(error) => {
                debug!(%error, "reports cannot be read");
                return Ok(None);
            }
        };
        if pending.is_empty() {
            return Ok(None);
        }
        let mut ids = Vec::with_capacity(pending.len());
        for report in pending {
            send(socket, Message::text(report.body), SILENCE).await?;
            ids.push(report.id);
        }
        let mark = Bytes::from(format!("heard {number}"));
        send(socket, Message::Ping(mark.clone()), SILENCE).await?;
        Ok(Some(Told { mark, ids, at: Instant::now() }))
    }

    async fn forget(&self, told: &Told) {
        for id in &told.ids {
            if let Err(error) = self.shelf.forget(&self.subscriber, *id).await {
                debug!(%error, "a report will be told again");
                sleep(POLL).await;
            }
        }
    }
}

/// Reports that were written, and that count as heard when the Pong of this mark comes.
struct Told {
    mark: Bytes,
    ids: Vec<i64>,
    at: Instant,
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
    use futures_util::future::BoxFuture;
    use ichor_core::Uid;

    use super::*;
    use crate::server::ups::{By, DataSet, Pending, Shelved, Target, UpsState, Workitem};

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

    /// Two reports for anybody.
    struct TwoReports(Mutex<Vec<i64>>);

    impl WorkitemShelf for TwoReports {
        fn insert<'a>(&'a self, _: By<'a>, _: &'a Workitem, _: &'a [DataSet]) -> Shelved<'a, bool> {
            unreachable!("not asked for events")
        }
        fn get<'a>(&'a self, _: &'a Uid) -> Shelved<'a, Option<Workitem>> {
            unreachable!("not asked for events")
        }
        fn replace<'a>(&'a self, _: By<'a>, _: &'a Workitem, _: &'a [DataSet]) -> Shelved<'a, bool> {
            unreachable!("not asked for events")
        }
        fn list<'a>(&'a self, _: &'a [UpsState], _: u64, _: u32) -> Shelved<'a, Vec<Workitem>> {
            unreachable!("not asked for events")
        }
        fn subscribe<'a>(&'a self, _: By<'a>, _: &'a str, _: &'a Target, _: bool, _: &'a [DataSet]) -> Shelved<'a, ()> {
            unreachable!("not asked for events")
        }
        fn unsubscribe<'a>(&'a self, _: By<'a>, _: &'a str, _: &'a Target) -> Shelved<'a, bool> {
            unreachable!("not asked for events")
        }
        fn suspend<'a>(&'a self, _: By<'a>, _: &'a str) -> Shelved<'a, bool> {
            unreachable!("not asked for events")
        }
        fn has_subscriber<'a>(&'a self, _: &'a Uid) -> Shelved<'a, bool> {
            unreachable!("not asked for events")
        }
        fn pending<'a>(&'a self, _: &'a str, _: u32) -> Shelved<'a, Vec<Pending>> {
            let left = self.0.lock().unwrap().clone();
            Box::pin(async move { Ok(left.into_iter().map(|id| Pending { id, body: id.to_string() }).collect()) })
        }
        fn forget<'a>(&'a self, _: &'a str, id: i64) -> Shelved<'a, ()> {
            self.0.lock().unwrap().retain(|known| *known != id);
            Box::pin(async { Ok(()) })
        }
        fn audit<'a>(&'a self, _: By<'a>) -> Shelved<'a, ()> {
            unreachable!("not asked for events")
        }
        fn changed(&self) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    /// A subscriber that reads the stream raw hears two reports and a Ping, and answers it or leaves without a word.
    async fn hears(shelf: &Arc<TwoReports>, answers: bool) -> Vec<String> {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let place = Arc::new(Arc::new(Channels::default()).take("A").unwrap());
        let upgrade = Upgrade { subscriber: "A".to_owned(), shelf: Arc::clone(shelf) as _, _place: place };
        let channel = tokio::spawn(upgrade.run(ours, Bytes::new(), CancellationToken::new()));
        let mut socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut heard = Vec::new();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Text(text) => heard.push(text.to_string()),
                Message::Ping(_) => break,
                other => panic!("{other:?}"),
            }
        }
        if answers {
            // The library has queued the Pong.
            socket.flush().await.unwrap();
            while !shelf.0.lock().unwrap().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        }
        // The queued Pong goes with the stream.
        drop(socket);
        channel.await.unwrap();
        heard
    }

    #[tokio::test]
    async fn a_report_is_forgotten_when_it_was_heard_and_not_before() {
        let shelf = Arc::new(TwoReports(Mutex::new(vec![7, 8])));
        assert_eq!(hears(&shelf, false).await, ["7", "8"]);
        assert_eq!(*shelf.0.lock().unwrap(), [7, 8], "the connection broke before the Pong");
        let again = timeout(Duration::from_secs(10), hears(&shelf, true)).await.expect("the Pong is not heard");
        assert_eq!(again, ["7", "8"]);
        assert!(shelf.0.lock().unwrap().is_empty());
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
