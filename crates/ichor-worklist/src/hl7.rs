//! HL7 version 2.5.1: messages from templates, over MLLP, plain or behind TLS, with acknowledgement (chapters 2 and 7; MLLP
//! release 1).

mod ack;
mod escape;
mod message;
mod mllp;

use std::path::PathBuf;
use std::time::Duration;

use ichor_dimse::tls::ClientTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use ack::{Ack, AckCode, AckError};
pub use message::{Charset, Encoder};

use crate::{Announcement, SetupError, TellError};

/// Largest acknowledgement that is read, in bytes.
const LONGEST_ACK: usize = 64 << 10;

/// Which message is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// ORU^R01: an observation, with verdict, probability, volume and reason as OBX segments.
    Oru,
    /// ORM^O01 with order control XO: another priority for the order, nothing else.
    Orm,
    /// OMG^O19 with order control XO: the same for receivers of the newer message.
    Omg,
    /// A file of the site.
    File(PathBuf),
}

/// Settings of a channel.
#[derive(Clone, Debug)]
pub struct Hl7Options {
    /// `host:port` of the receiver.
    pub address: String,
    /// What is sent.
    pub template: Template,
    /// MSH-3 and MSH-4.
    pub sending: (String, String),
    /// MSH-5 and MSH-6.
    pub receiving: (String, String),
    /// MSH-11: `P`, `T` or `D`.
    pub processing_id: String,
    /// MSH-18.
    pub charset: Charset,
    /// Time to connect, and for the answer.
    pub timeout: Duration,
    /// How to speak TLS with the receiver; `None`: in the clear.
    pub tls: Option<ClientTls>,
}

/// Tells one receiver. Every message has a connection of its own: results are rare.
#[derive(Debug)]
pub struct Hl7Client {
    address: String,
    timeout: Duration,
    encoder: Encoder,
    tls: Option<Box<ClientTls>>,
}

impl Hl7Client {
    /// Sets the client up, and tries the template on a sample of each subject. Nothing is sent yet.
    ///
    /// # Errors
    /// [`SetupError::File`], [`SetupError::Template`], and [`SetupError::Value`] for certificates that cannot be used.
    pub fn new(options: Hl7Options) -> Result<Self, SetupError> {
        let encoder = Encoder::new(&options)?;
        if let Some(tls) = &options.tls {
            tls.check().map_err(|error| SetupError::Value(error.to_string()))?;
        }
        Ok(Self { address: options.address, timeout: options.timeout, encoder, tls: options.tls.map(Box::new) })
    }

    /// Sends one message and waits for its acknowledgement; the peer's code and, where it gave one, its error code.
    ///
    /// # Errors
    /// Every [`TellError`]; [`TellError::NoOrder`] before anything is sent. An answer of AE or AR is [`TellError::Refused`]: a receiver uses either for what may pass.
    pub async fn tell(&self, announcement: &Announcement) -> Result<String, TellError> {
        let message = self.encoder.message(announcement)?;
        if announcement.study.accession_number.as_deref().is_none_or(str::is_empty)
            && message::changes_no_order(&message)
        {
            return Err(TellError::NoOrder);
        }
        let exchange = self.exchange(&message);
        let answer =
            tokio::time::timeout(self.timeout, exchange).await.map_err(|_| TellError::Timeout(self.timeout))??;
        let ack = Ack::parse(&answer).map_err(|error| TellError::Answer(error.to_string()))?;
        tracing::debug!(id = announcement.id, text = ack.text, "HL7 acknowledgement");
        if ack.control_id != announcement.id {
            return Err(TellError::Answer(format!(
                "it acknowledges {:?}, not {:?}",
                short(&ack.control_id),
                announcement.id
            )));
        }
        let words = ack.words();
        if ack.code.is_acceptance() { Ok(words) } else { Err(TellError::Refused(words)) }
    }

    async fn exchange(&self, message: &[u8]) -> Result<Vec<u8>, TellError> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| self.lost(error))?;
        stream.set_nodelay(true).map_err(|error| self.lost(error))?;
        match &self.tls {
            None => self.blocks(stream, message).await,
            Some(tls) => {
                let stream = tls.connect(&self.address, stream).await.map_err(|error| self.lost(error))?;
                Box::pin(self.blocks(stream, message)).await
            }
        }
    }

    async fn blocks(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        message: &[u8],
    ) -> Result<Vec<u8>, TellError> {
        mllp::send(&mut stream, message).await.map_err(|error| self.lost(error))?;
        match mllp::receive(&mut stream, LONGEST_ACK).await {
            Ok(answer) => Ok(answer),
            Err(mllp::ReceiveError::Io(error)) => Err(self.lost(error)),
            Err(error) => Err(TellError::Answer(error.to_string())),
        }
    }

    fn lost(&self, error: impl std::fmt::Display) -> TellError {
        TellError::Connection { peer: self.address.clone(), why: error.to_string() }
    }
}

/// As much of a peer's word as may stand in a log.
fn short(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(40).collect()
}
