//! Health and metrics.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::daemon::{Daemon, Destination, Settings, repository};
use crate::support::mllp::Receiver;
use crate::support::raw::RawAssociation;
use crate::support::scratch::Scratch;
use crate::support::study::Phantom;
use crate::support::weights::renamed;
use crate::support::{eventually, free_port, seconds};

/// An answer: status, header, body.
fn ask(port: u16, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

/// Each sample with its labels as they stand there.
fn metrics(port: u16) -> BTreeMap<String, f64> {
    let (status, head, body) = ask(port, "GET", "/metrics");
    assert!(status == 200 && head.contains("openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    samples.map(sample).collect()
}

#[test]
fn metrics_follow_a_study() {
    let (port, ris) = (free_port(), Receiver::start(&[]));
    let sections = format!(
        "[admin]\naddress = \"127.0.0.1:{port}\"\n[[channel]]\nname = \"ris\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{}\"\n",
        ris.port
    );
    let scratch = Scratch::new("metrics");
    let (also, _) = renamed(scratch.path(), "looks-on", |_| {});
    let sections = format!("{sections}\n[[model.also]]\nweights = {also:?}\n[shadow]\nrun = false\n");
    let relay = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let audit = format!("[audit]\naddress = \"{}\"\ntransport = \"udp\"\n", relay.local_addr().unwrap());
    // A list of work that is not there, either.
    let list = format!(
        "[[task_list]]\nname = \"tasks\"\nurl = \"http://127.0.0.1:{}\"\nworkitem_codes = [\"ICH^99TEST\"]\n",
        free_port()
    );
    let sections = format!("{sections}{audit}{list}");
    // Nobody listens at the destination.
    let pacs = Destination::CStore { name: "pacs", port: free_port(), timeout_s: 1.0 };
    let mut daemon = Daemon::start(&Settings { sections, ..Settings::to([pacs]) });
    let before = metrics(port);
    assert_eq!(before["ichor_deliveries{name=\"pacs\",status=\"dead\"}"], 0.0, "a series before its first value");
    assert_eq!(before["ichor_message_wait_seconds{name=\"ris\"}"], 0.0);
    assert_eq!(before["ichor_studies{status=\"analysed\"}"], 0.0);
    assert_eq!((before["ichor_instances_received"], before["ichor_analysis_wait_seconds"]), (0.0, 0.0));
    assert!(before.keys().any(|name| name.starts_with("ichor_build_info{") && name.contains("ichor-demo@")));

    let study = Phantom::BLEEDING.slices(24).matrix(128).write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    let arriving = metrics(port);
    assert_eq!(arriving["ichor_studies{status=\"receiving\"}"], 1.0);
    assert_eq!(arriving["ichor_associations_open"], 1.0);
    association.release().unwrap();
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    let after = eventually(seconds(20), "an acknowledged message", || {
        let now = metrics(port);
        match now.get("ichor_messages{name=\"ris\",status=\"acknowledged\"}") {
            Some(told) if *told >= 1.0 => Ok(now),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(after["ichor_studies{status=\"analysed\"}"], 1.0);
    assert_eq!(after["ichor_instances_received"], 24.0);
    let verdicts =
        ["positive", "negative"].map(|verdict| after[&format!("ichor_verdicts_24h{{verdict=\"{verdict}\"}}")]);
    assert_eq!(verdicts.iter().sum::<f64>(), 1.0);
    let all = |now: &BTreeMap<String, f64>, family: &str| -> f64 {
        now.iter().filter(|(name, _)| name.starts_with(&format!("{family}{{"))).map(|(_, value)| value).sum()
    };
    assert_eq!(all(&after, "ichor_turnaround_seconds_count"), 1.0);
    let turnaround = all(&after, "ichor_turnaround_seconds_sum");
    assert!((1.0..60.0).contains(&turnaround), "{turnaround} s, the quiet period of one second included");
    let (took, model) = (after["ichor_analysis_seconds_sum"], all(&after, "ichor_analysis_stage_seconds_sum"));
    assert!(model > 0.0 && model <= took + 0.1 && took <= turnaround, "{model} {took} {turnaround}");
    let told = all(&after, "ichor_message_latency_seconds_count");
    assert!(told >= 1.0 && before["ichor_message_latency_seconds_count{name=\"ris\",subject=\"alert\"}"] == 0.0);
    assert!(after["ichor_disk_free_bytes"] > 0.0 && after["ichor_database_bytes"] > 0.0);

    // Read from the store: a restart forgets nothing.
    daemon.kill();
    daemon.start_again();
    let again = metrics(port);
    assert_eq!(again["ichor_instances_received"], 24.0);
    for (name, value) in after.iter().filter(|(name, _)| name.contains("_seconds_bucket{")) {
        assert!(again[name] >= *value, "{name} fell from {value} to {}", again[name]);
    }
    assert_eq!(again["ichor_analysis_seconds_sum"], after["ichor_analysis_seconds_sum"]);
    let summary = daemon.find(&study.study_uid).unwrap();
    let (_, _, text) = ask(port, "GET", "/metrics");
    for secret in ["patient_name", "patient_id"] {
        assert!(!text.contains(summary[secret].as_str().unwrap()), "{secret}");
    }
    assert!(!text.contains(&study.study_uid));

    // The alert rules speak of metrics that there are.
    let rules = std::fs::read_to_string(repository("deploy/prometheus-alerts.yml")).unwrap();
    let mut spoken_of = 0;
    for part in rules.split("ichor_").skip(1) {
        let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        // A histogram is named without the suffix of its samples.
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
        let is_there = text.lines().any(|line| line.starts_with(&format!("# HELP ichor_{family} ")));
        assert!(is_there, "ichor_{name} is in the rules and not among the metrics");
        spoken_of += 1;
    }
    assert!(spoken_of >= 8);
}

#[test]
fn readiness_says_why_not() {
    let port = free_port();
    let sections = format!("[admin]\naddress = \"127.0.0.1:{port}\"\n");
    let daemon = Daemon::start(&Settings { sections: sections.clone(), ..Settings::default() });
    assert_eq!(ask(port, "GET", "/health/live"), (200, ask(port, "GET", "/health/live").1, "alive\n".to_owned()));
    let (status, _, body) = ask(port, "GET", "/health/ready");
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, ready["ready"].as_bool()), (200, Some(true)), "{body}");
    let names: Vec<&str> =
        ready["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["store", "disk", "model", "destinations", "deliveries", "tasks"]);
    let (status, head, body) = ask(port, "GET", "/studies");
    assert!(status == 404 && head.contains("application/problem+json") && body.contains("/studies"), "{head} {body}");
    assert_eq!(ask(port, "POST", "/metrics").0, 405);
    // Who connects and says nothing keeps nobody else from an answer.
    let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert_eq!(ask(port, "GET", "/health/live").0, 200);
    drop((silent, daemon));

    // More free space is asked for than any disk has.
    let daemon = Daemon::start(&Settings { sections, min_free_mib: 1 << 40, ..Settings::default() });
    let (status, _, body) = ask(port, "GET", "/health/ready");
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, ready["ready"].as_bool()), (503, Some(false)));
    let disk = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "disk").unwrap();
    assert!(disk["passed"] == false && disk["words"].as_str().unwrap().contains("MiB free"), "{disk}");
    drop(daemon);
}

/// The same behind TLS.
fn ask_in_tls(port: u16, certificate: &rcgen::Certificate, path: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    write!(tls, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // A server that closes without a farewell has said all the same.
    let _ = tls.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn beyond_loopback_patients_are_behind_tls() {
    let port = free_port();
    let open = format!("[admin]\naddress = \"0.0.0.0:{port}\"\n");
    let daemon = Daemon::start(&Settings { sections: open.clone(), ..Settings::default() });
    for path in ["/login", "/api/studies", "/welcome?code=x"] {
        let (status, _, body) = ask(port, "GET", path);
        assert!(status == 403 && body.contains("tls_certificate_file"), "{path}: {status} {body}");
    }
    assert_eq!(ask(port, "GET", "/metrics").0, 200);
    let log = daemon.log();
    assert!(!log.contains("/welcome") && log.contains("without TLS: health and metrics only"), "{log}");
    drop(daemon);

    let scratch = crate::support::scratch::Scratch::new("admin-tls");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (scratch.path().join("ichor.crt"), scratch.path().join("ichor.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let sections = format!("{open}tls_certificate_file = {certificate:?}\ntls_key_file = {key:?}\n");
    let settings = Settings { sections, ..Settings::default() };
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&key, mode(0o644)).unwrap();
    assert!(Daemon::refuses_to_start(&settings).contains("anybody may read it"), "a key that is none");
    std::fs::set_permissions(&key, mode(0o600)).unwrap();
    let daemon = Daemon::start(&settings);
    let answer = ask_in_tls(port, &made.cert, "/login");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("strict-transport-security"), "{answer}");
    let link = format!("https://localhost:{port}/welcome?code=");
    assert!(daemon.log().contains(&link), "a link that can be opened: {}", daemon.log());
    let mut clear = TcpStream::connect(("127.0.0.1", port)).unwrap();
    clear.set_read_timeout(Some(seconds(20))).unwrap();
    write!(clear, "GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = clear.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"), "in the clear");
}
