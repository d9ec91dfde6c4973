use ichor_core::Uid;
use serde_json::json;
use sqlx::Row as _;

use super::super::tests::options;
use super::super::{Sqlite, SqlitePool};
use crate::access::{AuditFilter, NewAudit, NewSession, Role, Witness};
use crate::worklist::{Subscribed, WorkitemRow};
use crate::{StoreError, Timestamp, folder};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn entry(action: &'static str) -> NewAudit {
    NewAudit {
        at: at(5),
        actor: "anna".to_owned(),
        role: Some(Role::Admin),
        address: "192.0.2.1".to_owned(),
        action,
        study: None,
        detail: json!({ "of": "the test" }),
    }
}

/// Every row of every table but the audit trail, as text.
async fn everything(pool: &SqlitePool) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('audit', 'sqlite_sequence') ORDER BY name",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut all = Vec::new();
    for table in tables {
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_table_info(?)").bind(&table).fetch_all(pool).await.unwrap();
        let columns: Vec<String> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
        let statement = format!("SELECT {} FROM \"{table}\"", columns.join(" || ',' || "));
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(pool).await.unwrap();
        all.extend(rows.iter().map(|row| format!("{table}: {}", row.get::<String, _>(0))));
    }
    all
}

fn workitem(name: &str, revision: i64) -> WorkitemRow {
    WorkitemRow {
        uid: Uid::derive(["workitem", name]),
        state: "SCHEDULED".to_owned(),
        transaction: None,
        revision,
        priority: 1,
        starts: "20260101".to_owned(),
        attributes: json!({}),
    }
}

/// What people and clients change by HTTP, in an order in which each can be done. The number of the row that it leaves.
async fn change(index: &Sqlite, number: usize) -> Option<Result<(), StoreError>> {
    let (anna, now) = (1, at(10));
    let session =
        NewSession { digest: [2; 32], user: anna, csrf: "word".to_owned(), expires_at: at(500), provided: None };
    let report = ["{}".to_owned()];
    Some(match number {
        0 => index.invite([1; 32], None, now, at(100)).await,
        1 => index.accept_invitation([1; 32], "anna", "hash", now).await.map(drop),
        2 => index.begin_session(&session, now).await,
        3 => index.add_token([3; 32], anna, "test", now, None).await.map(drop),
        4 => index.revoke_token(1, Some(anna), now).await,
        5 => index.end_session([2; 32]).await,
        6 => index.add_user("otto", Role::Viewer, now).await.map(drop),
        7 => index.change_user(2, Role::Operator, false, now).await,
        8 => index.create_workitem(&workitem("a", 1), &report, now).await.map(drop),
        9 => index.change_workitem(&workitem("a", 1), &report, now).await.map(drop),
        10 => index.subscribe_workitems("READER", &Subscribed::Worklist, false, &report, now).await,
        11 => index.suspend_worklist("READER").await.map(drop),
        12 => {
            let one = Subscribed::Workitem(Uid::derive(["workitem", "a"]));
            index.unsubscribe_workitems("READER", &one).await.map(drop)
        }
        _ => return None,
    })
}

#[tokio::test]
async fn change_and_its_row_are_there_together_or_not_at_all() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    let witnessed = index.witnessed(Witness::with_outcome(entry("changed"), "what"));
    let mut number = 0;
    loop {
        sqlx::query("CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit trail'); END")
            .execute(&index.write)
            .await
            .unwrap();
        let before = everything(&index.write).await;
        let Some(outcome) = change(&witnessed, number).await else { break };
        let refused = outcome.expect_err("it was done without a row");
        assert!(matches!(refused, StoreError::Database { .. }), "{number}: {refused:?}");
        assert_eq!(everything(&index.write).await, before, "{number}: it was changed without a row");

        sqlx::query("DROP TRIGGER broken").execute(&index.write).await.unwrap();
        change(&witnessed, number).await.unwrap().unwrap();
        assert_ne!(everything(&index.write).await, before, "{number}: nothing was changed");
        number += 1;
        let rows = index.audited(&AuditFilter::default(), 100).await.unwrap();
        assert_eq!(rows.len(), number, "one row each");
        assert_eq!(rows[0].detail["of"], "the test");
    }
    assert_eq!(number, 13);
    let rows = index.audited(&AuditFilter::default(), 100).await.unwrap();
    assert_eq!(rows[rows.len() - 4].detail["what"], 1, "what came of the token is said: its number");
    assert_eq!(rows[rows.len() - 7].detail["what"], 2, "and of the user");
}

#[tokio::test]
async fn what_changes_nothing_leaves_no_row() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    let witnessed = index.witnessed(Witness::new(entry("changed")));
    assert!(witnessed.revoke_token(7, None, at(1)).await.is_err());
    assert!(!witnessed.suspend_worklist("NOBODY").await.unwrap());
    assert!(!witnessed.unsubscribe_workitems("NOBODY", &Subscribed::Worklist).await.unwrap());
    assert!(!witnessed.change_workitem(&workitem("none", 1), &[], at(1)).await.unwrap());
    index.create_workitem(&workitem("a", 1), &[], at(1)).await.unwrap();
    assert!(!witnessed.create_workitem(&workitem("a", 1), &[], at(1)).await.unwrap(), "its name is taken");
    assert!(index.audited(&AuditFilter::default(), 100).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_have_a_witness_is_not_done() {
    let folder = folder();
    let index = Sqlite::open(&options(&folder)).await.unwrap();
    let witnessed = index.witnessed(Witness::new(entry("changed")));
    let refused = witnessed.requeue_messages(None, at(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unwitnessed { action: "changed", .. }), "{refused:?}");
    assert!(witnessed.check_unwitnessed("recording an instance").is_err());
    index.requeue_messages(None, at(1)).await.unwrap();
}
