//! A model that lets real work go first.

use std::sync::Arc;
use std::time::Duration;

use ichor_store::Store;
use tracing::debug;

use crate::analyse::{ModelError, ModelTraits, SliceModel};
use crate::now;

/// Time between two looks at whether real work waits.
const LOOK: Duration = Duration::from_millis(200);

/// Waits before each batch for as long as anything real has to be done.
pub(super) struct Courteous<M> {
    model: Arc<M>,
    store: Store,
    quiet: Duration,
}

impl<M: SliceModel> Courteous<M> {
    pub(super) fn new(model: Arc<M>, store: Store, quiet: Duration) -> Self {
        Self { model, store, quiet }
    }

    async fn stand_back(&self) -> Result<(), ModelError> {
        loop {
            match self.store.has_real_work(self.quiet, now()).await {
                Ok(false) => return Ok(()),
                Ok(true) => debug!("the shadow stands back"),
                Err(error) => return Err(ModelError(format!("nobody knows whether real work waits: {error}"))),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl<M: SliceModel> SliceModel for Courteous<M> {
    fn traits(&self) -> &ModelTraits {
        self.model.traits()
    }

    async fn classify(&self, inputs: Vec<f32>, slices: usize) -> Result<Vec<f32>, ModelError> {
        self.stand_back().await?;
        self.model.classify(inputs, slices).await
    }

    async fn maps(&self, inputs: Vec<f32>, brain_masks: Vec<u8>, slices: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        self.stand_back().await?;
        self.model.maps(inputs, brain_masks, slices).await
    }
}
