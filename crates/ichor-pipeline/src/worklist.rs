//! The worklist: the store as the shelf of the UPS service, and the workitems that analyses leave for those who read.

pub mod reading;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use ichor_core::Uid;
use ichor_dicomweb::server::ups::{
    By, DataSet, Pending, ShelfError, Shelved, Target, UpsState, Workitem, WorkitemShelf,
};
use ichor_store::{NewAudit, Store, StoreError, Subscribed, Topic, Witness, WorkitemRow};
use serde_json::Value;

use crate::now;

/// The store, as the service of workitems sees it.
#[derive(Clone, Debug)]
pub struct StoreShelf {
    store: Store,
}

impl StoreShelf {
    /// A shelf in this store.
    #[must_use]
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self { store })
    }

    /// The store in a client's hands.
    fn of(&self, by: By<'_>) -> Store {
        self.store.witnessed(Witness::new(entry(by)))
    }
}

fn entry(By { who, deed }: By<'_>) -> NewAudit {
    NewAudit::of_dicomweb(now(), (&who.client, who.address.ip()), deed.action, deed.study, deed.detail)
}

fn failed(error: StoreError) -> ShelfError {
    ShelfError(error.to_string())
}

fn row(item: &Workitem) -> WorkitemRow {
    WorkitemRow {
        uid: item.uid.clone(),
        state: item.state.as_str().to_owned(),
        transaction: item.transaction.clone(),
        revision: item.revision,
        priority: item.priority(),
        starts: item.starts().to_owned(),
        attributes: Value::Object(item.attributes.clone()),
    }
}

fn item(row: WorkitemRow) -> Result<Workitem, ShelfError> {
    let damaged = || ShelfError(format!("workitem {} is damaged", row.uid));
    let state = UpsState::parse(&row.state).ok_or_else(damaged)?;
    let Value::Object(attributes) = row.attributes else { return Err(damaged()) };
    Ok(Workitem { uid: row.uid, state, transaction: row.transaction, revision: row.revision, attributes })
}

fn bodies(reports: &[DataSet]) -> Vec<String> {
    reports.iter().map(|report| Value::Object(report.clone()).to_string()).collect()
}

fn subscribed(target: &Target) -> Subscribed {
    match target {
        Target::Workitem(uid) => Subscribed::Workitem(uid.clone()),
        Target::Worklist => Subscribed::Worklist,
    }
}

impl WorkitemShelf for StoreShelf {
    fn insert<'a>(&'a self, by: By<'a>, item: &'a Workitem, reports: &'a [DataSet]) -> Shelved<'a, bool> {
        async move { self.of(by).create_workitem(&row(item), &bodies(reports), now()).await.map_err(failed) }.boxed()
    }

    fn get<'a>(&'a self, uid: &'a Uid) -> Shelved<'a, Option<Workitem>> {
        async move { self.store.workitem(uid).await.map_err(failed)?.map(item).transpose() }.boxed()
    }

    fn replace<'a>(&'a self, by: By<'a>, item: &'a Workitem, reports: &'a [DataSet]) -> Shelved<'a, bool> {
        async move { self.of(by).change_workitem(&row(item), &bodies(reports), now()).await.map_err(failed) }.boxed()
    }

    fn list<'a>(&'a self, states: &'a [UpsState], offset: u64, limit: u32) -> Shelved<'a, Vec<Workitem>> {
        async move {
            let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
            let rows = self.store.workitems(&states, offset, limit).await.map_err(failed)?;
            rows.into_iter().map(item).collect()
        }
        .boxed()
    }

    fn audit<'a>(&'a self, by: By<'a>) -> Shelved<'a, ()> {
        async move { self.store.audit(&entry(by)).await.map_err(failed) }.boxed()
    }

    fn subscribe<'a>(
        &'a self,
        by: By<'a>,
        subscriber: &'a str,
        target: &'a Target,
        deletion_lock: bool,
        reports: &'a [DataSet],
    ) -> Shelved<'a, ()> {
        async move {
            let (what, reports) = (subscribed(target), bodies(reports));
            let done = self.of(by).subscribe_workitems(subscriber, &what, deletion_lock, &reports, now()).await;
            done.map_err(failed)
        }
        .boxed()
    }

    fn unsubscribe<'a>(&'a self, by: By<'a>, subscriber: &'a str, target: &'a Target) -> Shelved<'a, bool> {
        async move { self.of(by).unsubscribe_workitems(subscriber, &subscribed(target)).await.map_err(failed) }.boxed()
    }

    fn suspend<'a>(&'a self, by: By<'a>, subscriber: &'a str) -> Shelved<'a, bool> {
        async move { self.of(by).suspend_worklist(subscriber).await.map_err(failed) }.boxed()
    }

    fn has_subscriber<'a>(&'a self, uid: &'a Uid) -> Shelved<'a, bool> {
        async move { self.store.has_workitem_subscriber(uid).await.map_err(failed) }.boxed()
    }

    fn pending<'a>(&'a self, subscriber: &'a str, limit: u32) -> Shelved<'a, Vec<Pending>> {
        async move {
            let reports = self.store.workitem_reports(subscriber, limit).await.map_err(failed)?;
            Ok(reports.into_iter().map(|report| Pending { id: report.id, body: report.body }).collect())
        }
        .boxed()
    }

    fn forget<'a>(&'a self, subscriber: &'a str, id: i64) -> Shelved<'a, ()> {
        async move { self.store.workitem_report_heard(subscriber, id, now()).await.map_err(failed) }.boxed()
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut changes = self.store.changes(Topic::Workitems);
        async move { changes.changed().await }.boxed()
    }
}
