use proptest::prelude::*;

use super::*;
use crate::backoff::Backoff;
use crate::lookup::{Inquiry, Match};

fn options(modalities: &[&str]) -> LookupOptions {
    let title = |text: &str| ichor_core::AeTitle::parse(text).unwrap();
    let scu = ichor_dimse::scu::ScuOptions::new(title("ICHOR"), title("PACS"), "127.0.0.1:1");
    let second = std::time::Duration::from_secs(1);
    LookupOptions {
        name: "pacs".to_owned(),
        rank: 0,
        inquiry: Inquiry::Worklist(scu, Match { by: MatchBy::Study, station: None }),
        accession: true,
        modalities: modalities.iter().map(|word| (*word).to_owned()).collect(),
        sources: Vec::new(),
        timeout: second,
        backoff: Backoff { first: second, longest: second, attempts: 3 },
        settle: second,
        interval: second,
        most_questions: 10,
        per_minute: 0,
        most_matches: 10,
        most_instances: 5_000,
        close_when_complete: false,
        stable: second,
        wait_for_missing: second,
    }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// Study, patient, accession number, instances.
fn told(study: &str, patient: &str, accession: &str, instances: &str) -> Told {
    Told {
        study: text(study),
        patient_id: text(patient),
        accession_number: text(accession),
        instances: text(instances),
        ..Told::default()
    }
}

fn series(uid: &str, modality: &str, instances: &str) -> Told {
    Told { series: text(uid), modality: text(modality), instances: text(instances), ..Told::default() }
}

fn judged(matches: &[Told], by: MatchBy) -> LookupAnswer {
    let study = Uid::parse("1.2.3").unwrap();
    let mut answer = LookupAnswer::default();
    accession(matches, About { study: &study, patient_id: Some("P-7"), by }, &mut answer);
    answer
}

#[test]
fn accession_numbers_are_those_of_the_study_and_of_nobody_else() {
    let ours = told("1.2.3", "P-7", "A-1", "");
    for (matches, number, doubts) in [
        (vec![], None, 0),
        (vec![ours.clone()], Some("A-1"), 0),
        (vec![ours.clone(), ours.clone()], Some("A-1"), 0),
        // A provider that does not match by the study sends all of them.
        (vec![told("1.2.4", "P-7", "A-2", ""), ours.clone()], Some("A-1"), 0),
        (vec![told("1.2.4", "P-7", "A-2", "")], None, 1),
        (vec![told("", "P-7", "A-2", "")], None, 1),
        (vec![ours.clone(), told("1.2.3", "P-7", "A-2", "")], None, 1),
        (vec![told("1.2.3", "P-8", "A-1", "")], None, 1),
        (vec![told("1.2.3", "", "A-1", "")], Some("A-1"), 0),
        (vec![told("1.2.3", "P-7", "", "")], None, 0),
        (vec![told("1.2.3", "P-7", "A-1\\A-2", "")], None, 1),
        (vec![told("1.2.3", "P-7", "A-1\u{fffd}", "")], None, 1),
        (vec![told("1.2.3", "P-7", "A\r1", "")], None, 1),
        (vec![told("1.2.3", "P-7", "0123456789ABCDEF", "")], Some("0123456789ABCDEF"), 0),
        (vec![told("1.2.3", "P-7", "0123456789ABCDEFG", "")], None, 1),
    ] {
        let answer = judged(&matches, MatchBy::Study);
        assert_eq!(
            (answer.accession_number.as_deref(), answer.doubts.len()),
            (number, doubts),
            "{matches:?} {answer:?}"
        );
    }
}

#[test]
fn patients_have_one_order_or_none_is_taken() {
    let step = |study: &str, number: &str| told(study, "P-7", number, "");
    for (matches, number) in [
        (vec![step("1.9", "A-1")], Some("A-1")),
        (vec![step("1.9", "A-1"), step("1.8", "A-1")], Some("A-1")),
        (vec![step("1.9", "A-1"), step("1.8", "A-2")], None),
        (vec![step("1.9", "A-1"), told("1.8", "P-8", "A-2", "")], Some("A-1")),
        (vec![told("1.9", "", "A-1", "")], None),
    ] {
        assert_eq!(judged(&matches, MatchBy::Patient).accession_number.as_deref(), number, "{matches:?}");
    }
}

#[test]
fn numbers_of_studies_are_believed_if_they_can_be() {
    let study = Uid::parse("1.2.3").unwrap();
    let about = About { study: &study, patient_id: None, by: MatchBy::Study };
    for (matches, instances) in [
        (vec![told("1.2.3", "", "", "28")], Some(28)),
        (vec![told("1.2.3", "", "", " +28 ")], Some(28)),
        (vec![told("1.2.4", "", "", "28")], None),
        (vec![told("1.2.3", "", "", "28"), told("1.2.3", "", "", "29")], None),
        (vec![told("1.2.3", "", "", "28"), told("1.2.4", "", "", "29")], Some(28)),
        (vec![told("1.2.3", "", "", "0")], None),
        (vec![told("1.2.3", "", "", "-1")], None),
        (vec![told("1.2.3", "", "", "5001")], None),
        (vec![told("1.2.3", "", "", "99999999999999999999999")], None),
        (vec![told("1.2.3", "", "", "28.5")], None),
        (vec![told("1.2.3", "", "", "many")], None),
        (vec![told("1.2.3", "", "", "")], None),
    ] {
        let mut answer = LookupAnswer::default();
        study_instances(&matches, about, &options(&[]), &mut answer);
        assert_eq!(answer.instances, instances.map(ToldInstances::Study), "{matches:?} {answer:?}");
    }
}

#[test]
fn numbers_of_series_are_all_believed_or_none() {
    let study = Uid::parse("1.2.3").unwrap();
    let about = About { study: &study, patient_id: None, by: MatchBy::Study };
    let judge = |matches: &[Told]| {
        let mut answer = LookupAnswer::default();
        series_instances(matches, about, &options(&["CT"]), &mut answer);
        answer
    };
    let good = [series("1.1", "CT", "28"), series("1.2", "SR", "1"), series("1.3", "", "2"), series("1.1", "CT", "28")];
    let Some(ToldInstances::Series(found)) = judge(&good).instances else { panic!() };
    let found: Vec<_> = found.iter().map(|one| (one.series_instance.as_str(), one.instances, one.counts)).collect();
    assert_eq!(found, [("1.1", 28, true), ("1.2", 1, false), ("1.3", 2, true)]);
    assert_eq!(judge(&[]), LookupAnswer::default());
    let uncounted = judge(&[series("1.1", "CT", "28"), series("1.2", "CT", "")]);
    assert_eq!(uncounted, LookupAnswer::default(), "one that does not count says nothing");
    for bad in [
        vec![series("1.1", "CT", "28"), series("1.1", "CT", "27")],
        vec![series("1.1", "CT", "28"), series("1.2", "CT", "-2")],
        vec![series("1.1", "CT", "4000"), series("1.2", "CT", "4000")],
        vec![series("", "CT", "28")],
        vec![series("1.x", "CT", "28")],
        vec![Told { study: text("1.2.4"), ..series("1.1", "CT", "28") }],
    ] {
        let answer = judge(&bad);
        assert_eq!((answer.instances, answer.doubts.len()), (None, 1), "{bad:?}");
    }
}

fn any_told() -> impl Strategy<Value = Told> {
    let value = |regex: &'static str| proptest::option::of(regex);
    (
        value("1\\.2\\.[34]|.{0,8}"),
        value("1\\.[12]|.{0,8}"),
        value("CT|SR|.{0,4}"),
        value("P-[78]|.{0,8}"),
        value("A-[12]|.{0,20}"),
        value("-?[0-9]{1,20}|.{0,8}"),
    )
        .prop_map(|(study, series, modality, patient_id, accession_number, instances)| Told {
            study,
            series,
            modality,
            patient_id,
            accession_number,
            instances,
        })
}

proptest! {
    /// Whatever is answered, what is believed can be: one short number of the study itself, and no more instances than there may be.
    #[test]
    fn what_is_believed_can_be(matches in proptest::collection::vec(any_told(), 0..6)) {
        let study = Uid::parse("1.2.3").unwrap();
        let about = About { study: &study, patient_id: Some("P-7"), by: MatchBy::Study };
        let mut answer = LookupAnswer::default();
        accession(&matches, about, &mut answer);
        study_instances(&matches, about, &options(&["CT"]), &mut answer);
        if let Some(number) = &answer.accession_number {
            prop_assert!(is_accession(number));
            prop_assert!(matches.iter().any(|told| told.study.as_deref() == Some("1.2.3")
                && told.accession_number.as_ref() == Some(number)));
        }
        if let Some(ToldInstances::Study(instances)) = answer.instances {
            prop_assert!((1..=5_000).contains(&instances));
        }
        let mut by_series = LookupAnswer::default();
        series_instances(&matches, about, &options(&["CT"]), &mut by_series);
        if let Some(ToldInstances::Series(series)) = &by_series.instances {
            let total: u64 = series.iter().map(|told| u64::from(told.instances)).sum();
            prop_assert!(!series.is_empty() && total <= 5_000);
        }
        for doubt in answer.doubts.iter().chain(&by_series.doubts) {
            for secret in matches.iter().filter_map(|told| told.accession_number.as_deref()).filter(|n| n.len() > 3) {
                prop_assert!(!doubt.contains(secret), "{} tells {}", doubt, secret);
            }
        }
    }
}
