//! Audit: follows the audit trail, and of the event log what moves patients' studies, and tells an audit repository
//! (PS3.15 A.5 over syslog), in the order in which it happened.
//!
//! Syslog knows no acknowledgement. What was sent is held to have arrived once the connection has lived for a while after it
//! ([`SyslogClient::settling`]), or has ended in order; only then is the place in the store moved on. After a broken
//! connection, or a restart, everything behind that place is sent again: twice rather than never. With a repository that ends idle
//! connections sooner than that each connection is ended by us, in order, after what there is to tell.

mod messages;

use std::collections::VecDeque;
use std::time::Duration;

use ichor_audit::{AuditSource, Header, SendError, SyslogClient};
use ichor_store::{AuditPlace, Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::now;

pub use messages::{Told, told};

/// Time between two looks at the logs.
const POLL: Duration = Duration::from_millis(500);
/// Records that are sent at once.
const BATCH: u32 = 100;
/// So many events may go by that are nothing to a repository before the place is moved on for them.
const UNNOTED: i64 = 256;
/// What was sent so long before a repository ends the connection in order, it has read: many end one that is idle, and sooner
/// than it takes to settle.
const READ_BY_THE_END: Duration = Duration::from_secs(2);
/// Time for what waits at the end.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// Who is told, and by whom.
pub struct Repository {
    /// How it is reached.
    pub client: SyslogClient,
    /// Who reports.
    pub source: AuditSource,
    /// What stands before each message.
    pub header: Header,
    /// This machine, and what its application is called.
    pub told_by: Told,
    /// Waits between attempts; it is never given up.
    pub backoff: Backoff,
}

/// Tells until `shutdown`, or until it is `retired` and another takes over; and then what has happened up to that moment, if
/// it can be told at once.
pub async fn run(store: Store, repository: Repository, retired: CancellationToken, shutdown: CancellationToken) {
    let mut teller = Teller::new(store, repository);
    let ended = async {
        tokio::select! {
            () = retired.cancelled() => {}
            () = shutdown.cancelled() => {}
        }
    };
    tokio::pin!(ended);
    let mut failed = 0;
    loop {
        let told = tokio::select! {
            () = &mut ended => {
                // Nobody knows how much of it was sent.
                teller.forget();
                break;
            }
            told = teller.tell() => told,
        };
        let fault = match told {
            Err(fault) => Some(fault),
            Ok(()) => tokio::select! {
                () = &mut ended => break,
                () = tokio::time::sleep(POLL) => None,
                why = teller.repository.client.lost() => teller.fault_of(why).await,
            },
        };
        let Some(fault) = fault else {
            if failed > 0 && teller.unsettled.is_empty() {
                info!(after_attempts = failed, "the audit repository is told again");
                failed = 0;
            }
            continue;
        };
        failed += 1;
        teller.note_failure(&fault, failed).await;
        let backoff = &teller.repository.backoff;
        tokio::select! {
            () = &mut ended => break,
            () = tokio::time::sleep(backoff.after(failed).unwrap_or(backoff.longest)) => {}
        }
    }
    if tokio::time::timeout(LAST_WORDS, teller.end()).await.is_err() {
        info!("the audit repository hears the rest after the next start");
    }
}

/// Why nothing was told.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("a message cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// What was sent and is not yet sure to have arrived.
struct Unsettled {
    sent: Instant,
    place: AuditPlace,
    messages: u64,
}

struct Teller {
    store: Store,
    repository: Repository,
    /// Up to here it is sure, and stands in the store.
    settled: Option<AuditPlace>,
    /// Up to here it was sent.
    sent: Option<AuditPlace>,
    unsettled: VecDeque<Unsettled>,
    /// Whether the repository has ended a connection sooner than it is known what it has read: from then on we end each ourselves, as
    /// soon as everything is sent, and what both sides have ended in order has arrived.
    ends_at_once: bool,
}

impl Teller {
    fn new(store: Store, repository: Repository) -> Self {
        Self { store, repository, settled: None, sent: None, unsettled: VecDeque::new(), ends_at_once: false }
    }

    /// Sends everything that there is, and moves the place on over what has settled.
    async fn tell(&mut self) -> Result<(), Fault> {
        loop {
            self.settle(self.repository.client.settling()).await?;
            let place = match self.sent {
                Some(place) => place,
                None => self.begin().await?,
            };
            let batch = self.store.audit_after(place, BATCH).await?;
            if batch.records.is_empty() {
                self.pass_over(place, batch.place).await?;
                return self.end_at_once().await;
            }
            let mut frames = Vec::with_capacity(batch.records.len());
            for record in &batch.records {
                let (message, severity) = told(record, &self.repository.told_by);
                let xml = message.xml(&self.repository.source)?;
                frames.push(self.repository.header.frame(severity, message.subject.at, &xml));
            }
            self.repository.client.send(&frames).await?;
            self.sent = Some(batch.place);
            let messages = frames.len() as u64;
            self.unsettled.push_back(Unsettled { sent: Instant::now(), place: batch.place, messages });
        }
    }

    /// Goes on from the place in the store.
    async fn begin(&mut self) -> Result<AuditPlace, StoreError> {
        let place = match self.store.audit_place().await {
            // Only then: whether a repository is told is the configuration's to say, which may have just changed.
            Err(StoreError::NotFound { .. }) => {
                self.store.feed_audit(true).await?;
                self.store.audit_place().await?
            }
            place => place?,
        };
        (self.settled, self.sent) = (Some(place), Some(place));
        self.unsettled.clear();
        Ok(place)
    }

    /// Moves on over events that are nothing to a repository.
    async fn pass_over(&mut self, from: AuditPlace, to: AuditPlace) -> Result<(), Fault> {
        self.sent = Some(to);
        let settled = self.settled.unwrap_or(from);
        if self.unsettled.is_empty() && to.event - settled.event >= UNNOTED {
            self.store.audit_told(to, 0, now()).await?;
            self.settled = Some(to);
        }
        Ok(())
    }

    /// Ends the connection after what was sent, with a repository that would end it too soon.
    async fn end_at_once(&mut self) -> Result<(), Fault> {
        if self.ends_at_once && !self.unsettled.is_empty() {
            // One that does not end a connection in order either is given its time again.
            self.ends_at_once = false;
            self.repository.client.finish().await?;
            self.ends_at_once = true;
            self.settle_first(self.unsettled.len()).await?;
        }
        Ok(())
    }

    /// What it means that the connection is over. One that ends while everything has arrived is made anew when there is
    /// something to tell.
    async fn fault_of(&mut self, why: SendError) -> Option<Fault> {
        if matches!(why, SendError::Ended { .. }) {
            if let Err(error) = self.settle(READ_BY_THE_END).await {
                return Some(error.into());
            }
            self.ends_at_once |= !self.unsettled.is_empty();
        }
        (!self.unsettled.is_empty()).then_some(Fault::Send(why))
    }

    /// Moves the place on over what was sent so long ago.
    async fn settle(&mut self, settling: Duration) -> Result<(), StoreError> {
        let is_settled = |sent: &Unsettled| sent.sent.elapsed() >= settling;
        let count = self.unsettled.iter().take_while(|sent| is_settled(sent)).count();
        self.settle_first(count).await
    }

    /// Moves the place on over what was sent first.
    async fn settle_first(&mut self, count: usize) -> Result<(), StoreError> {
        let Some(place) = count.checked_sub(1).and_then(|last| self.unsettled.get(last)).map(|last| last.place) else {
            return Ok(());
        };
        let messages = self.unsettled.iter().take(count).map(|sent| sent.messages).sum();
        self.store.audit_told(place, messages, now()).await?;
        self.settled = Some(place);
        self.unsettled.drain(..count);
        Ok(())
    }

    /// Gives the connection up; what was sent over it goes again from the place in the store.
    fn forget(&mut self) {
        self.repository.client.drop_connection();
        (self.sent, self.settled) = (None, None);
        self.unsettled.clear();
    }

    /// Everything that is not sure to have arrived is sent again.
    async fn note_failure(&mut self, fault: &Fault, failed: u32) {
        let again: u64 = self.unsettled.iter().map(|sent| sent.messages).sum();
        self.forget();
        if failed == 1 {
            error!(%fault, sent_again = again, "the audit repository cannot be told; it is tried until it can");
        } else {
            warn!(%fault, attempt = failed, "the audit repository cannot be told");
        }
        if let Err(error) = self.store.audit_untold(&fault.to_string()).await {
            warn!(%error, "it is not noted that the audit repository cannot be told");
        }
    }

    /// Tells what is left and ends the connection in order.
    async fn end(&mut self) {
        match self.tell().await {
            Ok(()) if self.repository.client.close().await => {
                if let Err(error) = self.settle_first(self.unsettled.len()).await {
                    warn!(%error, "what the audit repository was told last it is told again after the next start");
                }
            }
            Ok(()) => {}
            Err(fault) => self.note_failure(&fault, 1).await,
        }
    }
}
