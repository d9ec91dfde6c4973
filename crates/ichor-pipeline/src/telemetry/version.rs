//! One version of a study, as its trace is put together.

use std::collections::BTreeMap;

use ichor_core::Uid;
use ichor_store::TraceEvent;
use ichor_telemetry::{Attribute, Moment, Span, SpanContext};

use super::names;

/// A span, and the event by which it had ended.
pub(super) struct Ended {
    pub(super) by: i64,
    pub(super) span: Span,
}

/// A delivery on its way.
#[derive(Default)]
pub(super) struct Delivery {
    pub(super) kind: Option<String>,
    /// Since when it is in the outbox.
    pub(super) queued_at: Option<i64>,
    /// The attempt that has begun: event, moment, number.
    pub(super) attempt: Option<(i64, i64, i64)>,
    /// How often it was queued anew.
    pub(super) round: u32,
    pub(super) moments: Vec<Moment>,
    /// Since when a proof is waited for.
    pub(super) accepted_at: Option<i64>,
}

/// A message on its way.
#[derive(Default)]
pub(super) struct Message {
    pub(super) since: Option<i64>,
    pub(super) round: u32,
    pub(super) moments: Vec<Moment>,
}

/// What came of it.
pub(super) struct Outcome {
    /// Event.
    pub(super) by: i64,
    pub(super) word: String,
    pub(super) reason: Option<String>,
}

/// A version.
pub(super) struct Version {
    pub(super) root: SpanContext,
    pub(super) instances: i64,
    pub(super) closed_at: Option<i64>,
    /// Since when an analysis is waited for.
    pub(super) waits_since: Option<i64>,
    /// The attempt that has begun: event, moment, number.
    pub(super) analysis: Option<(i64, i64, i64)>,
    pub(super) outcome: Option<Outcome>,
    /// The event with which the next version closed.
    pub(super) replaced_by: Option<i64>,
    pub(super) deliveries: BTreeMap<(String, String), Delivery>,
    pub(super) messages: BTreeMap<i64, Message>,
    pub(super) ended: Vec<Ended>,
}

impl Version {
    pub(super) fn new(study: &Uid, number: u32) -> Self {
        Self {
            root: names::root(study, number),
            instances: 0,
            closed_at: None,
            waits_since: None,
            analysis: None,
            outcome: None,
            replaced_by: None,
            deliveries: BTreeMap::new(),
            messages: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    /// A span of this version that ended with an event.
    pub(super) fn ends(
        &mut self,
        by: &TraceEvent,
        (name, about): (&str, &str),
        start: i64,
        attributes: Vec<Attribute>,
    ) -> &mut Span {
        self.spans(by.id, (name, about), (start, by.at.as_millis()), attributes)
    }

    /// A span of this version that had ended when an event was written.
    pub(super) fn spans(
        &mut self,
        by: i64,
        (name, about): (&str, &str),
        (start, end): (i64, i64),
        attributes: Vec<Attribute>,
    ) -> &mut Span {
        let span = Span {
            context: names::span(&self.root.trace, about),
            parent: Some(self.root.span),
            name: name.to_owned(),
            start: start.min(end),
            end,
            is_remote: false,
            attributes,
            moments: Vec::new(),
            links: Vec::new(),
            error: None,
        };
        let place = self.ended.len();
        self.ended.push(Ended { by, span });
        &mut self.ended[place].span
    }

    /// The event with which the version as a whole is told of; later spans join it.
    pub(super) fn told_by(&self) -> Option<i64> {
        match (&self.outcome, self.replaced_by) {
            (Some(outcome), Some(replaced)) => Some(outcome.by.min(replaced)),
            (Some(outcome), None) => Some(outcome.by),
            (None, replaced) => replaced,
        }
    }
}
