use ichor_store::{FileKind, NewWorkitem, Protection, Subscribed, WorkitemRow};
use serde_json::json;

use crate::support::*;

fn row(name: &str, priority: u8, state: &str) -> WorkitemRow {
    WorkitemRow {
        uid: uid(&["workitem", name]),
        state: state.to_owned(),
        transaction: None,
        revision: 1,
        priority,
        starts: "20260102".to_owned(),
        attributes: json!({ "00741000": { "vr": "CS", "Value": [state] } }),
    }
}

fn report(text: &str) -> Vec<String> {
    vec![json!({ "00001000": { "Value": [text] }, "00741000": { "Value": ["SCHEDULED"] } }).to_string()]
}

async fn heard(store: &ichor_store::Store, subscriber: &str) -> Vec<String> {
    let reports = store.workitem_reports(subscriber, 100).await.unwrap();
    reports.into_iter().map(|report| report.body).collect()
}

pub(crate) async fn workitem_is_created_once_and_changed_by_one(backend: impl Backend) {
    let store = backend.open().await;
    assert!(store.create_workitem(&row("a", 2, "SCHEDULED"), &[], at(0)).await.unwrap());
    assert!(!store.create_workitem(&row("a", 0, "SCHEDULED"), &[], at(1)).await.unwrap(), "its name is taken");
    let kept = store.workitem(&uid(&["workitem", "a"])).await.unwrap().unwrap();
    assert_eq!(kept, row("a", 2, "SCHEDULED"));
    let mut claimed = kept.clone();
    (claimed.state, claimed.transaction) = ("IN PROGRESS".to_owned(), Some(uid(&["first"])));
    let mut late = claimed.clone();
    late.transaction = Some(uid(&["second"]));
    let (one, two) =
        tokio::join!(store.change_workitem(&claimed, &[], at(2)), store.change_workitem(&late, &[], at(2)));
    assert_eq!([one.unwrap(), two.unwrap()].iter().filter(|was_first| **was_first).count(), 1);
    let kept = store.workitem(&claimed.uid).await.unwrap().unwrap();
    assert_eq!((kept.revision, kept.state.as_str()), (2, "IN PROGRESS"));
    assert!(store.workitem(&uid(&["none"])).await.unwrap().is_none());
}

pub(crate) async fn workitems_come_in_their_order(backend: impl Backend) {
    let store = backend.open().await;
    for (name, priority, state) in
        [("low", 2, "SCHEDULED"), ("first", 1, "SCHEDULED"), ("done", 0, "COMPLETED"), ("high", 0, "SCHEDULED")]
    {
        assert!(store.create_workitem(&row(name, priority, state), &[], at(0)).await.unwrap());
    }
    let early = WorkitemRow { starts: "20250101".to_owned(), ..row("early", 1, "SCHEDULED") };
    store.create_workitem(&early, &[], at(1)).await.unwrap();
    let names = |rows: Vec<WorkitemRow>| rows.into_iter().map(|row| row.uid).collect::<Vec<_>>();
    let wanted = ["high", "early", "first", "low"].map(|name| uid(&["workitem", name]));
    assert_eq!(names(store.workitems(&["SCHEDULED"], 0, 100).await.unwrap()), wanted);
    assert_eq!(names(store.workitems(&["SCHEDULED"], 1, 2).await.unwrap()), wanted[1..3]);
    assert_eq!(store.workitems(&[], 0, 100).await.unwrap().len(), 5);
}

pub(crate) async fn subscribers_hear_once_and_in_order(backend: impl Backend) {
    let store = backend.open().await;
    let a = row("a", 1, "SCHEDULED");
    store.create_workitem(&a, &report("nobody"), at(0)).await.unwrap();
    let specific = Subscribed::Workitem(a.uid.clone());
    store.subscribe_workitems("ONE", &specific, false, &report("now"), at(1)).await.unwrap();
    store.subscribe_workitems("ALL", &Subscribed::Worklist, true, &[], at(1)).await.unwrap();
    // Who is told by two subscriptions hears it once.
    store.subscribe_workitems("ALL", &specific, false, &[], at(1)).await.unwrap();
    store.change_workitem(&a, &report("changed"), at(2)).await.unwrap();
    store.create_workitem(&row("b", 1, "SCHEDULED"), &report("new"), at(3)).await.unwrap();
    assert_eq!(heard(&store, "ONE").await, [report("now"), report("changed")].concat());
    assert_eq!(heard(&store, "ALL").await, [report("changed"), report("new")].concat());
    assert!(store.has_workitem_subscriber(&uid(&["workitem", "b"])).await.unwrap());
    let first = store.workitem_reports("ALL", 1).await.unwrap().remove(0);
    store.workitem_report_heard("ONE", first.id, at(4)).await.unwrap();
    assert_eq!(heard(&store, "ALL").await.len(), 2, "it was not ONE's to forget");
    store.workitem_report_heard("ALL", first.id, at(4)).await.unwrap();
    assert_eq!(heard(&store, "ALL").await, report("new"));

    assert!(store.suspend_worklist("ALL").await.unwrap() && !store.suspend_worklist("ALL").await.unwrap());
    store.create_workitem(&row("c", 1, "SCHEDULED"), &report("unheard"), at(4)).await.unwrap();
    assert_eq!(heard(&store, "ALL").await, report("new"), "what is to come is not told");
    let b = Subscribed::Workitem(uid(&["workitem", "b"]));
    assert!(
        store.unsubscribe_workitems("ALL", &b).await.unwrap() && !store.unsubscribe_workitems("ALL", &b).await.unwrap()
    );
    // The single ones of a suspended list go with the list (PS3.4 CC.2.3.3).
    let list = Subscribed::Worklist;
    assert!(store.unsubscribe_workitems("ALL", &list).await.unwrap());
    assert!(!store.unsubscribe_workitems("ALL", &list).await.unwrap());
}

pub(crate) async fn analysis_leaves_one_workitem_a_version(backend: impl Backend) {
    let store = backend.open().await;
    store.subscribe_workitems("ALL", &Subscribed::Worklist, false, &[], at(0)).await.unwrap();
    let new = |name: &str| NewWorkitem {
        row: row(name, 0, "SCHEDULED"),
        report: report(name).remove(0),
        supersedes: "a later version".to_owned(),
    };
    closed_study(&store, "a", 2, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.complete_analysis_to_read(claim, not_analysed(), Some(new("v1")), at(21)).await.unwrap();
    Slice::of("a", 7).record(&store, at(50)).await;
    store.close_quiet_studies(quiet_after(50)).await.unwrap();
    let claim = store.claim_analysis("w", at(70)).await.unwrap().unwrap();
    store.complete_analysis_to_read(claim, not_analysed(), Some(new("v2")), at(71)).await.unwrap();
    let rows = store.workitems(&[], 0, 10).await.unwrap();
    let states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(states, ["CANCELED", "SCHEDULED"]);
    assert_eq!(rows[0].attributes["00741000"]["Value"][0], "CANCELED");
    assert_eq!(rows[0].attributes["00741002"]["Value"][0]["00741238"]["Value"][0], "a later version");
    let told = heard(&store, "ALL").await;
    assert!(told.len() == 3 && told[2].contains("CANCELED") && told[2].contains(rows[0].uid.as_str()), "{told:?}");
}

fn reading(name: &str, priority: u8) -> NewWorkitem {
    let row = row(name, priority, "SCHEDULED");
    let report = report(row.uid.as_str()).remove(0);
    NewWorkitem { row, report, supersedes: "a later version".to_owned() }
}

pub(crate) async fn analysis_done_again_changes_what_nobody_has_begun(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.complete_analysis_to_read(claim, not_analysed(), Some(reading("v1", 1)), at(21)).await.unwrap();
    store.subscribe_workitems("ALL", &Subscribed::Worklist, false, &[], at(21)).await.unwrap();
    store.retry(&study_uid("a"), at(22)).await.unwrap();
    let claim = store.claim_analysis("w", at(23)).await.unwrap().unwrap();
    let positive = outcome(&store, &claim, true, &[]).await;
    store.complete_analysis_to_read(claim, positive, Some(reading("v1", 0)), at(24)).await.unwrap();
    let rows = store.workitems(&[], 0, 10).await.unwrap();
    assert_eq!((rows.len(), rows[0].priority, rows[0].revision), (1, 0, 2));
    assert_eq!(heard(&store, "ALL").await.len(), 1);

    // Somebody reads it: its study's files stay, and what comes of another analysis is another workitem.
    let mut begun = rows[0].clone();
    (begun.state, begun.transaction) = ("IN PROGRESS".to_owned(), Some(uid(&["reader"])));
    let protections = async || {
        let found = store.retention_candidates(FileKind::Received, at(1_000), &[], None, 10).await.unwrap();
        found[0].protections.clone()
    };
    assert!(!protections().await.contains(&Protection::UnderWay), "scheduled only");
    assert!(store.change_workitem(&begun, &[], at(25)).await.unwrap());
    assert!(protections().await.contains(&Protection::UnderWay));
    store.retry(&study_uid("a"), at(26)).await.unwrap();
    let claim = store.claim_analysis("w", at(27)).await.unwrap().unwrap();
    store.complete_analysis_to_read(claim, not_analysed(), Some(reading("v1", 1)), at(28)).await.unwrap();
    let rows = store.workitems(&["SCHEDULED"], 0, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].uid != begun.uid && rows[0].priority == 0, "as urgent as before: {rows:?}");
    assert_eq!(rows[0].attributes["00741200"]["Value"][0], "HIGH");
    assert_eq!(store.workitem(&begun.uid).await.unwrap().unwrap().state, "IN PROGRESS");
    assert!(protections().await.contains(&Protection::UnderWay));
}

pub(crate) async fn name_that_is_taken_hides_no_workitem(backend: impl Backend) {
    let store = backend.open().await;
    assert!(store.create_workitem(&row("v1", 2, "SCHEDULED"), &[], at(0)).await.unwrap());
    store.subscribe_workitems("ALL", &Subscribed::Worklist, false, &[], at(0)).await.unwrap();
    closed_study(&store, "a", 2, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.complete_analysis_to_read(claim, not_analysed(), Some(reading("v1", 0)), at(21)).await.unwrap();
    let rows = store.workitems(&["SCHEDULED"], 0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.priority).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(rows[1].uid, uid(&["workitem", "v1"]));
    assert!(heard(&store, "ALL").await[0].contains(rows[0].uid.as_str()), "under its new name");
    assert!(kinds(&store, "a").await.contains(&"workitem-taken".to_owned()));
}
