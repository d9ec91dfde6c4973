//! Databases as files: a copy at one moment, a look without touching, and the blobs that one names.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection as _};

use super::failure::During;
use super::values::unsigned;
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

/// Blobs that a database names, with their sizes, in the order of their names: up to `most` that come after `after`.
pub(crate) async fn listed_blobs(
    database: &Path,
    after: Option<&BlobRef>,
    most: usize,
) -> Result<Vec<(BlobRef, u64)>, StoreError> {
    let during = "listing blobs";
    let mut connection = read_only(database, during).await?;
    let after = after.map_or("", BlobRef::as_str);
    // A backup of before there was retention has nothing that is no longer kept.
    let knows_removal: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pragma_table_info('instance') WHERE name = 'removed_at')")
            .fetch_one(&mut connection)
            .await
            .during(during)?;
    let kept = if knows_removal { "AND removed_at IS NULL" } else { "" };
    // Each table has an index on its blobs.
    let of = |table: &str| {
        format!("SELECT blob, size FROM (SELECT blob, size FROM {table} WHERE blob > ?1 {kept} ORDER BY blob LIMIT ?2)")
    };
    let tables = ["instance", "conflict", "object"].map(of).join(" UNION ALL ");
    let rows: Vec<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{tables} ORDER BY blob LIMIT ?2")))
        .bind(after)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut connection)
        .await
        .during(during)?;
    connection.close().await.during(during)?;
    let understood = |(blob, size): (String, i64)| {
        let size = u64::try_from(size).ok();
        let parsed = BlobRef::parse(&blob).zip(size);
        parsed.ok_or_else(|| StoreError::corrupt(format!("the blob {blob:?}")))
    };
    rows.into_iter().map(understood).collect()
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
