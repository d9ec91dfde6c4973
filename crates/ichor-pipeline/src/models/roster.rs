//! The active model, as every stage sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ichor_core::ModelId;
use tokio::sync::watch;

use crate::analyse::SliceModel;

/// A model being loaded; why not, in words.
pub type Loading<M> = Pin<Box<dyn Future<Output = Result<Arc<M>, String>> + Send>>;

/// Loads a model by its id and repeats its self-test.
pub type Loader<M> = Arc<dyn Fn(ModelId) -> Loading<M> + Send + Sync>;

/// The active model, and how others are had. Clones share it. Whoever begins a study takes the active model once and keeps it to
/// the study's end, whatever becomes active meanwhile.
pub struct Roster<M> {
    active: watch::Sender<Option<Arc<M>>>,
    loader: Option<Loader<M>>,
}

impl<M> Clone for Roster<M> {
    fn clone(&self) -> Self {
        Self { active: self.active.clone(), loader: self.loader.clone() }
    }
}

impl<M: SliceModel> Roster<M> {
    /// With the model that is active, if there is one, and what loads others.
    #[must_use]
    pub fn new(active: Option<Arc<M>>, loader: Loader<M>) -> Self {
        Self { active: watch::Sender::new(active), loader: Some(loader) }
    }

    /// The active model; `None`: studies wait.
    #[must_use]
    pub fn active(&self) -> Option<Arc<M>> {
        self.active.borrow().clone()
    }

    /// Tells of changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Option<Arc<M>>> {
        self.active.subscribe()
    }

    pub(crate) fn set_active(&self, model: Option<Arc<M>>) {
        self.active.send_replace(model);
    }

    /// The model of this id: the active one, or loaded and tested for the caller, who holds the only copy.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub async fn obtain(&self, id: &ModelId) -> Result<Arc<M>, String> {
        if let Some(active) = self.active().filter(|active| active.traits().id == *id) {
            return Ok(active);
        }
        let loader = self.loader.as_ref().ok_or_else(|| "there is one model only".to_owned())?;
        let model = loader(id.clone()).await?;
        let found = &model.traits().id;
        if found == id { Ok(model) } else { Err(format!("the weights are {found} now")) }
    }
}

/// One model, always active.
impl<M> From<Arc<M>> for Roster<M> {
    fn from(model: Arc<M>) -> Self {
        Self { active: watch::Sender::new(Some(model)), loader: None }
    }
}
