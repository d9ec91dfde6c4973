use std::collections::HashSet;

use ichor_core::{DeliveryStatus, Reason, StudyStatus, Uid};
use ichor_store::{MapPlace, ProofPlan, RetryOutcome, SeriesOutcomeRow, SliceMap, SliceScore, StoreError, Timestamp};

use crate::support::*;

pub(crate) async fn claim_is_exclusive(backend: impl Backend) {
    const STUDIES: usize = 20;
    let store = backend.open().await;
    for study in 0..STUDIES {
        Slice::of(&study.to_string(), 1).record(&store, at(0)).await;
    }
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut claimed = Vec::new();
                while let Some(claim) = store.claim_analysis(&worker.to_string(), at(20)).await.unwrap() {
                    claimed.push(claim.study.study_instance);
                }
                claimed
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!(all.len(), STUDIES);
    assert_eq!(all.into_iter().collect::<HashSet<Uid>>().len(), STUDIES);
}

pub(crate) async fn oldest_is_claimed_first(backend: impl Backend) {
    let store = backend.open().await;
    for (study, seconds) in [("late", 5), ("early", 0), ("middle", 2)] {
        Slice::of(study, 1).record(&store, at(seconds)).await;
        store.close_quiet_studies(quiet_after(0)).await.unwrap();
    }
    store.close_quiet_studies(quiet_after(2)).await.unwrap();
    store.close_quiet_studies(quiet_after(5)).await.unwrap();
    for study in ["early", "middle", "late"] {
        let claim = store.claim_analysis("w", at(60)).await.unwrap().unwrap();
        assert_eq!(claim.study.study_instance, study_uid(study));
    }
}

pub(crate) async fn outcome_is_recorded_whole(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 3, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.attempts, claim.accepted_at), (1, 1, at(0)));
    assert_eq!(claim.study.patient_id.as_deref(), Some("PATIENT-7"));
    assert_eq!(claim.source_ae.as_ref().map(|title| title.as_str()), Some("SCANNER"));
    assert_eq!(claim.instances[1].modality.as_deref(), Some("CT"));
    assert_eq!(detail(&store, "a").await.summary.status, StudyStatus::Analysing);

    let mut outcome = outcome(&store, &claim, true, &["pacs", "archive"]).await;
    let aside = Reason::new("localizer", "it is a localizer");
    outcome.series.push(SeriesOutcomeRow {
        series_instance: uid(&["another series"]),
        chosen: false,
        reasons: vec![aside.clone()],
        rules: Vec::new(),
    });
    let object = object_uid(&claim);
    store.complete_analysis(claim, outcome, at(25)).await.unwrap();

    let detail = detail(&backend.open().await, "a").await;
    let summary = &detail.summary;
    assert_eq!((summary.status, summary.positive), (StudyStatus::Analysed, Some(true)));
    assert_eq!((summary.probability, summary.volume_ml), (Some(0.97), Some(23.5)));
    assert_eq!(summary.model.as_ref().unwrap().name(), "ichor-demo");
    assert_eq!(summary.analysed_at, Some(at(25)));
    assert_eq!(detail.finding, Some(finding(true)));
    assert_eq!(detail.series[0].chosen, Some(true));
    assert_eq!(detail.series[0].rules, rules());
    let slices: Vec<_> = detail.slices.iter().map(|slice| slice.sop_instance.clone()).collect();
    assert_eq!(slices, [slice_uid("a", 0), slice_uid("a", 1), slice_uid("a", 2)]);
    assert_eq!(detail.slices[2].masked_pixels, 2);
    assert_eq!(detail.timings, [("classify".to_owned(), 1_200), ("mask".to_owned(), 800)]);
    assert_eq!(std::fs::read(&detail.objects[0].path).unwrap(), b"headersegmentation");
    let destinations: Vec<_> = detail.deliveries.iter().map(|d| (d.destination.as_str(), d.status)).collect();
    assert_eq!(destinations, [("pacs", DeliveryStatus::Queued), ("archive", DeliveryStatus::Queued)]);
    assert!(detail.deliveries.iter().all(|delivery| delivery.sop_instance == object));
    let timeline = store.timeline(&study_uid("a")).await.unwrap();
    let set_aside = timeline.iter().find(|event| event.kind == "series-set-aside").unwrap();
    assert!(set_aside.text.contains(&aside.to_string()), "{}", set_aside.text);
}

pub(crate) async fn not_analysed_is_a_result(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 1, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    let mut outcome = not_analysed();
    outcome.series.push(SeriesOutcomeRow {
        series_instance: claim.instances[0].series_instance.clone(),
        chosen: false,
        reasons: vec![Reason::new("single-slice", "it has one slice")],
        rules: Vec::new(),
    });
    store.complete_analysis(claim, outcome, at(21)).await.unwrap();
    let detail = detail(&store, "a").await;
    assert_eq!((detail.summary.status, detail.summary.positive), (StudyStatus::NotAnalysed, None));
    assert_eq!(detail.summary.reason.unwrap().code.as_str(), "single-slice");
    assert_eq!(detail.series[0].reasons[0].code.as_str(), "single-slice");
    assert_eq!((detail.series[0].chosen, detail.finding), (Some(false), None));
    assert!(kinds(&store, "a").await.contains(&"not-analysed".to_owned()));
}

pub(crate) async fn failed_attempt_waits_for_its_time(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 1, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("out-of-memory", "no memory"), Some(at(40)), at(21)).await.unwrap();
    let summary = detail(&store, "a").await.summary;
    assert_eq!(summary.status, StudyStatus::Queued);
    assert_eq!(summary.reason.unwrap().code.as_str(), "out-of-memory");
    assert_eq!(store.next_analysis_deadline().await.unwrap(), Some(at(40)));
    assert!(store.claim_analysis("w", Timestamp::from_millis(at(40).as_millis() - 1)).await.unwrap().is_none());
    let claim = store.claim_analysis("w", at(40)).await.unwrap().unwrap();
    assert_eq!((claim.attempts, claim.version), (2, 1));
}

pub(crate) async fn failed_for_good_and_retried(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 1, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("model-failed", "no model"), None, at(21)).await.unwrap();
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.reason.unwrap().code.as_str()), (StudyStatus::Failed, "model-failed"));
    assert!(store.claim_analysis("w", at(1_000)).await.unwrap().is_none());

    let retried = store.retry(&study_uid("a"), at(30)).await.unwrap();
    assert_eq!(retried, RetryOutcome::Queued { version: 1, deliveries: 0 });
    assert_eq!(detail(&store, "a").await.summary.reason, None);
    let claim = store.claim_analysis("w", at(30)).await.unwrap().unwrap();
    assert_eq!((claim.attempts, claim.version), (1, 1), "attempts are counted anew");
}

pub(crate) async fn stale_claim_leaves_nothing(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 1, 0).await;
    let stale = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.fail_analysis(copy(&stale), Reason::new("x", "y"), Some(at(21)), at(21)).await.unwrap();
    let held = store.claim_analysis("w", at(22)).await.unwrap().unwrap();

    let late = outcome(&store, &stale, true, &["pacs"]).await;
    let error = store.complete_analysis(copy(&stale), late, at(23)).await.unwrap_err();
    assert!(matches!(error, StoreError::StaleClaim { .. }), "{error}");
    let error = store.fail_analysis(stale, Reason::new("x", "y"), None, at(23)).await.unwrap_err();
    assert!(matches!(error, StoreError::StaleClaim { .. }), "{error}");
    assert_eq!(files(&backend.blobs()).len(), 1, "the late object is gone");
    assert_eq!(detail(&store, "a").await.objects, []);

    let good = outcome(&store, &held, true, &["pacs"]).await;
    store.complete_analysis(held, good, at(24)).await.unwrap();
    assert_eq!(detail(&store, "a").await.deliveries.len(), 1);
}

pub(crate) async fn retry_keeps_the_object_and_sends_it_once(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    let delivery = store.claim_delivery("pacs", at(21)).await.unwrap().unwrap();
    store.delivery_accepted(delivery, "Success", ProofPlan::default(), at(22), at(22)).await.unwrap();
    let before = detail(&store, "a").await;

    store.retry(&study_uid("a"), at(30)).await.unwrap();
    analyse(&store, true, &["pacs", "archive"], at(31)).await;
    let after = detail(&store, "a").await;
    assert_eq!(after.objects, before.objects);
    assert_eq!(after.slices.len(), 2, "the slices of the first run are replaced");
    assert_eq!(files(&backend.blobs()).len(), 3);
    let states: Vec<_> = after.deliveries.iter().map(|d| (d.destination.as_str(), d.status)).collect();
    assert_eq!(states, [("pacs", DeliveryStatus::Accepted), ("archive", DeliveryStatus::Queued)]);
    assert!(store.claim_delivery("pacs", at(1_000)).await.unwrap().is_none());

    std::fs::remove_file(&after.objects[0].path).unwrap();
    store.retry(&study_uid("a"), at(40)).await.unwrap();
    analyse(&store, true, &["pacs"], at(41)).await;
    let restored = &detail(&store, "a").await.objects[0];
    assert_eq!(std::fs::read(&restored.path).unwrap(), b"headersegmentation", "a lost file comes back");
}

pub(crate) async fn object_made_again_with_other_content_is_not_replaced(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    store.retry(&study_uid("a"), at(30)).await.unwrap();
    let claim = store.claim_analysis("w", at(31)).await.unwrap().unwrap();
    let mut other = outcome(&store, &claim, true, &["pacs"]).await;
    other.objects[0].staged = stage(&store, b"something else").await;
    store.complete_analysis(claim, other, at(32)).await.unwrap();
    let detail = detail(&store, "a").await;
    assert_eq!(detail.objects.len(), 1);
    assert_eq!(std::fs::read(&detail.objects[0].path).unwrap(), b"headersegmentation");
    assert!(kinds(&store, "a").await.contains(&"object-differs".to_owned()));
}

pub(crate) async fn study_of_two_thousand_slices(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 1, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    let mut large = outcome(&store, &claim, true, &["pacs"]).await;
    large.slices = (0..2_000u16)
        .map(|number| SliceScore {
            sop_instance: slice_uid("a", u32::from(number / 2)),
            frame: (number % 3 > 0).then_some(u32::from(number) + 1),
            probability: 1.0 / f32::from(number + 1),
            masked_pixels: number.into(),
            map: None,
        })
        .collect();
    let expected = large.slices.clone();
    store.complete_analysis(claim, large, at(21)).await.unwrap();
    assert_eq!(detail(&store, "a").await.slices, expected, "values and order survive exactly");
}

pub(crate) async fn positive_stands_until_there_is_another_result(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 3, 0).await;
    analyse(&store, true, &[], at(20)).await;
    let standing = |event: &str| {
        let (store, event) = (store.clone(), event.to_owned());
        async move {
            let timeline = store.timeline(&study_uid("a")).await.unwrap();
            timeline.into_iter().rfind(|one| one.kind == event).unwrap().detail["standing"].clone()
        }
    };
    let next_version = |number: u32| {
        let store = store.clone();
        async move {
            let seconds = 100 * i64::from(number);
            Slice::of("a", number).record(&store, at(seconds)).await;
            store.close_quiet_studies(quiet_after(seconds)).await.unwrap();
            store.claim_analysis("w", at(seconds + 20)).await.unwrap().unwrap()
        }
    };
    // A version without a result, and one that fails for good: both say what stands, and every list keeps it.
    store.complete_analysis(next_version(5).await, not_analysed(), at(530)).await.unwrap();
    let said = standing("not-analysed").await;
    assert_eq!((&said["version"], &said["finding"]["verdict"]), (&1.into(), &"positive".into()), "{said}");
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.positive, summary.version), (StudyStatus::NotAnalysed, Some(true), 2));
    assert!(summary.reason.is_some());
    let reason = Reason::new("model", "out of memory");
    store.fail_analysis(next_version(6).await, reason, None, at(630)).await.unwrap();
    assert_eq!(standing("analysis-failed").await["version"], 1);
    assert_eq!(detail(&store, "a").await.summary.positive, Some(true));
    // The same version again.
    store.retry(&key_of(&store).await, at(640)).await.unwrap();
    let claim = store.claim_analysis("w", at(650)).await.unwrap().unwrap();
    store.complete_analysis(claim, not_analysed(), at(651)).await.unwrap();
    assert_eq!(standing("not-analysed").await["version"], 1);
    // A real negative withdraws it, and then nothing stands.
    let claim = next_version(7).await;
    let negative = outcome(&store, &claim, false, &[]).await;
    store.complete_analysis(claim, negative, at(730)).await.unwrap();
    assert_eq!(detail(&store, "a").await.summary.positive, Some(false));
    store.complete_analysis(next_version(8).await, not_analysed(), at(830)).await.unwrap();
    assert!(standing("not-analysed").await.is_null());
    assert_eq!(detail(&store, "a").await.summary.positive, None);
}

pub(crate) async fn positive_stands_however_often_it_is_repeated(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 3, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    let mut positive = outcome(&store, &claim, true, &[]).await;
    positive.slices[1].map = Some(MapPlace { offset: 0, bytes: 5 });
    positive.maps = Some(stage_made(&store, b"first").await);
    store.complete_analysis(claim, positive, at(20)).await.unwrap();
    let slices = detail(&store, "a").await.slices;
    assert_eq!((slices.len(), slices[1].map), (3, Some(MapPlace { offset: 0, bytes: 5 })));
    // The first takes the place of the result in its row, the second finds nothing there.
    for seconds in [30, 40] {
        store.retry(&key_of(&store).await, at(seconds)).await.unwrap();
        let claim = store.claim_analysis("w", at(seconds + 1)).await.unwrap().unwrap();
        store.complete_analysis(claim, not_analysed(), at(seconds + 2)).await.unwrap();
        let timeline = store.timeline(&study_uid("a")).await.unwrap();
        let said = &timeline.iter().rfind(|one| one.kind == "not-analysed").unwrap().detail["standing"];
        assert_eq!((&said["version"], &said["finding"]["verdict"]), (&1.into(), &"positive".into()), "{said}");
        let summary = detail(&store, "a").await.summary;
        assert_eq!((summary.status, summary.positive), (StudyStatus::NotAnalysed, Some(true)));
        // Its slices and maps stand with it.
        assert_eq!(detail(&store, "a").await.slices, slices);
        assert_eq!(store.retention_figures().await.unwrap().doomed, 0);
        let map = store.slice_map(&study_uid("a"), &slice_uid("a", 1), None).await.unwrap();
        let SliceMap::Kept(map) = map else { panic!("the map has gone: {map:?}") };
        assert_eq!(std::fs::read(map.path).unwrap(), b"first");
    }
    // Another result takes their place.
    store.retry(&key_of(&store).await, at(50)).await.unwrap();
    analyse(&store, false, &[], at(51)).await;
    assert_eq!(store.retention_figures().await.unwrap().doomed, 1);
}

async fn key_of(store: &ichor_store::Store) -> Uid {
    detail(store, "a").await.summary.study_instance
}
