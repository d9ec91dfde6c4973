use std::sync::Arc;

use ichor_core::Uid;
use sqlx::{ConnectOptions, Connection as _, Row};
use tempfile::TempDir;

use super::*;
use crate::blobs::FaultyDisk;
use crate::folder;
use crate::{ArrivedBlob, NewInstance, Recorded, SeriesAttributes, Store, StudyAttributes, Timestamp};

pub(super) fn options(folder: &TempDir) -> StoreOptions {
    StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"))
}

/// Everything in a folder but shared memory and locks, with its bytes.
fn snapshot(folder: &TempDir) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.to_string_lossy().contains("-open"))
        .filter(|path| !path.to_string_lossy().ends_with("-shm"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .filter(|(path, bytes)| !(bytes.is_empty() && path.to_string_lossy().ends_with("-wal")))
        .collect();
    files.sort();
    files
}

async fn write_to(folder: &TempDir, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(folder.path().join("ichor.db")).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn refused(folder: &TempDir) -> StoreError {
    let before = snapshot(folder);
    let error = Store::open(&options(folder)).await.unwrap_err();
    assert_eq!(snapshot(folder), before, "{error}: the files were touched");
    assert!(!folder.path().join("blobs").join("incoming").exists() || folder.path().join("blobs").is_dir());
    error
}

#[tokio::test]
async fn newer_database_is_refused_untouched() {
    let folder = folder();
    let store = Store::open(&options(&folder)).await.unwrap();
    store.close().await;
    write_to(
        &folder,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0);",
    )
    .await;
    match refused(&folder).await {
        StoreError::NewerDatabase { found: 9999, known, .. } => assert!(known < 9999),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn foreign_files_are_refused_untouched() {
    let foreign = folder();
    write_to(&foreign, "CREATE TABLE customer (id INTEGER PRIMARY KEY);").await;
    assert!(matches!(refused(&foreign).await, StoreError::ForeignDatabase { .. }));

    let text = folder();
    std::fs::write(
        text.path().join("ichor.db"),
        "not a database, but longer than a header of one hundred bytes. ".repeat(20),
    )
    .unwrap();
    assert!(matches!(refused(&text).await, StoreError::ForeignDatabase { .. }));
}

#[tokio::test]
async fn settings_are_those_that_durability_rests_on() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    let pragma = async |pool: &SqlitePool, statement: &'static str| -> String {
        let row = sqlx::query(statement).fetch_one(pool).await.unwrap();
        row.try_get::<String, _>(0).unwrap_or_else(|_| row.get::<i64, _>(0).to_string())
    };
    for pool in [&index.write, &index.read] {
        assert_eq!(pragma(pool, "PRAGMA journal_mode").await, "wal");
        assert_eq!(pragma(pool, "PRAGMA synchronous").await, "2", "FULL");
        assert_eq!(pragma(pool, "PRAGMA foreign_keys").await, "1");
        assert_eq!(pragma(pool, "PRAGMA busy_timeout").await, "30000");
    }
    let error = sqlx::query("DELETE FROM event").execute(&index.read).await.during("writing").unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "readers cannot write: {error}");
}

/// An instance of the one study that these tests fill.
pub(super) fn instance(sop_instance: Uid, arrived: ArrivedBlob) -> NewInstance {
    NewInstance {
        sop_instance,
        sop_class: Uid::derive(["class"]),
        study: StudyAttributes {
            study_instance: Uid::derive(["study"]),
            patient_id: None,
            patient_name: None,
            accession_number: None,
            study_date: None,
            description: None,
        },
        series: SeriesAttributes {
            series_instance: Uid::derive(["series"]),
            modality: None,
            description: None,
            number: None,
        },
        transfer_syntax: Uid::derive(["syntax"]),
        association: None,
        source_ae: None,
        arrived,
        quiet_period_ms: 1_000,
        own: false,
        max_study_instances: 1_000,
    }
}

async fn record(store: &Store, number: usize) -> Result<Recorded, StoreError> {
    let mut blob = store.blobs().begin().await?;
    blob.write(b"pixels").await?;
    let arrived = store.blobs().finish_in_place(blob).await?;
    let instance = instance(Uid::derive(["instance", &number.to_string()]), arrived);
    store.record_instance(instance, Timestamp::from_millis(0)).await
}

/// Files on shelves.
fn published(folder: &TempDir) -> usize {
    let folders = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    folders(folder.path().join("blobs"))
        .filter(|path| path.file_name().unwrap().len() == 2)
        .flat_map(folders)
        .flat_map(folders)
        .count()
}

#[tokio::test]
async fn full_database_is_a_full_disk_and_loses_nothing() {
    let folder = folder();
    let store = Store::open(&options(&folder)).await.unwrap();
    let write = &store.index().write;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(write).await.unwrap();
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 4));
    sqlx::query(limit).execute(write).await.unwrap();
    let (mut kept, mut full) = (0, None);
    for number in 0..2_000 {
        match record(&store, number).await {
            Ok(_) => kept += 1,
            Err(error) => {
                full = Some(error);
                break;
            }
        }
    }
    assert!(matches!(full, Some(StoreError::DiskFull { .. })), "{full:?}");
    assert_eq!(published(&folder), kept, "the refused instance left no file");
    sqlx::query("PRAGMA max_page_count = 1000000").execute(write).await.unwrap();
    record(&store, kept).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM instance").fetch_one(write).await.unwrap();
    assert_eq!(rows as usize, kept + 1);
    assert_eq!(published(&folder), kept + 1);
}

/// Whatever file operation meets the full disk, in a batch of eight: each answer is true. Who hears of success has
/// row and file, who hears of failure has neither.
#[tokio::test]
async fn a_full_disk_in_a_batch_is_told_to_those_it_concerns() {
    let mut failed_answers = 0;
    for operation in 0..40 {
        let folder = folder();
        let disk = Arc::new(FaultyDisk::healthy());
        let store = Store::open_on(&options(&folder), disk.clone()).await.unwrap();
        disk.fail_after(operation);
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { record(&store, number).await })
            })
            .collect();
        let mut kept = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(Recorded::New { .. }) => kept += 1,
                Ok(other) => panic!("{other:?}"),
                Err(StoreError::DiskFull { .. }) => failed_answers += 1,
                Err(other) => panic!("operation {operation}: {other}"),
            }
        }
        let rows: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM instance").fetch_one(&store.index().read).await.unwrap();
        assert_eq!((rows as usize, published(&folder)), (kept, kept), "operation {operation}");
        // How many operations eight instances need hangs on how they share folders' fsyncs: the failure may be to come.
        disk.fail_after(-1);
        assert!(record(&store, 100).await.is_ok(), "operation {operation}: the disk is free again");
    }
    assert!(failed_answers > 20, "{failed_answers}");
}

#[tokio::test]
async fn pollers_and_keys_read_an_index() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    for statement in [
        "SELECT MIN(quiet_until) FROM study WHERE status = 'receiving'",
        "SELECT id FROM study WHERE status = 'receiving' AND quiet_until <= 1",
        "SELECT MIN(not_before) FROM analysis WHERE status = 'queued'",
        "SELECT MIN(next_attempt) FROM outbox WHERE destination = 'a' AND status = 'queued'",
        "SELECT id FROM instance WHERE study_id = 1 AND own = 0",
        "SELECT id FROM study WHERE study_instance >= '1' AND study_instance < '1:'",
        "SELECT id FROM instance WHERE blob >= 'aa/bb/' AND blob < 'aa/bb/g'",
        "SELECT id FROM event WHERE study_id = 1 ORDER BY at, id",
        "SELECT id FROM association WHERE closed_at IS NULL",
        "SELECT id FROM message WHERE channel = 'a' AND status = 'queued' ORDER BY urgent DESC, id LIMIT 1",
        "SELECT id FROM message WHERE study_id = 1 AND channel = 'a' AND id < 5 AND status IN ('queued', 'sending')",
        "SELECT id FROM message WHERE TRUE AND status = 'dead' AND NULL IS NULL ORDER BY id DESC LIMIT 5",
        "SELECT id FROM message WHERE study_id = 5",
        "SELECT status, COUNT(*) FROM study GROUP BY status",
        "SELECT positive FROM study WHERE received_at >= 1",
    ] {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(&index.read)
            .await
            .unwrap();
        for row in rows {
            let step: String = row.get("detail");
            assert!(step.contains("INDEX"), "{statement}: {step}");
        }
    }
}

#[tokio::test]
async fn outbox_is_claimed_in_index_order() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    let rows = sqlx::query(
        "EXPLAIN QUERY PLAN SELECT id FROM outbox INDEXED BY outbox_order
         WHERE destination = 'a' AND status = 'queued' AND next_attempt <= 1
         ORDER BY urgent DESC, queued_at, id LIMIT 1",
    )
    .fetch_all(&index.read)
    .await
    .unwrap();
    let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
    assert!(steps.iter().all(|step| !step.contains("TEMP B-TREE")), "{steps:?}");
}
