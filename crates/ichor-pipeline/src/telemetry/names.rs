//! Numbers of traces and spans: derived from what they are about, so that a repetition has the same.

use ichor_core::Uid;
use ichor_telemetry::SpanContext;

/// The root span of a version of a study.
#[must_use]
pub fn root(study: &Uid, version: u32) -> SpanContext {
    let digest = blake3::derive_key("ichor trace 1", format!("{study} {version}").as_bytes());
    let mut trace = [0; 16];
    trace.copy_from_slice(&digest[..16]);
    span(&trace, "study")
}

/// A span of a trace, by what it is about.
pub(super) fn span(trace: &[u8; 16], about: &str) -> SpanContext {
    let digest = blake3::derive_key("ichor span 1", &[&trace[..], about.as_bytes()].concat());
    let mut span = [0; 8];
    span.copy_from_slice(&digest[..8]);
    SpanContext { trace: *trace, span }
}

/// Whether a trace is among the part that is exported, as OpenTelemetry's `TraceIdRatioBased` decides.
pub(super) fn is_sampled(trace: &[u8; 16], ratio: f64) -> bool {
    let mut low = [0; 8];
    low.copy_from_slice(&trace[8..]);
    let bound = ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64;
    ((u64::from_be_bytes(low) >> 1) as f64) < bound
}

/// How what is sent about a study says to which trace it belongs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracing {
    /// The part of the versions that is exported, 0 to 1.
    pub ratio: f64,
}

impl Tracing {
    /// The header `traceparent` of a request about a version of a study: a receiver's span joins below the whole version.
    #[must_use]
    pub fn traceparent(self, study: &Uid, version: u32) -> String {
        let root = root(study, version);
        root.traceparent(is_sampled(&root.trace, self.ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_differ() {
        let (one, other) = (Uid::derive(["a"]), Uid::derive(["b"]));
        assert_eq!(root(&one, 1), root(&one, 1));
        assert_ne!(root(&one, 1).trace, root(&one, 2).trace);
        assert_ne!(root(&one, 1).trace, root(&other, 1).trace);
        let trace = root(&one, 1).trace;
        assert_ne!(span(&trace, "x").span, span(&trace, "y").span);
        assert_ne!(span(&trace, "x").span, span(&root(&one, 2).trace, "x").span);
    }

    #[test]
    fn receivers_are_told_whether_it_is_exported() {
        let study = Uid::derive(["a"]);
        let (all, none) = (Tracing { ratio: 1.0 }, Tracing { ratio: 0.0 });
        assert_eq!(all.traceparent(&study, 1), root(&study, 1).traceparent(true));
        assert_eq!(none.traceparent(&study, 1), root(&study, 1).traceparent(false));
        assert_ne!(all.traceparent(&study, 1), all.traceparent(&study, 2));
    }

    #[test]
    fn a_ratio_takes_its_part() {
        let traces: Vec<[u8; 16]> = (0..2_000).map(|number| root(&Uid::derive(["study"]), number).trace).collect();
        let part = |ratio| traces.iter().filter(|trace| is_sampled(trace, ratio)).count();
        assert_eq!((part(0.0), part(1.0)), (0, 2_000));
        assert!((400..600).contains(&part(0.25)), "{}", part(0.25));
        let kept = |trace: &&[u8; 16]| is_sampled(trace, 0.25) && !is_sampled(trace, 0.5);
        assert_eq!(traces.iter().filter(kept).count(), 0, "a larger part holds the smaller");
    }
}
