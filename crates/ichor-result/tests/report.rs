//! Structured reports, and what others read in them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use dicom_dictionary_std::tags;
use dicom_object::{InMemDicomObject, from_reader};
use ichor_core::{Reason, RuleOutcome, RuleVerdict, Uid};
use ichor_result::{
    Conclusion, LesionFacts, Provenance, Report, ReportInput, ResultError, SegmentationReference, SeriesFacts,
    SourceHeader, SourceSlice, check_report, is_own_object, write_report,
};
use proptest::prelude::*;
use serde_json::json;
use support::{Series, blobs, build, model, run, tilted};
use time::macros::datetime;

const STEPS: &[f64] = &[4.5, 4.5, 2.25, 4.5, 4.5];
const NOTICE: &str = "For research use only; demonstration weights trained on synthetic data";

fn provenance<'a>(header: &'a SourceHeader, model: &'a ichor_core::ModelId) -> Provenance<'a> {
    Provenance {
        header,
        model,
        configuration_digest: "sha256:00ff",
        version: 1,
        accepted_at: datetime!(2026-01-02 03:14:15.5 +1),
        series_number: None,
        looked_up_accession: None,
        research_notice: Some(NOTICE),
    }
}

fn facts(provenance: &Provenance<'_>) -> Vec<LesionFacts> {
    let of = |(reference, slices): (ichor_result::SegmentReference, (usize, usize))| LesionFacts {
        volume_ml: 12.345 / f64::from(reference.number),
        border_ml: 1.25,
        mean_hu: 61.26,
        max_hu: 88.0,
        extent_mm: 31.44,
        reference,
        slices,
    };
    provenance.lesions(2).into_iter().zip([(0, 3), (4, 5)]).map(of).collect()
}

fn gate() -> Vec<SeriesFacts> {
    let rule = |rule: &str, verdict, text: &str| RuleOutcome {
        rule: rule.to_owned(),
        attributes: vec!["ImageOrientationPatient".to_owned()],
        verdict,
        text: text.to_owned(),
    };
    vec![
        SeriesFacts {
            series_instance: Uid::parse("2.25.200").unwrap(),
            chosen: true,
            rules: vec![rule("axial", RuleVerdict::Passed, "slices are axial")],
            reasons: vec![Reason::new("chosen", "the only eligible series")],
        },
        SeriesFacts {
            series_instance: Uid::parse("2.25.201").unwrap(),
            chosen: false,
            rules: vec![rule("axial", RuleVerdict::Failed, "slices are sagittal")],
            reasons: vec![Reason::new("not-axial", "slices are sagittal")],
        },
    ]
}

struct Case {
    header: SourceHeader,
    slices: Vec<SourceSlice>,
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (header, slices) = Series::new(tilted(16, 16, 12.0, STEPS)).write(folder.path());
        Self { header, slices, folder }
    }

    /// Writes, checks, and keeps the report as a file.
    fn write(&self, input: &ReportInput<'_>) -> (Report, std::path::PathBuf) {
        let mut bytes = Vec::new();
        let report = write_report(input, &mut bytes).unwrap();
        check_report(&bytes[..]).unwrap();
        let mut again = Vec::new();
        write_report(input, &mut again).unwrap();
        assert_eq!(bytes, again, "the same input gives the same bytes");
        let path = self.folder.path().join("report.dcm");
        std::fs::write(&path, bytes).unwrap();
        (report, path)
    }
}

fn positive() -> Conclusion<'static> {
    Conclusion::Analysed {
        positive: true,
        probability: 0.973,
        volume_ml: 18.52,
        volume_sd_ml: Some(4.125),
        positive_slices: 5,
    }
}

/// Errors and warnings of a judge about a file; `None` where the judge is absent.
fn verdict(tool: &str, arguments: &[&str]) -> Option<String> {
    let output = run(tool, arguments)?;
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

fn judges_agree(path: &Path) {
    let path = path.to_str().unwrap();
    for tool in ["dciodvfy", "dcentvfy"] {
        let Some(said) = verdict(tool, &[path]) else { continue };
        let complaints: Vec<&str> =
            said.lines().filter(|line| line.starts_with("Error") || line.starts_with("Warning")).collect();
        assert!(complaints.is_empty(), "{tool}: {said}");
    }
    if let Some(said) = verdict("dsrdump", &["+Pl", path]) {
        // DCMTK's VR checker knows no UTF-8; what it says is about itself.
        let is_complaint = |line: &&str| {
            line.starts_with("E:")
                || (line.starts_with("W:") && !line.contains("does not support this Specific Character Set"))
        };
        let complaints: Vec<&str> = said.lines().filter(is_complaint).collect();
        assert!(said.contains("Comprehensive 3D SR") && complaints.is_empty(), "{said}");
    }
}

/// Lets highdicom read the report; false with a printed reason where it is absent.
fn highdicom_agrees(path: &Path, expected: &serde_json::Value) -> bool {
    let expectation = path.with_extension("json");
    std::fs::write(&expectation, expected.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_report_with_highdicom.py");
    let python = std::env::var("ICHOR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let arguments = [script.to_str().unwrap(), path.to_str().unwrap(), expectation.to_str().unwrap()];
    let Some(output) = run(&python, &arguments) else { return false };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        eprintln!("skipped: {python}: {out}");
        return false;
    }
    assert!(output.status.success(), "highdicom: {out}{err}");
    true
}

/// The report as highdicom must find it.
fn expected(
    lesions: &[LesionFacts],
    segmentation: Option<&SegmentationReference>,
    input: &ReportInput<'_>,
) -> serde_json::Value {
    let lesion = |lesion: &LesionFacts| {
        json!({
            "number": lesion.reference.number,
            "tracking_id": lesion.reference.tracking_id,
            "tracking_uid": lesion.reference.tracking_uid.as_str(),
            "volume_ml": lesion.volume_ml,
            "mean_hu": lesion.mean_hu,
            "max_hu": lesion.max_hu,
            "extent_mm": lesion.extent_mm,
            "slices": input.slices[lesion.slices.0..=lesion.slices.1]
                .iter().map(|slice| slice.sop_instance.as_str()).collect::<Vec<_>>(),
        })
    };
    let (presence, probability) = match input.conclusion {
        Conclusion::Analysed { positive, probability, .. } => {
            (if positive { "52101004" } else { "2667000" }, Some(probability))
        }
        Conclusion::NotAnalysed(_) => ("82334004", None),
    };
    json!({
        "presence": presence,
        "study_volume": match input.conclusion {
            Conclusion::Analysed { positive: true, volume_ml, volume_sd_ml, .. } => json!([volume_ml, volume_sd_ml]),
            _ => json!(null),
        },
        "probability": probability,
        "segmentation": segmentation.map(|segmentation| segmentation.sop_instance.as_str()),
        "lesions": lesions.iter().map(lesion).collect::<Vec<_>>(),
        "model": input.provenance.model.as_str(),
        "images": input.slices.iter().map(|slice| slice.sop_instance.as_str()).collect::<Vec<_>>(),
        "words": [NOTICE],
    })
}

#[test]
fn positive_study_with_segmentation() {
    let case = Case::new();
    let model = model();
    let masks = blobs(&tilted(16, 16, 12.0, STEPS), |_| true);
    let seg = build(&case.header, &case.slices, &masks, 1).unwrap();
    let reference = SegmentationReference {
        sop_class: seg.object.sop_class.clone(),
        sop_instance: seg.object.sop_instance.clone(),
        series_instance: seg.object.series_instance.clone(),
    };
    let provenance = provenance(&case.header, &model);
    assert_eq!(provenance.lesions(1), seg.object.segments, "lesions are known by the same UIDs in every object");
    let (lesions, series) = (facts(&provenance), gate());
    let input = ReportInput {
        provenance,
        slices: &case.slices,
        conclusion: positive(),
        lesions: &lesions,
        segmentation: Some(&reference),
        series: &series,
    };
    let (report, path) = case.write(&input);
    judges_agree(&path);
    highdicom_agrees(&path, &expected(&lesions, Some(&reference), &input));
    let object = dicom_object::open_file(&path).unwrap();
    assert!(is_own_object(&object), "a report that comes back is known as ours");
    assert_ne!(report.series_instance, reference.series_instance);
    assert_eq!(object.element(tags::PATIENT_NAME).unwrap().to_str().unwrap(), "Buc^Jérôme");
    // What stands in the report of another version, or without the Segmentation, is another object.
    let other = |change: &dyn Fn(&mut ReportInput<'_>)| {
        let mut changed = input.clone();
        change(&mut changed);
        write_report(&changed, std::io::sink()).unwrap()
    };
    let (next, without) = (other(&|i| i.provenance.version = 2), other(&|i| i.segmentation = None));
    let regated = other(&|i| i.series = &[]);
    assert_ne!(regated.sop_instance, report.sop_instance, "other content is another object");
    assert_ne!(next.sop_instance, report.sop_instance);
    assert_eq!(next.series_instance, report.series_instance);
    assert_ne!(without.sop_instance, report.sop_instance);
}

#[test]
fn positive_study_without_segmentation() {
    let case = Case::new();
    let model = model();
    let provenance = provenance(&case.header, &model);
    let (lesions, series) = (facts(&provenance), gate());
    let input = ReportInput {
        provenance,
        slices: &case.slices,
        conclusion: positive(),
        lesions: &lesions,
        segmentation: None,
        series: &series,
    };
    let (_, path) = case.write(&input);
    judges_agree(&path);
    highdicom_agrees(&path, &expected(&lesions, None, &input));
}

#[test]
fn negative_study_says_so() {
    let case = Case::new();
    let model = model();
    let series = gate();
    let input = ReportInput {
        provenance: provenance(&case.header, &model),
        slices: &case.slices,
        conclusion: Conclusion::Analysed {
            positive: false,
            probability: 0.031,
            volume_ml: 0.0,
            volume_sd_ml: Some(1.0),
            positive_slices: 0,
        },
        lesions: &[],
        segmentation: None,
        series: &series,
    };
    let (_, path) = case.write(&input);
    judges_agree(&path);
    highdicom_agrees(&path, &expected(&[], None, &input));
    if let Some(said) = verdict("dsrdump", &["+Pl", path.to_str().unwrap()]) {
        assert!(said.contains("No hemorrhage detected by algorithm, in 6 slices"), "{said}");
        assert!(said.contains("rule axial") && said.contains("slices are sagittal"), "{said}");
    }
}

#[test]
fn study_that_was_not_analysed_says_why() {
    let case = Case::new();
    let model = model();
    let (series, reason) = (gate(), Reason::new("no-eligible-series", "every series is sagittal"));
    let input = ReportInput {
        provenance: provenance(&case.header, &model),
        slices: &[],
        conclusion: Conclusion::NotAnalysed(&reason),
        lesions: &[],
        segmentation: None,
        series: &series,
    };
    let (_, path) = case.write(&input);
    judges_agree(&path);
    highdicom_agrees(&path, &expected(&[], None, &input));
    if let Some(said) = verdict("dsrdump", &["+Pl", path.to_str().unwrap()]) {
        assert!(said.contains("Not analysed, because every series is sagittal (no-eligible-series)"), "{said}");
    }
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let case = Case::new();
    let model = model();
    let provenance = provenance(&case.header, &model);
    let sound = facts(&provenance);
    let write = |conclusion, lesions: &[LesionFacts]| {
        let input =
            ReportInput { provenance, slices: &case.slices, conclusion, lesions, segmentation: None, series: &[] };
        write_report(&input, std::io::sink())
    };
    assert!(write(positive(), &sound).is_ok());
    let broken: [&dyn Fn(&mut LesionFacts); 4] =
        [&|l| l.mean_hu = f64::NAN, &|l| l.volume_ml = f64::INFINITY, &|l| l.slices = (3, 2), &|l| l.slices = (0, 6)];
    for change in broken {
        let mut lesions = sound.clone();
        change(&mut lesions[1]);
        let error = write(positive(), &lesions).unwrap_err();
        assert!(matches!(error, ResultError::Measurement(_)), "{error}");
    }
    for (probability, volume_ml, sd_ml) in
        [(1.5, 1.0, 0.1), (f64::NAN, 1.0, 0.1), (0.5, -1.0, 0.1), (0.5, 1.0, f64::INFINITY), (0.5, 1.0, -0.1)]
    {
        let volume_sd_ml = Some(sd_ml);
        let conclusion =
            Conclusion::Analysed { positive: true, probability, volume_ml, volume_sd_ml, positive_slices: 1 };
        assert!(matches!(write(conclusion, &sound).unwrap_err(), ResultError::Measurement(_)));
    }
}

/// Something done to an object.
type Change<'a> = &'a dyn Fn(&mut InMemDicomObject);

/// The report with one change, as bytes.
fn changed(path: &Path, change: impl FnOnce(&mut InMemDicomObject)) -> Vec<u8> {
    let mut object = dicom_object::open_file(path).unwrap();
    change(&mut object);
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    bytes
}

#[test]
fn check_finds_what_is_broken() {
    let case = Case::new();
    let model = model();
    let provenance = provenance(&case.header, &model);
    let lesions = facts(&provenance);
    let (_, path) = case.write(&ReportInput {
        provenance,
        slices: &case.slices,
        conclusion: positive(),
        lesions: &lesions,
        segmentation: None,
        series: &[],
    });
    let complaint =
        |change: &dyn Fn(&mut InMemDicomObject)| check_report(&changed(&path, change)[..]).unwrap_err().to_string();
    let cases: [(Change<'_>, &str); 6] = [
        (&|o| assert!(o.remove_element(tags::PATIENT_ID)), "patient ID is missing"),
        (&|o| assert!(o.remove_element(tags::COMPLETION_FLAG)), "completion flag"),
        (&|o| assert!(o.remove_element(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE)), "is not in the evidence"),
        (&|o| assert!(o.remove_element(tags::CONTENT_SEQUENCE)), "content sequence has no value"),
        (&|o| assert!(o.remove_element(tags::CONCEPT_NAME_CODE_SEQUENCE)), "the root: not one code"),
        (
            &|o| {
                o.update_value(tags::CONTENT_SEQUENCE, |content| {
                    let items = content.items_mut().unwrap();
                    let text = dicom_core::value::PrimitiveValue::from("INFERRED FROM");
                    items[0].put(dicom_core::DataElement::new(tags::RELATIONSHIP_TYPE, dicom_core::VR::CS, text));
                });
            },
            "CONTAINER INFERRED FROM \"CODE\" is not allowed",
        ),
    ];
    for (change, words) in cases {
        let said = complaint(change);
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
    assert!(from_reader(&std::fs::read(&path).unwrap()[..]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever was measured, what leaves passes the check.
    #[test]
    fn any_measurement_passes_the_check(
        volumes in prop::collection::vec((0.0f64..2000.0, -1024f64..3071.0, 0.0f64..300.0), 0..6),
        probability in 0.0f64..=1.0,
        sd_ml in prop::option::of(0.0f64..1000.0),
        notice in "\\PC{0,200}",
        text in "[^\\x00]{0,300}",
    ) {
        let case = Case::new();
        let model = model();
        let provenance = Provenance { research_notice: Some(&notice), ..provenance(&case.header, &model) };
        let of = |(reference, (volume_ml, hu, extent_mm)): (_, (f64, f64, f64))| LesionFacts {
            reference, volume_ml, border_ml: volume_ml / 3.0, mean_hu: hu, max_hu: hu, extent_mm, slices: (1, 2),
        };
        let references = provenance.lesions(volumes.len() as u16);
        let lesions: Vec<LesionFacts> = references.into_iter().zip(volumes).map(of).collect();
        let series = [SeriesFacts {
            series_instance: Uid::derive(["series"]),
            chosen: true,
            rules: Vec::new(),
            reasons: vec![Reason::new("words", &text)],
        }];
        let conclusion = Conclusion::Analysed {
            positive: true, probability, volume_ml: 1.0, volume_sd_ml: sd_ml, positive_slices: 1,
        };
        let input = ReportInput {
            provenance, slices: &case.slices, conclusion, lesions: &lesions, segmentation: None, series: &series,
        };
        let mut bytes = Vec::new();
        write_report(&input, &mut bytes).unwrap();
        prop_assert!(check_report(&bytes[..]).is_ok(), "{:?}", check_report(&bytes[..]));
    }

    /// A broken file is a complaint, never a crash.
    #[test]
    fn any_bytes_are_a_complaint(cut in 0.0f64..1.0, at in 0.0f64..1.0, byte: u8) {
        let case = Case::new();
        let model = model();
        let input = ReportInput {
            provenance: provenance(&case.header, &model),
            slices: &case.slices,
            conclusion: positive(),
            lesions: &[],
            segmentation: None,
            series: &[],
        };
        let mut bytes = Vec::new();
        write_report(&input, &mut bytes).unwrap();
        let cut_to = (bytes.len() as f64 * cut) as usize;
        prop_assert!(check_report(&bytes[..cut_to]).is_err());
        let at = (bytes.len() as f64 * at) as usize;
        bytes[at] = byte;
        let _ = check_report(&bytes[..]);
    }
}
