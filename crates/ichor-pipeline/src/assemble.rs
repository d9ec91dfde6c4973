//! Assemble: a study closes when its source's quiet period has passed.

use std::time::Duration;

use ichor_store::{Store, Topic};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::now;

/// Longest time between two looks at the store, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);

/// Wake-ups within this time lead to one look.
const TOGETHER: Duration = Duration::from_millis(100);

/// Closes studies until `shutdown`.
pub async fn run(store: Store, shutdown: CancellationToken) {
    let mut received = store.changes(Topic::Received);
    loop {
        let wait = match close_due(&store).await {
            Ok(wait) => wait,
            Err(error) => {
                error!(%error, "studies cannot be closed; trying again");
                POLL
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            // Instances come by the hundred a second, and each moves a deadline farther off.
            () = received.changed() => tokio::time::sleep(TOGETHER).await,
        }
    }
}

/// Closes what is due and says how long to wait for the next.
async fn close_due(store: &Store) -> Result<Duration, ichor_store::StoreError> {
    for study in store.close_quiet_studies(now()).await? {
        info!(study = %study.study_instance, version = study.version, "study complete");
    }
    let until_next = store.next_deadline().await?.map_or(POLL, |deadline| deadline.since(now()));
    // A deadline in the past is one that came up between the two statements.
    Ok(until_next.clamp(Duration::from_millis(1), POLL))
}
