use serde_json::Value;

use super::super::super::tests::options;
use super::*;
use crate::access::{AuditFilter, NewAudit, Role, Witness};
use crate::folder;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// Two studies of five received slices and one result each, all of it given up for `pacs` and for `vna`.
async fn given_up(index: &Sqlite) {
    for statement in [
        "INSERT INTO study (id, study_instance, status, received_at, last_instance_at)
         VALUES (1, '2.25.1', 'failed', 1, 1), (2, '2.25.2', 'failed', 1, 1)",
        "INSERT INTO series (id, study_id, series_instance) VALUES (1, 1, '2.25.11'), (2, 2, '2.25.12')",
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9)
         INSERT INTO instance (id, study_id, series_id, sop_instance, sop_class, transfer_syntax, received_at, own, blob,
             size, digest)
         SELECT i + 1, i % 2 + 1, i % 2 + 1, '2.25.10' || i, '1.2', '1.2', 1, 0, 'blob' || i, 1, x'00' FROM n",
        "INSERT INTO outbox (study_id, instance_id, destination, status, urgent, queued_at, next_attempt, last_words)
         SELECT i.study_id, i.id, d.value, 'queued', 0, 1, 1, 'no room'
         FROM instance i JOIN json_each('[\"pacs\", \"vna\"]') d ORDER BY i.id, d.value",
        "UPDATE outbox SET status = 'dead', finished_at = 2",
    ] {
        sqlx::query(statement).execute(&index.write).await.unwrap();
    }
}

async fn number(index: &Sqlite, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(&index.write).await.unwrap()
}

fn witness() -> Witness {
    let entry = NewAudit {
        at: at(5),
        actor: "anna".to_owned(),
        role: Some(Role::Operator),
        address: "192.0.2.1".to_owned(),
        action: "deliveries-retried",
        study: None,
        detail: json!({}),
    };
    Witness::with_outcome(entry, "what")
}

#[tokio::test]
async fn many_are_queued_again_a_batch_a_transaction() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    given_up(&index).await;
    assert_eq!(number(&index, "SELECT given_up FROM study WHERE id = 2").await, 10);
    let pacs = Dead { destination: Some("pacs"), ..Dead::default() };
    let retried = index.witnessed(witness()).retry_in_batches(pacs, 4, at(10)).await.unwrap();
    assert_eq!(retried, 10);
    assert_eq!(
        number(&index, "SELECT COUNT(*) FROM outbox WHERE status = 'queued' AND destination = 'pacs'").await,
        10
    );
    assert_eq!(number(&index, "SELECT COUNT(*) FROM outbox WHERE status = 'dead'").await, 10, "nothing of the other");
    assert_eq!(number(&index, "SELECT given_up FROM study WHERE id = 2").await, 5);

    // A row a transaction, each of what it did.
    let rows = index.audited(&AuditFilter::default(), 100).await.unwrap();
    let mut told: Vec<Value> = rows.into_iter().map(|row| row.detail["what"]["deliveries"].clone()).collect();
    told.reverse();
    assert_eq!(told, [4, 4, 2]);

    // One event a study in each, and each slice in one of them.
    let events: Vec<(i64, String, String)> =
        sqlx::query_as("SELECT study_id, kind, detail FROM event WHERE kind LIKE 'deliver%-requeued' ORDER BY id")
            .fetch_all(&index.write)
            .await
            .unwrap();
    assert_eq!(events.len(), 6, "two studies in three transactions: {events:?}");
    let mut slices: Vec<String> = Vec::new();
    for (_, kind, detail) in &events {
        let detail: Value = serde_json::from_str(detail).unwrap();
        assert_eq!(detail["destination"], "pacs");
        match kind.as_str() {
            "deliveries-requeued" => {
                let several: Vec<String> = serde_json::from_value(detail["sop_instances"].clone()).unwrap();
                assert_eq!(detail["deliveries"], several.len());
                slices.extend(several);
            }
            _ => slices.push(detail["sop_instance"].as_str().unwrap().to_owned()),
        }
    }
    slices.sort_unstable();
    assert_eq!(slices, (0..10).map(|slice| format!("2.25.10{slice}")).collect::<Vec<_>>());
    assert_eq!(index.retry_in_batches(pacs, 4, at(11)).await.unwrap(), 0);
    assert_eq!(index.retry_in_batches(Dead::default(), 5, at(12)).await.unwrap(), 10, "whole batches, and then none");
    assert_eq!(index.audited(&AuditFilter::default(), 100).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_fails_half_way_leaves_whole_batches_and_their_rows() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    given_up(&index).await;
    sqlx::query(
        "CREATE TRIGGER broken BEFORE INSERT ON audit WHEN (SELECT COUNT(*) FROM audit) = 2 BEGIN
             SELECT RAISE(ABORT, 'no audit trail'); END",
    )
    .execute(&index.write)
    .await
    .unwrap();
    let pacs = Dead { destination: Some("pacs"), ..Dead::default() };
    let refused = index.witnessed(witness()).retry_in_batches(pacs, 4, at(10)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Database { .. }), "{refused}");
    assert_eq!(number(&index, "SELECT COUNT(*) FROM outbox WHERE status = 'queued'").await, 8);
    assert_eq!(number(&index, "SELECT SUM(given_up) FROM study").await, 12);
    let told = "SELECT SUM(json_array_length(detail, '$.sop_instances')) FROM event WHERE kind = 'deliveries-requeued'";
    assert_eq!(number(&index, told).await, 8, "and nothing is said of the others");
}
