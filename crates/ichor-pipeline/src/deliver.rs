//! Deliver: one task a destination takes from its own queue, so that a dead one delays no other. `accepted` is
//! written on the peer's own word only. What keeps the destination as a whole from taking anything holds its queue as one
//! (`breaker`), and costs no delivery an attempt. Each probe is made with another delivery: one that alone keeps finding nobody
//! blocks no other, and is charged with it once others pass.

mod breaker;
mod c_store;
mod folder;
mod pace;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ichor_core::{Reason, chain};
use ichor_dicomweb::{StowClient, StowError};
use ichor_dimse::scu::ScuOptions;
use ichor_store::{Among, Context, DeliveryClaim, DeliveryObject, Store, StoreError, Topic};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::now;
use crate::prove::ProofOptions;
use crate::telemetry::Tracing;
use breaker::Breaker;
use c_store::Link;
pub use pace::Hours;
use pace::Rate;

/// Longest time between two looks at the queue, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);
/// How often what was queued out of the hours is told that it waits for them.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// How long a delivery that found nobody lets others go first: at most, as it is released when there are none.
const BEHIND: Duration = Duration::from_secs(86_400);

/// Where results go, and how to get there.
pub struct Destination {
    /// Name in the configuration and in the outbox.
    pub name: String,
    /// How bytes travel.
    pub transport: Transport,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// What is asked for besides the peer's answer.
    pub proof: ProofOptions,
    /// When and how fast it is sent to.
    pub flow: Flow,
    /// Whether requests by HTTP say to which trace they belong.
    pub traced: Option<Tracing>,
}

/// When and how fast a destination is sent to.
#[derive(Clone, Debug)]
pub struct Flow {
    /// How long an association is kept that has nothing to do.
    pub idle: Duration,
    /// Failures of deliveries in a row that hold the queue as if nobody were there; 0: none do.
    pub failures: u32,
    /// After how long a presentation context is proposed again that was not accepted.
    pub propose_again: Duration,
    /// Most objects a minute; 0: as fast as it goes.
    pub per_minute: u32,
    /// The hours in which others than positive findings go out; `None`: all.
    pub hours: Option<Hours>,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(2),
            failures: 3,
            propose_again: Duration::from_secs(600),
            per_minute: 0,
            hours: None,
        }
    }
}

/// The ways to deliver.
pub enum Transport {
    /// DIMSE C-STORE.
    CStore(ScuOptions),
    /// DICOMweb STOW-RS.
    StowRs(StowClient),
    /// A file in a folder.
    Folder(PathBuf),
}

/// What became of one attempt.
enum Attempt {
    /// The peer said that it has the object; its words.
    Accepted(String),
    /// Worth another try.
    Transient(Reason),
    /// No try will change it.
    Permanent(Reason),
    /// Nobody is there: the next object would fare the same.
    PeerDown(Reason),
    /// The peer takes nothing of these kinds.
    ContextRefused(Vec<Context>),
}

/// Delivers until `shutdown`. An attempt in flight at that moment is dropped; its row goes back to the queue at the
/// next start, and the derived UID makes the repetition the same object.
pub async fn run(store: Store, destination: Arc<Destination>, shutdown: CancellationToken) {
    run_until_retired(store, destination, CancellationToken::new(), shutdown).await;
}

/// [`run`], and no more than the delivery in hand once `retired`: another takes the queue over.
pub async fn run_until_retired(
    store: Store,
    destination: Arc<Destination>,
    retired: CancellationToken,
    shutdown: CancellationToken,
) {
    let mut outbox = store.changes(Topic::Outbox);
    let mut worker = Worker::new(store, destination, retired.clone());
    // After an error of the store a claim may be lost: its delivery must not wait for a restart.
    let mut claim_lost = false;
    loop {
        let work = async {
            if claim_lost {
                worker.store.requeue_deliveries(&worker.destination.name, now()).await?;
            }
            worker.deliver_due().await
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = work => result,
        };
        claim_lost = result.is_err();
        let wait = result.unwrap_or_else(|error| {
            error!(destination = worker.destination.name, %error, "the outbox failed; trying again");
            POLL
        });
        // A claim that may be lost is looked after before anybody takes over.
        if retired.is_cancelled() && !claim_lost {
            return worker.link.hang_up().await;
        }
        // While nobody is there, what was just queued wakes nobody up.
        let may_wake = worker.breaker.closed_for(Instant::now()).is_none();
        tokio::select! {
            () = shutdown.cancelled() => return worker.link.hang_up().await,
            () = tokio::time::sleep(wait) => {}
            () = retired.cancelled(), if !claim_lost => return worker.link.hang_up().await,
            () = outbox.changed(), if may_wake => {}
        }
    }
}

struct Worker {
    store: Store,
    destination: Arc<Destination>,
    link: Link,
    breaker: Breaker,
    rate: Rate,
    /// How long the peer asked to be left alone at the last attempt (Retry-After, RFC 9110 10.2.3).
    asked_to_wait: Option<Duration>,
    /// When what waits for the destination's hours was told so last.
    hours_said: Option<Instant>,
    /// Nothing more is claimed from then on.
    retired: CancellationToken,
}

impl Worker {
    fn new(store: Store, destination: Arc<Destination>, retired: CancellationToken) -> Self {
        let breaker = Breaker::new(destination.backoff, destination.flow.failures);
        let rate = Rate::new(destination.flow.per_minute);
        Self {
            store,
            destination,
            link: Link::default(),
            breaker,
            rate,
            asked_to_wait: None,
            hours_said: None,
            retired,
        }
    }

    /// Delivers everything that is due and says how long to wait for the next look.
    async fn deliver_due(&mut self) -> Result<Duration, StoreError> {
        let destination = Arc::clone(&self.destination);
        let among = match &destination.flow.hours {
            Some(hours) if !hours.are_open(now()) => Among::Urgent,
            _ => Among::All,
        };
        loop {
            if self.retired.is_cancelled() {
                return Ok(POLL);
            }
            let held = self.breaker.closed_for(Instant::now()).or_else(|| self.rate.wait(Instant::now()));
            if let Some(wait) = held {
                return Ok(self.keep_link(wait).await);
            }
            let Some(claim) = self.store.claim_delivery_among(&destination.name, among, now()).await? else {
                // All have had their turn: those that found nobody are tried again, one at a time.
                if self.store.release_held(&destination.name, among, now()).await? {
                    continue;
                }
                break;
            };
            self.rate.sent(Instant::now());
            let attempt = self.attempt(&claim.object).await?;
            self.record(claim, attempt).await?;
            if let Some(wait) = self.asked_to_wait.take() {
                self.breaker.leave_alone(Instant::now(), wait.min(destination.backoff.longest));
            }
        }
        if let (Among::Urgent, Some(hours)) = (among, &destination.flow.hours) {
            self.wait_for_hours(hours).await?;
        }
        let held = self.store.hold_refused(&destination.name, now()).await?;
        if held > 0 {
            info!(destination = destination.name, held, "the destination does not accept their kind");
        }
        let next = self.store.next_delivery_deadline(&destination.name).await?;
        let wait = next.map_or(POLL, |deadline| deadline.since(now())).min(POLL);
        // What is due and was not claimed waits for its hour, or is not accepted there.
        let wait = if wait.is_zero() { POLL } else { wait.max(Duration::from_millis(1)) };
        Ok(self.keep_link(wait).await)
    }

    /// Lets what is due say that it waits for the destination's hours; now and then, for there may be very much of it.
    async fn wait_for_hours(&mut self, hours: &Hours) -> Result<(), StoreError> {
        if self.hours_said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            let words = format!("waits for the hours {hours}");
            self.store.say_why_due_waits(&self.destination.name, &words, now()).await?;
            self.hours_said = Some(Instant::now());
        }
        Ok(())
    }

    /// Ends an association that has nothing to do for too long; how long to wait, at most until that moment.
    async fn keep_link(&mut self, wait: Duration) -> Duration {
        match self.link.idles_for(self.destination.flow.idle) {
            Some(left) if left.is_zero() => {
                self.link.hang_up().await;
                wait
            }
            Some(left) => wait.min(left),
            None => wait,
        }
    }

    async fn attempt(&mut self, object: &DeliveryObject) -> Result<Attempt, StoreError> {
        let destination = Arc::clone(&self.destination);
        Ok(match &destination.transport {
            Transport::CStore(options) => {
                // What else waits is proposed along with it, and goes over the same association.
                let others = if self.link.proposes(object) {
                    Vec::new()
                } else {
                    self.store.queued_contexts(&destination.name, now()).await?
                };
                self.link.deliver(options, object, others).await
            }
            Transport::StowRs(client) => {
                let traceparent =
                    destination.traced.map(|tracing| tracing.traceparent(&object.study_instance, object.version));
                let (attempt, wait) = stow(&client.traced(traceparent), object).await;
                self.asked_to_wait = wait;
                attempt
            }
            Transport::Folder(root) => folder::deliver(root, object).await,
        })
    }

    async fn record(&mut self, claim: DeliveryClaim, attempt: Attempt) -> Result<(), StoreError> {
        let destination = Arc::clone(&self.destination);
        let (name, object, proof) = (&destination.name, claim.object.sop_instance.clone(), &destination.proof);
        let attempt = match attempt {
            Attempt::PeerDown(reason) if self.breaker.blames(claim.was_held || claim.attempts > 1) => {
                Attempt::Transient(reason)
            }
            attempt => attempt,
        };
        match attempt {
            Attempt::Accepted(words) => {
                info!(destination = name, sop_instance = %object, answer = words, "delivered");
                self.is_there().await?;
                self.store.delivery_accepted(claim, &words, proof.plan, now().after(proof.after), now()).await
            }
            Attempt::Permanent(reason) => {
                error!(destination = name, sop_instance = %object, %reason, "delivery given up");
                self.is_there().await?;
                self.store.delivery_failed(claim, reason, None, now()).await
            }
            Attempt::Transient(reason) => {
                let failed = claim.attempts;
                let next = destination.backoff.after(failed).map(|wait| now().after(wait));
                let again = next.is_some();
                warn!(destination = name, sop_instance = %object, attempt = failed, again, %reason, "delivery failed");
                let words = reason.to_string();
                self.store.delivery_failed(claim, reason, next, now()).await?;
                if self.breaker.failed() {
                    let text = format!("{} deliveries in a row failed, the last: {words}", destination.flow.failures);
                    self.is_away(Reason::new("failures", text)).await?;
                }
                Ok(())
            }
            Attempt::PeerDown(reason) => {
                // The next probe takes another: if that passes, it was this one's fault.
                self.store.delivery_held(claim, &reason, Some(now().after(BEHIND)), now()).await?;
                self.is_away(reason).await
            }
            Attempt::ContextRefused(refused) => {
                let until = now().after(destination.flow.propose_again);
                let text = format!("{name} does not accept {} in this transfer syntax", claim.object.sop_class);
                self.store.delivery_held(claim, &Reason::new("no-context", text), None, now()).await?;
                let waiting = self.store.contexts_refused(name, &refused, until, now()).await?;
                warn!(
                    destination = name,
                    ?refused,
                    waiting,
                    "the destination does not accept what is queued for it: held"
                );
                self.is_there().await
            }
        }
    }

    async fn is_there(&mut self) -> Result<(), StoreError> {
        if self.breaker.is_tripped() {
            info!(destination = self.destination.name, "the destination is back; its queue goes on");
        }
        self.breaker.succeeded();
        self.store.destination_up(&self.destination.name, now()).await
    }

    async fn is_away(&mut self, reason: Reason) -> Result<(), StoreError> {
        let was_away = self.breaker.is_tripped();
        let wait = self.breaker.trip(Instant::now());
        let name = &self.destination.name;
        if was_away {
            info!(destination = name, %reason, ?wait, "the destination is still away");
        } else {
            warn!(destination = name, %reason, ?wait, "the destination is away: its queue is held");
        }
        self.store.destination_down(name, &reason, now().after(wait), now()).await
    }
}

/// One attempt, and how long the peer asks to be left alone.
async fn stow(client: &StowClient, object: &DeliveryObject) -> (Attempt, Option<Duration>) {
    let answer = client.store_one(&object.sop_instance, &object.path).await;
    let wait = answer.as_ref().err().and_then(StowError::retry_after);
    let attempt = match answer {
        Ok(words) => Attempt::Accepted(words),
        Err(error @ StowError::Refused { reason, .. }) if reason.is_duplicate() => Attempt::Accepted(error.to_string()),
        Err(error) if error.is_of_peer() => Attempt::PeerDown(Reason::new("unreachable", chain(&error))),
        Err(error) if error.is_permanent() => Attempt::Permanent(Reason::new("refused", chain(&error))),
        Err(error) => Attempt::Transient(Reason::new("broken-off", chain(&error))),
    };
    (attempt, wait)
}
