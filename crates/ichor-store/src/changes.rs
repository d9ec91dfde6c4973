//! Wake-ups for pollers.

use tokio::sync::watch;

/// What a stage waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// An instance was recorded, or an association ended: a deadline has moved.
    Received,
    /// An analysis was queued.
    Closed,
    /// A delivery was queued.
    Outbox,
    /// A study was found suspicious before it was complete.
    Alert,
    /// Something was queued for a channel, or became due.
    Messages,
    /// A commitment was asked for, or its report became due.
    Commitments,
    /// A proof of a delivery is due, or has come.
    Proofs,
    /// A workitem was made or changed, or somebody has subscribed.
    Workitems,
    /// Another model was asked for.
    Models,
}

/// Senders of all topics.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    received: watch::Sender<()>,
    closed: watch::Sender<()>,
    outbox: watch::Sender<()>,
    alert: watch::Sender<()>,
    messages: watch::Sender<()>,
    commitments: watch::Sender<()>,
    proofs: watch::Sender<()>,
    workitems: watch::Sender<()>,
    models: watch::Sender<()>,
}

impl Topics {
    pub(crate) fn new() -> Self {
        let topic = || watch::Sender::new(());
        Self {
            received: topic(),
            closed: topic(),
            outbox: topic(),
            alert: topic(),
            messages: topic(),
            commitments: topic(),
            proofs: topic(),
            workitems: topic(),
            models: topic(),
        }
    }

    fn sender(&self, topic: Topic) -> &watch::Sender<()> {
        match topic {
            Topic::Received => &self.received,
            Topic::Closed => &self.closed,
            Topic::Outbox => &self.outbox,
            Topic::Alert => &self.alert,
            Topic::Messages => &self.messages,
            Topic::Commitments => &self.commitments,
            Topic::Proofs => &self.proofs,
            Topic::Workitems => &self.workitems,
            Topic::Models => &self.models,
        }
    }

    pub(crate) fn notify(&self, topic: Topic) {
        self.sender(topic).send_replace(());
    }

    pub(crate) fn subscribe(&self, topic: Topic) -> Changes {
        Changes { receiver: self.sender(topic).subscribe() }
    }
}

/// A hint that something changed in this process. Nothing travels with it: who wakes up asks the store, and who
/// misses a wake-up finds its work by polling.
#[derive(Debug)]
pub struct Changes {
    receiver: watch::Receiver<()>,
}

impl Changes {
    /// Completes when something changed since the last completion (or since the subscription); at once if that was
    /// before the call. Cancel-safe. Never completes after the store is gone.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_change_before_the_call_is_seen_once() {
        let topics = Topics::new();
        let mut changes = topics.subscribe(Topic::Closed);
        topics.notify(Topic::Outbox);
        topics.notify(Topic::Closed);
        topics.notify(Topic::Closed);
        changes.changed().await;
        drop(topics);
        assert!(tokio::time::timeout(Duration::from_millis(20), changes.changed()).await.is_err());
    }
}
