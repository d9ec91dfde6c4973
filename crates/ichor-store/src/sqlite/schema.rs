//! The schema: whose database it is, of which version, and the way to the present one.

use std::path::Path;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions, Connection as _};

use super::failure::{During, is_not_a_database};
use crate::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// `application_id` of our databases: "ICHR".
const APPLICATION_ID: i64 = 0x4943_4852;

/// The newest migration that this program knows.
pub(crate) fn newest_known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Refuses a database that is not ours or is newer than this program, through a connection that cannot write. Answers with
/// its newest migration, `None` if it is empty.
pub(super) async fn check(database: &Path) -> Result<Option<i64>, StoreError> {
    let foreign = || StoreError::ForeignDatabase { path: database.to_owned() };
    let length = tokio::fs::metadata(database).await.map_err(|e| StoreError::file("opening", database, e))?.len();
    if length == 0 {
        return Ok(None);
    }
    let options = SqliteConnectOptions::new().filename(database).read_only(true).create_if_missing(false);
    let looking = "looking at the schema";
    let mut connection = match options.connect().await {
        Err(error) if is_not_a_database(&error) => return Err(foreign()),
        connected => connected.during(looking)?,
    };
    let application = match sqlx::query_scalar::<_, i64>("PRAGMA application_id").fetch_one(&mut connection).await {
        Err(error) if is_not_a_database(&error) => return Err(foreign()),
        read => read.during(looking)?,
    };
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name NOT IN ('_sqlx_migrations', 'sqlite_sequence')",
    )
    .fetch_one(&mut connection)
    .await
    .during(looking)?;
    // Empty databases are ours: the crash came before the first migration was through.
    let verdict = if tables == 0 {
        Ok(None)
    } else if application != APPLICATION_ID {
        Err(foreign())
    } else {
        let found: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await
            .during(looking)?;
        refuse_newer(database, found.unwrap_or(0)).map(|()| found)
    };
    connection.close().await.during(looking)?;
    verdict
}

fn refuse_newer(database: &Path, found: i64) -> Result<(), StoreError> {
    let known = newest_known();
    if found > known {
        return Err(StoreError::NewerDatabase { path: database.to_owned(), found, known });
    }
    Ok(())
}

/// Brings the database to the present schema.
pub(super) async fn migrate(pool: &SqlitePool, database: &Path) -> Result<(), StoreError> {
    MIGRATIONS.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => {
            StoreError::NewerDatabase { path: database.to_owned(), found, known: newest_known() }
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            match Err::<(), _>(error).during("migrating the database") {
                Err(error) => error,
                Ok(()) => StoreError::Closed,
            }
        }
        other => StoreError::Database { during: "migrating the database".into(), source: Box::new(other) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_said_of_slices_outlives_the_key_that_takes_frames_in() {
        let folder = crate::folder();
        let path = folder.path().join("ichor.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).foreign_keys(true);
        let mut connection = options.connect().await.unwrap();
        let before = concat!(
            include_str!("../../../../migrations/0001_job_log.sql"),
            include_str!("../../../../migrations/0002_triage.sql"),
            include_str!("../../../../migrations/0003_storage_commitment.sql"),
            include_str!("../../../../migrations/0004_gate_rules.sql"),
            "INSERT INTO study (id, study_instance, status, quiet_until, received_at, last_instance_at)
                 VALUES (1, '1.2', 'receiving', 9, 1, 1);
             INSERT INTO series (id, study_id, series_instance) VALUES (1, 1, '1.3');
             INSERT INTO instance (id, study_id, series_id, sop_instance, sop_class, transfer_syntax, received_at, own,
                 blob, size, digest) VALUES (7, 1, 1, '1.4', '1.5', '1.6', 1, 0, 'b', 1, x'00');
             INSERT INTO slice_probability VALUES (7, 'm', 0.25, 1.5), (7, 'n', 0.5, 1.5);
             INSERT INTO analysis (id, study_id, version, status, queued_at, not_before) VALUES (1, 1, 1, 'done', 1, 1);
             INSERT INTO slice_score VALUES (1, 0, '1.4', 0.25, 12);",
        );
        sqlx::raw_sql(before).execute(&mut connection).await.unwrap();
        sqlx::raw_sql(include_str!("../../../../migrations/0005_frames.sql")).execute(&mut connection).await.unwrap();
        let said: Vec<(i64, i64, String, f64, f64)> = sqlx::query_as(
            "SELECT instance_id, frame, model, probability, height_mm FROM slice_probability ORDER BY model",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(said, [(7, 0, "m".to_owned(), 0.25, 1.5), (7, 0, "n".to_owned(), 0.5, 1.5)]);
        let scores: Vec<(String, Option<i64>, f64, i64)> =
            sqlx::query_as("SELECT sop_instance, frame, probability, masked_pixels FROM slice_score")
                .fetch_all(&mut connection)
                .await
                .unwrap();
        assert_eq!(scores, [("1.4".to_owned(), None, 0.25, 12)]);
        let broken: Vec<(String,)> =
            sqlx::query_as("SELECT \"table\" FROM pragma_foreign_key_check").fetch_all(&mut connection).await.unwrap();
        assert!(broken.is_empty(), "{broken:?}");
        connection.close().await.unwrap();
    }

    #[tokio::test]
    async fn tasks_outlive_the_table_that_knows_refusals() {
        let folder = crate::folder();
        let path = folder.path().join("ichor.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).foreign_keys(true);
        let mut connection = options.connect().await.unwrap();
        let before = concat!(
            include_str!("../../../../migrations/0020_tasks.sql"),
            "INSERT INTO task (id, list, workitem, transaction_uid, status, study_instance, urgent, request, ending,
                 next_attempt, seen_at, failures)
                 VALUES (7, 'L', '1.2', '2.25.1', 'ending', '1.3', 1, '{}', '{\"is_completed\":true}', 30, 10, 4);",
        );
        sqlx::raw_sql(before).execute(&mut connection).await.unwrap();
        let moving = include_str!("../../../../migrations/0026_refused_tasks.sql");
        sqlx::raw_sql(moving).execute(&mut connection).await.unwrap();
        let (id, transaction, status, failures, refusals, since): (i64, String, String, i64, i64, i64) =
            sqlx::query_as("SELECT id, transaction_uid, status, failures, refusals, asked_since FROM task")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!((id, transaction.as_str(), status.as_str()), (7, "2.25.1", "ending"), "the claim is known still");
        assert_eq!((failures, refusals, since), (4, 0, 30));
        sqlx::query("UPDATE task SET status = 'refused'").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_provider_can_end_sessions_of_before() {
        let folder = crate::folder();
        let path = folder.path().join("ichor.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).foreign_keys(true);
        let mut connection = options.connect().await.unwrap();
        let before = concat!(
            include_str!("../../../../migrations/0011_access.sql"),
            include_str!("../../../../migrations/0020_tasks.sql"),
            include_str!("../../../../migrations/0022_oidc.sql"),
            "INSERT INTO admin_user (id, name, role, created_at, source, subject)
                 VALUES (1, 'anna', 'viewer', 1, 'oidc', '[\"https://a\",\"1\"]'), (2, 'bob', 'viewer', 1, 'local', NULL);
             INSERT INTO admin_session VALUES (x'01', 1, 'w', 1, 9), (x'02', 2, 'w', 1, 9);",
        );
        sqlx::raw_sql(before).execute(&mut connection).await.unwrap();
        let with_logout = include_str!("../../../../migrations/0028_lists_and_logout.sql");
        sqlx::raw_sql(with_logout).execute(&mut connection).await.unwrap();
        let provided: Vec<(i64, bool)> =
            sqlx::query_as("SELECT user_id, is_provided FROM admin_session ORDER BY user_id")
                .fetch_all(&mut connection)
                .await
                .unwrap();
        assert_eq!(provided, [(1, true), (2, false)]);
        connection.close().await.unwrap();
    }
}
