//! How long things take, as histograms: the store counts them, here they are written.

use std::collections::BTreeMap;
use std::fmt;

use ichor_core::Subject;
use ichor_store::{LATENCY_BOUNDS_MS, Latency, LatencyHistogram, Measure};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::Site;

/// Values of a family's labels, in its order.
type Labels = Vec<String>;

/// A family of histograms.
#[derive(Debug)]
struct Histograms {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    series: BTreeMap<Labels, LatencyHistogram>,
}

/// All families.
#[derive(Debug)]
pub(super) struct Latencies(Vec<Histograms>);

/// Of a message: those that may not wait stand by themselves.
const SUBJECTS: [&str; 3] = ["alert", "positive", "other"];
/// Of an analysis.
const OUTCOMES: [&str; 4] = ["positive", "negative", "not-analysed", "failed"];
/// Of a delivery: results, and received instances that are passed on.
const KINDS: [&str; 2] = ["result", "received"];
/// States of a delivery that are counted.
const STATES: [(Measure, &str); 3] =
    [(Measure::Accepted, "accepted"), (Measure::Committed, "committed"), (Measure::Visible, "visible")];

impl Latencies {
    /// Of what is configured, a series is there before its first value. Of channels and destinations that are configured no more there
    /// is none: the store keeps their counts, and they go on when the name comes back.
    pub(super) fn new(site: &Site, measured: &[Latency]) -> Self {
        let all = |names: &[String], words: &[&str]| -> Vec<Labels> {
            names.iter().flat_map(|name| words.iter().map(move |word| vec![name.clone(), (*word).to_owned()])).collect()
        };
        let one = |words: &[&str]| words.iter().map(|word| vec![(*word).to_owned()]).collect::<Vec<Labels>>();
        let mut families = vec![
            family(TURNAROUND, one(&OUTCOMES), Measure::Turnaround, measured, |found| {
                Some(vec![found.of_what.clone()])
            }),
            family(ANALYSIS, vec![Vec::new()], Measure::Analysis, measured, |_| Some(Vec::new())),
            family(STAGE, Vec::new(), Measure::Stage, measured, |found| Some(vec![found.of_what.clone()])),
            family(ALERT, vec![Vec::new()], Measure::Alert, measured, |_| Some(Vec::new())),
            family(MESSAGE, all(&site.channels, &SUBJECTS), Measure::Message, measured, |found| {
                let subject = if found.of_what == Subject::Alert.as_str() || found.of_what == Subject::Positive.as_str()
                {
                    found.of_what.clone()
                } else {
                    "other".to_owned()
                };
                site.channels.contains(&found.name).then(|| vec![found.name.clone(), subject])
            }),
        ];
        let mut delivery: Option<Histograms> = None;
        for (measure, state) in STATES {
            let labels = |labels: Labels| [labels, vec![state.to_owned()]].concat();
            let seeds = all(&site.destinations, &KINDS).into_iter().map(labels).collect();
            let of_state = family(DELIVERY, seeds, measure, measured, |found| {
                let is_there = site.destinations.contains(&found.name);
                is_there.then(|| labels(vec![found.name.clone(), found.of_what.clone()]))
            });
            match &mut delivery {
                Some(delivery) => delivery.series.extend(of_state.series),
                None => delivery = Some(of_state),
            }
        }
        families.extend(delivery);
        families.push(family(REPORT, vec![Vec::new()], Measure::Report, measured, |_| Some(Vec::new())));
        Self(families)
    }
}

/// Name without prefix and unit, help, and labels of a family.
type About = (&'static str, &'static str, &'static [&'static str]);

const TURNAROUND: About = (
    "turnaround",
    "From the last slice of a version, or the wish for another analysis, to its outcome, quiet period included",
    &["outcome"],
);
const ANALYSIS: About =
    ("analysis", "Analyses that came to an outcome, from the claim to the outcome in the store", &[]);
const STAGE: About = ("analysis_stage", "Stages of such analyses; the model works in classify and mask", &["stage"]);
const ALERT: About = ("alert", "From the first suspicious slice to the alert in the store", &[]);
const MESSAGE: About = (
    "message_latency",
    "From the first suspicious slice of an alert, else the last slice, to the acknowledgement of the message",
    &["name", "subject"],
);
const DELIVERY: About = (
    "delivery_latency",
    "From the outbox to the first time that the destination accepted, committed itself to, or showed an object",
    &["name", "of", "state"],
);
const REPORT: About = ("workitem_report", "From a report of a workitem to the subscriber that has heard it", &[]);

fn family(
    (name, help, labels): About,
    seeds: Vec<Labels>,
    measure: Measure,
    measured: &[Latency],
    labels_of: impl Fn(&Latency) -> Option<Labels>,
) -> Histograms {
    let mut series: BTreeMap<Labels, LatencyHistogram> =
        seeds.into_iter().map(|labels| (labels, LatencyHistogram::default())).collect();
    for found in measured.iter().filter(|found| found.measure == measure) {
        if let Some(labels) = labels_of(found) {
            series.entry(labels).or_default().merge(&found.histogram);
        }
    }
    Histograms { name, help, labels, series }
}

impl Collector for Latencies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let unit = Some(&Unit::Seconds);
            let mut metric = encoder.encode_descriptor(family.name, family.help, unit, MetricType::Histogram)?;
            for (values, histogram) in &family.series {
                let bounds = LATENCY_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1_000.0).chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts).collect();
                let sum = histogram.sum_ms as f64 / 1_000.0;
                let labels: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                if labels.is_empty() {
                    metric.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)?;
                } else {
                    let labels = labels.as_slice();
                    let mut metric = metric.encode_family(&labels)?;
                    metric.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn site(destinations: &[&str], channels: &[&str]) -> Site {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Site {
            longest_overtaken: Duration::ZERO,
            destinations: names(destinations),
            channels: names(channels),
            task_lists: Vec::new(),
            zone: ichor_core::Zone::UTC,
            configuration: serde_json::Value::Null,
        }
    }

    fn latency(measure: Measure, name: &str, of_what: &str, places: &[usize], sum_ms: u64) -> Latency {
        let mut histogram = LatencyHistogram { sum_ms, ..LatencyHistogram::default() };
        for place in places {
            histogram.counts[*place] += 1;
        }
        Latency { measure, name: name.to_owned(), of_what: of_what.to_owned(), histogram }
    }

    fn exposed(site: &Site, measured: &[Latency]) -> String {
        let mut registry = Registry::with_prefix("ichor");
        registry.register_collector(Box::new(Latencies::new(site, measured)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    /// What OpenMetrics asks of a histogram (7.2.6 of its specification): counts that do not fall from bucket to bucket, a last
    /// one at +Inf that is the count, and a sum.
    fn check(text: &str) {
        let mut families = 0;
        for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let name = help.split(' ').next().unwrap();
            families += 1;
            assert!(name.starts_with("ichor_") && name.ends_with("_seconds"), "{name}");
            assert_eq!(text.matches(&format!("# TYPE {name} histogram\n")).count(), 1);
            assert_eq!(text.matches(&format!("# UNIT {name} seconds\n")).count(), 1);
            let mut by_labels: BTreeMap<String, Vec<(f64, u64)>> = BTreeMap::new();
            for line in text.lines().filter_map(|line| line.strip_prefix(&format!("{name}_bucket{{le=\""))) {
                let (bound, rest) = line.split_once('"').unwrap();
                let (labels, value) = rest.rsplit_once("} ").unwrap();
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                let labels = labels.trim_start_matches(',').to_owned();
                by_labels.entry(labels).or_default().push((bound, value.parse().unwrap()));
            }
            for (labels, buckets) in by_labels {
                assert_eq!(buckets.len(), LATENCY_BOUNDS_MS.len() + 1);
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels}: {buckets:?}");
                assert_eq!(buckets.last().unwrap().0, f64::INFINITY);
                let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
                let sample = |suffix: &str| {
                    let start = format!("{name}_{suffix}{labels} ");
                    text.lines()
                        .find_map(|line| line.strip_prefix(&start))
                        .unwrap_or_else(|| panic!("{start}"))
                        .to_owned()
                };
                assert_eq!(sample("count").parse::<u64>().unwrap(), buckets.last().unwrap().1);
                assert!(sample("sum").parse::<f64>().unwrap() >= 0.0);
            }
        }
        assert_eq!(families, 7);
    }

    #[test]
    fn what_is_configured_is_there_before_its_first_value_and_nothing_else() {
        let site = site(&["pacs"], &["ris"]);
        let measured = [
            latency(Measure::Message, "ris", "alert", &[0, 3, 22], 100_000),
            latency(Measure::Message, "ris", "negative", &[1], 90),
            latency(Measure::Message, "ris", "failed", &[1], 80),
            latency(Measure::Message, "gone", "alert", &[1], 80),
            latency(Measure::Accepted, "gone", "result", &[1], 80),
            latency(Measure::Visible, "pacs", "result", &[7], 9_000),
            latency(Measure::Stage, "", "classify", &[4], 700),
        ];
        let text = exposed(&site, &measured);
        check(&text);
        assert!(!text.contains("gone"), "{text}");
        for line in [
            "ichor_message_latency_seconds_count{name=\"ris\",subject=\"alert\"} 3",
            "ichor_message_latency_seconds_sum{name=\"ris\",subject=\"alert\"} 100.0",
            "ichor_message_latency_seconds_bucket{le=\"0.05\",name=\"ris\",subject=\"alert\"} 1",
            "ichor_message_latency_seconds_bucket{le=\"0.5\",name=\"ris\",subject=\"alert\"} 2",
            "ichor_message_latency_seconds_bucket{le=\"+Inf\",name=\"ris\",subject=\"alert\"} 3",
            "ichor_message_latency_seconds_count{name=\"ris\",subject=\"positive\"} 0",
            "ichor_message_latency_seconds_count{name=\"ris\",subject=\"other\"} 2",
            "ichor_delivery_latency_seconds_count{name=\"pacs\",of=\"result\",state=\"accepted\"} 0",
            "ichor_delivery_latency_seconds_sum{name=\"pacs\",of=\"result\",state=\"visible\"} 9.0",
            "ichor_turnaround_seconds_count{outcome=\"failed\"} 0",
            "ichor_analysis_seconds_count 0",
            "ichor_analysis_stage_seconds_count{stage=\"classify\"} 1",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in {text}");
        }
        // One series of each is (bounds + 3) lines.
        let of =
            |name: &str| text.lines().filter(|line| line.starts_with(name)).count() / (LATENCY_BOUNDS_MS.len() + 3);
        assert_eq!((of("ichor_message_latency"), of("ichor_delivery_latency"), of("ichor_turnaround")), (3, 6, 4));
    }

    #[test]
    fn names_are_written_as_the_format_asks() {
        let name = "a \"name\" \\ of\ntwo lines";
        let text = exposed(&site(&[name], &[]), &[latency(Measure::Accepted, name, "result", &[2], 200)]);
        let written = "name=\"a \\\"name\\\" \\\\ of\\ntwo lines\",of=\"result\",state=\"accepted\"} 1";
        let start = "ichor_delivery_latency_seconds_count{";
        assert!(text.lines().any(|line| line == format!("{start}{written}")), "{text}");
    }
}
