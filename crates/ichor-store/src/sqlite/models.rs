//! Statements of models: offers, the history of activations, and wishes for another model.

use ichor_core::{ActivationKind, ActivationStatus, ModelId, OfferState, StudyStatus};
use serde_json::{Value, json};

use super::analyse::set_status;
use super::events::NewEvent;
use super::failure::During;
use super::retention::has_gaps;
use super::values::{from_json, model as parse_model, unsigned, word};
use super::{Connection, Sqlite, one_row};
use crate::models::{Activation, NewOffer, Offer, ReanalysisWish};
use crate::{RetryOutcome, StoreError, Timestamp};

#[derive(sqlx::FromRow)]
struct OfferRow {
    position: i64,
    weights: String,
    model: Option<String>,
    state: String,
    words: String,
    facts: Option<String>,
    updated_at: i64,
}

#[derive(sqlx::FromRow)]
struct ActivationRow {
    id: i64,
    model: String,
    kind: String,
    status: String,
    actor: String,
    why: String,
    requested_at: i64,
    from_at: Option<i64>,
    until_at: Option<i64>,
    words: Option<String>,
}

/// Activations, as rows.
macro_rules! activations {
    ($which:literal) => {
        concat!(
            "SELECT id, model, kind, status, actor, why, requested_at, from_at, until_at, words FROM model_activation ",
            $which
        )
    };
}

impl ActivationRow {
    fn activation(self) -> Result<Activation, StoreError> {
        Ok(Activation {
            id: self.id,
            model: ModelId::parse(&self.model).map_err(|error| StoreError::corrupt(error.to_string()))?,
            kind: word(&self.kind)?,
            status: word(&self.status)?,
            actor: self.actor,
            why: self.why,
            requested_at: Timestamp::from_millis(self.requested_at),
            from_at: self.from_at.map(Timestamp::from_millis),
            until_at: self.until_at.map(Timestamp::from_millis),
            words: self.words,
        })
    }
}

impl Sqlite {
    pub(crate) async fn offer_models(&self, offers: &[NewOffer], now: Timestamp) -> Result<(), StoreError> {
        let during = "writing which models there are";
        let mut tx = self.begin(during).await?;
        sqlx::query("DELETE FROM model_offer").execute(&mut *tx).await.during(during)?;
        for (position, offer) in (0i64..).zip(offers) {
            sqlx::query(
                "INSERT INTO model_offer (position, weights, model, state, words, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(position)
            .bind(&offer.weights)
            .bind(offer.model.as_ref().map(ModelId::as_str))
            .bind(offer.state.as_str())
            .bind(&offer.words)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await
            .during(during)?;
            if offer.state == OfferState::Failed {
                let text = format!("model {} cannot be used: {}", offer.weights, offer.words);
                NewEvent::new(now, "model-failed", text)
                    .detail(json!({ "weights": offer.weights, "model": offer.model, "why": offer.words }))
                    .write(&mut tx)
                    .await?;
            }
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn offers(&self) -> Result<Vec<Offer>, StoreError> {
        let rows: Vec<OfferRow> = sqlx::query_as(
            "SELECT position, weights, model, state, words, facts, updated_at FROM model_offer ORDER BY position",
        )
        .fetch_all(&self.read)
        .await
        .during("reading which models there are")?;
        let offer = |row: OfferRow| {
            Ok(Offer {
                position: unsigned(row.position)?,
                weights: row.weights,
                model: parse_model(row.model)?,
                state: word(&row.state)?,
                words: row.words,
                facts: row.facts.as_deref().map(from_json).transpose()?,
                updated_at: Timestamp::from_millis(row.updated_at),
            })
        };
        rows.into_iter().map(offer).collect()
    }

    pub(crate) async fn note_offer(
        &self,
        model: &ModelId,
        found: Result<Value, String>,
        words: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "noting a model";
        let mut tx = self.begin(during).await?;
        let (state, facts, words) = match &found {
            Ok(facts) => (OfferState::Ready, Some(facts.to_string()), words),
            Err(why) => (OfferState::Failed, None, why.as_str()),
        };
        sqlx::query(
            "UPDATE model_offer SET state = ?, words = ?, facts = COALESCE(?, facts), updated_at = ? WHERE model = ?",
        )
        .bind(state.as_str())
        .bind(words)
        .bind(facts)
        .bind(now.as_millis())
        .bind(model.as_str())
        .execute(&mut *tx)
        .await
        .during(during)?;
        if let Err(why) = &found {
            NewEvent::new(now, "model-failed", format!("model {model} cannot be used: {why}"))
                .detail(json!({ "model": model, "why": why }))
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn note_models(&self, kind: &'static str, text: &str, now: Timestamp) -> Result<(), StoreError> {
        let during = "writing an event";
        let mut tx = self.begin(during).await?;
        NewEvent::new(now, kind, text).write(&mut tx).await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn activation_in(&self, status: ActivationStatus) -> Result<Option<Activation>, StoreError> {
        let row: Option<ActivationRow> = sqlx::query_as(activations!("WHERE status = ? ORDER BY id DESC LIMIT 1"))
            .bind(status.as_str())
            .fetch_optional(&self.read)
            .await
            .during("reading which model is active")?;
        row.map(ActivationRow::activation).transpose()
    }

    pub(crate) async fn activation(&self, id: i64) -> Result<Activation, StoreError> {
        let row: Option<ActivationRow> = sqlx::query_as(activations!("WHERE id = ?"))
            .bind(id)
            .fetch_optional(&self.read)
            .await
            .during("reading an activation")?;
        row.ok_or_else(|| StoreError::NotFound { what: format!("activation {id}") })?.activation()
    }

    pub(crate) async fn activations(&self, limit: u32) -> Result<Vec<Activation>, StoreError> {
        let rows: Vec<ActivationRow> = sqlx::query_as(activations!("ORDER BY id DESC LIMIT ?"))
            .bind(limit)
            .fetch_all(&self.read)
            .await
            .during("reading the history of models")?;
        rows.into_iter().map(ActivationRow::activation).collect()
    }

    /// The model that was active last, the active one left out.
    pub(crate) async fn former_model(&self) -> Result<ModelId, StoreError> {
        let former: Option<String> = sqlx::query_scalar(
            "SELECT model FROM model_activation WHERE status = 'former'
                 AND model NOT IN (SELECT model FROM model_activation WHERE status = 'active')
             ORDER BY until_at DESC, id DESC LIMIT 1",
        )
        .fetch_optional(&self.read)
        .await
        .during("looking for the former model")?;
        parse_model(former)?.ok_or_else(|| StoreError::NotFound { what: "a former model to roll back to".to_owned() })
    }

    pub(crate) async fn request_model(
        &self,
        model: &ModelId,
        kind: ActivationKind,
        actor: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<Activation, StoreError> {
        let during = "asking for a model";
        let mut tx = self.begin(during).await?;
        require_offer(&mut tx, model).await?;
        let active: Option<String> = sqlx::query_scalar("SELECT model FROM model_activation WHERE status = 'active'")
            .fetch_optional(&mut *tx)
            .await
            .during(during)?;
        if active.as_deref() == Some(model.as_str()) {
            return Err(StoreError::Filter { what: format!("{model} is the active model already") });
        }
        sqlx::query("UPDATE model_activation SET status = 'refused', words = ? WHERE status = 'requested'")
            .bind("it gave way to a later request")
            .execute(&mut *tx)
            .await
            .during(during)?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO model_activation (model, kind, status, actor, why, requested_at)
             VALUES (?, ?, 'requested', ?, ?, ?) RETURNING id",
        )
        .bind(model.as_str())
        .bind(kind.as_str())
        .bind(actor)
        .bind(why)
        .bind(now.as_millis())
        .fetch_one(&mut *tx)
        .await
        .during(during)?;
        NewEvent::new(
            now,
            "model-requested",
            format!("{actor} asks for model {model} to become the active one: {why}"),
        )
        .detail(json!({ "model": model, "kind": kind, "actor": actor, "why": why }))
        .write(&mut tx)
        .await?;
        tx.commit().await.during(during)?;
        Ok(Activation {
            id,
            model: model.clone(),
            kind,
            status: ActivationStatus::Requested,
            actor: actor.to_owned(),
            why: why.to_owned(),
            requested_at: now,
            from_at: None,
            until_at: None,
            words: None,
        })
    }

    pub(crate) async fn settle_model(
        &self,
        requested: &Activation,
        outcome: Result<(), String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "changing the active model";
        let mut tx = self.begin(during).await?;
        let Activation { id, model, actor, why, .. } = requested;
        let (kind, text, changed) = match &outcome {
            Ok(()) => {
                let before = retire(&mut tx, now).await?;
                let changed = sqlx::query(
                    "UPDATE model_activation SET status = 'active', from_at = ? WHERE id = ? AND status = 'requested'",
                )
                .bind(now.as_millis())
                .bind(id)
                .execute(&mut *tx)
                .await
                .during(during)?;
                let before = before.map_or_else(String::new, |before| format!(" instead of {before}"));
                ("model-activated", format!("model {model} is active{before}, by {actor}: {why}"), changed)
            }
            Err(reason) => {
                let changed = sqlx::query(
                    "UPDATE model_activation SET status = 'refused', words = ? WHERE id = ? AND status = 'requested'",
                )
                .bind(reason)
                .bind(id)
                .execute(&mut *tx)
                .await
                .during(during)?;
                ("model-refused", format!("model {model} does not become active: {reason}"), changed)
            }
        };
        one_row(changed.rows_affected(), || format!("the activation of {model}"))?;
        NewEvent::new(now, kind, text)
            .detail(json!({ "model": model, "actor": actor, "why": why, "refused": outcome.err() }))
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn adopt_model(&self, model: &ModelId, why: &str, now: Timestamp) -> Result<(), StoreError> {
        let during = "taking over the model of the configuration";
        let mut tx = self.begin(during).await?;
        let before = retire(&mut tx, now).await?;
        sqlx::query(
            "INSERT INTO model_activation (model, kind, status, actor, why, requested_at, from_at)
             VALUES (?1, 'configured', 'active', 'configuration', ?2, ?3, ?3)",
        )
        .bind(model.as_str())
        .bind(why)
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .during(during)?;
        NewEvent::new(now, "model-activated", format!("model {model} is active, by the configuration: {why}"))
            .detail(json!({ "model": model, "actor": "configuration", "why": why, "before": before }))
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn reanalyse(&self, wish: &ReanalysisWish, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let during = "queueing another analysis";
        let mut tx = self.begin(during).await?;
        let state = require_offer(&mut tx, &wish.model).await?;
        if state == OfferState::Failed {
            return Err(StoreError::Filter { what: format!("model {} cannot be used at present", wish.model) });
        }
        let found: Option<(i64, String, i64)> =
            sqlx::query_as("SELECT id, status, version FROM study WHERE study_instance = ?")
                .bind(wish.study.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(during)?;
        let Some((study, status, version)) = found else {
            return Err(StoreError::NotFound { what: format!("study {}", wish.study) });
        };
        let status: StudyStatus = word(&status)?;
        let refusal = match status {
            StudyStatus::Receiving | StudyStatus::Queued | StudyStatus::Analysing => {
                Some(RetryOutcome::UnderWay { status, deliveries: 0 })
            }
            _ if version == 0 => Some(RetryOutcome::NothingToAnalyse),
            _ if has_gaps(&mut tx, study).await? => Some(RetryOutcome::PixelsRemoved { deliveries: 0 }),
            _ => None,
        };
        if let Some(refusal) = refusal {
            tx.commit_with(&refusal).await.during(during)?;
            return Ok(refusal);
        }
        let version = version + 1;
        sqlx::query("UPDATE study SET version = ? WHERE id = ?")
            .bind(version)
            .bind(study)
            .execute(&mut *tx)
            .await
            .during(during)?;
        set_status(&mut tx, study, StudyStatus::Queued, None).await?;
        sqlx::query(
            "INSERT INTO analysis (study_id, version, status, queued_at, not_before, wanted_model)
             VALUES (?1, ?2, 'queued', ?3, ?3, ?4)",
        )
        .bind(study)
        .bind(version)
        .bind(now.as_millis())
        .bind(wish.model.as_str())
        .execute(&mut *tx)
        .await
        .during(during)?;
        let ReanalysisWish { model, actor, why, .. } = wish;
        NewEvent::new(now, "reanalysis-asked", format!("{actor} asks for version {version} by model {model}: {why}"))
            .detail(json!({ "version": version, "model": model, "actor": actor, "why": why }))
            .study(study)
            .write(&mut tx)
            .await?;
        let outcome = RetryOutcome::Queued { version: unsigned(version)?, deliveries: 0 };
        tx.commit_with(&outcome).await.during(during)?;
        Ok(outcome)
    }
}

/// The active model becomes a former one; which that was.
async fn retire(connection: &mut Connection, now: Timestamp) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar(
        "UPDATE model_activation SET status = 'former', until_at = ? WHERE status = 'active' RETURNING model",
    )
    .bind(now.as_millis())
    .fetch_optional(connection)
    .await
    .during("changing the active model")
}

async fn require_offer(connection: &mut Connection, model: &ModelId) -> Result<OfferState, StoreError> {
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM model_offer WHERE model = ? ORDER BY position LIMIT 1")
            .bind(model.as_str())
            .fetch_optional(connection)
            .await
            .during("looking for a model")?;
    match state {
        Some(state) => word(&state),
        None => {
            Err(StoreError::NotFound { what: format!("model {model} among those that the daemon is configured with") })
        }
    }
}
