//! The vocabulary every other crate of ichor speaks: identifiers, planes in the patient, findings, reasons and
//! study states. Nothing here does I/O.
//!
//! Architecture Invariant: strings from a peer or a file become [`Uid`] or [`AeTitle`] at the edge, once; code
//! behind the edge never sees them bare.

mod ae_title;
mod agreement;
mod calibration;
mod chain;
mod device;
mod finding;
mod forwarded;
mod model_id;
mod network;
mod plane;
mod precision;
mod priority;
mod reason;
mod rule;
mod status;
mod study_rule;
mod uid;
mod volume;
mod zone;

pub use ae_title::{AeTitle, InvalidAeTitle};
pub use agreement::{Agreement, BlandAltman, Estimate, Overlap, Pair, stability_index};
pub use calibration::{Calibration, log_odds};
pub use chain::chain;
pub use device::{DeviceChoice, UnknownDevice};
pub use finding::{Finding, HemorrhageSubtype, SliceReading, Verdict, consistent_probabilities};
pub use forwarded::{TrustedProxies, UnclearChain};
pub use model_id::{InvalidModelId, ModelId};
pub use network::{InvalidNetwork, IpNetwork};
pub use plane::{ImagePlane, InvalidPlane};
pub use precision::{Precision, UnknownPrecision};
pub use priority::Priority;
pub use reason::{Reason, ReasonCode};
pub use rule::{RuleOutcome, RuleVerdict};
pub use status::{
    ActivationKind, ActivationStatus, DeliveryStatus, MessageStatus, OfferState, Proof, ShadowStatus, StudyStatus,
    Subject, TaskStatus, UnknownStatus,
};
pub use study_rule::StudyRule;
pub use uid::{InvalidUid, Uid};
pub use volume::VolumeUncertainty;
pub use zone::{UnknownZone, Zone};

/// Implementation Class UID that ichor's associations and files carry (PS3.7 D.3.3.2, PS3.10 7.1): derived from a
/// UUID, as PS3.5 B.2 allows, and never reused for another program.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.213541029463981230745621987364510293847";

/// Implementation Version Name, at most 16 characters (PS3.7 D.3.3.2).
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("ICHOR_", env!("CARGO_PKG_VERSION"));
