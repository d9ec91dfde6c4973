//! Destinations as a whole: who is away, and what is not taken where. And the outbox for people.

use ichor_core::{DeliveryStatus, Reason, Uid};
use serde::Serialize;

use crate::sqlite::Dead;
use crate::{DeliveryClaim, Store, StoreError, Timestamp, Topic};

/// Most deliveries of one list.
const LONGEST_LIST: u32 = 10_000;

/// Which deliveries may be claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Among {
    /// All of them.
    #[default]
    All,
    /// Those of positive findings: it is not the hour for others.
    Urgent,
}

/// A SOP class in a transfer syntax.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Context {
    /// SOP Class UID.
    pub sop_class: Uid,
    /// Transfer Syntax UID.
    pub transfer_syntax: Uid,
}

/// What is known of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationState {
    /// Name.
    pub name: String,
    /// Whether somebody was there at the last attempt.
    pub is_up: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// Attempts in a row that found nobody.
    pub failures: u32,
    /// While it is down: when somebody looks again.
    pub next_probe: Option<Timestamp>,
    /// Why it is down.
    pub last_words: Option<String>,
    /// What it does not accept, each with the moment at which it is proposed again.
    pub refused: Vec<(Context, Timestamp)>,
}

/// Which deliveries to list. Fields that are `None` do not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// State.
    pub status: Option<DeliveryStatus>,
    /// Destination.
    pub destination: Option<String>,
    /// Study Instance UID.
    pub study: Option<Uid>,
    /// Whether it is a received instance that is forwarded.
    pub forwarded: Option<bool>,
    /// Numbers below this one: a list goes on where it ended.
    pub before: Option<i64>,
    /// Most deliveries; 10,000 at most.
    pub limit: u32,
}

/// A delivery in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeliverySummary {
    /// Its number.
    pub id: i64,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// What is delivered, such as `seg`.
    pub kind: String,
    /// Destination.
    pub destination: String,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// What is still to be proven.
    pub proof_due: Option<String>,
    /// Whether it goes before others.
    pub urgent: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// How often it was sent again because the peer had lost it.
    pub resends: u32,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it may be tried again, while queued.
    pub next_attempt: Option<Timestamp>,
    /// When it was accepted or given up.
    pub finished_at: Option<Timestamp>,
    /// What the peer, or the last failed attempt, said.
    pub last_words: Option<String>,
}

impl Store {
    /// [`Self::claim_delivery`] among some only. What the destination does not accept at present is left out.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn claim_delivery_among(
        &self,
        destination: &str,
        among: Among,
        now: Timestamp,
    ) -> Result<Option<DeliveryClaim>, StoreError> {
        self.index().claim_delivery(self.blobs(), destination, among, now).await
    }

    /// Puts a claimed delivery back as it was: what kept it was not its own fault, and costs no attempt. With `until` it
    /// lets all others go first until then, [`Self::release_held`] or [`Self::destination_up`]: whether it was its fault
    /// shows by them.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if the claim is no longer held; else as [`Self::claim_delivery`].
    pub async fn delivery_held(
        &self,
        claim: DeliveryClaim,
        reason: &Reason,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().delivery_held(&claim, reason, until, now).await
    }

    /// Makes due the delivery among these that has let others go first for longest; whether there is one.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn release_held(&self, destination: &str, among: Among, now: Timestamp) -> Result<bool, StoreError> {
        self.index().release_held(destination, among, now).await
    }

    /// SOP classes and transfer syntaxes that are queued for a destination and not known to be refused; 127 at most.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn queued_contexts(&self, destination: &str, now: Timestamp) -> Result<Vec<Context>, StoreError> {
        self.index().queued_contexts(destination, now).await
    }

    /// Records that nobody is there. The first time in a row it is an event.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn destination_down(
        &self,
        destination: &str,
        reason: &Reason,
        next_probe: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().destination_down(destination, reason, next_probe, now).await
    }

    /// Records that somebody is there; if nobody was before it is an event, and what let others go first is due.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn destination_up(&self, destination: &str, now: Timestamp) -> Result<(), StoreError> {
        self.index().destination_up(destination, now).await
    }

    /// Records what a destination does not accept: nothing of these kinds is claimed for it until then. Those that wait
    /// say so, and each that is new is one event. Returns how many deliveries wait.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn contexts_refused(
        &self,
        destination: &str,
        refused: &[Context],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.index().contexts_refused(destination, refused, until, now).await
    }

    /// Lets deliveries say that they are held which were queued after the destination had refused their kind. Returns how many.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn hold_refused(&self, destination: &str, now: Timestamp) -> Result<u64, StoreError> {
        self.index().hold_refused(destination, now).await
    }

    /// Says of deliveries that are due why they wait all the same, such as for the hours of their destination; not of urgent
    /// ones, which do not. Returns how many had not been told so: at most 1,000 at once.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn say_why_due_waits(&self, destination: &str, words: &str, now: Timestamp) -> Result<u64, StoreError> {
        self.index().say_why_due_waits(destination, words, now).await
    }

    /// What is known of all destinations that were ever tried, by name.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn destinations(&self, now: Timestamp) -> Result<Vec<DestinationState>, StoreError> {
        self.index().destinations(now).await
    }

    /// Deliveries that match, newest first.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliverySummary>, StoreError> {
        self.index().deliveries(filter, filter.limit.clamp(1, LONGEST_LIST)).await
    }

    /// Queues dead deliveries again, attempts counted anew: one by its number, or all, of one destination or of every.
    /// What a destination refused is proposed again at once. Many are queued in several transactions, each with its row of the
    /// audit trail. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the one is not dead; else as [`Self::claim_delivery`].
    pub async fn retry_deliveries(
        &self,
        number: Option<i64>,
        destination: Option<&str>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.retry_dead(Dead { number, destination, study: None }, now).await
    }

    /// Queues all dead deliveries of a destination again, or those of one study, as [`Self::retry_deliveries`] does.
    /// Returns how many.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn retry_destination(
        &self,
        destination: &str,
        study: Option<&Uid>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.retry_dead(Dead { number: None, destination: Some(destination), study }, now).await
    }

    async fn retry_dead(&self, which: Dead<'_>, now: Timestamp) -> Result<u64, StoreError> {
        let revived = self.index().retry_deliveries(which, now).await;
        // What was queued before something failed is queued all the same.
        self.topics().notify(Topic::Outbox);
        revived
    }
}
