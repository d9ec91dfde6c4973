//! Stories as the store writes them, and the traces that are made of them.

use ichor_store::Timestamp;
use serde_json::json;

use super::*;

fn event(id: i64, at: i64, kind: &str, detail: Value) -> TraceEvent {
    let version = detail["version"].as_u64().map(|version| u32::try_from(version).unwrap());
    TraceEvent { id, at: Timestamp::from_millis(at), kind: kind.to_owned(), detail, version, about: None }
}

fn arrival(version: u32, first: i64, last: i64) -> TraceArrival {
    TraceArrival {
        version,
        association: Some(7),
        source_ae: Some("CT".to_owned()),
        instances: 30,
        bytes: 1_000,
        first: Timestamp::from_millis(first),
        last: Timestamp::from_millis(last),
    }
}

/// A positive study whose first delivery fails with words that a peer chose, and a message that is told twice.
fn story() -> Vec<TraceEvent> {
    let finding = json!({ "verdict": "positive" });
    let delivery = |attempt: i64, words: &str| json!({ "sop_instance": "1.9", "destination": "pacs", "attempt": attempt, "words": words });
    let about = |mut event: TraceEvent, of: i64| {
        event.about = Some(of);
        event
    };
    let of_object = |mut event: TraceEvent| {
        event.version = Some(1);
        event
    };
    let message = |attempt: i64, words: &str| json!({ "message": 3, "channel": "ris", "subject": "positive", "attempt": attempt, "words": words });
    vec![
        event(1, 1_200, "alert", json!({ "latency_ms": 150, "slices": ["1.2", "1.3"] })),
        event(2, 2_000, "closed", json!({ "version": 1 })),
        event(3, 2_100, "analysis-started", json!({ "version": 1, "attempt": 1 })),
        event(
            4,
            2_600,
            "analysed",
            json!({ "version": 1, "outcome": { "finding": finding }, "model": "m@1+ab", "slices_known": 30,
                "timings_ms": [["choose", 100], ["classify", 200], ["mask", 100], ["result", 900]] }),
        ),
        of_object(event(
            5,
            2_600,
            "object-created",
            json!({ "kind": "segmentation", "sop_instance": "1.9", "destinations": ["pacs"] }),
        )),
        of_object(event(6, 2_610, "delivery-started", delivery(1, ""))),
        of_object(event(7, 2_650, "delivery-failed", delivery(1, "peer says DOE^JANE was refused (status)"))),
        about(event(8, 2_700, "message-failed", message(1, "refused: AE DOE^JANE (refused)")), 4),
        of_object(event(9, 2_800, "delivery-started", delivery(2, ""))),
        of_object(event(10, 2_850, "delivery-accepted", delivery(2, "0000H DOE^JANE"))),
        about(event(11, 2_900, "message-acknowledged", message(2, "AA")), 4),
        of_object(event(12, 3_000, "delivery-committed", delivery(2, "yes"))),
    ]
}

fn claim(events: Vec<TraceEvent>, arrivals: Vec<TraceArrival>, after: i64) -> TraceClaim {
    TraceClaim::of(Uid::derive(["study"]), after, events, arrivals)
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[test]
fn a_story_becomes_one_trace() {
    let spans = of(&claim(story(), vec![arrival(1, 1_000, 1_500)], 0));
    let root = named(&spans, "study")[0];
    assert_eq!((root.start, root.end, root.parent), (1_000, 3_000, None));
    assert!(root.attributes.contains(&("ichor.outcome", "positive".into())), "{root:?}");
    for (name, start, end) in [
        ("receive", 1_000, 1_500),
        ("triage", 1_050, 1_200),
        ("quiet period", 1_500, 2_000),
        ("wait for analysis", 2_000, 2_100),
        ("analyse", 2_100, 2_600),
        ("deliver", 2_600, 2_850),
        ("prove", 2_850, 3_000),
        ("tell", 2_600, 2_900),
        ("gate", 2_100, 2_200),
        ("mask", 2_400, 2_500),
        ("objects", 2_500, 2_600),
    ] {
        let span = named(&spans, name);
        assert_eq!(span.len(), 1, "{name}");
        assert_eq!((span[0].start, span[0].end), (start, end), "{name}");
    }
    let ids: std::collections::HashSet<[u8; 8]> = spans.iter().map(|span| span.context.span).collect();
    assert_eq!(ids.len(), spans.len(), "each span once");
    for span in spans.iter().filter(|span| span.parent.is_some()) {
        assert!(ids.contains(&span.parent.unwrap()) && span.context.trace == root.context.trace, "{span:?}");
        assert!(span.start >= root.start && span.end <= root.end && span.start <= span.end, "{span:?}");
    }
    let deliver = named(&spans, "deliver")[0];
    let attempts = named(&spans, "attempt");
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|attempt| attempt.parent == Some(deliver.context.span)));
    assert_eq!((attempts[0].error.as_deref(), attempts[1].error.as_deref()), (Some("status"), None));
    assert_eq!(named(&spans, "tell")[0].moments.len(), 1);
    assert!(!format!("{spans:?}").contains("DOE"), "a peer's words may speak of a patient");
}

#[test]
fn slices_that_are_queued_again_together_begin_anew() {
    let dead = |id: i64, at: i64, sop: &str| {
        let mut event = event(
            id,
            at,
            "delivery-dead",
            json!({ "sop_instance": sop, "destination": "vna", "attempt": 1, "words": "no room (refused)" }),
        );
        event.version = Some(1);
        event
    };
    let mut events = story();
    events.extend([dead(13, 3_100, "1.2"), dead(14, 3_100, "1.3")]);
    let again = json!({ "destination": "vna", "deliveries": 2, "sop_instances": ["1.2", "1.3"] });
    events.push(event(15, 3_200, "deliveries-requeued", again));
    events.extend([dead(16, 3_300, "1.2"), dead(17, 3_400, "1.3")]);
    let spans = of(&claim(events, vec![arrival(1, 1_000, 1_500)], 0));
    let of_both: Vec<&Span> = named(&spans, "deliver").into_iter().filter(|span| span.error.is_some()).collect();
    let times: Vec<(i64, i64)> = of_both.iter().map(|span| (span.start, span.end)).collect();
    assert_eq!(times, [(3_100, 3_100), (3_100, 3_100), (3_200, 3_300), (3_200, 3_400)]);
    let ids: std::collections::HashSet<[u8; 8]> = of_both.iter().map(|span| span.context.span).collect();
    assert_eq!(ids.len(), 4, "each attempt at all of it is a span of its own");
}

#[test]
fn every_span_is_told_once_whenever_the_cut_falls() {
    let (all, arrivals) = (story(), vec![arrival(1, 1_000, 1_500)]);
    let whole = of(&claim(all.clone(), arrivals.clone(), 0));
    for cut in 1..12 {
        let first = of(&claim(all[..cut].to_vec(), arrivals.clone(), 0));
        let second = of(&claim(all.clone(), arrivals.clone(), i64::try_from(cut).unwrap()));
        let mut ids: Vec<[u8; 8]> = first.iter().chain(&second).map(|span| span.context.span).collect();
        ids.sort_unstable();
        let mut wanted: Vec<[u8; 8]> = whole.iter().map(|span| span.context.span).collect();
        wanted.sort_unstable();
        assert_eq!(ids, wanted, "cut after event {cut}");
    }
}

#[test]
fn a_late_slice_makes_a_trace_that_links_to_the_first() {
    let mut events = story();
    events.push(event(13, 5_000, "reopened", json!({})));
    events.push(event(14, 7_000, "closed", json!({ "version": 2 })));
    events.push(event(15, 7_100, "analysis-started", json!({ "version": 2, "attempt": 1 })));
    let reason = json!({ "code": "decode", "text": "DOE" });
    let failed = json!({ "version": 2, "attempt": 1, "reason": reason, "given_up": true });
    events.push(event(16, 7_200, "analysis-failed", failed));
    let arrivals = vec![arrival(1, 1_000, 1_500), arrival(2, 5_000, 5_000)];
    let spans = of(&claim(events, arrivals, 12));
    let roots = named(&spans, "study");
    assert_eq!(roots.len(), 1, "the first was told before");
    assert_eq!(roots[0].links, [names::root(&Uid::derive(["study"]), 1)]);
    assert_eq!((roots[0].error.as_deref(), roots[0].start, roots[0].end), (Some("decode"), 5_000, 7_200));
    assert!(spans.iter().all(|span| span.context.trace == roots[0].context.trace));
}

#[test]
fn a_version_that_gave_way_is_told_of_once() {
    let mut events = vec![
        event(1, 2_000, "closed", json!({ "version": 1 })),
        event(2, 2_100, "analysis-started", json!({ "version": 1, "attempt": 1 })),
        event(3, 2_200, "reopened", json!({})),
        event(4, 3_000, "closed", json!({ "version": 2 })),
    ];
    let arrivals = vec![arrival(1, 1_000, 1_500), arrival(2, 2_200, 2_200)];
    let first = of(&claim(events.clone(), arrivals.clone(), 0));
    assert_eq!(named(&first, "study").len(), 1, "{first:?}");
    assert!(named(&first, "study")[0].attributes.contains(&("ichor.outcome", "superseded".into())));
    events.push(event(
        5,
        3_100,
        "analysed",
        json!({ "version": 1, "outcome": { "finding": { "verdict": "negative" } } }),
    ));
    let second = of(&claim(events, arrivals, 4));
    assert_eq!((named(&second, "study").len(), named(&second, "analyse").len()), (0, 1));
}

#[test]
fn only_codes_are_taken_from_words() {
    assert_eq!(code(&json!("no answer (unreachable)")), Some("unreachable".to_owned()));
    for words in [json!("x (DOE)"), json!("x ()"), json!("(a b)"), json!("code"), json!(3), json!(null)] {
        assert_eq!(code(&words), None, "{words}");
    }
}
