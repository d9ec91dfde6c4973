//! The event channel as its subscriber hears it (PS3.18 11.13): a WebSocket (RFC 6455) at the service's own address, with the
//! service's own credentials and certificates. Where an answer says that the channel is somewhere else is not followed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ichor_core::AeTitle;
use reqwest::Upgraded;
use reqwest::header::{CONNECTION, HeaderName, UPGRADE};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::warn;

use super::UpsError;
use crate::client::StowClient;
use crate::error::StowError;
use crate::server::ups::attributes::{self, DataSet};

/// Longest report, in bytes. A longer one ends the channel, and may come again on the next one.
const LONGEST: usize = 16 << 20;
/// Silence after which the server is asked whether it is there.
const PING: Duration = Duration::from_secs(20);
/// A server of which nothing is heard for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// An open channel.
pub struct EventChannel {
    socket: WebSocketStream<Upgraded>,
    heard: Instant,
}

impl StowClient {
    /// Opens the event channel of a subscriber.
    ///
    /// # Errors
    /// [`UpsError`].
    pub async fn open_event_channel(&self, subscriber: &AeTitle) -> Result<EventChannel, UpsError> {
        let key = generate_key();
        let request = self
            .http
            .get(self.resource(&["subscribers", subscriber.as_str()]))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(HeaderName::from_static("sec-websocket-version"), "13")
            .header(HeaderName::from_static("sec-websocket-key"), &key);
        let opening = async {
            let response = self.with_credentials(request).send().await.map_err(|error| self.transport(error))?;
            let status = response.status().as_u16();
            if status != 101 {
                let body = self.read_body(response).await?;
                return Err(UpsError::Refused { status, words: crate::outcome::words(&body) });
            }
            let accept = response.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
            if accept != Some(derive_accept_key(key.as_bytes()).as_str()) {
                return Err(UpsError::NotAnAnswer("the event channel's handshake is not one".to_owned()));
            }
            Ok(response.upgrade().await.map_err(|error| self.transport(error))?)
        };
        let stream = timeout(self.timeout, opening).await.map_err(|_| StowError::Timeout(self.timeout))??;
        let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        Ok(EventChannel { socket, heard: Instant::now() })
    }
}

impl EventChannel {
    /// The next report, empty if it holds no data set; `None` once the channel is over. A text that is no report is passed over. What
    /// the caller has done about a report is done before it asks for the next one: the server's Ping behind it is answered only then.
    ///
    /// # Errors
    /// [`UpsError`] for a broken channel.
    pub async fn next(&mut self) -> Result<Option<DataSet>, UpsError> {
        loop {
            let message = match timeout(PING, self.socket.next()).await {
                Err(_) if self.heard.elapsed() > SILENCE => return Ok(None),
                Err(_) => {
                    let sent = timeout(SILENCE, self.socket.send(Message::Ping(Bytes::new()))).await;
                    sent.map_err(|_| StowError::Timeout(SILENCE))?.map_err(broken)?;
                    continue;
                }
                Ok(None) => return Ok(None),
                Ok(Some(message)) => message.map_err(broken)?,
            };
            self.heard = Instant::now();
            match message {
                Message::Text(text) => match attributes::parse_all(text.as_bytes()) {
                    // Without a data set it says at least that something has happened.
                    Ok(sets) => return Ok(Some(sets.into_iter().next().unwrap_or_default())),
                    // Heard like any other: refused, it would come again for ever.
                    Err(why) => warn!(why, "a report of the event channel is no data set: passed over"),
                },
                Message::Close(_) => return Ok(None),
                _ => {}
            }
        }
    }
}

fn broken(error: Error) -> UpsError {
    UpsError::Web(StowError::Connection(error.to_string()))
}
