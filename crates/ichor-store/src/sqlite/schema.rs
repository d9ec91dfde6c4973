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

fn newest_known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Refuses a database that is not ours or is newer than this program, through a connection that cannot write.
pub(super) async fn check(database: &Path) -> Result<(), StoreError> {
    let foreign = || StoreError::ForeignDatabase { path: database.to_owned() };
    let length = tokio::fs::metadata(database).await.map_err(|e| StoreError::file("opening", database, e))?.len();
    if length == 0 {
        return Ok(());
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
        Ok(())
    } else if application != APPLICATION_ID {
        Err(foreign())
    } else {
        let found: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await
            .during(looking)?;
        refuse_newer(database, found.unwrap_or(0))
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
