//! Prove: what a destination accepted is asked for again, by storage commitment (PS3.4 Annex J) and by a query. One task a
//! destination, beside the one that sends. What the peer turns out not to have is queued again, and says so each time; after
//! as many times as are allowed it is dead.

mod commitment;
mod read_back;

use std::sync::Arc;
use std::time::Duration;

use ichor_core::Reason;
use ichor_dicomweb::Lookup;
use ichor_store::{Consequence, ProofPlan, Store, StoreError, Topic};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::deliver::Destination;
use crate::now;
pub(crate) use commitment::proof_report;

/// Longest time between two looks, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);

/// How a destination is asked for proof.
#[derive(Clone, Debug)]
pub struct ProofOptions {
    /// Which proofs; a folder can give none.
    pub plan: ProofPlan,
    /// From the acceptance to the first question: more of a study comes together, and an index fills.
    pub after: Duration,
    /// Most instances of one commitment request.
    pub batch: u32,
    /// How long a report is waited for on the association of the request.
    pub report_wait: Duration,
    /// How long a report may come on an association of the peer's; then it is asked for again.
    pub report_timeout: Duration,
    /// Waits between questions that proved nothing, and how many there are.
    pub backoff: Backoff,
    /// How often an object is sent again that the peer has lost.
    pub resends: u32,
    /// How a DICOMweb service is asked.
    pub lookup: Lookup,
}

impl ProofOptions {
    /// No proof but the peer's answer to the storing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            plan: ProofPlan::default(),
            after: Duration::from_secs(2),
            batch: 500,
            report_wait: Duration::from_secs(5),
            report_timeout: Duration::from_secs(600),
            backoff: Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300), attempts: 10 },
            resends: 3,
            lookup: Lookup::Search,
        }
    }

    /// What follows from an answer that proved nothing, the `attempts` before it included.
    fn asked_in_vain(&self, attempts: u32, at_the_end: Consequence) -> Consequence {
        match self.backoff.after(attempts.saturating_add(1)) {
            Some(wait) => Consequence::AskAgain { at: now().after(wait), counts: true },
            None => at_the_end,
        }
    }
}

/// What became of a round of questions.
enum Round {
    /// The peer was there.
    Answered,
    /// It was not: whatever else is due waits as well.
    Unreachable(Reason),
}

/// Proves until `shutdown`. A question in flight at that moment is asked again after the next start; a commitment request is
/// in the store, and its report finds it.
pub async fn run(store: Store, destination: Arc<Destination>, shutdown: CancellationToken) {
    let mut proofs = store.changes(Topic::Proofs);
    let mut prover = Prover { store, destination, is_settled: false, unreachable: 0 };
    loop {
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = prover.prove_due() => result,
        };
        let failed = result.is_err();
        let wait = result.unwrap_or_else(|error| {
            error!(destination = prover.destination.name, %error, "proofs of delivery failed; trying again");
            POLL
        });
        // What was just accepted does not wake up one who waits for an absent peer.
        let may_wake = !failed && prover.unreachable == 0;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = proofs.changed(), if may_wake => {}
        }
    }
}

struct Prover {
    store: Store,
    destination: Arc<Destination>,
    is_settled: bool,
    /// Rounds in a row in which the peer was not there.
    unreachable: u32,
}

impl Prover {
    /// Asks for everything that is due and says how long to wait for the next.
    async fn prove_due(&mut self) -> Result<Duration, StoreError> {
        let (name, plan) = (&self.destination.name, self.destination.proof.plan);
        // What is known to be lost is lost under any plan.
        self.send_lost_again().await?;
        if !self.is_settled {
            let forgotten = self.store.settle_proofs(name, plan, now()).await?;
            if forgotten > 0 {
                warn!(destination = name, forgotten, "proofs that were due are not asked for any more");
            }
            self.is_settled = true;
        }
        let mut round = Round::Answered;
        if plan.commitment {
            self.give_overdue_up().await?;
            round = self.ask_for_commitment().await?;
        }
        if plan.read_back && matches!(round, Round::Answered) {
            round = self.read_back().await?;
        }
        if let Round::Unreachable(reason) = round {
            self.unreachable = self.unreachable.saturating_add(1);
            let endless = Backoff { attempts: 0, ..self.destination.proof.backoff };
            let wait = endless.after(self.unreachable).unwrap_or(POLL);
            if self.unreachable == 1 {
                warn!(destination = self.destination.name, %reason, "no proof: the destination is not there; asked again");
            }
            return Ok(wait.max(Duration::from_millis(1)));
        }
        if std::mem::take(&mut self.unreachable) > 0 {
            info!(destination = self.destination.name, "the destination answers questions again");
        }
        let next = self.store.next_proof_deadline(&self.destination.name).await?;
        Ok(next.map_or(POLL, |deadline| deadline.since(now())).clamp(Duration::from_millis(1), POLL))
    }

    /// Queues again what the peer has lost, or gives it up.
    async fn send_lost_again(&self) -> Result<(), StoreError> {
        let Destination { name, proof, backoff, .. } = &*self.destination;
        for lost in self.store.lost_deliveries(name).await? {
            let endless = Backoff { attempts: 0, ..*backoff };
            let at = (lost.resends < proof.resends)
                .then(|| now().after(endless.after(lost.resends.saturating_add(1)).unwrap_or_default()));
            let (sop_instance, resends, words) = (&lost.sop_instance, lost.resends, &lost.words);
            match at {
                Some(_) => warn!(destination = name, %sop_instance, resends, reason = words,
                    "accepted, and the destination does not have it: to be sent again"),
                None => error!(destination = name, %sop_instance, resends, reason = words,
                    "accepted, and the destination does not have it: given up"),
            }
            self.store.send_again(&lost, at, now()).await?;
        }
        Ok(())
    }
}
