//! DICOM message exchange: Storage and Verification, as provider and as user.
//!
//! - [`scp`]: the listener. Each data fragment goes to a [`scp::InstanceSink`] as it arrives; the peer hears of success
//!   after the sink has committed, and not before.
//! - [`scu`]: the sender. Each data set travels in the transfer syntax that it has.
//! - [`tls`]: both behind TLS (PS3.15 B.12).
//! - [`commitment`]: requests and reports of Storage Commitment (PS3.4 Annex J).
//! - [`part10`]: the header of a DICOM file (PS3.10 chapter 7), which turns a received data set into a file and back.
//! - [`command`] and [`status`]: command sets and status codes (PS3.7).
//!
//! The layers below are private and named as the standard names them: `wire` sends and receives PDUs (PS3.8 chapter 9,
//! encoded and decoded by dicom-ul), `pdv` puts messages together from presentation data values (PS3.8 Annex E),
//! `negotiation` answers proposed presentation contexts (PS3.8 7.1.1.13).
//!
//! Architecture Invariant: this crate knows neither SQL nor pixels, and never holds a whole instance in memory. What a
//! peer claims (lengths, titles, identifiers) is bounded or parsed before anything is done with it.

mod associate;
pub mod command;
pub mod commitment;
mod exchange;
mod negotiation;
pub mod part10;
mod pdv;
pub mod scp;
pub mod scu;
pub mod status;
pub mod tls;
mod transport;
pub mod uids;
mod wire;

pub use ichor_core::{InvalidNetwork, IpNetwork};
