//! Tasks: lists with their states, and workitems page by page.

use ichor_core::{TaskStatus, Uid};
use ichor_store::{NewTask, TaskStep};

use crate::support::{Site, Who, now};

const LIST: &str = "tasks <1>";

fn new(list: &str, number: u32) -> NewTask {
    NewTask {
        list: list.to_owned(),
        workitem: Uid::derive(["workitem", list, &number.to_string()]),
        transaction: Uid::derive(["secret", list, &number.to_string()]),
        study_instance: Uid::derive(["study", &number.to_string()]),
        urgent: number == 2,
        request: serde_json::json!({}),
    }
}

/// Three tasks of a list, one of which failed and one of which is done, and one of another list that is gone.
async fn with_tasks(site: &Site) {
    let store = &site.store;
    for number in 1..=3 {
        store.begin_task(&new(LIST, number), now()).await.unwrap().unwrap();
    }
    let open = store.open_tasks(LIST).await.unwrap();
    let of = |number| open.iter().find(|task| task.new.workitem == new(LIST, number).workitem).unwrap();
    store.advance_task(of(2), &TaskStep::Again(now()), "HTTP 503 <b>", now()).await.unwrap();
    store.advance_task(of(1), &TaskStep::Ended(TaskStatus::Completed), "told", now()).await.unwrap();
    store.leave_task(&new("former", 9), "its images cannot be had", now()).await.unwrap();
}

fn numbers(page: &serde_json::Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|task| task["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn tasks_are_listed_page_by_page() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let viewer = site.user(&admin, "vera", "viewer").await;
    let none = site.get(&viewer, "/api/tasks").await.json();
    assert_eq!((none["items"].as_array().unwrap().len(), &none["lists"][0]["name"]), (0, &LIST.into()));
    assert_eq!((&none["lists"][0]["is_up"], &none["next"]), (&().into(), &().into()), "not asked yet");
    with_tasks(&site).await;
    site.store.task_list_looked_at(LIST, Some("connection refused"), now()).await.unwrap();

    let all = site.get(&viewer, "/api/tasks").await.json();
    let ids = numbers(&all);
    assert_eq!((ids.len(), ids.windows(2).all(|pair| pair[0] > pair[1])), (4, true), "the newest first: {all}");
    let (first, rest) = (site.get(&viewer, "/api/tasks?limit=3").await.json(), all["items"].as_array().unwrap());
    assert_eq!((numbers(&first), first["next"].as_i64()), (ids[..3].to_vec(), Some(ids[2])));
    let second = site.get(&viewer, &format!("/api/tasks?limit=3&before={}", ids[2])).await.json();
    assert_eq!((numbers(&second), &second["next"]), (ids[3..].to_vec(), &().into()));
    let failed = &rest[2];
    assert_eq!(
        (&failed["failures"], &failed["last_words"], &failed["urgent"]),
        (&1.into(), &"HTTP 503 <b>".into(), &true.into())
    );
    assert!(!all.to_string().contains(new(LIST, 1).transaction.as_str()), "the Transaction UID is a secret");

    let filtered = async |query: &str| numbers(&site.get(&viewer, &format!("/api/tasks?{query}")).await.json());
    assert_eq!(filtered("list=former").await, [ids[0]]);
    assert_eq!(filtered("list=former&status=completed").await, [0i64; 0]);
    assert_eq!(filtered("status=completed").await, [ids[3]]);
    assert_eq!(filtered("status=&list=&study=").await.len(), 4, "an empty field of a form is none");
    assert_eq!(filtered(&format!("study={}", new(LIST, 2).study_instance)).await, [ids[2]]);
    for (bad, word) in [("status=done", "done"), ("limit=0", "limit"), ("limit=1001", "limit"), ("study=x", "UID")] {
        assert!(site.get(&viewer, &format!("/api/tasks?{bad}")).await.refusal(400).contains(word), "{bad}");
    }
    for bad in ["before=x", "page=3"] {
        assert_eq!(site.get(&viewer, &format!("/api/tasks?{bad}")).await.status, 400, "{bad}");
    }

    let lists = all["lists"].as_array().unwrap();
    let [former, list] = lists.as_slice() else { panic!("{lists:?}") };
    assert_eq!((&former["name"], &former["is_configured"]), (&"former".into(), &false.into()));
    assert_eq!(former["depths"], serde_json::json!({ "left": 1 }));
    assert_eq!(former["oldest_open"], serde_json::Value::Null, "what is left to others is not open");
    assert_eq!((&list["is_configured"], &list["is_up"]), (&true.into(), &false.into()));
    assert_eq!((&list["last_words"], &list["depths"]["completed"]), (&"connection refused".into(), &1.into()));
    assert!(list["oldest_open"].is_i64());
    assert_eq!(site.get(&Who::default(), "/api/tasks").await.status, 401);
}

#[tokio::test]
async fn the_page_of_tasks_says_what_the_api_says() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    with_tasks(&site).await;
    site.store.task_list_looked_at(LIST, Some("connection refused"), now()).await.unwrap();
    let page = site.get(&admin, "/tasks").await.text;
    for words in [
        "tasks &#60;1&#62;",
        "does not answer",
        "connection refused",
        "not configured",
        "HTTP 503 &#60;b&#62;",
        "failed 1 times in a row",
        "its images cannot be had",
        "s-completed",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let link = |study: &Uid| format!("href=\"/studies/{study}\"");
    assert!(!page.contains(&link(&new(LIST, 2).study_instance)), "nothing of it is here: there is no page to go to");
    let here = site.study("2", "A^B").await;
    assert_eq!(here, new(LIST, 2).study_instance);
    let page = site.get(&admin, "/tasks").await.text;
    assert!(page.contains(&link(&here)));
    assert!(!page.contains(new(LIST, 1).transaction.as_str()) && !page.contains("Older"));
    let part = site.get(&admin, "/tasks?list=tasks+%3C1%3E&status=claiming&limit=1").await.text;
    assert_eq!(part.matches("data-workitem").count(), 1);
    assert!(part.contains("Older") && part.contains("<option selected>claiming</option>"), "{part}");
    assert_eq!(site.get(&admin, "/tasks?status=done").await.status, 400);
    assert_eq!(site.get(&Who::default(), "/tasks").await.status, 303, "to the login");
}

#[tokio::test]
async fn what_a_list_refused_is_for_operators_to_decide() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let (vera, otto) = (site.user(&admin, "vera", "viewer").await, site.user(&admin, "otto", "operator").await);
    with_tasks(&site).await;
    let open = site.store.open_tasks(LIST).await.unwrap();
    for task in &open {
        site.store.advance_task(task, &TaskStep::LeftToPeople, "HTTP 400", now()).await.unwrap();
    }
    let refused = numbers(&site.get(&otto, "/api/tasks?status=refused").await.json());
    let [second, first] = refused.as_slice() else { panic!("{refused:?}") };
    let (retry, give_up) = (format!("/api/tasks/{first}/retry"), format!("/api/tasks/{second}/give-up"));
    let page = site.get(&otto, "/tasks").await.text;
    assert!(page.contains(&format!("data-post=\"{retry}\"")), "{page}");
    assert!(!site.get(&vera, "/tasks").await.text.contains("data-post=\"/api/tasks"), "not for a viewer");
    for path in [&retry, &give_up] {
        assert_eq!(site.post(&vera, path, r#"{"why":"x"}"#).await.status, 403);
    }

    assert_eq!(site.post(&otto, &retry, "").await.status, 200);
    assert!(site.post(&otto, &retry, "").await.refusal(409).contains("claiming"), "the second operator is told");
    for bad in ["", "{}", r#"{"why":" "}"#] {
        assert!(site.post(&otto, &give_up, bad).await.status.is_client_error(), "{bad}");
    }
    let given_up = site.post(&otto, &give_up, r#"{"why":"the list is gone"}"#).await.json();
    let is_second = |task: &&ichor_store::Task| task.id == *second;
    let transaction = &open.iter().find(is_second).unwrap().new.transaction;
    assert!(given_up["done"].as_str().unwrap().contains(transaction.as_str()), "{given_up}");
    assert!(site.post(&otto, &give_up, r#"{"why":"again"}"#).await.refusal(409).contains("given-up"));
    assert_eq!(site.post(&otto, "/api/tasks/999/retry", "").await.status, 404);

    let rows = site.get(&admin, "/api/audit").await.json().to_string();
    assert_eq!((rows.matches("tasks-retried").count(), rows.matches("task-given-up").count()), (1, 1), "{rows}");
    assert!(!rows.contains(transaction.as_str()), "{rows}");
}
