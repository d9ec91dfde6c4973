//! Orthanc stores the object and gives back the same bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ichor_result::{Encoding, SegmentationForm, SegmentationType};
use serde_json::Value;
use support::{Series, blobs, build, build_form, tilted, valued};

/// A running Orthanc, stopped when dropped.
struct Orthanc {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Orthanc {
    /// Starts an Orthanc with an empty store on free ports; `None` with a printed reason where there is none.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let configuration = serde_json::json!({
            "StorageDirectory": dir.path().join("store"),
            "IndexDirectory": dir.path().join("store"),
            "HttpPort": port,
            "DicomServerEnabled": false,
            "AuthenticationEnabled": false,
            "RemoteAccessAllowed": false,
            "Plugins": [],
        });
        let file = dir.path().join("orthanc.json");
        std::fs::write(&file, configuration.to_string()).unwrap();
        let binary = if Path::new("/usr/sbin/Orthanc").exists() { "/usr/sbin/Orthanc" } else { "Orthanc" };
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(binary).arg(&file).stdout(Stdio::null()).stderr(log).spawn();
        let child = match child {
            Ok(child) => child,
            Err(e) => {
                eprintln!("skipped: {binary} cannot be started: {e}");
                return None;
            }
        };
        let orthanc = Self { child, port, dir };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(orthanc.dir.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(30), "Orthanc does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(orthanc)
    }

    /// One HTTP exchange; the body of a 200.
    fn http(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        assert!(head.lines().next().unwrap().contains(" 200 "), "{method} {path}: {head}");
        answer.split_off(end)
    }
}

#[test]
fn stored_twice_and_returned_once_unchanged() {
    let Some(orthanc) = Orthanc::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(13, 11, 18.5, &[1.14, 4.22, 7.38]);
    let series = Series::new(planes.clone());
    let (header, slices) = series.write(dir.path());
    for i in 0..planes.len() {
        let ct = std::fs::read(series.write_slice(dir.path(), i)).unwrap();
        orthanc.http("POST", "/instances", &ct);
    }
    let seg = build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap();
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let stored = json(&orthanc.http("POST", "/instances", &seg.part10));
    assert_eq!(stored["Status"], "Success");
    let again = json(&orthanc.http("POST", "/instances", &seg.part10));
    assert_eq!((again["Status"].as_str(), &again["ID"]), (Some("AlreadyStored"), &stored["ID"]));
    let id = stored["ID"].as_str().unwrap();
    let returned = orthanc.http("GET", &format!("/instances/{id}/file"), b"");
    assert!(returned == seg.part10, "Orthanc returned other bytes");
    let tags = json(&orthanc.http("GET", &format!("/instances/{id}/simplified-tags"), b""));
    assert_eq!(tags["PatientName"], "Buc^Jérôme");
    assert_eq!(tags["NumberOfFrames"], "4");
    assert_eq!(tags["SOPInstanceUID"], seg.sop_instance.as_str());
    let segment = &tags["SegmentSequence"][0];
    assert_eq!(segment["SegmentedPropertyTypeCodeSequence"][0]["CodeMeaning"], "Hemorrhage");
    // It lies in the study of its source, next to the CT series.
    let study = json(&orthanc.http("GET", "/studies?expand", b""));
    assert_eq!(study.as_array().unwrap().len(), 1);
    assert_eq!(study[0]["MainDicomTags"]["StudyInstanceUID"], support::STUDY);
    assert_eq!(study[0]["Series"].as_array().unwrap().len(), 2);
}

#[test]
fn every_form_is_returned_unchanged() {
    let Some(orthanc) = Orthanc::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(13, 11, 18.5, &[1.14, 4.22, 7.38]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let labels = blobs(&planes, |_| true).into_iter().map(Option::unwrap);
    let masks: Vec<_> = labels.map(|labels| valued(&labels, &vec![77; labels.len()], 11)).collect();
    let encodings = [Encoding::ExplicitLittleEndian, Encoding::Deflated, Encoding::RleLossless];
    let kinds = [SegmentationType::Binary, SegmentationType::Fractional, SegmentationType::LabelMap];
    let mut stored = 0;
    for form in
        kinds.into_iter().flat_map(|kind| encodings.map(|encoding| SegmentationForm::new(kind, encoding, false)))
    {
        let Ok(form) = form else { continue };
        let seg = build_form(&header, &slices, &masks, 3, form, 1).unwrap();
        let answer: Value = serde_json::from_slice(&orthanc.http("POST", "/instances", &seg.part10)).unwrap();
        assert_eq!(answer["Status"], "Success", "{}", form.words());
        let file = format!("/instances/{}/file", answer["ID"].as_str().unwrap());
        assert!(orthanc.http("GET", &file, b"") == seg.part10, "Orthanc returned other bytes: {}", form.words());
        stored += 1;
    }
    assert_eq!(stored, 8);
}
