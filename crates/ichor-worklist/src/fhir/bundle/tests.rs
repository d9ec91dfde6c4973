use ichor_core::Reason;

use super::*;

const NAMING: Naming =
    Naming { patient_system: None, accession_system: None, imaging_study: ImagingStudyPolicy::Create };

fn sample(subject: Subject) -> Announcement {
    Announcement::samples().into_iter().find(|sample| sample.subject == subject).unwrap()
}

fn bundle(announcement: &Announcement) -> Value {
    of(announcement, &NAMING).unwrap()
}

/// The resources of a kind, in order.
fn resources(bundle: &Value, kind: &str) -> Vec<Value> {
    let entries = bundle["entry"].as_array().unwrap().iter();
    entries.map(|entry| entry["resource"].clone()).filter(|resource| resource["resourceType"] == kind).collect()
}

/// The observation with that code of ours, or the verdict's.
fn observation(bundle: &Value, code: &str) -> Option<Value> {
    let has = |one: &Value| one["code"]["coding"].as_array().unwrap().iter().any(|coding| coding["code"] == code);
    resources(bundle, "Observation").into_iter().find(has)
}

#[test]
fn statuses_follow_the_story() {
    for (subject, version, status) in [
        (Subject::Alert, None, "preliminary"),
        (Subject::Positive, Some(1), "final"),
        (Subject::Positive, Some(2), "corrected"),
        (Subject::Negative, Some(1), "final"),
        (Subject::AlertWithdrawn, Some(1), "corrected"),
        (Subject::NotAnalysed, Some(1), "cancelled"),
        (Subject::Failed, Some(3), "cancelled"),
    ] {
        let bundle = bundle(&Announcement { version, ..sample(subject) });
        let report = &resources(&bundle, "DiagnosticReport")[0];
        assert_eq!(report["status"], status, "{subject} {version:?}");
        assert!(report["conclusion"].as_str().unwrap().contains("not for clinical use"), "the notice goes with it");
        assert_eq!(bundle["entry"][0]["resource"]["resourceType"], "DiagnosticReport", "the first entry is the report");
    }
    assert!(of(&sample(Subject::DeliveryDead), &NAMING).unwrap_err().is_permanent());
}

#[test]
fn a_finding_is_in_its_observations() {
    let bundle = bundle(&sample(Subject::Positive));
    let verdict = observation(&bundle, "1386000").unwrap();
    assert_eq!(verdict["valueCodeableConcept"]["coding"][0]["code"], "52101004");
    let value = |code: &str| observation(&bundle, code).unwrap()["valueQuantity"].clone();
    assert_eq!(value("ICH-PROBABILITY")["value"], 0.938);
    assert_eq!((&value("ICH-VOLUME")["value"], &value("ICH-VOLUME")["code"]), (&json!(12.5), &json!("mL")));
    assert_eq!(observation(&bundle, "ICH-ANALYSIS").unwrap()["valueCodeableConcept"]["coding"][0]["code"], "analysed");
    let report = &resources(&bundle, "DiagnosticReport")[0];
    assert_eq!(report["conclusionCode"][0]["coding"][0]["code"], "1386000");
    assert_eq!(report["result"].as_array().unwrap().len(), 4);
    assert_eq!(report["subject"]["identifier"]["value"], "P&C");
    assert_eq!(report["basedOn"][0]["identifier"]["value"], "A|1^2&3~4\\5");
    assert!(!bundle.to_string().contains("Brien"), "nobody is told the name");
    let negative = self::bundle(&sample(Subject::Negative));
    assert_eq!(observation(&negative, "1386000").unwrap()["valueCodeableConcept"]["coding"][0]["code"], "260415000");
    assert!(resources(&negative, "DiagnosticReport")[0]["conclusionCode"].is_null());
}

#[test]
fn why_not_is_a_result() {
    let bundle = bundle(&sample(Subject::NotAnalysed));
    for code in ["1386000", "ICH-PROBABILITY", "ICH-VOLUME"] {
        let none = observation(&bundle, code).unwrap();
        assert_eq!((&none["status"], none["dataAbsentReason"].is_null()), (&json!("cancelled"), false), "{code}");
    }
    let why = observation(&bundle, "ICH-ANALYSIS").unwrap();
    assert_eq!(why["status"], "final");
    assert_eq!(why["valueCodeableConcept"]["coding"][0]["code"], "no-head");
    assert_eq!(why["valueCodeableConcept"]["text"], "no series shows a head");
    // A reason whose text is nothing but control characters.
    let odd = Announcement { reason: Some(Reason::new("odd", "\u{1}")), ..sample(Subject::Failed) };
    assert_eq!(observation(&self::bundle(&odd), "ICH-ANALYSIS").unwrap()["valueCodeableConcept"]["text"], "odd");
}

#[test]
fn an_alert_says_what_is_known() {
    let bundle = bundle(&sample(Subject::Alert));
    assert_eq!(observation(&bundle, "1386000").unwrap()["valueCodeableConcept"]["text"], "Suspected");
    assert_eq!(observation(&bundle, "ICH-PROBABILITY").unwrap()["valueQuantity"]["value"], 0.875);
    assert!(observation(&bundle, "ICH-VOLUME").is_none() && observation(&bundle, "ICH-ANALYSIS").is_none());
    assert!(resources(&bundle, "Observation").iter().all(|one| one["status"] == "preliminary"));
}

/// The same search finds report and observations of all messages of one study, and never those of another.
#[test]
fn everything_is_found_again() {
    let searches = |bundle: &Value| -> Vec<String> {
        let request = |entry: &Value| match entry["request"]["ifNoneExist"].as_str() {
            Some(search) => format!("{} {search}", entry["request"]["url"]),
            None => entry["request"]["url"].to_string(),
        };
        bundle["entry"].as_array().unwrap().iter().map(request).collect()
    };
    let first = sample(Subject::Positive);
    let later = Announcement { version: Some(2), id: "OTHER".to_owned(), ..sample(Subject::NotAnalysed) };
    assert_eq!(searches(&bundle(&first)), searches(&bundle(&later)));
    let mut other = first.clone();
    other.study.study_instance_uid = ichor_core::Uid::derive(["another"]);
    let (of_one, of_other) = (searches(&bundle(&first)), searches(&bundle(&other)));
    let shared: Vec<&String> = of_one.iter().filter(|search| of_other.contains(search)).collect();
    assert_eq!(shared.len(), 1, "the device alone: {shared:?}");
    assert!(shared[0].contains("Device"));
    assert_eq!(bundle(&first), bundle(&first), "a retry is the same, byte for byte");
    let weights = Announcement { model: Some("other@1+ab".to_owned()), ..first };
    assert!(!of_one.contains(searches(&bundle(&weights)).last().unwrap()), "another model is another device");
}

#[test]
fn records_of_the_study_are_kept_or_updated() {
    let announcement = sample(Subject::Positive);
    let request = |naming: &Naming| of(&announcement, naming).unwrap()["entry"][5]["request"].clone();
    let kept = request(&NAMING);
    assert_eq!((&kept["method"], &kept["url"]), (&json!("POST"), &json!("ImagingStudy")));
    let uid = announcement.study.study_instance_uid.as_str();
    assert_eq!(kept["ifNoneExist"], format!("identifier=urn:dicom:uid%7Curn:oid:{uid}"));
    let naming = Naming { imaging_study: ImagingStudyPolicy::Update, ..NAMING };
    assert_eq!(request(&naming)["method"], "PUT");
}

#[test]
fn poor_headers_make_valid_resources() {
    let mut announcement = sample(Subject::Positive);
    announcement.study.patient = None;
    announcement.study.study_date = Some("20241399".to_owned());
    announcement.study.accession_number = Some(" ".to_owned());
    announcement.study.series[0].modality = None;
    (announcement.model, announcement.notice) = (None, None);
    let bundle = bundle(&announcement);
    let study = &resources(&bundle, "ImagingStudy")[0];
    assert_eq!(study["series"][0]["modality"]["code"], "OT");
    assert_eq!(study["series"][0]["description"], "5 mm <soft> & \"tissue\"");
    assert!(study["series"][0]["number"].is_null(), "unsignedInt");
    assert_eq!(study["identifier"].as_array().unwrap().len(), 1);
    assert!(study["started"].is_null() && study["subject"]["identifier"].is_null());
    assert_eq!(resources(&bundle, "Device")[0]["deviceName"][0]["name"], "ichor");
    assert!(!bundle.to_string().contains("null"), "{bundle}");
}

/// Held against fhir.resources.
#[test]
fn an_independent_reader_takes_every_subject() {
    let folder = tempfile::tempdir().unwrap();
    let naming = Naming {
        patient_system: Some("urn:oid:1.2.3".to_owned()),
        accession_system: Some("https://example.org/acc".to_owned()),
        imaging_study: ImagingStudyPolicy::Update,
    };
    let judge = |bundles: &[Value]| {
        let mut command = std::process::Command::new(std::env::var("ICHOR_TEST_PYTHON").unwrap_or("python3".into()));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/judges/read_fhir.py"));
        for (number, bundle) in bundles.iter().enumerate() {
            let path = folder.path().join(format!("{number}.json"));
            std::fs::write(&path, bundle.to_string()).unwrap();
            command.arg(path);
        }
        command.output().unwrap()
    };
    let subjects = Announcement::samples().into_iter().filter(|sample| sample.subject != Subject::DeliveryDead);
    let mut bundles: Vec<Value> = subjects.flat_map(|one| [of(&one, &naming).unwrap(), bundle(&one)]).collect();
    let mut poor = sample(Subject::Negative);
    (poor.study.patient, poor.study.study_date, poor.model, poor.notice) = (None, None, None, None);
    poor.study.series.clear();
    bundles.push(bundle(&poor));
    let said = judge(&bundles);
    if said.status.code() == Some(77) && std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none() {
        eprintln!("NOT TESTED: no fhir.resources in ICHOR_TEST_PYTHON");
        return;
    }
    assert!(
        said.status.success(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    // The judge can fail.
    for (path, value) in [
        ("/entry/0/resource/status", json!("done")),
        ("/entry/0/resource/issued", json!("yesterday")),
        ("/entry/1/resource/device/reference", json!("urn:uuid:0")),
        ("/entry/1/resource/valueQuantity", json!({ "value": 1 })),
        ("/entry/5/resource/subject", json!([])),
    ] {
        let mut broken = bundles[2].clone();
        let (parent, member) = path.rsplit_once('/').unwrap();
        broken.pointer_mut(parent).unwrap()[member] = value;
        assert_eq!(judge(&[broken]).status.code(), Some(1), "{path} goes unnoticed");
    }
}

#[test]
fn an_alert_that_stands_is_not_cancelled() {
    let alert = sample(Subject::Alert).alert;
    for subject in [Subject::NotAnalysed, Subject::Failed] {
        let bundle = bundle(&Announcement { alert: alert.clone(), ..sample(subject) });
        assert_eq!(resources(&bundle, "DiagnosticReport")[0]["status"], "preliminary");
        let verdict = observation(&bundle, "1386000").unwrap();
        assert_eq!(
            (&verdict["status"], verdict["valueCodeableConcept"]["text"].as_str()),
            (&json!("preliminary"), Some("Suspected"))
        );
        assert_eq!(observation(&bundle, "ICH-PROBABILITY").unwrap()["valueQuantity"]["value"], 0.875);
        let why = observation(&bundle, "ICH-ANALYSIS").unwrap();
        assert_eq!(why["valueCodeableConcept"]["coding"][0]["code"], "no-head");
    }
}

#[test]
fn a_positive_that_stands_is_not_cancelled() {
    let finding = sample(Subject::Positive).finding;
    for subject in [Subject::NotAnalysed, Subject::Failed] {
        let bundle = bundle(&Announcement { finding: finding.clone(), ..sample(subject) });
        let report = &resources(&bundle, "DiagnosticReport")[0];
        assert_eq!(report["status"], "corrected");
        assert_eq!(report["conclusionCode"][0]["coding"][0]["code"], "1386000");
        let verdict = observation(&bundle, "1386000").unwrap();
        assert_eq!(verdict["valueCodeableConcept"]["text"], "Present");
        assert_eq!(observation(&bundle, "ICH-VOLUME").unwrap()["valueQuantity"]["value"], 12.5);
        let why = observation(&bundle, "ICH-ANALYSIS").unwrap();
        assert_eq!(why["valueCodeableConcept"]["coding"][0]["code"], "no-head");
    }
}
