//! Stages that another configuration replaces while the daemon works: what a stage has in hand it finishes, and the next begins
//! when it has ended.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a stage is made of: its settings, and the contents of the files that they name.
///
/// # Errors
/// Settings that cannot be written down.
pub(crate) fn made_of(settings: &impl Serialize) -> anyhow::Result<String> {
    let value = serde_json::to_value(settings).context("writing settings down")?;
    let mut hasher = DefaultHasher::new();
    hash_files(&value, &mut hasher);
    Ok(format!("{value} {:016x}", hasher.finish()))
}

/// Takes in what lies in every file that a key names; what is not there is taken in as nothing.
fn hash_files(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                match field {
                    Value::String(path) if key.ends_with("_file") => std::fs::read(path).ok().hash(hasher),
                    other => hash_files(other, hasher),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| hash_files(item, hasher)),
        _ => {}
    }
}

/// What a task says that has ended because another took over.
pub(crate) const REPLACED: &str = "replaced";

/// Who works on what.
#[derive(Default)]
pub(crate) struct Stages {
    running: HashMap<String, Running>,
}

struct Running {
    /// What it was made of: the same makes no other.
    of: String,
    retired: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

impl Stages {
    /// Whether the stage of this name is made of something else, or not there.
    pub(crate) fn needs(&self, name: &str, of: &str) -> bool {
        self.running.get(name).is_none_or(|running| running.of != of || running.retired.is_cancelled())
    }

    /// Starts a stage, after the one of this name has ended. It is given what tells it that it is replaced.
    pub(crate) fn start<F>(
        &mut self,
        tasks: &mut JoinSet<&'static str>,
        (kind, name, of): (&'static str, String, String),
        work: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let before = self.retire(&name);
        let (retired, ended) = (CancellationToken::new(), CancellationToken::new());
        let (work, token, guard) = (work(retired.clone()), retired.clone(), ended.clone().drop_guard());
        tasks.spawn(async move {
            let _ended_when_dropped = guard;
            if let Some(before) = before {
                before.cancelled().await;
            }
            work.await;
            if token.is_cancelled() { REPLACED } else { kind }
        });
        self.running.insert(name, Running { of, retired, ended });
    }

    /// Retires every stage of a kind of names that is not wanted any more; their names.
    pub(crate) fn retire_others(&mut self, prefix: &str, wanted: &[String]) -> Vec<String> {
        let is_left = |name: &&String| name.starts_with(prefix) && !wanted.contains(name);
        let names: Vec<String> = self.running.keys().filter(is_left).cloned().collect();
        let is_new = |name: &String| self.running.get(name).is_some_and(|running| !running.retired.is_cancelled());
        let retired: Vec<String> = names.into_iter().filter(is_new).collect();
        for name in &retired {
            self.retire(name);
        }
        retired
    }

    /// Tells a stage to end; what says that it has.
    fn retire(&mut self, name: &str) -> Option<CancellationToken> {
        let running = self.running.get(name)?;
        running.retired.cancel();
        Some(running.ended.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_next_begins_when_the_last_has_ended() {
        let (mut stages, mut tasks) = (Stages::default(), JoinSet::new());
        let (at_once, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        for of in ["a", "b", "c"] {
            assert!(stages.needs("x", of));
            let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most));
            stages.start(&mut tasks, ("kind", "x".to_owned(), of.to_owned()), |retired| async move {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                retired.cancelled().await;
                // What it has in hand takes a while.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
            });
            assert!(!stages.needs("x", of));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(stages.retire_others("x", &["x".to_owned()]).is_empty());
        assert_eq!(stages.retire_others("x", &[]), ["x"]);
        assert!(stages.retire_others("x", &[]).is_empty() && stages.needs("x", "c"));
        while let Some(ended) = tasks.join_next().await {
            assert_eq!(ended.unwrap(), REPLACED);
        }
        assert_eq!(most.load(Ordering::SeqCst), 1, "never two at once");
    }

    #[tokio::test]
    async fn a_stage_that_ends_by_itself_says_which_it_was() {
        let (mut stages, mut tasks) = (Stages::default(), JoinSet::new());
        stages.start(&mut tasks, ("deliver", "x".to_owned(), String::new()), |_| async {});
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), "deliver");
    }
}
