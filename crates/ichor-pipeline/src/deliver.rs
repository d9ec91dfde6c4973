//! Deliver: one task a destination takes from its own queue, so that a dead one delays no other. `accepted` is
//! written on the peer's own word only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::Reason;
use ichor_dicomweb::{StowClient, StowError};
use ichor_dimse::part10::{self, Part10Error};
use ichor_dimse::scu::{ProposedContext, ScuError, ScuOptions, StorageScu, StoreItem};
use ichor_dimse::status::StoreStatus;
use ichor_store::{DeliveryClaim, Store, StoreError, Topic};
use tokio::io::AsyncSeekExt;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::ingest::chain;
use crate::now;
use crate::prove::ProofOptions;

/// Longest time between two looks at the queue, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);

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
}

/// The two ways to deliver.
pub enum Transport {
    /// DIMSE C-STORE.
    CStore(ScuOptions),
    /// DICOMweb STOW-RS.
    StowRs(StowClient),
}

/// What became of one attempt.
enum Attempt {
    /// The peer said that it has the object; its words.
    Accepted(String),
    /// Worth another try.
    Transient(Reason),
    /// No try will change it.
    Permanent(Reason),
}

/// Delivers until `shutdown`. An attempt in flight at that moment is dropped; its row goes back to the queue at the
/// next start, and the derived UID makes the repetition the same object.
pub async fn run(store: Store, destination: Arc<Destination>, shutdown: CancellationToken) {
    let mut outbox = store.changes(Topic::Outbox);
    // After an error of the store a claim may be lost: its delivery must not wait for a restart.
    let mut claim_lost = false;
    loop {
        let work = async {
            if claim_lost {
                store.requeue_deliveries(&destination.name, now()).await?;
            }
            deliver_due(&store, &destination).await
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = work => result,
        };
        claim_lost = result.is_err();
        let wait = result.unwrap_or_else(|error| {
            error!(destination = destination.name, %error, "the outbox failed; trying again");
            POLL
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = outbox.changed() => {}
        }
    }
}

/// Delivers everything that is due and says how long to wait for the next.
async fn deliver_due(store: &Store, destination: &Destination) -> Result<Duration, StoreError> {
    while let Some(claim) = store.claim_delivery(&destination.name, now()).await? {
        let attempt = match &destination.transport {
            Transport::CStore(options) => c_store(options, &claim).await,
            Transport::StowRs(client) => stow(client, &claim).await,
        };
        record(store, destination, claim, attempt).await?;
    }
    let next = store.next_delivery_deadline(&destination.name).await?;
    Ok(next.map_or(POLL, |deadline| deadline.since(now())).clamp(Duration::from_millis(1), POLL))
}

async fn record(
    store: &Store,
    destination: &Destination,
    claim: DeliveryClaim,
    attempt: Attempt,
) -> Result<(), StoreError> {
    let (name, object) = (&destination.name, claim.object.sop_instance.clone());
    match attempt {
        Attempt::Accepted(words) => {
            info!(destination = name, sop_instance = %object, answer = words, "delivered");
            let proof = &destination.proof;
            store.delivery_accepted(claim, &words, proof.plan, now().after(proof.after), now()).await
        }
        Attempt::Permanent(reason) => {
            error!(destination = name, sop_instance = %object, %reason, "delivery given up");
            store.delivery_failed(claim, reason, None, now()).await
        }
        Attempt::Transient(reason) => {
            let failed = claim.attempts;
            let next = destination.backoff.after(failed).map(|wait| now().after(wait));
            warn!(
                destination = name,
                sop_instance = %object,
                attempt = failed,
                again = next.is_some(),
                %reason,
                "delivery failed"
            );
            store.delivery_failed(claim, reason, next, now()).await
        }
    }
}

async fn c_store(options: &ScuOptions, claim: &DeliveryClaim) -> Attempt {
    match try_c_store(options, claim).await {
        Ok(attempt) => attempt,
        Err(error) => {
            let permanent = error.is_permanent();
            let reason = Reason::new(if permanent { "refused" } else { "unreachable" }, chain(&error));
            if permanent { Attempt::Permanent(reason) } else { Attempt::Transient(reason) }
        }
    }
}

async fn try_c_store(options: &ScuOptions, claim: &DeliveryClaim) -> Result<Attempt, ScuError> {
    let object = &claim.object;
    let (offset, mut file) = match open_dataset(&object.path).await {
        Ok(opened) => opened,
        Err(attempt) => return Ok(attempt),
    };
    if let Err(error) = file.seek(std::io::SeekFrom::Start(offset)).await {
        return Ok(Attempt::Transient(Reason::new("object-unreadable", error.to_string())));
    }
    let context = ProposedContext::new(object.sop_class.clone(), [object.transfer_syntax.clone()]);
    let mut scu = StorageScu::connect(options, &[context]).await?;
    let item = StoreItem {
        sop_class: object.sop_class.clone(),
        sop_instance: object.sop_instance.clone(),
        transfer_syntax: object.transfer_syntax.clone(),
    };
    let response = scu.store(&item, &mut file).await?;
    if let Err(error) = scu.release().await {
        // The peer's answer counts; how it hangs up does not.
        warn!(address = options.address, %error, "release after C-STORE failed");
    }
    let words = match &response.comment {
        Some(comment) => format!("{} ({comment})", response.status),
        None => response.status.to_string(),
    };
    // UIDs are derived from what the object was made of: a duplicate is this very object, and its peer has it.
    Ok(if response.status.is_success_or_warning() || response.status == StoreStatus::DuplicateSopInstance {
        Attempt::Accepted(words)
    } else if response.status.is_permanent_failure() {
        Attempt::Permanent(Reason::new("refused", words))
    } else {
        Attempt::Transient(Reason::new("refused-for-now", words))
    })
}

/// Opens the object's file. One that is gone or damaged stays so; descriptors and memory come back.
async fn open_dataset(path: &Path) -> Result<(u64, tokio::fs::File), Attempt> {
    let failed = |gone: bool, text: String| {
        let reason = Reason::new("object-unreadable", text);
        if gone { Attempt::Permanent(reason) } else { Attempt::Transient(reason) }
    };
    let header = part10::read_header(path).map_err(|error| {
        let gone = match &error {
            Part10Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Part10Error::File { .. } => true,
        };
        failed(gone, chain(&error))
    })?;
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|error| {
        failed(error.kind() == std::io::ErrorKind::NotFound, format!("{}: {error}", path.display()))
    })?;
    Ok((header.dataset_offset, file))
}

async fn stow(client: &StowClient, claim: &DeliveryClaim) -> Attempt {
    match client.store_one(&claim.object.sop_instance, &claim.object.path).await {
        Ok(words) => Attempt::Accepted(words),
        Err(error @ StowError::Refused { reason, .. }) if reason.is_duplicate() => Attempt::Accepted(error.to_string()),
        Err(error) => {
            let reason = Reason::new(stow_code(&error), chain(&error));
            if error.is_permanent() { Attempt::Permanent(reason) } else { Attempt::Transient(reason) }
        }
    }
}

fn stow_code(error: &StowError) -> &'static str {
    if error.is_permanent() { "refused" } else { "unreachable" }
}
