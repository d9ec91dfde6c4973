use ichor_core::{TaskStatus, Uid};
use ichor_store::{NewTask, Recorded, Store, StoreError, Task, TaskStep};
use serde_json::json;

use crate::support::*;

fn new(name: &str, study: &str) -> NewTask {
    NewTask {
        list: "TASKS".to_owned(),
        workitem: uid(&["workitem", name]),
        transaction: uid(&["transaction", name]),
        study_instance: study_uid(study),
        urgent: false,
        request: json!({ "inputs": [] }),
    }
}

async fn open(store: &Store) -> Vec<Task> {
    store.open_tasks("TASKS").await.unwrap()
}

async fn status(store: &Store, name: &str) -> Option<TaskStatus> {
    store.task_status("TASKS", &uid(&["workitem", name])).await.unwrap()
}

pub(crate) async fn task_is_begun_once_and_outlives_the_process(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "study", 2, 0).await;
    store.leave_task(&new("a", "study"), "not here", at(1)).await.unwrap();
    store.leave_task(&new("a", "study"), "not here", at(2)).await.unwrap();
    assert_eq!(status(&store, "a").await, Some(TaskStatus::Left));
    let told = kinds(&store, "study").await.iter().filter(|kind| *kind == "task-left").count();
    assert_eq!(told, 1, "the same words once");
    let begun = store.begin_task(&new("a", "study"), at(3)).await.unwrap().unwrap();
    assert_eq!((begun.status, &begun.new), (TaskStatus::Claiming, &new("a", "study")));
    assert!(store.begin_task(&new("a", "study"), at(4)).await.unwrap().is_none(), "by one only");
    store.leave_task(&new("a", "study"), "late", at(5)).await.unwrap();
    assert_eq!(status(&store, "a").await, Some(TaskStatus::Claiming), "what was begun is not left");
    drop(store);

    let store = backend.open().await;
    let task = open(&store).await.remove(0);
    assert_eq!(task, begun, "with its Transaction UID");
    store.advance_task(&task, &TaskStep::Again(at(60)), "nobody there", at(6)).await.unwrap();
    let task = open(&store).await.remove(0);
    assert_eq!((task.failures, task.next_attempt), (1, at(60)));
    store.advance_task(&task, &TaskStep::Again(at(70)), "nobody there", at(61)).await.unwrap();
    let mut task = open(&store).await.remove(0);
    for (step, status) in [
        (TaskStep::Claimed, TaskStatus::Claimed),
        (TaskStep::InputHere, TaskStatus::Waiting),
        (TaskStep::Progress(50), TaskStatus::Waiting),
        (TaskStep::Ending(json!({ "done": true })), TaskStatus::Ending),
    ] {
        let stale = task.clone();
        store.advance_task(&task, &step, "on", at(80)).await.unwrap();
        task = open(&store).await.remove(0);
        assert_eq!((task.status, task.failures), (status, 0));
        if stale.status != status {
            let twice = store.advance_task(&stale, &step, "on", at(81)).await;
            assert!(matches!(twice, Err(StoreError::StaleClaim { .. })), "{twice:?}");
        }
    }
    assert_eq!(
        (task.progress, task.claimed_at, task.ending.clone()),
        (50, Some(at(80)), Some(json!({ "done": true })))
    );
    store.advance_task(&task, &TaskStep::Ended(TaskStatus::Completed), "told", at(90)).await.unwrap();
    assert!(open(&store).await.is_empty());
    assert!(store.begin_task(&new("a", "study"), at(10_000)).await.unwrap().is_none(), "done once and for all");
    let listed = store.tasks(None, 10).await.unwrap().remove(0);
    assert_eq!(
        (listed.status, listed.ended_at, listed.last_words.as_deref()),
        (TaskStatus::Completed, Some(at(90)), Some("told"))
    );
    assert!(store.tasks(Some(TaskStatus::Lost), 10).await.unwrap().is_empty());
    let kinds = kinds(&store, "study").await;
    for kind in ["task-claimed", "task-input", "task-progress", "task-ending", "task-ended"] {
        assert_eq!(kinds.iter().filter(|one| *one == kind).count(), 1, "{kind}: {kinds:?}");
    }
    assert_eq!(kinds.iter().filter(|one| *one == "task-delayed").count(), 1, "the same failure is told once");
    let depths = store.task_depths().await.unwrap();
    assert_eq!((depths.len(), depths[0].status, depths[0].count), (1, TaskStatus::Completed, 1));
}

pub(crate) async fn what_was_lost_may_be_claimed_again_after_a_while(backend: impl Backend) {
    let store = backend.open().await;
    let task = store.begin_task(&new("a", "study"), at(0)).await.unwrap().unwrap();
    store.advance_task(&task, &TaskStep::Ended(TaskStatus::Lost), "theirs", at(1)).await.unwrap();
    assert!(store.begin_task(&new("a", "study"), at(100)).await.unwrap().is_none());
    let again = NewTask { transaction: uid(&["another"]), ..new("a", "study") };
    let begun = store.begin_task(&again, at(602)).await.unwrap().unwrap();
    assert_eq!((begun.new.transaction, begun.last_words, begun.claimed_at), (again.transaction, None, None));
    let late = store.advance_task(&task, &TaskStep::Claimed, "late", at(603)).await;
    assert!(matches!(late, Err(StoreError::StaleClaim { .. })), "a step of the former claim");
}

pub(crate) async fn cancellation_is_asked_for_once_and_may_be_declined(backend: impl Backend) {
    let store = backend.open().await;
    let workitem = uid(&["workitem", "a"]);
    assert!(!store.ask_task_cancel("TASKS", &workitem, "why not", at(0)).await.unwrap(), "not ours");
    let before = store.begin_task(&new("a", "study"), at(1)).await.unwrap().unwrap();
    assert!(store.ask_task_cancel("TASKS", &workitem, "no need", at(2)).await.unwrap());
    assert!(!store.ask_task_cancel("TASKS", &workitem, "really", at(3)).await.unwrap());
    // A step that was under way, and did not know of it, does not put it off.
    store.advance_task(&before, &TaskStep::Again(at(500)), "not yet", at(3)).await.unwrap();
    let task = open(&store).await.remove(0);
    assert_eq!((task.cancel_words.as_deref(), task.next_attempt), (Some("no need"), at(2)));
    store.advance_task(&task, &TaskStep::CancelDeclined, "it goes on", at(4)).await.unwrap();
    let task = open(&store).await.remove(0);
    assert_eq!((task.cancel_words, task.status), (None, TaskStatus::Claiming));
    assert!(!store.ask_task_cancel("OTHER", &workitem, "no need", at(5)).await.unwrap());
}

pub(crate) async fn input_of_an_urgent_task_goes_first(backend: impl Backend) {
    let store = backend.open().await;
    for (study, seconds) in [("old", 0), ("asked", 100), ("new", 200)] {
        closed_study(&store, study, 2, seconds).await;
    }
    assert_eq!(store.make_tasks_urgent(at(300)).await.unwrap(), 0);
    let urgent = NewTask { urgent: true, ..new("a", "asked") };
    let task = store.begin_task(&urgent, at(301)).await.unwrap().unwrap();
    assert_eq!(store.make_tasks_urgent(at(302)).await.unwrap(), 0, "it may be somebody else's yet");
    store.advance_task(&task, &TaskStep::Claimed, "claimed", at(303)).await.unwrap();
    assert_eq!(store.make_tasks_urgent(at(304)).await.unwrap(), 1);
    assert_eq!(store.make_tasks_urgent(at(305)).await.unwrap(), 0, "once");
    let first = store.claim_analysis_in_order("w", at(-1), at(400)).await.unwrap().unwrap();
    assert_eq!(first.study.study_instance, study_uid("asked"));
    assert!(kinds(&store, "asked").await.contains(&"analysis-order".to_owned()));
}

pub(crate) async fn missing_instances_are_those_of_this_study(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "study", 2, 0).await;
    closed_study(&store, "other", 2, 0).await;
    let asked = [slice_uid("study", 1), slice_uid("study", 9), slice_uid("other", 1)];
    let missing = store.missing_instances(&study_uid("study"), &asked).await.unwrap();
    assert_eq!(missing, asked[1..], "one is not here, one is another study's");
    assert_eq!(store.missing_instances(&study_uid("none"), &asked).await.unwrap().len(), 3);
}

pub(crate) async fn what_has_come_since_is_counted_by_series(backend: impl Backend) {
    let store = backend.open().await;
    let (study, series, other) = (study_uid("study"), uid(&["series", "study"]), uid(&["series", "sibling"]));
    let come = async |series: Option<&Uid>, since| store.instances_come(&study, series, since).await.unwrap();
    assert_eq!(come(None, at(0)).await, 0, "of a study that is not here");
    closed_study(&store, "study", 3, 0).await;
    assert_eq!((come(None, at(0)).await, come(Some(&series), at(0)).await, come(Some(&other), at(0)).await), (3, 3, 0));
    assert_eq!(come(None, at(1)).await, 0, "they were here before");
    // Again, with the same content and with another; one of ours that comes back counts, for a peer counts it too.
    assert!(matches!(Slice::of("study", 0).record(&store, at(50)).await, Recorded::Duplicate));
    assert!(matches!(Slice::of("study", 0).record(&store, at(51)).await, Recorded::Duplicate));
    let changed = Slice { content: b"other pixels", ..Slice::of("study", 1) };
    assert!(matches!(changed.record(&store, at(52)).await, Recorded::Conflict));
    let own = Slice { own: true, ..Slice::of("study", 9) };
    assert!(matches!(own.record(&store, at(53)).await, Recorded::New { .. }));
    assert_eq!((come(None, at(40)).await, come(Some(&series), at(40)).await), (3, 3), "each once");
    assert_eq!((come(None, at(52)).await, come(Some(&other), at(40)).await), (2, 0));
}

pub(crate) async fn lists_are_up_or_down_since_a_moment(backend: impl Backend) {
    let store = backend.open().await;
    assert!(store.task_list_looked_at("A", None, at(0)).await.unwrap());
    assert!(!store.task_list_looked_at("A", None, at(1)).await.unwrap());
    assert!(store.task_list_looked_at("A", Some("refused"), at(2)).await.unwrap());
    assert!(!store.task_list_looked_at("A", Some("timeout"), at(3)).await.unwrap());
    let list = store.task_lists().await.unwrap().remove(0);
    assert_eq!((list.is_up, list.since, list.last_words.as_deref()), (false, at(2), Some("timeout")));
    assert!(store.task_list_looked_at("A", None, at(4)).await.unwrap());
    assert!(store.task_lists().await.unwrap()[0].is_up);
}

pub(crate) async fn what_a_list_refuses_waits_for_people(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "study", 2, 0).await;
    let first = store.begin_task(&new("a", "study"), at(1)).await.unwrap().unwrap();
    assert_eq!((first.refusals, first.asked_since), (0, at(1)));
    store.advance_task(&first, &TaskStep::Claimed, "claimed", at(2)).await.unwrap();
    let task = open(&store).await.remove(0);
    store.advance_task(&task, &TaskStep::Ending(json!({ "done": true })), "done", at(10)).await.unwrap();
    let task = open(&store).await.remove(0);
    assert_eq!(task.asked_since, at(10), "since it is told");
    store.advance_task(&task, &TaskStep::Again(at(20)), "nobody there", at(11)).await.unwrap();
    let task = open(&store).await.remove(0);
    store.advance_task(&task, &TaskStep::AgainRefused(at(30)), "409", at(21)).await.unwrap();
    let task = open(&store).await.remove(0);
    assert_eq!((task.failures, task.refusals, task.asked_since), (2, 1, at(10)));
    assert!(matches!(store.retry_tasks(Some(task.id), at(22)).await, Err(StoreError::Filter { .. })), "not refused");
    store.advance_task(&task, &TaskStep::LeftToPeople, "409 again", at(31)).await.unwrap();
    assert_eq!(status(&store, "a").await, Some(TaskStatus::Refused));
    assert!(open(&store).await.is_empty() && store.begin_task(&new("a", "study"), at(90_000)).await.unwrap().is_none());
    assert!(matches!(store.retry_tasks(Some(task.id + 1), at(32)).await, Err(StoreError::NotFound { .. })));
    // A claim whose outcome is not known is asked for again, an end is told again.
    let other = store.begin_task(&new("b", "study"), at(33)).await.unwrap().unwrap();
    store.advance_task(&other, &TaskStep::LeftToPeople, "500", at(34)).await.unwrap();
    assert_eq!(store.retry_tasks(None, at(40)).await.unwrap(), 2);
    let tasks = open(&store).await;
    let seen: Vec<_> = tasks.iter().map(|task| (task.status, task.failures, task.refusals, task.asked_since)).collect();
    assert_eq!(seen, [(TaskStatus::Ending, 0, 0, at(40)), (TaskStatus::Claiming, 0, 0, at(40))]);
    assert_eq!(tasks[0].ending, Some(json!({ "done": true })));
    // Given up for good; who was at it meanwhile comes too late.
    let given_up = store.give_up_task(tasks[0].id, "O'Brien called", at(50)).await.unwrap();
    assert_eq!(given_up.new.transaction, first.new.transaction, "for whoever settles it there");
    assert_eq!(status(&store, "a").await, Some(TaskStatus::GivenUp));
    let late = store.advance_task(&tasks[0], &TaskStep::Ended(TaskStatus::Completed), "told", at(51)).await;
    assert!(matches!(late, Err(StoreError::StaleClaim { .. })));
    assert!(matches!(store.give_up_task(tasks[0].id, "again", at(52)).await, Err(StoreError::Filter { .. })));
    assert!(store.begin_task(&new("a", "study"), at(90_000)).await.unwrap().is_none(), "for good");
    let listed = store.tasks(Some(TaskStatus::GivenUp), 10).await.unwrap().remove(0);
    assert_eq!((listed.ended_at, listed.last_words.as_deref()), (Some(at(50)), Some("given up: O'Brien called")));
    let kinds = kinds(&store, "study").await;
    for (kind, times) in [("task-refused", 2), ("task-retried", 2), ("task-given-up", 1)] {
        assert_eq!(kinds.iter().filter(|one| *one == kind).count(), times, "{kind}: {kinds:?}");
    }
}
