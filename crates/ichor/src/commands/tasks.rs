//! `ichor tasks`: workitems of others that are performed here.

use ichor_store::{NewTask, TaskListState, TaskSummary};

use super::job_log::{clock, open};
use super::models::reason;
use super::witness::witnessed;
use crate::cli::{TasksArgs, TasksGiveUpArgs, TasksRetryArgs};

/// `ichor tasks list`
pub(crate) async fn list(args: TasksArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let (lists, tasks) = (store.task_lists().await?, store.tasks(args.status, args.limit).await?);
    if json {
        println!("{}", serde_json::json!({ "lists": lists, "tasks": tasks }));
        return Ok(());
    }
    for TaskListState { name, is_up, since, last_words } in &lists {
        let word = if *is_up { "answers" } else { "does not answer" };
        let words = last_words.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
        println!("task list {name} {word} since {}{words}", clock(*since));
    }
    println!("{}", row(["number", "seen", "status", "list", "workitem", "study"]));
    for task in &tasks {
        println!("{}", line(task));
    }
    if tasks.is_empty() {
        println!("no task");
    }
    Ok(())
}

/// `ichor tasks retry`
pub(crate) async fn retry(args: TasksRetryArgs, json: bool) -> anyhow::Result<()> {
    let detail = (args.by.as_deref(), serde_json::json!({ "task": args.number }));
    let store = witnessed(&open(&args.store).await?, "tasks-retried", None, detail);
    let retried = store.retry_tasks(args.number, ichor_pipeline::now()).await?;
    if json {
        println!("{}", serde_json::json!({ "retried": retried }));
    } else {
        println!("{retried} {} tried again", if retried == 1 { "task is" } else { "tasks are" });
    }
    Ok(())
}

/// `ichor tasks give-up`
pub(crate) async fn give_up(args: TasksGiveUpArgs, json: bool) -> anyhow::Result<()> {
    let (store, why) = (open(&args.store).await?, reason(&args.why)?);
    let detail = (args.by.as_deref(), serde_json::json!({ "task": args.number, "why": why }));
    let store = witnessed(&store, "task-given-up", None, detail);
    let NewTask { list, workitem, transaction, .. } =
        store.give_up_task(args.number, &why, ichor_pipeline::now()).await?.new;
    if json {
        println!("{}", serde_json::json!({ "list": list, "workitem": workitem, "transaction": transaction }));
    } else {
        println!("task {} is given up; workitem {workitem} of task list {list} is told no more", args.number);
        println!("if it is IN PROGRESS there, whoever cares for the list ends it with Transaction UID {transaction}");
    }
    Ok(())
}

fn row(cells: [&str; 6]) -> String {
    let [number, seen, status, list, workitem, study] = cells;
    format!("{number:>8}  {seen:<19}  {status:<10}  {list:<16}  {workitem:<40}  {study}")
}

fn line(task: &TaskSummary) -> String {
    let cells = row([
        &task.id.to_string(),
        &clock(task.seen_at),
        task.status.as_str(),
        &task.list,
        task.workitem.as_str(),
        task.study_instance.as_str(),
    ]);
    let urgent = if task.urgent { " (urgent)" } else { "" };
    match &task.last_words {
        Some(words) => format!("{cells}\n          {words}{urgent}"),
        None => format!("{cells}{urgent}"),
    }
}
