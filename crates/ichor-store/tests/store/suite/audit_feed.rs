use ichor_core::Reason;
use ichor_store::{
    AssociationEnd, AuditMatter, AuditPlace, AuditRecord, FileKind, Forwarding, NewAssociation, NewAudit, ProofPlan,
    Store,
};
use serde_json::json;

use crate::support::*;

fn entry(action: &'static str, seconds: i64) -> NewAudit {
    NewAudit::of_ourselves(at(seconds), action, json!({}))
}

async fn receive(store: &Store, seconds: i64, studies: &[(&str, u32)]) {
    let association = open_association(store, at(seconds)).await;
    for (study, slices) in studies {
        for number in 0..*slices {
            let slice = Slice { association: Some(association), ..Slice::of(study, number) };
            slice.record(store, at(seconds)).await;
        }
    }
    let end = AssociationEnd { outcome: "released".to_owned(), instances: 3, bytes: 100 };
    store.association_closed(association, &end, at(seconds)).await.unwrap();
}

/// A word for each record.
fn words(records: &[AuditRecord]) -> Vec<String> {
    let word = |record: &AuditRecord| {
        let count = |classes: &[ichor_store::ClassCount]| classes.iter().map(|(_, count)| count).sum::<u64>();
        match &record.matter {
            AuditMatter::Entry(entry) => entry.action.clone(),
            AuditMatter::Received { calling_ae, classes, .. } => format!("{} from {calling_ae}", count(classes)),
            AuditMatter::Refused { calling_ae, .. } => format!("refused {calling_ae}"),
            AuditMatter::Delivered { destination, classes } => format!("{} to {destination}", count(classes)),
            AuditMatter::Removed { what, .. } => what.clone(),
        }
    };
    records.iter().map(word).collect()
}

pub(crate) async fn repository_hears_in_order_what_happened(backend: impl Backend) {
    let store = backend.open().await;
    store.audit(&entry("before", 0)).await.unwrap();
    assert!(store.audit_place().await.is_err() && store.audit_feed_figures().await.unwrap().is_none());
    store.feed_audit(true).await.unwrap();
    let begin = store.audit_place().await.unwrap();
    store.audit(&entry("first", 1)).await.unwrap();
    receive(&store, 2, &[("a", 2), ("b", 1)]).await;
    let stranger = NewAssociation {
        peer_address: "192.0.2.9:1".to_owned(),
        calling_ae: "STRANGER".to_owned(),
        called_ae: "ICHOR".to_owned(),
    };
    store.association_refused(&stranger, "not known", at(3)).await.unwrap();
    store.audit(&entry("second", 4)).await.unwrap();
    // An association that brought nothing new says nothing.
    receive(&store, 5, &[("a", 2)]).await;
    let heard = store.audit_after(begin, 100).await.unwrap();
    assert_eq!(words(&heard.records), ["first", "2 from SCANNER", "1 from SCANNER", "refused STRANGER", "second"]);
    let [_, of_a, of_b, ..] = &heard.records[..] else { panic!() };
    assert_eq!(of_a.study.as_ref().unwrap().study_instance, study_uid("a"));
    assert_eq!(of_b.study.as_ref().unwrap().patient_name.as_deref(), Some("SECRET^NAME"));
    assert!(of_a.after.event < of_b.after.event, "an association is told once all of its studies are");
    assert!(heard.place.event > heard.records[4].after.event, "what says nothing is passed over");

    let figures = store.audit_feed_figures().await.unwrap().unwrap();
    assert_eq!((figures.told, figures.waiting, figures.waiting_since), (0, 4, Some(at(1))));
    store.audit_untold("no route\nto host").await.unwrap();
    store.audit_told(heard.records[2].after, 3, at(6)).await.unwrap();
    let figures = store.audit_feed_figures().await.unwrap().unwrap();
    assert_eq!((figures.told, figures.failures, figures.words), (3, 1, None));
    // As after a crash: from the place in the store, and no earlier.
    let again = store.audit_after(store.audit_place().await.unwrap(), 100).await.unwrap();
    assert_eq!(words(&again.records), ["refused STRANGER", "second"]);
    store.feed_audit(true).await.unwrap();
    assert_eq!(store.audit_place().await.unwrap(), heard.records[2].after, "it goes on where it was");
    store.feed_audit(false).await.unwrap();
    assert!(store.audit_feed_figures().await.unwrap().is_none());
}

pub(crate) async fn small_steps_lead_to_the_same_place(backend: impl Backend) {
    let store = backend.open().await;
    store.feed_audit(true).await.unwrap();
    for round in 0..10 {
        store.audit(&entry("looked", round * 10)).await.unwrap();
        receive(&store, round * 10 + 5, &[(&format!("s{round}"), 1)]).await;
        store.audit(&entry("left", round * 10 + 6)).await.unwrap();
    }
    let begin = store.audit_place().await.unwrap();
    let whole = store.audit_after(begin, 500).await.unwrap();
    assert_eq!(whole.records.len(), 30);
    for step in [1, 2, 7] {
        let (mut place, mut heard) = (begin, Vec::new());
        loop {
            let batch = store.audit_after(place, step).await.unwrap();
            if batch.records.is_empty() {
                break;
            }
            assert!(batch.place != place, "it goes on");
            (place, heard) = (batch.place, [heard, batch.records].concat());
        }
        assert_eq!(words(&heard), words(&whole.records), "in steps of {step}");
        assert!(heard.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }
}

pub(crate) async fn deliveries_and_deletions_are_heard_of(backend: impl Backend) {
    let store = backend.open().await;
    store.feed_audit(true).await.unwrap();
    let begin: AuditPlace = store.audit_place().await.unwrap();
    closed_study(&store, "a", 3, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    for study in store.undecided_studies(10).await.unwrap() {
        let vna = Forwarding { destinations: vec!["vna".to_owned()], ..Forwarding::default() };
        store.forward(&study, &vna, at(21)).await.unwrap();
    }
    for name in ["pacs", "vna", "vna", "vna"] {
        let claim = store.claim_delivery(name, at(30)).await.unwrap().unwrap();
        store.delivery_accepted(claim, "Success", ProofPlan::default(), at(31), at(31)).await.unwrap();
    }
    let candidates = store.retention_candidates(FileKind::Received, at(100), &[], None, 10).await.unwrap();
    store.remove_files(&candidates[0], FileKind::Received, "by age", &[], at(40)).await.unwrap();
    let heard = store.audit_after(begin, 100).await.unwrap();
    assert_eq!(words(&heard.records), ["1 to pacs", "3 to vna", "pixels-removed"]);
    assert!(heard.records.iter().all(|record| record.study.is_some()));
    // Events about nobody's study are forgotten after a while, but not before the repository has heard of them.
    let stranger = NewAssociation {
        peer_address: "192.0.2.9:1".to_owned(),
        calling_ae: "STRANGER".to_owned(),
        called_ae: "ICHOR".to_owned(),
    };
    for seconds in [50, 51] {
        store.association_refused(&stranger, "not known", at(seconds)).await.unwrap();
    }
    store.remove_events(at(1_000), 100).await.unwrap();
    let heard = store.audit_after(heard.place, 100).await.unwrap();
    assert_eq!(words(&heard.records), ["refused STRANGER", "refused STRANGER"]);
    store.audit_told(heard.place, 2, at(60)).await.unwrap();
    assert!(store.remove_events(at(1_000), 100).await.unwrap() > 0);
}

pub(crate) async fn forwarding_of_which_some_is_given_up_is_heard_of(backend: impl Backend) {
    let store = backend.open().await;
    store.feed_audit(true).await.unwrap();
    let begin = store.audit_place().await.unwrap();
    for (study, accepted, seconds) in [("a", 2, 0), ("b", 0, 1_000)] {
        closed_study(&store, study, accepted + 1, seconds).await;
        for study in store.undecided_studies(10).await.unwrap() {
            let vna = Forwarding { destinations: vec!["vna".to_owned()], ..Forwarding::default() };
            store.forward(&study, &vna, at(seconds + 100)).await.unwrap();
        }
        let now = at(seconds + 110);
        for _ in 0..accepted {
            let claim = store.claim_delivery("vna", now).await.unwrap().unwrap();
            store.delivery_accepted(claim, "Success", ProofPlan::default(), now, now).await.unwrap();
        }
        let claim = store.claim_delivery("vna", now).await.unwrap().unwrap();
        store.delivery_failed(claim, Reason::new("refused", "0xA900"), None, now).await.unwrap();
    }
    let heard = store.audit_after(begin, 100).await.unwrap();
    assert_eq!(words(&heard.records), ["2 to vna"], "of the other nothing is there");
    assert_eq!(store.audit_feed_figures().await.unwrap().unwrap().waiting, 1);
}
