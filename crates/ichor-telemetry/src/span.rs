//! Spans, and their form on the wire (OTLP 1.x, `opentelemetry.proto.trace.v1`).

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValueKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource as WireResource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan, Status};
use prost::Message;

/// Nanoseconds of a millisecond.
const NANOS: u64 = 1_000_000;

/// Flags of a span that is sampled (W3C Trace Context, trace-flags).
const SAMPLED: u32 = 1;

/// Which span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanContext {
    /// Of the trace; not all zero.
    pub trace: [u8; 16],
    /// Of the span within it; not all zero.
    pub span: [u8; 8],
}

impl SpanContext {
    /// The value of the header `traceparent` by which a receiver's spans join (W3C Trace Context 2.2, version 00).
    #[must_use]
    pub fn traceparent(&self, is_sampled: bool) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), if is_sampled { SAMPLED } else { 0 })
    }
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A count.
    Number(i64),
    /// A measurement.
    Real(f64),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A name with its value.
pub type Attribute = (&'static str, Value);

/// Something that happened within a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// What.
    pub name: String,
    /// More of it.
    pub attributes: Vec<Attribute>,
}

/// What happened from when to when.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Which.
    pub context: SpanContext,
    /// The span that it is part of, in the same trace.
    pub parent: Option<[u8; 8]>,
    /// What: few different names.
    pub name: String,
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub start: i64,
    /// When it ended; not before it began.
    pub end: i64,
    /// Whether another program took part.
    pub is_remote: bool,
    /// More of it.
    pub attributes: Vec<Attribute>,
    /// What happened within.
    pub moments: Vec<Moment>,
    /// Spans of other traces that it has to do with.
    pub links: Vec<SpanContext>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Who says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `service.name`
    pub service: String,
    /// `service.version`
    pub version: String,
    /// `service.instance.id`
    pub instance: String,
}

/// The body of a request (`ExportTraceServiceRequest`).
pub(crate) fn body(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let text = |key: &str, value: &str| pair(key, &Value::Text(value.to_owned()));
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(WireResource {
                attributes: vec![
                    text("service.name", &resource.service),
                    text("service.version", &resource.version),
                    text("service.instance.id", &resource.instance),
                ],
                ..WireResource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "ichor".to_owned(),
                    version: resource.version.clone(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.iter().map(wire).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

fn pair(key: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => AnyValueKind::StringValue(text.clone()),
        Value::Number(number) => AnyValueKind::IntValue(*number),
        Value::Real(number) => AnyValueKind::DoubleValue(*number),
        Value::Flag(flag) => AnyValueKind::BoolValue(*flag),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn pairs(attributes: &[Attribute]) -> Vec<KeyValue> {
    attributes.iter().map(|(key, value)| pair(key, value)).collect()
}

fn nanos(millis: i64) -> u64 {
    u64::try_from(millis).unwrap_or(0).saturating_mul(NANOS)
}

fn wire(span: &Span) -> WireSpan {
    let link = |context: &SpanContext| Link {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        flags: SAMPLED,
        ..Link::default()
    };
    let event = |moment: &Moment| Event {
        time_unix_nano: nanos(moment.at),
        name: moment.name.clone(),
        attributes: pairs(&moment.attributes),
        ..Event::default()
    };
    WireSpan {
        trace_id: span.context.trace.to_vec(),
        span_id: span.context.span.to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.to_vec()),
        flags: SAMPLED,
        name: span.name.clone(),
        kind: if span.is_remote { SpanKind::Client } else { SpanKind::Internal } as i32,
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end.max(span.start)),
        attributes: pairs(&span.attributes),
        events: span.moments.iter().map(event).collect(),
        links: span.links.iter().map(link).collect(),
        status: span.error.as_ref().map(|why| Status { message: why.clone(), code: StatusCode::Error as i32 }),
        ..WireSpan::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_that_of_the_specification() {
        // The example of W3C Trace Context 3.2.2.
        let trace = [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
        let context = SpanContext { trace, span: [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7] };
        assert_eq!(context.traceparent(true), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(context.traceparent(false), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    }

    #[test]
    fn a_span_travels_whole() {
        let span = Span {
            context: SpanContext { trace: [1; 16], span: [2; 8] },
            parent: Some([3; 8]),
            name: "deliver".to_owned(),
            start: 1_700_000_000_000,
            end: 1_699_999_999_000,
            is_remote: true,
            attributes: vec![("a", "x".into()), ("b", 7_i64.into()), ("c", 0.5.into()), ("d", true.into())],
            moments: vec![Moment { at: 1_700_000_000_001, name: "held".to_owned(), attributes: Vec::new() }],
            links: vec![SpanContext { trace: [4; 16], span: [5; 8] }],
            error: Some("unreachable".to_owned()),
        };
        let resource = Resource { service: "s".to_owned(), version: "0.1".to_owned(), instance: "ICHOR".to_owned() };
        let request = ExportTraceServiceRequest::decode(body(&resource, &[span]).as_slice()).unwrap();
        let wire = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((wire.trace_id.len(), wire.span_id.len(), wire.parent_span_id.as_slice()), (16, 8, &[3; 8][..]));
        assert_eq!(wire.end_time_unix_nano, wire.start_time_unix_nano, "no span ends before it began");
        assert_eq!(wire.start_time_unix_nano, 1_700_000_000_000_000_000);
        assert_eq!((wire.attributes.len(), wire.events.len(), wire.links[0].trace_id.as_slice()), (4, 1, &[4; 16][..]));
        assert_eq!(wire.status.as_ref().unwrap().message, "unreachable");
        assert_eq!(request.resource_spans[0].resource.as_ref().unwrap().attributes.len(), 3);
    }
}
