//! Frames on their way to a repository: over TLS, each with its length before it (RFC 5425), or each in a datagram (RFC 5426).
//!
//! Syslog knows no acknowledgement. What can be known is whether the connection lives: a peer's kernel that has not taken what
//! was sent within the time limit breaks it, as does a peer that closes or resets it. [`SyslogClient::lost`] tells.

use std::net::SocketAddr;
use std::time::Duration;

use ichor_dimse::tls::{ClientTls, TlsError};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// Time for a peer to close its side after we have.
const FAREWELL: Duration = Duration::from_secs(2);

/// How frames travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Syslog over TLS.
    Tls(Box<ClientTls>),
    /// Syslog over UDP: in the clear, and lost where nobody listens. For a relay on the same machine.
    Udp,
}

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogOptions {
    /// `host:port` of the repository or relay.
    pub address: String,
    /// How frames travel.
    pub transport: Transport,
    /// Time to connect, and for the peer to take what is sent.
    pub timeout: Duration,
}

/// Why frames are not known to have arrived.
#[derive(Debug, Error)]
pub enum SendError {
    /// No connection, or it broke.
    #[error("connection to {peer}: {why}")]
    Connection {
        /// The address.
        peer: String,
        /// What happened.
        why: String,
    },
    /// The peer ended the connection in order (TLS `close_notify`): what it had read by then has arrived.
    #[error("connection to {peer}: ended by the peer")]
    Ended {
        /// The address.
        peer: String,
    },
    /// The peer does not take what is sent.
    #[error("{peer} does not take what is sent within {limit:?}")]
    Timeout {
        /// The address.
        peer: String,
        /// The limit.
        limit: Duration,
    },
}

enum Link {
    Tls(Box<TlsStream<TcpStream>>),
    Udp(UdpSocket),
}

/// Sends to one repository.
pub struct SyslogClient {
    options: SyslogOptions,
    link: Option<Link>,
}

impl SyslogClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn new(options: SyslogOptions) -> Result<Self, TlsError> {
        if let Transport::Tls(tls) = &options.transport {
            tls.check()?;
        }
        Ok(Self { options, link: None })
    }

    /// How long after it was sent a frame is as sure to have arrived as it can be, if the connection still lives.
    #[must_use]
    pub fn settling(&self) -> Duration {
        self.options.timeout + Duration::from_secs(5)
    }

    /// Sends frames in their order, over the connection that there is or a new one. After an error nobody knows how many of
    /// them have arrived.
    ///
    /// # Errors
    /// [`SendError`]; the connection is given up then.
    pub async fn send(&mut self, frames: &[Vec<u8>]) -> Result<(), SendError> {
        let limit = self.options.timeout;
        let mut link = match self.link.take() {
            Some(link) => link,
            None => timeout(limit, self.connect()).await.map_err(|_| self.too_slow())??,
        };
        // Not one limit for all: a slow peer may take a long time for many, and does take them.
        for frame in frames {
            let sent = timeout(limit, write(&mut link, frame)).await.map_err(|_| self.too_slow())?;
            sent.map_err(|error| self.broken(error))?;
        }
        if let Link::Tls(stream) = &mut link {
            let flushed = timeout(limit, stream.flush()).await.map_err(|_| self.too_slow())?;
            flushed.map_err(|error| self.broken(error))?;
        }
        self.link = Some(link);
        Ok(())
    }

    /// Completes when the connection is over, with the reason; never while there is none. May be dropped and asked again.
    pub async fn lost(&mut self) -> SendError {
        let why = match &mut self.link {
            None => return std::future::pending().await,
            Some(Link::Tls(stream)) => {
                let mut nothing = [0; 512];
                loop {
                    match stream.read(&mut nothing).await {
                        Ok(0) => break None,
                        // A repository has nothing to say.
                        Ok(_) => {}
                        Err(error) => break Some(error.to_string()),
                    }
                }
            }
            Some(Link::Udp(socket)) => {
                // What comes is an ICMP message, as an error: nobody listens.
                let mut nothing = [0; 1];
                loop {
                    if let Err(error) = socket.recv(&mut nothing).await {
                        break Some(error.to_string());
                    }
                }
            }
        };
        self.link = None;
        match why {
            Some(why) => self.broken(why),
            None => SendError::Ended { peer: self.options.address.clone() },
        }
    }

    /// Ends the connection in order; whether the peer has taken everything before it closed its side.
    pub async fn close(&mut self) -> bool {
        match self.link.take() {
            None => true,
            Some(Link::Udp(_)) => false,
            Some(Link::Tls(mut stream)) => {
                let farewell = async {
                    stream.shutdown().await?;
                    let mut nothing = [0; 512];
                    while stream.read(&mut nothing).await? > 0 {}
                    std::io::Result::Ok(())
                };
                matches!(timeout(FAREWELL, farewell).await, Ok(Ok(())))
            }
        }
    }

    /// [`Self::close`], with an error unless both sides have ended the connection in order.
    ///
    /// # Errors
    /// [`SendError::Connection`].
    pub async fn finish(&mut self) -> Result<(), SendError> {
        if self.close().await { Ok(()) } else { Err(self.broken("it was not ended in order")) }
    }

    /// Gives the connection up.
    pub fn drop_connection(&mut self) {
        self.link = None;
    }

    /// Connects, speaks TLS where that is asked for, and sends nothing.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn try_connection(&mut self) -> Result<(), SendError> {
        let link = timeout(self.options.timeout, self.connect()).await.map_err(|_| self.too_slow())??;
        self.link = Some(link);
        self.close().await;
        Ok(())
    }

    async fn connect(&self) -> Result<Link, SendError> {
        let address = &self.options.address;
        match &self.options.transport {
            Transport::Tls(tls) => {
                let stream = TcpStream::connect(address).await.map_err(|error| self.broken(error))?;
                stream.set_nodelay(true).map_err(|error| self.broken(error))?;
                // A peer that vanishes without a word is found out within the limit, not within the system's quarter of an hour.
                let socket = socket2::SockRef::from(&stream);
                socket.set_tcp_user_timeout(Some(self.options.timeout)).map_err(|error| self.broken(error))?;
                let stream = tls.connect(address, stream).await.map_err(|error| self.broken(error))?;
                Ok(Link::Tls(Box::new(stream)))
            }
            Transport::Udp => {
                let found = lookup_host(address).await.map_err(|error| self.broken(error))?.next();
                let peer = found.ok_or_else(|| self.broken("the name has no address"))?;
                let own: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
                let socket = UdpSocket::bind(own).await.map_err(|error| self.broken(error))?;
                socket.connect(peer).await.map_err(|error| self.broken(error))?;
                Ok(Link::Udp(socket))
            }
        }
    }

    fn broken(&self, why: impl std::fmt::Display) -> SendError {
        SendError::Connection { peer: self.options.address.clone(), why: why.to_string() }
    }

    fn too_slow(&self) -> SendError {
        SendError::Timeout { peer: self.options.address.clone(), limit: self.options.timeout }
    }
}

async fn write(link: &mut Link, frame: &[u8]) -> std::io::Result<()> {
    match link {
        // MSG-LEN SP SYSLOG-MSG (RFC 5425 4.3).
        Link::Tls(stream) => {
            let length = format!("{} ", frame.len());
            stream.write_all(&[length.as_bytes(), frame].concat()).await
        }
        Link::Udp(socket) => socket.send(frame).await.map(drop),
    }
}
