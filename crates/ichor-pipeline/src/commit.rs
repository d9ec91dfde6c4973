//! Commit: judges what peers asked to be committed, and reports on associations of our own what could not go out on
//! theirs. Every report is tried until the peer has taken it or the attempts are used up, and says so in the job log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, Reason, chain};
use ichor_dimse::commitment::{CommitmentReport, Reference};
use ichor_dimse::scp::{PeerInfo, PeerRule};
use ichor_dimse::scu::{ScuError, ScuOptions, StorageScu};
use ichor_dimse::status::StoreStatus;
use ichor_store::{CommitmentClaim, Store, StoreError, Topic};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::{Live, now};

/// Longest time between two looks, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(1);
/// Time between two looks at a request whose instances have not all come.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Reports on the way at once, on associations of our own.
const AT_ONCE: usize = 16;

/// Settings of the stage.
#[derive(Clone, Debug)]
pub struct CommitOptions {
    /// Own AE title.
    pub ae_title: AeTitle,
    /// Where reports go when their association has ended; the first rule that matches counts.
    pub addresses: Vec<ReportAddress>,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Time to connect, and for each answer.
    pub timeout: Duration,
}

/// Where the peers of a source take reports.
#[derive(Clone, Debug)]
pub struct ReportAddress {
    /// Which peers.
    pub peer: PeerRule,
    /// `host:port`; `None`: only on the association of the request.
    pub address: Option<String>,
}

/// Judges and reports until `shutdown`. A report in flight at that moment is dropped; its row goes back at the next
/// start.
pub async fn run(store: Store, options: Live<CommitOptions>, shutdown: CancellationToken) {
    let judging = judge(&store, &shutdown);
    let reporting = report(&store, &options, &shutdown);
    tokio::join!(judging, reporting);
}

async fn judge(store: &Store, shutdown: &CancellationToken) {
    let mut requests = store.changes(Topic::Commitments);
    loop {
        let wait = match store.judge_commitments(LOOK_AGAIN, now()).await {
            Ok(next) => next.map_or(POLL, |at| at.since(now())).clamp(Duration::from_millis(1), POLL),
            Err(error) => {
                error!(%error, "commitment requests cannot be judged; trying again");
                POLL
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = requests.changed() => {}
        }
    }
}

async fn report(store: &Store, options: &Live<CommitOptions>, shutdown: &CancellationToken) {
    let mut ready = store.changes(Topic::Commitments);
    let mut claim_lost = false;
    loop {
        let work = async {
            if claim_lost {
                store.requeue_commitment_reports(None, now()).await?;
            }
            let options = Arc::clone(&options.borrow());
            report_all(store, &options).await
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = work => result,
        };
        claim_lost = result.is_err();
        if let Err(error) = result {
            error!(%error, "commitment reports failed; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
            () = ready.changed(), if !claim_lost => {}
        }
    }
}

/// Reports everything that is due, several at once: a peer that does not answer delays no other.
async fn report_all(store: &Store, options: &CommitOptions) -> Result<(), StoreError> {
    let mut reports = JoinSet::new();
    loop {
        while reports.len() < AT_ONCE
            && let Some(claim) = store.claim_commitment_report(None, now()).await?
        {
            let (store, options) = (store.clone(), options.clone());
            reports.spawn(async move { report_one(&store, &options, claim).await });
        }
        match reports.join_next().await {
            None => return Ok(()),
            Some(Ok(reported)) => reported?,
            Some(Err(error)) => error!(%error, "the task of a commitment report failed"),
        }
    }
}

async fn report_one(store: &Store, options: &CommitOptions, claim: CommitmentClaim) -> Result<(), StoreError> {
    let (id, transaction) = (claim.id, claim.transaction.clone());
    let Some((called, address)) = destination(options, &claim) else {
        error!(%transaction, "commitment report given up: its association has ended, and no report_address is configured");
        let text = "the association has ended, and the source has no report_address";
        return store.commitment_failed(id, &Reason::new("no-report-address", text), None, now()).await;
    };
    let mut scu_options = ScuOptions::new(options.ae_title.clone(), called, address);
    scu_options.connect_timeout = options.timeout;
    scu_options.response_timeout = options.timeout;
    let failed = match send(&scu_options, &report_of(&claim)).await {
        Ok((status, comment)) => {
            let words = event_words(status, comment.as_deref());
            if status.is_success_or_warning() {
                info!(%transaction, answer = words, "commitment reported");
                return store.commitment_answered(id, &words, now()).await;
            }
            Reason::new("refused", words)
        }
        Err(error) => Reason::new("unreachable", chain(&error)),
    };
    let next = options.backoff.after(claim.attempts).map(|wait| now().after(wait));
    warn!(%transaction, attempt = claim.attempts, again = next.is_some(), reason = %failed, "commitment report failed");
    store.commitment_failed(id, &failed, next, now()).await
}

async fn send(options: &ScuOptions, report: &CommitmentReport) -> Result<(StoreStatus, Option<String>), ScuError> {
    let mut scu = StorageScu::connect_to_report(options).await?;
    let response = scu.report(report).await?;
    if let Err(error) = scu.release().await {
        // The peer's answer counts; how it hangs up does not.
        warn!(address = options.address, %error, "release after N-EVENT-REPORT failed");
    }
    Ok((response.status, response.comment))
}

/// Title and address of who asked, by the first rule that the asking peer matches.
fn destination(options: &CommitOptions, claim: &CommitmentClaim) -> Option<(AeTitle, String)> {
    let peer = PeerInfo {
        calling_ae: claim.peer_ae.clone(),
        called_ae: claim.called_ae.clone(),
        ..PeerInfo::stranger(claim.peer_address.parse::<SocketAddr>().ok()?)
    };
    // Who asked has shown who it is; its user is not kept.
    let matches = |rule: &&ReportAddress| PeerRule { user: None, ..rule.peer.clone() }.matches(&peer);
    let rule = options.addresses.iter().find(matches)?;
    Some((AeTitle::parse(&claim.peer_ae).ok()?, rule.address.clone()?))
}

pub(crate) fn report_of(claim: &CommitmentClaim) -> CommitmentReport {
    let mut report =
        CommitmentReport { transaction: claim.transaction.clone(), committed: Vec::new(), failed: Vec::new() };
    for (class, instance, failure) in &claim.references {
        let reference = Reference { sop_class: class.clone(), sop_instance: instance.clone() };
        match failure {
            Some(reason) => report.failed.push((reference, *reason)),
            None => report.committed.push(reference),
        }
    }
    report
}

pub(crate) fn event_words(status: StoreStatus, comment: Option<&str>) -> String {
    match comment {
        Some(comment) => format!("{status} ({comment})"),
        None => status.to_string(),
    }
}
