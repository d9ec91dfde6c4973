//! C-STORE over an association that is kept: one object after the other, in as many presentation contexts as are queued.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use ichor_core::{Reason, chain};
use ichor_dimse::part10::{self, Part10Error};
use ichor_dimse::scu::{ProposedContext, ScuError, ScuOptions, StorageScu, StoreItem, StoreResponse};
use ichor_dimse::status::StoreStatus;
use ichor_store::{Context, DeliveryObject};
use tokio::io::AsyncSeekExt;
use tracing::{debug, warn};

use super::Attempt;

/// The association with a destination, if there is one.
#[derive(Debug, Default)]
pub(super) struct Link {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    scu: StorageScu,
    proposed: BTreeSet<Context>,
    used: Instant,
    /// Whether an object went over it already.
    is_old: bool,
}

impl Link {
    /// Whether the kind of this object was proposed on the association that is open.
    pub(super) fn proposes(&self, object: &DeliveryObject) -> bool {
        self.open.as_ref().is_some_and(|open| open.proposed.contains(&context_of(object)))
    }

    /// Sends one object. `others`: what else is proposed if an association must be opened for it.
    pub(super) async fn deliver(
        &mut self,
        options: &ScuOptions,
        object: &DeliveryObject,
        others: Vec<Context>,
    ) -> Attempt {
        let (offset, mut file) = match open_dataset(&object.path).await {
            Ok(opened) => opened,
            Err(attempt) => return attempt,
        };
        if !self.proposes(object) {
            self.hang_up().await;
            if let Err(attempt) = self.connect(options, others.into_iter().chain([context_of(object)])).await {
                return attempt;
            }
        }
        loop {
            if let Err(error) = file.seek(std::io::SeekFrom::Start(offset)).await {
                return Attempt::Transient(Reason::new("object-unreadable", error.to_string()));
            }
            let Some(open) = &mut self.open else {
                return Attempt::PeerDown(Reason::new("unreachable", "there is no association"));
            };
            if !open.scu.accepts(&object.sop_class, &object.transfer_syntax) {
                // Told with all others that were refused, by which the object's own is one.
                let refused = |context: &&Context| !open.scu.accepts(&context.sop_class, &context.transfer_syntax);
                return Attempt::ContextRefused(open.proposed.iter().filter(refused).cloned().collect());
            }
            let item = StoreItem {
                sop_class: object.sop_class.clone(),
                sop_instance: object.sop_instance.clone(),
                transfer_syntax: object.transfer_syntax.clone(),
            };
            let error = match open.scu.store(&item, &mut file).await {
                Ok(response) => {
                    (open.used, open.is_old) = (Instant::now(), true);
                    return judged(&response);
                }
                Err(error) => error,
            };
            let Some(lost) = self.open.take() else { continue };
            // A peer that ends an association that idles says nothing of the object.
            let ended = matches!(error, ScuError::Dropped(_) | ScuError::Aborted(_) | ScuError::Closed);
            if !(lost.is_old && ended) {
                let code = if error.is_permanent() { "refused" } else { "broken-off" };
                let reason = Reason::new(code, chain(&error));
                return if error.is_permanent() { Attempt::Permanent(reason) } else { Attempt::Transient(reason) };
            }
            debug!(address = options.address, %error, "the kept association has ended; another one is opened");
            if let Err(attempt) = self.connect(options, lost.proposed).await {
                return attempt;
            }
        }
    }

    /// Opens an association; `Err`: what that means for the object.
    async fn connect(
        &mut self,
        options: &ScuOptions,
        contexts: impl IntoIterator<Item = Context>,
    ) -> Result<(), Attempt> {
        let proposed: BTreeSet<Context> = contexts.into_iter().collect();
        let contexts: Vec<ProposedContext> = proposed
            .iter()
            .map(|context| ProposedContext::new(context.sop_class.clone(), [context.transfer_syntax.clone()]))
            .collect();
        match StorageScu::connect(options, &contexts).await {
            Ok(scu) => {
                self.open = Some(Open { scu, proposed, used: Instant::now(), is_old: false });
                Ok(())
            }
            Err(ScuError::NoAcceptedContext) => Err(Attempt::ContextRefused(proposed.into_iter().collect())),
            Err(error) if error.is_permanent() => Err(Attempt::Permanent(Reason::new("refused", chain(&error)))),
            Err(error) => Err(Attempt::PeerDown(Reason::new("unreachable", chain(&error)))),
        }
    }

    /// How long the association may go on idling; `None`: there is none.
    pub(super) fn idles_for(&self, limit: Duration) -> Option<Duration> {
        self.open.as_ref().map(|open| limit.saturating_sub(open.used.elapsed()))
    }

    /// Releases the association, if there is one.
    pub(super) async fn hang_up(&mut self) {
        if let Some(open) = self.open.take()
            && let Err(error) = open.scu.release().await
        {
            // The peer's answers count; how it hangs up does not.
            warn!(%error, "release after C-STORE failed");
        }
    }
}

fn context_of(object: &DeliveryObject) -> Context {
    Context { sop_class: object.sop_class.clone(), transfer_syntax: object.transfer_syntax.clone() }
}

fn judged(response: &StoreResponse) -> Attempt {
    let words = match &response.comment {
        Some(comment) => format!("{} ({comment})", response.status),
        None => response.status.to_string(),
    };
    // UIDs are derived from what the object was made of: a duplicate is this very object, and its peer has it.
    if response.status.is_success_or_warning() || response.status == StoreStatus::DuplicateSopInstance {
        Attempt::Accepted(words)
    } else if response.status.is_permanent_failure() {
        Attempt::Permanent(Reason::new("refused", words))
    } else {
        Attempt::Transient(Reason::new("refused-for-now", words))
    }
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
