//! Databases as files: a copy at one moment, a look without touching, and the blobs that one names.

use std::path::Path;

use ichor_core::Uid;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection as _};

use super::failure::During;
use super::values::{uid, unsigned};
use super::{Connection, schema};
use crate::backup::Examined;
use crate::{BlobRef, StoreError, Timestamp};

/// Copies a database in use to a file that does not exist, as it is at one moment.
pub(crate) async fn copy_database(database: &Path, to: &Path) -> Result<(), StoreError> {
    let during = "copying the database";
    let name = to.to_str().ok_or_else(|| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8");
        StoreError::file("writing", to, source)
    })?;
    let mut connection = read_only(database, during).await?;
    sqlx::query("VACUUM INTO ?").bind(name).execute(&mut connection).await.during(during)?;
    connection.close().await.during(during)
}

/// Whether a database is ours and of which schema; `deep` also has its pages checked.
pub(crate) async fn examine_database(database: &Path, deep: bool) -> Result<Examined, StoreError> {
    let found = schema::check(database).await?;
    if deep {
        let during = "checking the database";
        let mut connection = read_only(database, during).await?;
        let verdict: String =
            sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await.during(during)?;
        connection.close().await.during(during)?;
        if verdict != "ok" {
            return Err(StoreError::corrupt(format!("a damaged database, {} ({verdict})", database.display())));
        }
    }
    Ok(Examined { schema: found, newest: schema::newest_known() })
}

/// A blob that a database names.
#[derive(Clone, Debug)]
pub(crate) struct ListedBlob {
    pub(crate) blob: BlobRef,
    pub(crate) size: u64,
    pub(crate) digest: [u8; 32],
    /// Study Instance UID.
    pub(crate) study: Uid,
    /// `instance`, `conflict`, `object` or `attribution_map`.
    pub(crate) kind: String,
    /// SOP Instance UID; of maps, which are no instance, that of the study.
    pub(crate) sop_instance: Uid,
}

/// A row of it.
type ListedRow = (String, i64, Vec<u8>, String, String, String);

/// Blobs that a database names, in the order of their names: up to `most` that come after `after`.
pub(crate) async fn listed_blobs(
    database: &Path,
    after: Option<&BlobRef>,
    most: usize,
) -> Result<Vec<ListedBlob>, StoreError> {
    list(database, "b.blob > ?1", after.map_or("", BlobRef::as_str), most).await
}

/// Whether a database still names a blob as one that is kept.
pub(crate) async fn is_listed(database: &Path, blob: &BlobRef) -> Result<bool, StoreError> {
    Ok(!list(database, "b.blob = ?1", blob.as_str(), 1).await?.is_empty())
}

async fn list(database: &Path, which: &str, blob: &str, most: usize) -> Result<Vec<ListedBlob>, StoreError> {
    let during = "listing blobs";
    let mut connection = read_only(database, during).await?;
    // A backup of before there was retention has nothing that is no longer kept.
    let knows_removal: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pragma_table_info('instance') WHERE name = 'removed_at')")
            .fetch_one(&mut connection)
            .await
            .during(during)?;
    let kept = if knows_removal { "AND b.removed_at IS NULL" } else { "" };
    // Each table has an index on its blobs.
    let of = |table: &str, joins: &str, sop_instance: &str| {
        format!(
            "SELECT * FROM (SELECT b.blob AS blob, b.size, b.digest, s.study_instance, '{table}', {sop_instance}
             FROM {table} b {joins} WHERE {which} {kept} ORDER BY b.blob LIMIT ?2)"
        )
    };
    let knows_maps: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'attribution_map')",
    )
    .fetch_one(&mut connection)
    .await
    .during(during)?;
    let own = "JOIN study s ON s.id = b.study_id";
    let of_instance = "JOIN instance i ON i.id = b.instance_id JOIN study s ON s.id = i.study_id";
    let mut tables = vec![
        of("instance", own, "b.sop_instance"),
        of("conflict", of_instance, "i.sop_instance"),
        of("object", own, "b.sop_instance"),
    ];
    if knows_maps {
        tables.push(of("attribution_map", own, "s.study_instance"));
    }
    let statement = format!("{} ORDER BY blob LIMIT ?2", tables.join(" UNION ALL "));
    let rows: Vec<ListedRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(blob)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut connection)
        .await
        .during(during)?;
    connection.close().await.during(during)?;
    rows.into_iter().map(listed).collect()
}

fn listed((blob, size, digest, study, kind, sop_instance): ListedRow) -> Result<ListedBlob, StoreError> {
    let parsed = BlobRef::parse(&blob).zip(u64::try_from(size).ok()).zip(digest.try_into().ok());
    let ((blob, size), digest) = parsed.ok_or_else(|| StoreError::corrupt(format!("the blob {blob:?}")))?;
    Ok(ListedBlob { blob, size, digest, study: uid(&study)?, kind, sop_instance: uid(&sop_instance)? })
}

/// What of access came back with a database.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RestoredAccess {
    /// Sessions that were ended.
    pub(crate) sessions: u64,
    /// Tokens that are valid again.
    pub(crate) tokens: u64,
    /// Tokens that were revoked.
    pub(crate) revoked: u64,
}

/// Ends every session and withdraws every invitation in a database that nobody uses yet; with a moment, tokens are revoked at it.
pub(crate) async fn end_sessions(
    database: &Path,
    revoke_tokens: Option<Timestamp>,
) -> Result<RestoredAccess, StoreError> {
    let during = "ending sessions";
    let options = SqliteConnectOptions::new().filename(database).create_if_missing(false);
    // No log beside it: the file is renamed as it is.
    let mut connection = options.journal_mode(SqliteJournalMode::Delete).connect().await.during(during)?;
    let knows_access: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'admin_session')",
    )
    .fetch_one(&mut connection)
    .await
    .during(during)?;
    let mut access = RestoredAccess::default();
    if knows_access {
        let ended = sqlx::query("DELETE FROM admin_session").execute(&mut connection).await.during(during)?;
        sqlx::query("DELETE FROM admin_invitation").execute(&mut connection).await.during(during)?;
        let revoked = sqlx::query("UPDATE admin_token SET revoked_at = ?1 WHERE revoked_at IS NULL AND ?1 IS NOT NULL")
            .bind(revoke_tokens.map(Timestamp::as_millis))
            .execute(&mut connection)
            .await
            .during(during)?;
        let tokens: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM admin_token WHERE revoked_at IS NULL")
            .fetch_one(&mut connection)
            .await
            .during(during)?;
        access = RestoredAccess {
            sessions: ended.rows_affected(),
            tokens: unsigned(tokens)?,
            revoked: revoked.rows_affected(),
        };
    }
    connection.close().await.during(during)?;
    Ok(access)
}

async fn read_only(database: &Path, during: &str) -> Result<Connection, StoreError> {
    let options = SqliteConnectOptions::new().filename(database).read_only(true).create_if_missing(false);
    options.connect().await.during(during)
}
