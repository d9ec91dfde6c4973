//! The report as a whole.

use std::process::Command;

use ichor_core::HemorrhageSubtype;
use serde_json::Value;

use super::*;
use crate::labels::SliceLabel;
use crate::metrics::Summary;
use crate::outcome::{MaskOutcome, MethodOutcome, SliceOutcome, Supervision};

/// Names that would do harm if they came onto the page as they are.
const EVIL: &str = "<script>alert(\"x\")</script> & 'co'";

struct Fixture {
    studies: Vec<StudyFacts>,
    outcomes: Vec<MethodOutcome>,
    calibrations: Vec<CalibrationInput>,
    cases: Vec<CasePicture>,
}

impl Fixture {
    /// Eight studies of six slices, half of them bleeding in two; three methods of different skill, one of them without
    /// masks.
    fn new() -> Self {
        let label = |study: usize| SliceLabel::of([HemorrhageSubtype::ALL[study % 5]]);
        let bleeds = |study: usize, slice: usize| study.is_multiple_of(2) && (2..4).contains(&slice);
        let truth = |study: usize| 100 + 60 * study;
        let facts = |study: usize| StudyFacts {
            name: if study == 0 { EVIL.to_owned() } else { format!("{study}") },
            positive: study.is_multiple_of(2),
            difficulty: study.is_multiple_of(2).then(|| ["easy", "hard"][study / 2 % 2].to_owned()),
            truth_ml: if study.is_multiple_of(2) { truth(study) as f64 * 2.0 * 0.01 } else { 0.0 },
            predicted_ml: None,
            predicted_sd_ml: None,
            probability: Some(if study.is_multiple_of(2) { 0.9 } else { 0.05 * study as f32 }),
            called: Some(study.is_multiple_of(2)),
            slices: (0..6)
                .map(|slice| SliceFacts {
                    label: if bleeds(study, slice) { label(study) } else { SliceLabel::NONE },
                    truth_pixels: if bleeds(study, slice) { truth(study) } else { 0 },
                    pixel_ml: 0.01,
                })
                .collect(),
        };
        let outcome = |id: &str, skill: usize, has_masks: bool| MethodOutcome {
            id: id.to_owned(),
            title: format!("Method {id} {EVIL}"),
            supervision: Supervision::Slices,
            binarisation: "fixed 0.05".to_owned(),
            studies: (0..8)
                .map(|study| {
                    let slice = |slice: usize| {
                        let is_bleeding = bleeds(study, slice);
                        let noise = (study * 7 + slice * 3 + skill) % 10;
                        let score = if is_bleeding { 0.5 + 0.04 * skill as f32 } else { 0.08 * noise as f32 };
                        let both = truth(study) * skill / 12;
                        let mask = MaskOutcome {
                            intersection: both,
                            predicted: both + 17 * study,
                            truth: truth(study),
                            hausdorff95_mm: Some(3.5 + study as f64 / skill as f64),
                        };
                        SliceOutcome { score, called: score >= 0.6, mask: (is_bleeding && has_masks).then_some(mask) }
                    };
                    (0..6).map(slice).collect()
                })
                .collect(),
        };
        let studies: Vec<StudyFacts> = (0..8).map(facts).collect();
        let outcomes = vec![outcome("raw", 5, true), outcome("raw-refined", 9, true), outcome("classifier", 4, false)];
        let pairs = |study: &StudyFacts| {
            study.slices.iter().map(|s| (if s.label.any() { 0.8 } else { 0.1 }, s.label.any())).collect()
        };
        let calibrations =
            vec![CalibrationInput { title: EVIL.to_owned(), studies: studies.iter().map(pairs).collect() }];
        let slice = CaseSlice {
            rows: 32,
            columns: 32,
            hu: vec![40; 32 * 32],
            mask: (0..32 * 32)
                .map(|at| u8::from((10..20).contains(&(at % 32)) && (10..20).contains(&(at / 32))))
                .collect(),
            truth: (0..32 * 32)
                .map(|at| u8::from((12..22).contains(&(at % 32)) && (10..20).contains(&(at / 32))))
                .collect(),
        };
        let cases = choose_cases(&studies, &outcomes[1], 2);
        let cases = cases.iter().map(|case| draw_case(case, &slice, &studies, EVIL).unwrap()).collect();
        Self { studies, outcomes, calibrations, cases }
    }

    fn input(&self) -> EvaluationInput<'_> {
        EvaluationInput {
            model: "model@1.0+abcdef",
            notice: "synthetic data, demonstration only; not for clinical use",
            data: DataDescription { title: EVIL.to_owned(), facts: vec![("Seed".to_owned(), EVIL.to_owned())] },
            studies: &self.studies,
            outcomes: &self.outcomes,
            served: Some("raw-refined"),
            calibrations: &self.calibrations,
            cases: &self.cases,
        }
    }

    fn evaluation(&self) -> Evaluation {
        Evaluation::new(&self.input()).unwrap()
    }
}

#[test]
fn the_page_is_well_formed_and_stands_alone() {
    let page = html(&Fixture::new().evaluation()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evaluation.html");
    std::fs::write(&path, &page).unwrap();
    // Parsed as XML, every element is closed and every value escaped; then what it would load, run or fail to say.
    let judge = "
import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
every = list(root.iter())
assert not [e.tag for e in every if e.tag in ('script', 'link', 'iframe', 'object', 'embed')]
for e in every:
    for name, value in e.attrib.items():
        assert not name.startswith('on'), name
        if name in ('src', 'href'):
            assert value.startswith(('data:image/png;base64,', '#')), value
        assert 'url(' not in value, value
ids = [e.get('id') for e in every if e.get('id')]
assert len(ids) == len(set(ids))
links = [e.get('href') for e in every if e.tag == 'a']
assert links and all(link[1:] in ids for link in links), links
assert all(e.get('alt') for e in every if e.tag == 'img')
assert all(e.get('aria-label') or e.get('aria-hidden') for e in every if e.tag == 'svg')
tables = [e for e in every if e.tag == 'table']
notice = 'synthetic data, demonstration only; not for clinical use'
words = ''.join(root.find('body').itertext())
assert words.lstrip('\\u26a0 \\n').startswith(notice), words[:200]
parents = {child: parent for parent in every for child in parent}
for t in tables:
    region = parents[t]
    siblings = list(parents[region])
    after = siblings[siblings.index(region) + 1]
    assert notice in ''.join(after.itertext())
print(len(tables), len([e for e in every if e.tag == 'svg' and e.get('role') == 'img']), len([e for e in every if e.tag == 'img']))
";
    let output = Command::new("python3").arg("-c").arg(judge).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Detection, studies, segmentation, calibration, subtype, difficulty, size, volumes; two ROC, calibration, three or
    // two Dice against volume, three by part, Bland and Altman; two best, two worst, and the alarms.
    let counted = String::from_utf8_lossy(&output.stdout);
    let counted: Vec<usize> = counted.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(counted[..2], [8, 9], "{counted:?}");
    assert!(counted[2] >= 4, "{counted:?}");
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn the_page_holds_every_method_and_figure_of_the_json() {
    let evaluation = Fixture::new().evaluation();
    let page = html(&evaluation).unwrap();
    let has = |text: &str| assert!(page.contains(text), "{text} is missing");
    let summary = |summary: Option<Summary>, decimals: usize| {
        let Summary { mean, sd, sem, interval, .. } = summary.unwrap();
        has(&format!("{mean:.decimals$} ± {sd:.decimals$} ({sem:.decimals$})"));
        interval.is_some_and(|i| {
            has(&format!("{:.decimals$} to {:.decimals$}", i.low, i.high));
            true
        })
    };
    assert_eq!(evaluation.methods.len(), 3);
    for method in &evaluation.methods {
        has(&format!("Method {} &lt;script", method.id));
        let row = &method.detection;
        for estimate in [row.accuracy, row.precision, row.recall, row.f1, row.specificity] {
            has(&format!("{:.3}", estimate.value));
            let interval = estimate.interval.unwrap();
            has(&format!("{:.3} to {:.3}", interval.low, interval.high));
        }
        has(&format!("{:.3}", row.auc.unwrap().auc));
        for group in &method.groups {
            has(&format!("recall {:.3}, AUC {:.3}", group.recall.unwrap(), group.auc.unwrap().auc));
        }
    }
    for method in &evaluation.methods[..2] {
        let masks = method.segmentation.unwrap();
        for dice in [masks.dice, masks.iou, masks.dice_as_called] {
            assert!(summary(dice, 3));
        }
        summary(masks.hausdorff95_mm, 1);
        let volume = method.volume.unwrap();
        summary(volume.absolute_error_ml, 2);
        has(&format!("{:+.2}", volume.bland_altman.unwrap().lower_limit).replace('-', "−"));
    }
    let classifier = &evaluation.methods[2];
    assert!(classifier.segmentation.is_none() && classifier.volume.is_none() && classifier.studies.is_empty());
    let calibration = &evaluation.calibrations[0];
    has(&format!("{:.3}", calibration.error_equal_width.value));
    has(&format!("{:.4}", calibration.brier));
}

#[test]
fn figures_by_hand() {
    let fixture = Fixture::new();
    let evaluation = fixture.evaluation();
    assert_eq!(evaluation.counts, Counts { studies: 8, positive_studies: 4, slices: 48, bleeding_slices: 8 });
    let refined = evaluation.served().unwrap();
    // The masks of studies 0, 2, 4, 6 have 3/4 of the truth and 17 pixels a study's number beyond it.
    let dice = |study: f64| 2.0 * (0.75 * (100.0 + 60.0 * study)) / (1.75 * (100.0 + 60.0 * study) + 17.0 * study);
    let wanted = [0.0, 2.0, 4.0, 6.0].map(dice).iter().sum::<f64>() / 4.0;
    let found = refined.segmentation.unwrap();
    assert!((found.dice.unwrap().mean - wanted).abs() < 1e-9, "{found:?}");
    assert_eq!(found.without_distance, 0);
    // All are called, so the volume is that of the masks: study 2's is (165 + 34) · 2 slices · 0.01 mL.
    assert!((refined.studies[2].predicted_ml - 3.98).abs() < 1e-9, "{:?}", refined.studies[2]);
    // The method that never calls a bleeding slice has no mask as called.
    let raw = evaluation.methods[0].clone();
    assert!((raw.detection.recall.value - 1.0).abs() < 1e-9);
    let mut silent = fixture.outcomes.clone();
    silent[0].studies.iter_mut().flatten().for_each(|slice| slice.called = false);
    let input = EvaluationInput { outcomes: &silent, ..fixture.input() };
    let silent = Evaluation::new(&input).unwrap().methods[0].segmentation.unwrap();
    assert_eq!(silent.dice_as_called.unwrap().mean, 0.0);
    assert_eq!(silent.dice, raw.segmentation.unwrap().dice);
    let subtypes: Vec<&str> =
        refined.groups.iter().filter(|g| g.kind == GroupKind::Difficulty).map(|g| g.name.as_str()).collect();
    assert_eq!(subtypes, ["easy", "hard"]);
}

/// The same numbers to the last digits that JSON keeps.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-12 * a.abs().max(1.0)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn json_comes_back() {
    let file = EvaluationFile { summary: None, also: Vec::new(), evaluation: Fixture::new().evaluation() };
    let text = serde_json::to_string(&file).unwrap();
    assert!(!text.contains("png"), "pictures are on the page only");
    let back: EvaluationFile = serde_json::from_str(&text).unwrap();
    assert!(is_same(&serde_json::to_value(&back).unwrap(), &serde_json::to_value(&file).unwrap()));
    let ids: Vec<&str> = back.evaluation.methods.iter().map(|method| method.id.as_str()).collect();
    assert_eq!(ids, ["raw", "raw-refined", "classifier"]);
    // The summary that lies beside the demonstration weights reads as it did.
    let demo = include_str!("../../../../models/demo/evaluation.json");
    let summary: Report = serde_json::from_str(demo).unwrap();
    assert!(summary.counts.studies > 0 && summary.text().contains("slice AUC"));
}

#[test]
fn the_roc_curve_is_drawn_where_it_is() {
    let slices = [(0.9, true), (0.8, false), (0.5, true), (0.3, false)];
    let facts = |(_, bleeds): &(f32, bool)| SliceFacts {
        label: if *bleeds { SliceLabel::of([HemorrhageSubtype::ALL[0]]) } else { SliceLabel::NONE },
        truth_pixels: usize::from(*bleeds),
        pixel_ml: 0.01,
    };
    let mut fixture = Fixture::new();
    fixture.studies.truncate(1);
    fixture.studies[0].slices = slices.iter().map(facts).collect();
    fixture.outcomes.truncate(1);
    fixture.outcomes[0].studies =
        vec![slices.iter().map(|&(score, _)| SliceOutcome { score, called: score >= 0.6, mask: None }).collect()];
    fixture.calibrations.clear();
    fixture.cases.clear();
    let evaluation = Evaluation::new(&EvaluationInput { served: None, ..fixture.input() }).unwrap();
    let page = html(&evaluation).unwrap();
    // The field of the chart is 56 to 416 across and 354 to 12 upwards.
    let way = "d=\"M56.0 354.0L56.0 183.0L236.0 183.0L236.0 12.0L416.0 12.0\"";
    assert!(page.contains(way), "{page}");
    // Called from 0.6: sensitivity 1/2, specificity 1/2.
    assert!(page.contains("cx=\"236.0\" cy=\"183.0\""));
    assert!(!page.contains("id=\"segmentation\"") && !page.contains("id=\"cases\""));
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |change: &dyn Fn(&mut Fixture), served: Option<&str>| {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        let input = EvaluationInput { served, ..fixture.input() };
        Evaluation::new(&input).unwrap_err().to_string()
    };
    type Spoil<'a> = &'a dyn Fn(&mut Fixture);
    let cases: [(Spoil<'_>, &str); 7] = [
        (&|f| f.studies.clear(), "no study was evaluated"),
        (&|f| drop(f.outcomes[1].studies.pop()), "outcome raw-refined: the whole has 7 studies, 8 are needed"),
        (&|f| f.outcomes[0].studies[3].truncate(5), "outcome raw: study 3 has 5 slices, 6 are needed"),
        (&|f| f.outcomes[2].studies[1][4].score = f32::NAN, "score of classifier, study 1, slice 4 is not finite"),
        (&|f| f.calibrations[0].studies[2][0].0 = f32::INFINITY, "study 2, slice 0 is not finite"),
        (&|f| f.outcomes[1].id = "raw".to_owned(), "outcome raw is given twice"),
        (
            &|f| f.outcomes[0].studies[2][2].mask.as_mut().unwrap().intersection = 9999,
            "mask of raw, study 2, slice 2 has more pixels in common",
        ),
    ];
    for (change, wanted) in cases {
        let message = error(change, None);
        assert!(message.contains(wanted), "{message} is not {wanted}");
    }
    assert!(error(&|_| {}, Some("gone")).contains("gone is not among the outcomes"));
}

#[test]
fn a_report_that_cannot_be_written_is_named_and_leaves_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = EvaluationFile { summary: None, also: Vec::new(), evaluation: Fixture::new().evaluation() };
    let page = write_evaluation(folder.path(), &file).unwrap();
    assert!(page.ends_with("evaluation.html"));
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["evaluation.html", "evaluation.json"]);
    let blocked = folder.path().join("evaluation.json").join("below");
    let error = write_evaluation(&blocked, &file).unwrap_err().to_string();
    assert!(error.contains("evaluation.json/below"), "{error}");
    assert_eq!(names(), ["evaluation.html", "evaluation.json"]);
}
