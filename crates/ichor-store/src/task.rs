//! Tasks: workitems of others that we perform. What they ask for is somebody else's vocabulary, kept as JSON.

use ichor_core::{TaskStatus, Uid};
use serde::Serialize;
use serde_json::Value;

use crate::{Store, StoreError, Timestamp, Topic};

/// A workitem that is ours to perform.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTask {
    /// Name of the task list.
    pub list: String,
    /// SOP Instance UID of the workitem.
    pub workitem: Uid,
    /// Transaction UID (0008,1195) with which it is claimed: a secret of ours.
    pub transaction: Uid,
    /// The study that is its input.
    pub study_instance: Uid,
    /// Whether that study is analysed before others.
    pub urgent: bool,
    /// What it asks for and what its input is.
    pub request: Value,
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Number.
    pub id: i64,
    /// What it is.
    pub new: NewTask,
    /// Where it stands.
    pub status: TaskStatus,
    /// What is told in the end, once that is known.
    pub ending: Option<Value>,
    /// Why somebody wants it canceled, if somebody does.
    pub cancel_words: Option<String>,
    /// What was said of the progress last, in percent.
    pub progress: u8,
    /// Failures in a row of the present step.
    pub failures: u32,
    /// Those of them that were refusals for good.
    pub refusals: u32,
    /// Since when its list is asked for the claim, or told the end.
    pub asked_since: Timestamp,
    /// When it was first seen.
    pub seen_at: Timestamp,
    /// When it became ours.
    pub claimed_at: Option<Timestamp>,
    /// When the next step may be tried.
    pub next_attempt: Timestamp,
    /// What happened last, in words.
    pub last_words: Option<String>,
}

/// Which tasks; fields that are empty do not filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFilter {
    /// In this state.
    pub status: Option<TaskStatus>,
    /// Of this list.
    pub list: Option<String>,
    /// With this study as input.
    pub study: Option<Uid>,
    /// Numbered below this: the number of the last task of one page is where the next begins.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A task in a list, without what only its performer may know.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskSummary {
    /// Number.
    pub id: i64,
    /// Name of the task list.
    pub list: String,
    /// SOP Instance UID of the workitem.
    pub workitem: Uid,
    /// Study Instance UID of its input.
    pub study_instance: Uid,
    /// Whether anything of that study is here.
    pub study_is_here: bool,
    /// Where it stands.
    pub status: TaskStatus,
    /// Whether its study is analysed before others.
    pub urgent: bool,
    /// Failures in a row of the present step.
    pub failures: u32,
    /// When it was first seen.
    pub seen_at: Timestamp,
    /// When it became ours.
    pub claimed_at: Option<Timestamp>,
    /// When its end was told.
    pub ended_at: Option<Timestamp>,
    /// What happened last, in words.
    pub last_words: Option<String>,
}

/// What becomes of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskStep {
    /// The server has given it to us.
    Claimed,
    /// Its input is here.
    InputHere,
    /// This is told in the end.
    Ending(Value),
    /// It is over.
    Ended(TaskStatus),
    /// The present step failed, and is tried again then.
    Again(Timestamp),
    /// The list refused it for good; it is asked again then all the same.
    AgainRefused(Timestamp),
    /// The list does not take it: somebody has to decide.
    LeftToPeople,
    /// So many percent were told.
    Progress(u8),
    /// It goes on, although somebody wants it canceled.
    CancelDeclined,
}

/// How many tasks of a list are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDepth {
    /// Name of the task list.
    pub list: String,
    /// The state.
    pub status: TaskStatus,
    /// How many.
    pub count: u64,
    /// When the oldest of them was first seen.
    pub oldest: Timestamp,
}

/// Whether a task list answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskListState {
    /// Its name.
    pub name: String,
    /// Whether it answered when it was looked at last.
    pub is_up: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// What went wrong, if it does not answer.
    pub last_words: Option<String>,
}

impl Store {
    /// Notes whether a task list answers; `failure` is what went wrong. Whether that is another state than before.
    ///
    /// # Errors
    /// As [`Self::leave_task`].
    pub async fn task_list_looked_at(
        &self,
        name: &str,
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.index().task_list_looked_at(name, failure, now).await
    }

    /// Whether task lists answer, those of former configurations included.
    ///
    /// # Errors
    /// As [`Self::open_tasks`].
    pub async fn task_lists(&self) -> Result<Vec<TaskListState>, StoreError> {
        self.index().task_lists().await
    }

    /// Notes that a workitem is left to others, or for later, and why. One that was begun stays as it is.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn leave_task(&self, new: &NewTask, why: &str, now: Timestamp) -> Result<(), StoreError> {
        self.index().leave_task(new, why, now).await
    }

    /// Begins a task, before the server hears of its Transaction UID. `None`: it was begun before, or it was lost and its time has
    /// not come again.
    ///
    /// # Errors
    /// As [`Self::leave_task`].
    pub async fn begin_task(&self, new: &NewTask, now: Timestamp) -> Result<Option<Task>, StoreError> {
        self.index().begin_task(new, now).await
    }

    /// Tasks of a list that are not over, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn open_tasks(&self, list: &str) -> Result<Vec<Task>, StoreError> {
        self.index().open_tasks(list).await
    }

    /// The states of a list's tasks by their workitems.
    ///
    /// # Errors
    /// As [`Self::open_tasks`].
    pub async fn task_status(&self, list: &str, workitem: &Uid) -> Result<Option<TaskStatus>, StoreError> {
        self.index().task_status(list, workitem).await
    }

    /// Takes a task one step on, and says so in the timeline of its study.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if it does not stand where `task` says; as [`Self::leave_task`].
    pub async fn advance_task(
        &self,
        task: &Task,
        step: &TaskStep,
        words: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().advance_task(task, step, words, now).await?;
        self.topics().notify(Topic::Closed);
        Ok(())
    }

    /// Has tasks tried again that their lists had refused: one by its number, or all; how many.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] or [`StoreError::Filter`] if the one that was named is not there, or not refused; else as
    /// [`Self::leave_task`].
    pub async fn retry_tasks(&self, id: Option<i64>, now: Timestamp) -> Result<u64, StoreError> {
        self.index().retry_tasks(id, now).await
    }

    /// Gives up a task that is not over, for good: its list is told no more. The task as it is then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] or [`StoreError::Filter`] if it is not there, or over; else as [`Self::leave_task`].
    pub async fn give_up_task(&self, id: i64, why: &str, now: Timestamp) -> Result<Task, StoreError> {
        self.index().give_up_task(id, why, now).await
    }

    /// Notes that somebody wants a task canceled; `false` if it is not one of ours that is open.
    ///
    /// # Errors
    /// As [`Self::leave_task`].
    pub async fn ask_task_cancel(
        &self,
        list: &str,
        workitem: &Uid,
        words: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.index().ask_task_cancel(list, workitem, words, now).await
    }

    /// Makes queued analyses urgent that are the input of an urgent task; how many.
    ///
    /// # Errors
    /// As [`Self::leave_task`].
    pub async fn make_tasks_urgent(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.index().make_tasks_urgent(now).await
    }

    /// Which of these instances of a study are not here.
    ///
    /// # Errors
    /// As [`Self::open_tasks`].
    pub async fn missing_instances(&self, study: &Uid, instances: &[Uid]) -> Result<Vec<Uid>, StoreError> {
        self.index().missing_instances(study, instances).await
    }

    /// How many instances of a study, or of one series of it, are here and have come since a moment: for the first time, again, or
    /// in place of what was gone.
    ///
    /// # Errors
    /// As [`Self::open_tasks`].
    pub async fn instances_come(&self, study: &Uid, series: Option<&Uid>, since: Timestamp) -> Result<u64, StoreError> {
        self.index().instances_come(study, series, since).await
    }

    /// Tasks, the newest first.
    ///
    /// # Errors
    /// As [`Self::open_tasks`].
    pub async fn tasks(&self, status: Option<TaskStatus>, limit: u32) -> Result<Vec<TaskSummary>, StoreError> {
        self.tasks_of(&TaskFilter { status, list: None, study: None, before: None, limit }).await
    }

    /// A page of tasks, the newest first.
    ///
    /// # Errors
    /// As [`Self::open_tasks`].
    pub async fn tasks_of(&self, filter: &TaskFilter) -> Result<Vec<TaskSummary>, StoreError> {
        self.index().tasks(filter).await
    }

    /// How many tasks are in which state.
    ///
    /// # Errors
    /// As [`Self::open_tasks`].
    pub async fn task_depths(&self) -> Result<Vec<TaskDepth>, StoreError> {
        self.index().task_depths().await
    }
}
