//! `[destination.proof]`: what is asked of a destination besides its answer to the storing.

use ichor_core::Proof;
use ichor_dicomweb::Lookup;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::prove::ProofOptions;
use serde::{Deserialize, Serialize};

use super::destination::DestinationKind;
use super::{Durations, seconds};

/// `[destination.proof]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProofConfig {
    /// Which proofs: `commitment`, `read-back`, or both.
    pub(crate) ask: Vec<Proof>,
    /// From the acceptance to the first question, in seconds.
    pub(crate) after_s: f64,
    /// Most instances of one commitment request.
    pub(crate) batch: u32,
    /// How long a report is waited for on the association of the request, in seconds.
    pub(crate) report_wait_s: f64,
    /// How long a report may come on an association of the peer's, in seconds.
    pub(crate) report_timeout_s: f64,
    /// Questions that prove nothing before it is given up, or sent again; 0: never.
    pub(crate) attempts: u32,
    /// Wait before the second question, in seconds; doubles after each.
    pub(crate) first_backoff_s: f64,
    /// Longest wait between questions, in seconds.
    pub(crate) max_backoff_s: f64,
    /// How often an object is sent again that the peer has lost.
    pub(crate) resends: u32,
    /// STOW-RS: `qido-rs` or `wado-rs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<QueryName>,
}

/// How a DICOMweb service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum QueryName {
    /// A search.
    QidoRs,
    /// The instance's metadata.
    WadoRs,
}

impl Default for ProofConfig {
    fn default() -> Self {
        Self {
            ask: Vec::new(),
            after_s: 2.0,
            batch: 500,
            report_wait_s: 5.0,
            report_timeout_s: 600.0,
            attempts: 10,
            first_backoff_s: 5.0,
            max_backoff_s: 300.0,
            resends: 3,
            query: None,
        }
    }
}

impl ProofConfig {
    /// What the stage is to do.
    pub(crate) fn options(&self) -> ProofOptions {
        ProofOptions {
            plan: self.ask.iter().copied().collect(),
            after: seconds(self.after_s),
            batch: self.batch,
            report_wait: seconds(self.report_wait_s),
            report_timeout: seconds(self.report_timeout_s),
            backoff: Backoff {
                first: seconds(self.first_backoff_s),
                longest: seconds(self.max_backoff_s),
                attempts: self.attempts,
            },
            resends: self.resends,
            lookup: match self.query {
                None | Some(QueryName::QidoRs) => Lookup::Search,
                Some(QueryName::WadoRs) => Lookup::Metadata,
            },
        }
    }

    /// Refuses what a destination of this kind cannot be asked.
    pub(super) fn check(&self, kind: DestinationKind) -> Result<(), String> {
        let twice = (1..self.ask.len()).any(|n| self.ask[..n].contains(&self.ask[n]));
        match kind {
            _ if twice => Err("proof.ask names a proof twice".to_owned()),
            _ if self.batch == 0 => Err("proof.batch 0 would ask for nothing".to_owned()),
            DestinationKind::StowRs if self.ask.contains(&Proof::Commitment) => {
                Err("proof.ask: commitment is for kind c-store; a stow-rs destination can be read back".to_owned())
            }
            DestinationKind::Folder if !self.ask.is_empty() => {
                Err("proof.ask: a folder cannot be asked for proof: whoever reads it may take the files away"
                    .to_owned())
            }
            DestinationKind::CStore | DestinationKind::Folder if self.query.is_some() => {
                Err("the key proof.query is for kind stow-rs".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn durations(&self, destination: &str) -> Durations {
        let key = |name: &str| format!("destination {destination:?} proof.{name}");
        vec![
            (key("after_s"), self.after_s),
            (key("report_wait_s"), self.report_wait_s),
            (key("report_timeout_s"), self.report_timeout_s),
            (key("first_backoff_s"), self.first_backoff_s),
            (key("max_backoff_s"), self.max_backoff_s),
        ]
    }
}
