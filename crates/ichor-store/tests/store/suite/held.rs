use ichor_store::{HeldFilter, HeldInstance};

use crate::support::*;

fn uids(held: &[HeldInstance]) -> Vec<&str> {
    held.iter().map(|instance| instance.sop_instance.as_str()).collect()
}

pub(crate) async fn received_and_made_are_held_side_by_side(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 3, 0).await;
    let claim = analyse(&store, true, &["pacs"], at(20)).await;
    let study = study_uid("a");
    let held = store.held_instances(&study, None, None).await.unwrap();
    let object = object_uid(&claim);
    let slices: Vec<_> = (0..3).map(|number| slice_uid("a", number)).collect();
    let wanted: Vec<&str> = slices.iter().chain([&object]).map(|uid| uid.as_str()).collect();
    assert_eq!(uids(&held), wanted);
    for instance in &held {
        let length = std::fs::metadata(&instance.path).unwrap().len();
        assert_eq!((instance.size, &instance.study_instance), (length, &study));
    }
    assert_eq!(held[0].modality.as_deref(), Some("CT"));
    let of_object = store.held_instances(&study, Some(&held[3].series_instance), None).await.unwrap();
    assert_eq!(of_object, held[3..]);
    assert_eq!(store.held_instances(&study, None, Some(&slices[1])).await.unwrap(), held[1..2]);
    assert!(store.held_instances(&study, Some(&held[3].series_instance), Some(&slices[1])).await.unwrap().is_empty());
    assert!(store.held_instances(&study_uid("b"), None, None).await.unwrap().is_empty());
    let place = (study.clone(), held[3].series_instance.clone());
    assert_eq!(store.holder_of(&object).await.unwrap(), Some(place));
    assert_eq!(store.holder_of(&uid(&["nobody"])).await.unwrap(), None);
    // A result that comes back is held once, as it was made.
    let back = Slice { sop_instance: Some(object.clone()), content: b"other bytes", own: true, ..Slice::of("a", 9) };
    back.record(&store, at(60)).await;
    assert_eq!(store.held_instances(&study, None, Some(&object)).await.unwrap(), held[3..]);
}

pub(crate) async fn studies_are_found_by_what_the_index_knows(backend: impl Backend) {
    let store = backend.open().await;
    for (study, patient, date) in [("a", "P1", "20260101"), ("b", "P2", "20260201"), ("c", "P20", "20260301")] {
        let slice = Slice { patient: Some(patient), accession: Some("ACC_1"), date: Some(date), ..Slice::of(study, 1) };
        slice.record(&store, at(0)).await;
    }
    let series_of_b = store.held_instances(&study_uid("b"), None, None).await.unwrap()[0].series_instance.clone();
    let text = |text: &str| Some(text.to_owned());
    let none = HeldFilter::default;
    for (filter, wanted) in [
        (none(), vec!["c", "b", "a"]),
        (HeldFilter { patient_id: text("P2"), ..none() }, vec!["b"]),
        (HeldFilter { patient_id: text("P2*"), ..none() }, vec!["c", "b"]),
        (HeldFilter { patient_id: text("P?"), ..none() }, vec!["c", "b", "a"]),
        (HeldFilter { patient_name: text("*secret^*"), ..none() }, vec!["c", "b", "a"]),
        (HeldFilter { patient_name: text("*other*"), ..none() }, vec![]),
        (HeldFilter { accession_number: text("ACC_1"), ..none() }, vec!["c", "b", "a"]),
        (HeldFilter { accession_number: text("ACC%"), ..none() }, vec![]),
        (HeldFilter { date_from: text("20260201"), date_to: text("20260228"), ..none() }, vec!["b"]),
        (HeldFilter { studies: vec![study_uid("c"), study_uid("x")], ..none() }, vec!["c"]),
        (HeldFilter { series: vec![series_of_b], ..none() }, vec!["b"]),
        (HeldFilter { instances: vec![slice_uid("a", 1)], ..none() }, vec!["a"]),
        (HeldFilter { patient_id: text("' OR 1=1 --"), ..none() }, vec![]),
    ] {
        let found = store.held_studies(&filter, None, 10).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|study| study.study_instance).collect();
        assert_eq!(found, wanted.into_iter().map(study_uid).collect::<Vec<_>>(), "{filter:?}");
    }
    let first = store.held_studies(&none(), None, 2).await.unwrap();
    let rest = store.held_studies(&none(), Some(first[1].place), 2).await.unwrap();
    assert_eq!((first.len(), rest.len(), &rest[0].study_instance), (2, 1, &study_uid("a")));
}
