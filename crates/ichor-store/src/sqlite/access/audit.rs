//! Statements of the audit trail.

use ichor_core::Uid;
use sqlx::QueryBuilder;

use super::super::failure::During;
use super::super::values::{from_json, uid};
use super::super::{Connection, Dialect, Sqlite};
use crate::access::{AuditEntry, AuditFilter, NewAudit};
use crate::{StoreError, Timestamp};

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    at: i64,
    actor: String,
    role: Option<String>,
    address: String,
    action: String,
    study_instance: Option<String>,
    detail: String,
}

impl Sqlite {
    pub(crate) async fn audit(&self, entry: &NewAudit) -> Result<(), StoreError> {
        let during = "writing the audit trail";
        let mut connection = self.unwitnessed(during)?.acquire().await.during(during)?;
        insert(&mut connection, entry).await.during(during)
    }

    pub(crate) async fn audited(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let mut statement = QueryBuilder::<Dialect>::new(
            "SELECT a.id, a.at, a.actor, a.role, a.address, a.action, s.study_instance, a.detail
             FROM audit a LEFT JOIN study s ON s.id = a.study_id WHERE TRUE",
        );
        if let Some(actor) = &filter.actor {
            statement.push(" AND a.actor = ").push_bind(actor.clone());
        }
        if let Some(study) = &filter.study {
            statement.push(" AND a.study_id = (SELECT id FROM study WHERE study_instance = ");
            statement.push_bind(study.as_str().to_owned()).push(")");
        }
        if let Some(before) = filter.before {
            statement.push(" AND a.id < ").push_bind(before);
        }
        statement.push(" ORDER BY a.id DESC LIMIT ").push_bind(limit);
        let rows: Vec<Row> =
            statement.build_query_as().fetch_all(&self.read).await.during("reading the audit trail")?;
        let entry = |row: Row| {
            Ok(AuditEntry {
                id: row.id,
                at: Timestamp::from_millis(row.at),
                actor: row.actor,
                role: row.role,
                address: row.address,
                action: row.action,
                study_instance: row.study_instance.as_deref().map(uid).transpose()?,
                detail: from_json(&row.detail)?,
            })
        };
        rows.into_iter().map(entry).collect()
    }
}

/// Writes a row, in the transaction that the connection is in.
pub(in crate::sqlite) async fn insert(connection: &mut Connection, entry: &NewAudit) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (at, actor, role, address, action, study_id, detail)
         VALUES (?, ?, ?, ?, ?, (SELECT id FROM study WHERE study_instance = ?), ?)",
    )
    .bind(entry.at.as_millis())
    .bind(&entry.actor)
    .bind(entry.role.map(crate::access::Role::as_str))
    .bind(&entry.address)
    .bind(entry.action)
    .bind(entry.study.as_ref().map(Uid::as_str))
    .bind(entry.detail.to_string())
    .execute(connection)
    .await?;
    Ok(())
}
