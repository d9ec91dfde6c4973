//! Spans for OpenTelemetry: a [`Span`] is what happened from when to when, an [`OtlpClient`] sends some of them to a collector
//! by OTLP/HTTP with protobuf bodies, and waits for the collector's own word.
//!
//! Architecture Invariant: no SQL, no state, no clock; what a span means is the caller's.

mod client;
mod span;

pub use client::{Exported, HeaderSource, OtlpClient, OtlpError, OtlpOptions};
pub use span::{Attribute, Moment, Resource, Span, SpanContext, Value};
