//! Statements of forwarding.

use std::net::{IpAddr, SocketAddr};

use ichor_core::{AeTitle, Uid};
use serde_json::json;

use super::Sqlite;
use super::events::NewEvent;
use super::failure::During;
use super::values::{blob as parse_blob, uid, unsigned, word};
use crate::blobs::BlobStore;
use crate::forward::{ClosedStudy, ForwardedDepth, Forwarding};
use crate::{StoreError, Timestamp};

type StudyRow = (i64, String, i64, Option<String>, Option<String>, Option<String>);

/// The peer that sent the first instance of the study `s`.
const PEER: &str = "(SELECT a.peer_address FROM instance i JOIN association a ON a.id = i.association_id
    WHERE i.study_id = s.id AND i.own = 0 ORDER BY i.id LIMIT 1)";

/// The address of a peer as it is written down, with its port; what was fetched has a URL.
fn address(peer: &str) -> Option<IpAddr> {
    peer.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| peer.parse()).ok()
}

impl Sqlite {
    pub(crate) async fn forwarded(&self, study: &Uid) -> Result<Vec<ForwardedDepth>, StoreError> {
        // Beside one MAX, SQLite takes what is not grouped from the row that has it.
        let rows: Vec<(String, String, i64, i64, Option<String>)> = sqlx::query_as(
            "SELECT destination, status, COUNT(*), MAX(id), last_words FROM outbox
             WHERE study_id = (SELECT id FROM study WHERE study_instance = ?) AND instance_id IS NOT NULL
             GROUP BY destination, status ORDER BY destination, status",
        )
        .bind(study.as_str())
        .fetch_all(&self.read)
        .await
        .during("counting what is forwarded")?;
        let depth = |(destination, status, count, _, last_words): (String, String, i64, i64, Option<String>)| {
            Ok(ForwardedDepth { destination, status: word(&status)?, count: unsigned(count)?, last_words })
        };
        rows.into_iter().map(depth).collect()
    }

    pub(crate) async fn undecided_studies(&self, blobs: &BlobStore, most: u32) -> Result<Vec<ClosedStudy>, StoreError> {
        let rows: Vec<StudyRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT id, study_instance, version, source_ae,
                 (SELECT blob FROM instance WHERE study_id = s.id AND own = 0 AND removed_at IS NULL ORDER BY id LIMIT 1),
                 {PEER}
             FROM study s WHERE version > forwarded_version ORDER BY id LIMIT ?"
        )))
        .bind(most)
        .fetch_all(&self.read)
        .await
        .during("looking for studies to forward")?;
        let study = |(id, study, version, source, blob, peer): StudyRow| {
            let path = blob.map(|blob| Ok::<_, StoreError>(blobs.path_of(&parse_blob(&blob)?))).transpose()?;
            Ok(ClosedStudy {
                id,
                study_instance: uid(&study)?,
                version: unsigned(version)?,
                source_ae: source.and_then(|title| AeTitle::parse(&title).ok()),
                source_address: peer.as_deref().and_then(address),
                first_instance: path,
            })
        };
        rows.into_iter().map(study).collect()
    }

    pub(crate) async fn source_address(&self, study: &Uid) -> Result<Option<IpAddr>, StoreError> {
        let statement = format!("SELECT {PEER} FROM study s WHERE s.study_instance = ?");
        let peer: Option<Option<String>> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .bind(study.as_str())
            .fetch_optional(&self.read)
            .await
            .during("looking for the sender of a study")?;
        Ok(peer.flatten().as_deref().and_then(address))
    }

    pub(crate) async fn forward(
        &self,
        study: &ClosedStudy,
        forwarding: &Forwarding,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let during = "forwarding a study";
        let mut tx = self.begin(during).await?;
        let mut queued = 0;
        for destination in &forwarding.destinations {
            queued += sqlx::query(
                "INSERT INTO outbox (study_id, instance_id, destination, status, urgent, queued_at, next_attempt)
                 SELECT study_id, id, ?1, 'queued', ?2, ?3, ?3 FROM instance
                 WHERE study_id = ?4 AND own = 0 AND removed_at IS NULL ORDER BY id
                 ON CONFLICT (instance_id, destination) DO NOTHING",
            )
            .bind(destination)
            .bind(forwarding.urgent)
            .bind(now.as_millis())
            .bind(study.id)
            .execute(&mut *tx)
            .await
            .during(during)?
            .rows_affected();
        }
        sqlx::query("UPDATE study SET forwarded_version = ?1 WHERE id = ?2 AND forwarded_version < ?1")
            .bind(study.version)
            .bind(study.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        if let Some(words) = &forwarding.words {
            NewEvent::new(now, "forwarded", format!("{words}; {queued} instances are queued"))
                .detail(
                    json!({ "destinations": forwarding.destinations, "instances": queued, "version": study.version }),
                )
                .study(study.id)
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)?;
        Ok(queued)
    }

    pub(crate) async fn forwarding_waits(
        &self,
        study: &ClosedStudy,
        why: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "noting why a study is not forwarded yet";
        let mut tx = self.begin(during).await?;
        let is_known: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM event WHERE study_id = ? AND kind = 'forwarding-waits'
                 AND json_extract(detail, '$.version') = ?)",
        )
        .bind(study.id)
        .bind(study.version)
        .fetch_one(&mut *tx)
        .await
        .during(during)?;
        if !is_known {
            let text = format!("not forwarded yet: rules cannot look at the first instance ({why}); tried again");
            NewEvent::new(now, "forwarding-waits", text)
                .detail(json!({ "version": study.version }))
                .study(study.id)
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)
    }
}
