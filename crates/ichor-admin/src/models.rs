//! The models as those who read and administrate see them.

use std::sync::{Arc, PoisonError, RwLock};

use ichor_core::{ModelId, OfferState};
use ichor_store::{Offer, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::problem::Problem;

/// What a loaded model is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelFacts {
    /// `name@version+hash`.
    pub id: String,
    /// What must stand wherever its results do, such as "demonstration only".
    pub notice: Option<String>,
    /// A slice is positive from this probability on.
    pub slice_threshold: f32,
    /// How a study's verdict comes from its slices, in words.
    pub study_rule: String,
    /// Which map masks are made of.
    pub map: String,
    /// Whether masks are refined by what the pixels say.
    pub is_refined: bool,
    /// Precision of its matrix products.
    pub precision: String,
}

/// The model whose results are sent, as it changes. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ActiveModel(Arc<RwLock<Option<Option<ModelFacts>>>>);

impl ActiveModel {
    /// The active model from now on; `None`: there should be one, and it cannot be used.
    pub fn set(&self, model: Option<ModelFacts>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(model);
    }

    /// The active model; `None` if the daemon only receives, or it is missing.
    #[must_use]
    pub fn get(&self) -> Option<ModelFacts> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().flatten()
    }

    /// Whether there should be one and it cannot be used.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(*self.0.read().unwrap_or_else(PoisonError::into_inner), Some(None))
    }
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Its results are sent.
    Active,
    /// It looks on.
    Shadow,
    /// It was not loaded yet.
    Waiting,
    /// It cannot be used.
    Failed,
    /// It was chosen to be active and cannot be used: studies wait.
    Missing,
}

impl Role {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Shadow => "shadow",
            Self::Waiting => "not loaded yet",
            Self::Failed => "cannot be used",
            Self::Missing => "missing",
        }
    }
}

/// A model and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ModelView {
    /// `name@version+hash`; absent if its manifest cannot be read.
    pub(crate) id: Option<String>,
    /// What it does.
    pub(crate) role: Role,
    /// Whether its results are sent.
    pub(crate) is_active: bool,
    /// What must stand wherever its results do.
    pub(crate) notice: Option<String>,
    /// The device that it is on, or why it cannot be used.
    pub(crate) words: String,
    /// The weights' file; absent if the configuration does not name it any more.
    pub(crate) weights: Option<String>,
    /// Since when that is so.
    pub(crate) since: Option<Timestamp>,
    /// What it is; absent until it was loaded once.
    pub(crate) facts: Option<ModelFacts>,
}

/// Every model that the configuration names, and the active one if it is not among them.
pub(crate) async fn views(app: &App) -> Result<Vec<ModelView>, Problem> {
    let (store, active) = (&app.facts.store, app.facts.active.get());
    let mut views: Vec<ModelView> =
        store.offers().await?.into_iter().map(|offer| view(offer, active.as_ref().map(|active| &active.id))).collect();
    if let Some(active) = active
        && !views.iter().any(|view| view.is_active)
    {
        let view = ModelView {
            id: Some(active.id.clone()),
            role: Role::Active,
            is_active: true,
            notice: active.notice.clone(),
            words: String::new(),
            weights: None,
            since: None,
            facts: Some(active),
        };
        views.insert(0, view);
    }
    if app.facts.active.is_missing()
        && let Some(chosen) = store.active_model().await?
    {
        let id = chosen.model.to_string();
        let words = "it was chosen to be the active model and cannot be used: studies are received and wait".to_owned();
        match views.iter_mut().find(|view| view.id.as_ref() == Some(&id)) {
            Some(view) => {
                view.words = format!("{words}; {}", view.words);
                view.role = Role::Missing;
            }
            None => views.insert(
                0,
                ModelView {
                    id: Some(id),
                    role: Role::Missing,
                    is_active: false,
                    notice: None,
                    words,
                    weights: None,
                    since: chosen.from_at,
                    facts: None,
                },
            ),
        }
    }
    Ok(views)
}

fn view(offer: Offer, active: Option<&String>) -> ModelView {
    let id = offer.model.as_ref().map(ModelId::to_string);
    let is_active = id.is_some() && id.as_ref() == active;
    let role = match offer.state {
        _ if is_active => Role::Active,
        OfferState::Failed => Role::Failed,
        OfferState::Ready => Role::Shadow,
        OfferState::Waiting => Role::Waiting,
    };
    let facts: Option<ModelFacts> = offer.facts.and_then(|facts| serde_json::from_value(facts).ok());
    ModelView {
        id,
        role,
        is_active,
        notice: facts.as_ref().and_then(|facts| facts.notice.clone()),
        words: offer.words,
        weights: Some(offer.weights),
        since: Some(offer.updated_at),
        facts,
    }
}
