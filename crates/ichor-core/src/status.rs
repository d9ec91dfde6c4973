//! The states of a study, of a delivery and of a message, and what messages are about. Every study is in exactly one, and each change is an event.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text from the store or the command line that is no status.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown status {0:?}; known are {1}")]
pub struct UnknownStatus(String, String);

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// All of them, in the order in which they usually occur.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands in the store, in JSON and on the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownStatus;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|s| s.as_str() == text).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|s| s.as_str()).collect();
                    UnknownStatus(text.to_owned(), known.join(", "))
                })
            }
        }
    };
}

status! {
    /// Where a study stands.
    StudyStatus {
        /// Instances arrive; the quiet period has not passed.
        Receiving = "receiving",
        /// Closed; waits for the analysis.
        Queued = "queued",
        /// The worker has it.
        Analysing = "analysing",
        /// Classified and, if positive, masked; results are in the outbox or delivered.
        Analysed = "analysed",
        /// A final state with a reason: nothing eligible in it.
        NotAnalysed = "not-analysed",
        /// The analysis failed as often as is allowed; the reason is recorded and `retry` takes it up again.
        Failed = "failed",
    }
}

status! {
    /// Where one object for one destination stands.
    DeliveryStatus {
        /// Waits for its turn, or for the next attempt.
        Queued = "queued",
        /// Being sent.
        Sending = "sending",
        /// The peer itself said that it has it.
        Accepted = "accepted",
        /// The peer took responsibility for keeping it (storage commitment, PS3.4 Annex J).
        Committed = "committed",
        /// A query at the peer has found it.
        Visible = "visible",
        /// Refused for good, attempts used up, or accepted and not proven; `retry` queues it again.
        Dead = "dead",
    }
}

status! {
    /// How it is proven that a peer has what it accepted.
    Proof {
        /// Storage commitment (PS3.4 Annex J).
        Commitment = "commitment",
        /// A query for the instance: C-FIND, QIDO-RS or WADO-RS.
        ReadBack = "read-back",
    }
}

status! {
    /// Where one message to one channel stands.
    MessageStatus {
        /// Waits for its turn, or for the next attempt.
        Queued = "queued",
        /// Being sent.
        Sending = "sending",
        /// The peer itself said that it has it.
        Acknowledged = "acknowledged",
        /// Refused for good, or attempts used up; `retry` queues it again.
        Dead = "dead",
    }
}

status! {
    /// Where a workitem of others stands that we perform.
    TaskStatus {
        /// Ours by its codes, and not claimed: its input is not to be had.
        Left = "left",
        /// Being claimed; whether we have it is not known.
        Claiming = "claiming",
        /// Ours; its input is being fetched.
        Claimed = "claimed",
        /// Its input is here: waits for the analysis, and for its results to be accepted where they go.
        Waiting = "waiting",
        /// The outcome stands; it is being told.
        Ending = "ending",
        /// Told as COMPLETED.
        Completed = "completed",
        /// Told as CANCELED, or canceled before we began.
        Canceled = "canceled",
        /// Somebody else's, or gone.
        Lost = "lost",
        /// Its list does not take our word: it stands there as ours until somebody decides what becomes of it here.
        Refused = "refused",
        /// Somebody has given it up: it stands in its list as ours.
        GivenUp = "given-up",
    }
}

status! {
    /// What is told about a study.
    Subject {
        /// Neighbouring slices are suspicious; the study need not be complete.
        Alert = "alert",
        /// There was an alert, and the whole study does not bear it out.
        AlertWithdrawn = "alert-withdrawn",
        /// The study was analysed: hemorrhage.
        Positive = "positive",
        /// The study was analysed: no hemorrhage detected.
        Negative = "negative",
        /// The study was not analysed, because.
        NotAnalysed = "not-analysed",
        /// The analysis failed as often as is allowed.
        Failed = "failed",
        /// A result object could not be delivered, and is given up.
        DeliveryDead = "delivery-dead",
    }
}

impl TaskStatus {
    /// Whether it is not over, and somebody here goes on with it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Claiming | Self::Claimed | Self::Waiting | Self::Ending)
    }
}

impl Subject {
    /// Whether it goes before others.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::Alert | Self::Positive)
    }
}

status! {
    /// Whether a configured model can be used.
    OfferState {
        /// It was not loaded yet.
        Waiting = "waiting",
        /// It is loaded, and its self-test has passed.
        Ready = "ready",
        /// It cannot be used; the reason is recorded.
        Failed = "failed",
    }
}

status! {
    /// How a model came to be the active one.
    ActivationKind {
        /// The configuration names it, and nobody has chosen another.
        Configured = "configured",
        /// Somebody chose it.
        Activated = "activated",
        /// Somebody took the choice before back.
        RolledBack = "rolled-back",
    }
}

status! {
    /// Where the activation of a model stands.
    ActivationStatus {
        /// Waits for the daemon, which repeats the self-test first.
        Requested = "requested",
        /// Its results are sent.
        Active = "active",
        /// It was the active one.
        Former = "former",
        /// It did not become active; the reason is recorded.
        Refused = "refused",
    }
}

status! {
    /// Where a study stands with a model in the shadow.
    ShadowStatus {
        /// Waits until nothing else has to be done.
        Queued = "queued",
        /// Being scored.
        Running = "running",
        /// Scored, or not with a reason.
        Done = "done",
        /// Given up; the reason is recorded.
        Failed = "failed",
        /// Pushed out of a full queue.
        Dropped = "dropped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for status in StudyStatus::ALL {
            assert_eq!(status.as_str().parse::<StudyStatus>().unwrap(), *status);
        }
        let error = "done".parse::<DeliveryStatus>().unwrap_err().to_string();
        assert!(error.contains("accepted"), "{error}");
    }
}
