//! How long it takes until whoever reads has acknowledged: on each kind of channel, from the first suspicious slice and from the
//! last slice of a study. `make alert-latency` measures it over some studies and prints a table; here two stand for them.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Settings, WEB_TOKEN, repository};
use crate::support::fhir::Server;
use crate::support::mllp::Receiver;
use crate::support::raw::RawAssociation;
use crate::support::study::Study;
use crate::support::tools::{python, requires};
use crate::support::{eventually, free_port, http, seconds, webhook};

/// Studies that are sent, unless `LATENCY_STUDIES` says otherwise.
const STUDIES: usize = 2;
/// Milliseconds between two slices, unless `LATENCY_SLICE_MS` says otherwise: as a scanner reconstructs them.
const SLICE_MS: u64 = 50;
/// Quiet period of the source, in seconds. It is part of every time from the last slice.
const QUIET_S: f64 = 1.0;
/// The channels that are told by messages.
const CHANNELS: [(&str, &str); 3] = [("ris", "HL7 v2 over MLLP"), ("ehr", "FHIR"), ("chat", "webhook")];
/// Longest time from the first suspicious slice to the acknowledgement of its alert, in milliseconds.
const BAR_MS: i64 = 10_000;

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
}

/// A reader's program that hears of so many workitems and ends.
struct Reader(Child);

impl Reader {
    fn start(daemon: &Daemon, reports: usize) -> Self {
        let script = repository("tests/counterparts/ups.py");
        let party = |arguments: &[&str]| {
            let mut command = Command::new(python());
            command.arg(&script).args([&daemon.web_url(), WEB_TOKEN]).args(arguments);
            command
        };
        assert!(party(&["subscribe", "READER"]).status().unwrap().success());
        let hear = party(&["hear", "READER", &reports.to_string(), "300"]).stdout(Stdio::piped()).spawn().unwrap();
        Self(hear)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Times in milliseconds, of one study each.
#[derive(Default)]
struct Times {
    alert: Vec<i64>,
    result_from_first: Vec<i64>,
    result_from_last: Vec<i64>,
}

struct Site {
    daemon: Daemon,
    admin: u16,
}

impl Site {
    /// Receivers that answer at once: what is measured is ichor and the way.
    fn start(receivers: (&Receiver, &Server, &webhook::Receiver), folder: &std::path::Path) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let (ris, ehr, chat) = receivers;
        let secret = folder.join("hook.secret");
        std::fs::write(&secret, "a secret of at least twenty-four bytes\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let admin = free_port();
        let sections = format!(
            "[worklist]\n\n[alert]\nslices = 2\n\n[admin]\naddress = \"127.0.0.1:{admin}\"\n\n\
             [[channel]]\nname = \"ris\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{}\"\n\n\
             [[channel]]\nname = \"ehr\"\nkind = \"fhir\"\nurl = \"http://127.0.0.1:{}/fhir\"\n\n\
             [[channel]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/hook\"\nsecret_file = {secret:?}\n",
            ris.port, ehr.port, chat.port
        );
        let settings = Settings { stow: true, quiet_period_s: QUIET_S, sections, ..Settings::default() };
        Self { daemon: Daemon::start(&settings), admin }
    }

    /// A value of `/metrics`.
    fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(http::get(self.admin, "/metrics").unwrap()).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    fn send(&self, study: &Study, slice_ms: u64) {
        let mut association = RawAssociation::open(self.daemon.port).unwrap();
        for instance in &study.instances {
            assert_eq!(association.store(instance).unwrap().code, 0);
            std::thread::sleep(std::time::Duration::from_millis(slice_ms));
        }
        association.release().unwrap();
    }

    /// The story of a study once every channel has acknowledged alert and result.
    fn story(&self, study: &Study) -> Vec<Value> {
        eventually(seconds(90), "alert and result acknowledged on each channel", || {
            let why = self.daemon.studies_json(&["why", &study.study_uid]);
            let timeline = why["timeline"].as_array().unwrap().clone();
            let told = timeline.iter().filter(|event| event["kind"] == "message-acknowledged").count();
            if told >= 2 * CHANNELS.len() { Ok(timeline) } else { Err(format!("{told} in {timeline:#?}")) }
        })
    }
}

fn event<'a>(story: &'a [Value], kind: &str) -> &'a Value {
    story.iter().find(|event| event["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {story:#?}"))
}

fn ms(event: &Value, key: &str) -> i64 {
    event["detail"][key].as_i64().unwrap_or_else(|| panic!("{key} of {event}"))
}

fn at(event: &Value) -> i64 {
    event["at"].as_i64().unwrap()
}

/// Median, nine in ten, longest.
fn row(name: &str, what: &str, times: &[i64]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)];
    format!("| {name} | {what} | {} | {} | {} |", rank(50), rank(90), rank(100))
}

#[test]
fn who_reads_is_told_in_time_on_every_channel() {
    requires!(WebsocketClient);
    let (studies, slice_ms) = (number("LATENCY_STUDIES", STUDIES), number("LATENCY_SLICE_MS", SLICE_MS));
    let (ris, ehr, chat) = (Receiver::start(&[]), Server::start(&[]), webhook::Receiver::start(&[]));
    let scratch = tempfile::tempdir().unwrap();
    let site = Site::start((&ris, &ehr, &chat), scratch.path());
    let reader = Reader::start(&site.daemon, studies);
    let model = called_positive()[0].write(&site.daemon.folder("model"));
    let mut by_channel: Vec<Times> = CHANNELS.iter().map(|_| Times::default()).collect();
    let mut workitem = Times::default();
    for number in 0..studies {
        let study = model.restamped(&site.daemon.folder(&format!("study-{number}")), &(100 + number).to_string());
        let heard = site.metric("ichor_workitem_report_seconds_sum");
        site.send(&study, slice_ms);
        let story = site.story(&study);
        let (alert, result) = (event(&story, "alert"), event(&story, "analysed"));
        let first = at(alert) - ms(alert, "latency_ms");
        let told = |channel: &str, subject: &str| {
            let is_it = |event: &&Value| {
                event["kind"] == "message-acknowledged"
                    && event["detail"]["channel"] == channel
                    && event["detail"]["subject"] == subject
            };
            story.iter().find(is_it).unwrap_or_else(|| panic!("no {subject} to {channel} in {story:#?}"))
        };
        for ((channel, _), times) in CHANNELS.iter().zip(&mut by_channel) {
            let (of_alert, of_result) = (told(channel, "alert"), told(channel, "positive"));
            times.alert.push(ms(of_alert, "latency_ms"));
            times.result_from_first.push(at(of_result) - first);
            times.result_from_last.push(ms(of_result, "latency_ms"));
            // Event log and latency are of one mind.
            assert_eq!(at(of_alert) - first, ms(of_alert, "latency_ms"));
            assert_eq!(at(of_result) - (at(result) - ms(result, "turnaround_ms")), ms(of_result, "latency_ms"));
        }
        eventually(seconds(20), "a report that was heard", || {
            let count = site.metric("ichor_workitem_report_seconds_count");
            if count >= (number + 1) as f64 { Ok(()) } else { Err(format!("{count}")) }
        });
        let report_ms = ((site.metric("ichor_workitem_report_seconds_sum") - heard) * 1_000.0).round() as i64;
        workitem.result_from_first.push(at(result) + report_ms - first);
        workitem.result_from_last.push(ms(result, "turnaround_ms") + report_ms);
    }
    drop(reader);
    println!(
        "{studies} studies of {} slices, one slice in {slice_ms} ms, quiet period {QUIET_S} s; milliseconds:\n",
        model.instances.len()
    );
    println!("| channel | from → to | median | 9 of 10 | longest |\n|---|---|---:|---:|---:|");
    for ((_, kind), times) in CHANNELS.iter().zip(&by_channel) {
        println!("{}", row(kind, "first suspicious slice → alert acknowledged", &times.alert));
        println!("{}", row(kind, "first suspicious slice → result acknowledged", &times.result_from_first));
        println!("{}", row(kind, "last slice → result acknowledged", &times.result_from_last));
    }
    println!("{}", row("UPS", "first suspicious slice → workitem heard of", &workitem.result_from_first));
    println!("{}", row("UPS", "last slice → workitem heard of", &workitem.result_from_last));

    // The same stands in the three places where a site looks.
    for ((channel, _), times) in CHANNELS.iter().zip(&by_channel) {
        let labels = format!("{{name=\"{channel}\",subject=\"alert\"}}");
        let sum = site.metric(&format!("ichor_message_latency_seconds_sum{labels}"));
        assert_eq!((sum * 1_000.0).round() as i64, times.alert.iter().sum::<i64>(), "{channel}");
        let listed: Vec<Value> =
            serde_json::from_slice(&site.daemon.command(&["messages", "list", "--json", "--limit", "100000"]).stdout)
                .unwrap();
        let mut kept: Vec<i64> = (listed.iter())
            .filter(|one| one["channel"] == *channel && one["subject"] == "alert")
            .map(|one| one["latency_ms"].as_i64().unwrap())
            .collect();
        kept.reverse();
        assert_eq!(kept, times.alert, "{channel}");
        let longest = times.alert.iter().max().unwrap();
        assert!(*longest < BAR_MS, "{longest} ms from the first suspicious slice to {channel}'s acknowledgement");
    }
    let why = site.daemon.why(&model.restamped(&site.daemon.folder("again"), "100").study_uid);
    assert!(why.contains("ms after the first suspicious slice") && why.contains("ms after what it rests on"), "{why}");
}
