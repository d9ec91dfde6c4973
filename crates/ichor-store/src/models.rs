//! Which models there are, which one is active, and who said so.

use ichor_core::{ActivationKind, ActivationStatus, ModelId, OfferState, Uid};
use serde::Serialize;
use serde_json::Value;

use crate::{RetryOutcome, Store, StoreError, Timestamp, Topic};

/// A model that the configuration names, about to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewOffer {
    /// The weights' file.
    pub weights: String,
    /// Which model that is; `None`: its manifest cannot be read.
    pub model: Option<ModelId>,
    /// Whether it can be used.
    pub state: OfferState,
    /// Why not.
    pub words: String,
}

/// A model that the configuration names, as the daemon found it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Offer {
    /// Place in the configuration; 0 is `[model]`.
    pub position: u32,
    /// The weights' file.
    pub weights: String,
    /// Which model that is; absent: its manifest cannot be read.
    pub model: Option<ModelId>,
    /// Whether it can be used.
    pub state: OfferState,
    /// The device that it is on, or why it cannot be used.
    pub words: String,
    /// Its thresholds and maps; absent until it was loaded once.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub facts: Option<Value>,
    /// Since when.
    pub updated_at: Timestamp,
}

/// One line of the history: a model and when it was the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Activation {
    /// Number.
    pub id: i64,
    /// The model.
    pub model: ModelId,
    /// How it came to it.
    pub kind: ActivationKind,
    /// Where it stands.
    pub status: ActivationStatus,
    /// By whose word.
    pub actor: String,
    /// Why.
    pub why: String,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Since when it is, or was, active.
    pub from_at: Option<Timestamp>,
    /// Until when it was.
    pub until_at: Option<Timestamp>,
    /// Why it was refused.
    pub words: Option<String>,
}

/// A wish to have a study analysed by a model of somebody's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReanalysisWish {
    /// The study.
    pub study: Uid,
    /// The model.
    pub model: ModelId,
    /// Whose wish.
    pub actor: String,
    /// Why.
    pub why: String,
}

impl Store {
    /// Writes what the configuration names, instead of what stood there.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn offer_models(&self, offers: &[NewOffer], now: Timestamp) -> Result<(), StoreError> {
        self.index().offer_models(offers, now).await
    }

    /// What the configuration named at the daemon's last start, in its order.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn offers(&self) -> Result<Vec<Offer>, StoreError> {
        self.index().offers().await
    }

    /// Notes that a model was loaded (with what pages show of it) or that it cannot be used, which is also an event.
    ///
    /// # Errors
    /// As [`Self::offer_models`].
    pub async fn note_offer(
        &self,
        model: &ModelId,
        found: Result<Value, String>,
        words: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().note_offer(model, found, words, now).await
    }

    /// Writes an event about models.
    ///
    /// # Errors
    /// As [`Self::offer_models`].
    pub async fn note_models(&self, kind: &'static str, text: &str, now: Timestamp) -> Result<(), StoreError> {
        self.index().note_models(kind, text, now).await
    }

    /// The activation in force; `None` before the first.
    ///
    /// # Errors
    /// As [`Self::offers`].
    pub async fn active_model(&self) -> Result<Option<Activation>, StoreError> {
        self.index().activation_in(ActivationStatus::Active).await
    }

    /// The activation that waits for the daemon.
    ///
    /// # Errors
    /// As [`Self::offers`].
    pub async fn requested_model(&self) -> Result<Option<Activation>, StoreError> {
        self.index().activation_in(ActivationStatus::Requested).await
    }

    /// One activation by its number.
    ///
    /// # Errors
    /// As [`Self::offers`]; [`StoreError::NotFound`].
    pub async fn activation(&self, id: i64) -> Result<Activation, StoreError> {
        self.index().activation(id).await
    }

    /// The history, newest first.
    ///
    /// # Errors
    /// As [`Self::offers`].
    pub async fn activations(&self, limit: u32) -> Result<Vec<Activation>, StoreError> {
        self.index().activations(limit).await
    }

    /// Asks for a model to become the active one. A request that still waits gives way to this one. The answer is its number.
    ///
    /// # Errors
    /// As [`Self::offer_models`]; [`StoreError::NotFound`] if the configuration does not offer it;
    /// [`StoreError::Filter`] if it is active already.
    pub async fn request_model(
        &self,
        model: &ModelId,
        actor: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<Activation, StoreError> {
        let requested = self.index().request_model(model, ActivationKind::Activated, actor, why, now).await?;
        self.topics().notify(Topic::Models);
        Ok(requested)
    }

    /// Asks for the model that was active before the present one.
    ///
    /// # Errors
    /// As [`Self::request_model`]; [`StoreError::NotFound`] if there was none.
    pub async fn request_rollback(&self, actor: &str, why: &str, now: Timestamp) -> Result<Activation, StoreError> {
        let former = self.index().former_model().await?;
        let requested = self.index().request_model(&former, ActivationKind::RolledBack, actor, why, now).await?;
        self.topics().notify(Topic::Models);
        Ok(requested)
    }

    /// Makes the requested model the active one and the active one a former one, in one transaction; or, with the reason,
    /// refuses the request and leaves the active one.
    ///
    /// # Errors
    /// As [`Self::offer_models`]; [`StoreError::StaleClaim`] if the request has given way to another.
    pub async fn settle_model(
        &self,
        requested: &Activation,
        outcome: Result<(), String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().settle_model(requested, outcome, now).await
    }

    /// Makes the model that the configuration names the active one, because nobody has chosen another.
    ///
    /// # Errors
    /// As [`Self::offer_models`].
    pub async fn adopt_model(&self, model: &ModelId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        self.index().adopt_model(model, why, now).await
    }

    /// Queues a new version of a finished study for a model of somebody's choice, as a late slice would.
    ///
    /// # Errors
    /// As [`Self::offer_models`]; [`StoreError::NotFound`] if there is no such study, or the configuration does not offer the
    /// model; [`StoreError::Filter`] if the model cannot be used.
    pub async fn reanalyse(&self, wish: &ReanalysisWish, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let outcome = self.index().reanalyse(wish, now).await?;
        self.topics().notify(Topic::Closed);
        Ok(outcome)
    }

    /// The offered model that a person means: `name@version+hash`, or `name@version` where that is only one.
    ///
    /// # Errors
    /// As [`Self::offers`]; [`StoreError::NotFound`] names those that there are; [`StoreError::Filter`] if several fit.
    pub async fn offered_model(&self, text: &str) -> Result<ModelId, StoreError> {
        let offered: Vec<ModelId> = self.offers().await?.into_iter().filter_map(|offer| offer.model).collect();
        let fits = |id: &&ModelId| {
            id.as_str() == text || id.as_str().rsplit_once('+').is_some_and(|(without_hash, _)| without_hash == text)
        };
        let mut fitting: Vec<&ModelId> = offered.iter().filter(fits).collect();
        fitting.dedup();
        match fitting.as_slice() {
            [only] => Ok((*only).clone()),
            [] => {
                let names: Vec<&str> = offered.iter().map(ModelId::as_str).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(StoreError::NotFound { what: format!("model {text:?} (offered: {names})") })
            }
            several => {
                let names: Vec<&str> = several.iter().map(|id| id.as_str()).collect();
                Err(StoreError::Filter { what: format!("{text:?} fits several models: {}", names.join(", ")) })
            }
        }
    }
}
