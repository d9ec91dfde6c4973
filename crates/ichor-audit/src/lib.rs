//! Tells an audit repository (an IHE Audit Record Repository, ITI-20): messages in the DICOM Audit Message Schema
//! (PS3.15 A.5), each in a frame of the syslog protocol (RFC 5424), over TLS (RFC 5425) or, within a machine, UDP (RFC 5426).
//!
//! An [`AuditMessage`] says what happened, [`Header`] makes a frame of it, a [`SyslogClient`] sends frames. What is told, when
//! and how often is the caller's concern.
//!
//! Architecture Invariant: no SQL, no state, and nothing of what stands in the job log.

mod client;
pub mod codes;
mod frame;
mod message;

pub use client::{SendError, SyslogClient, SyslogOptions, Transport};
pub use frame::{Header, Severity, host_name};
pub use message::{
    Action, AuditMessage, AuditSource, Code, MOST_BYTES, Object, ObjectDescription, ObjectKind, Outcome, Participant,
    Subject,
};
