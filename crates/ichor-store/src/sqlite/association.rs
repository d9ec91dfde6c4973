//! Statements about associations.

use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::values::signed;
use super::{Connection, Sqlite};
use crate::events::peer_text;
use crate::receive::{AssociationEnd, AssociationId, NewAssociation};
use crate::{StoreError, Timestamp};

impl Sqlite {
    pub(crate) async fn association_opened(
        &self,
        association: &NewAssociation,
        now: Timestamp,
    ) -> Result<AssociationId, StoreError> {
        let during = "recording an association";
        let (peer, calling, called) = peer_words(association);
        let mut tx = self.begin(during).await?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO association (peer_address, calling_ae, called_ae, opened_at) VALUES (?, ?, ?, ?) RETURNING id",
        )
        .bind(&peer)
        .bind(&calling)
        .bind(&called)
        .bind(now.as_millis())
        .fetch_one(&mut *tx)
        .await
        .during(during)?;
        NewEvent::new(now, "association-opened", format!("{calling} at {peer} opened an association with {called}"))
            .detail(json!({ "association": id, "peer": peer, "calling_ae": calling, "called_ae": called }))
            .association(Some(id))
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)?;
        Ok(AssociationId(id))
    }

    pub(crate) async fn association_refused(
        &self,
        association: &NewAssociation,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a refusal";
        let (peer, calling, called) = peer_words(association);
        let reason = peer_text(reason);
        let mut tx = self.begin(during).await?;
        NewEvent::new(now, "association-refused", format!("{calling} at {peer} was refused: {reason}"))
            .detail(json!({ "peer": peer, "calling_ae": calling, "called_ae": called, "reason": reason }))
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn association_closed(
        &self,
        association: AssociationId,
        end: &AssociationEnd,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin("recording the end of an association").await?;
        let known: Option<Option<i64>> = sqlx::query_scalar("SELECT closed_at FROM association WHERE id = ?")
            .bind(association.0)
            .fetch_optional(&mut *tx)
            .await
            .during("recording the end of an association")?;
        match known {
            None => return Err(StoreError::NotFound { what: format!("association {}", association.0) }),
            Some(Some(_)) => return Ok(()),
            Some(None) => end_association(&mut tx, association.0, end, now).await?,
        }
        tx.commit().await.during("recording the end of an association")
    }
}

fn peer_words(association: &NewAssociation) -> (String, String, String) {
    let NewAssociation { peer_address, calling_ae, called_ae } = association;
    (peer_text(peer_address), peer_text(calling_ae), peer_text(called_ae))
}

/// Ends an open association and starts the quiet period anew of the receiving studies that it brought something to.
pub(super) async fn end_association(
    connection: &mut Connection,
    association: i64,
    end: &AssociationEnd,
    now: Timestamp,
) -> Result<(), StoreError> {
    let during = "recording the end of an association";
    let outcome = peer_text(&end.outcome);
    let calling: String = sqlx::query_scalar(
        "UPDATE association SET closed_at = ?, outcome = ?, instances = ?, bytes = ? WHERE id = ? RETURNING calling_ae",
    )
    .bind(now.as_millis())
    .bind(&outcome)
    .bind(signed(end.instances))
    .bind(signed(end.bytes))
    .bind(association)
    .fetch_one(&mut *connection)
    .await
    .during(during)?;
    sqlx::query(
        "UPDATE study SET quiet_until = MAX(quiet_until, ?1 + quiet_period)
         WHERE status = 'receiving'
           AND id IN (SELECT study_id FROM instance WHERE association_id = ?2 AND own = 0)",
    )
    .bind(now.as_millis())
    .bind(association)
    .execute(&mut *connection)
    .await
    .during(during)?;
    let text = format!("association of {calling} {outcome}: {} instances, {} bytes", end.instances, end.bytes);
    NewEvent::new(now, "association-closed", text)
        .detail(json!({
            "association": association, "outcome": outcome, "instances": end.instances, "bytes": end.bytes,
        }))
        .association(Some(association))
        .write(connection)
        .await
}
