//! Which model is active, and how another becomes it without a restart.

mod roster;

use std::time::Duration;

use ichor_store::{Activation, Store, StoreError, Topic};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use roster::{Loader, Loading, Roster};

use crate::analyse::SliceModel;
use crate::now;

/// Longest time between two looks at the store: requests come from other processes too.
const POLL: Duration = Duration::from_secs(1);

/// Takes up what is asked for until `shutdown`: the model is loaded and its self-test repeated; then the store says that it is
/// the active one, and from then on studies begin with it. One that cannot be loaded is refused, and the active one stays.
pub async fn run<M: SliceModel>(store: Store, models: Roster<M>, shutdown: CancellationToken) {
    let mut asked = store.changes(Topic::Models);
    let mut is_unsure = false;
    loop {
        let work = async {
            if is_unsure {
                follow_the_store(&store, &models).await?;
            }
            while let Some(requested) = store.requested_model().await? {
                activate(&store, &models, &requested).await?;
            }
            Ok::<_, StoreError>(())
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = work => result,
        };
        is_unsure = match result {
            Ok(()) => false,
            Err(StoreError::StaleClaim { what }) => {
                info!(what, "a request gave way to a later one");
                false
            }
            Err(error) => {
                error!(%error, "the job log failed while the active model was looked for; trying again");
                true
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
            () = asked.changed() => {}
        }
    }
}

async fn activate<M: SliceModel>(store: &Store, models: &Roster<M>, requested: &Activation) -> Result<(), StoreError> {
    let Activation { model: id, actor, why, .. } = requested;
    info!(model = %id, actor, why, "a model is asked for; it is loaded and tested first");
    match models.obtain(id).await {
        Ok(model) => {
            store.settle_model(requested, Ok(()), now()).await?;
            models.set_active(Some(model));
            info!(model = %id, "active from the next study on");
            Ok(())
        }
        Err(reason) => {
            error!(model = %id, reason, "refused; the active model stays");
            store.settle_model(requested, Err(reason), now()).await
        }
    }
}

/// After an error nobody knows whether a change was committed: the store's word holds.
async fn follow_the_store<M: SliceModel>(store: &Store, models: &Roster<M>) -> Result<(), StoreError> {
    let Some(Activation { model: wanted, .. }) = store.active_model().await? else { return Ok(()) };
    if models.active().is_none_or(|active| active.traits().id == wanted) {
        return Ok(());
    }
    match models.obtain(&wanted).await {
        Ok(model) => models.set_active(Some(model)),
        Err(reason) => {
            error!(model = %wanted, reason, "the store's model cannot be used; studies wait");
            models.set_active(None);
        }
    }
    Ok(())
}
