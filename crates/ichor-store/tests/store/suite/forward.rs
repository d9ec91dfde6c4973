use std::net::IpAddr;

use ichor_core::{DeliveryStatus, Reason};
use ichor_store::{DeliveryFilter, Forwarding, ProofPlan};

use crate::support::*;

fn to(destinations: &[&str]) -> Forwarding {
    Forwarding {
        destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
        urgent: false,
        words: Some("rule fires".to_owned()),
    }
}

pub(crate) async fn instances_of_closed_studies_are_queued_once(backend: impl Backend) {
    let store = backend.open().await;
    assert!(store.undecided_studies(10).await.unwrap().is_empty());
    Slice::of("open", 0).record(&store, at(0)).await;
    assert!(store.undecided_studies(10).await.unwrap().is_empty(), "it has not closed");
    closed_study(&store, "a", 3, 0).await;
    Slice { own: true, ..Slice::of("a", 9) }.record(&store, at(20)).await;
    let undecided = store.undecided_studies(10).await.unwrap();
    let study = undecided.iter().find(|study| study.study_instance == study_uid("a")).unwrap();
    assert_eq!(study.source_ae.as_ref().unwrap().as_str(), "SCANNER");
    assert!(study.first_instance.as_ref().unwrap().is_file());
    assert_eq!(store.forward(study, &to(&["vna", "mirror"]), at(30)).await.unwrap(), 6, "our own stay here");
    // As after a crash between the commit and the next look.
    assert_eq!(store.forward(study, &to(&["vna", "mirror"]), at(31)).await.unwrap(), 0);
    let claim = store.claim_delivery("vna", at(40)).await.unwrap().unwrap();
    assert_eq!((claim.object.kind.as_str(), &claim.object.sop_instance), ("source", &slice_uid("a", 0)));
    assert_eq!(claim.object.series_instance, uid(&["series", "a"]));
    assert_eq!(std::fs::read(&claim.object.path).unwrap(), b"headerpixels", "as it was received");
    store.delivery_accepted(claim, "Success", ProofPlan::default(), at(41), at(41)).await.unwrap();
    let claim = store.claim_delivery("vna", at(42)).await.unwrap().unwrap();
    store.delivery_failed(claim, Reason::new("refused", "no room"), None, at(43)).await.unwrap();
    let stands: Vec<_> = (store.forwarded(&study_uid("a")).await.unwrap().into_iter())
        .map(|depth| (depth.destination, depth.status, depth.count, depth.last_words))
        .collect();
    let stand = |to: &str, status, count, words: Option<&str>| (to.to_owned(), status, count, words.map(str::to_owned));
    assert_eq!(
        stands,
        [
            stand("mirror", DeliveryStatus::Queued, 3, None),
            stand("vna", DeliveryStatus::Accepted, 1, Some("Success")),
            stand("vna", DeliveryStatus::Dead, 1, Some("no room (refused)")),
            stand("vna", DeliveryStatus::Queued, 1, None),
        ]
    );
    assert!(store.forwarded(&study_uid("open")).await.unwrap().is_empty());
    let listed = |forwarded| DeliveryFilter { forwarded, limit: 4, ..DeliveryFilter::default() };
    assert!(store.deliveries(&listed(Some(false))).await.unwrap().is_empty());
    let newest = store.deliveries(&listed(Some(true))).await.unwrap();
    let older = DeliveryFilter { before: newest.last().map(|delivery| delivery.id), ..listed(None) };
    let older = store.deliveries(&older).await.unwrap();
    assert_eq!((newest.len(), older.len()), (4, 2));
    assert!(older[0].id < newest[3].id, "a list goes on where it ended");
    assert_eq!(store.retry_destination("vna", None, at(44)).await.unwrap(), 1);

    // A late slice makes another version: only it is queued.
    Slice::of("a", 7).record(&store, at(50)).await;
    store.close_quiet_studies(quiet_after(50)).await.unwrap();
    let undecided = store.undecided_studies(10).await.unwrap();
    let study = undecided.iter().find(|study| study.study_instance == study_uid("a")).unwrap();
    assert_eq!(study.version, 2);
    assert_eq!(store.forward(study, &to(&["vna"]), at(61)).await.unwrap(), 1);
    assert!(kinds(&store, "a").await.contains(&"forwarded".to_owned()));
    let sources = detail(&store, "a").await.deliveries;
    assert_eq!(sources.iter().filter(|delivery| delivery.kind == "source").count(), 7);
}

pub(crate) async fn decision_for_nobody_is_one(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    let undecided = store.undecided_studies(10).await.unwrap();
    assert_eq!(store.forward(&undecided[0], &Forwarding::default(), at(20)).await.unwrap(), 0);
    assert!(store.undecided_studies(10).await.unwrap().is_empty());
    assert!(!kinds(&store, "a").await.contains(&"forwarded".to_owned()));
}

pub(crate) async fn sender_of_a_study_is_known_by_its_address(backend: impl Backend) {
    let store = backend.open().await;
    let association = open_association(&store, at(0)).await;
    Slice { association: Some(association), ..Slice::of("sent", 0) }.record(&store, at(0)).await;
    closed_study(&store, "fetched", 1, 0).await;
    let undecided = store.undecided_studies(10).await.unwrap();
    for (name, address) in [("sent", "192.0.2.7".parse::<IpAddr>().ok()), ("fetched", None)] {
        let study = undecided.iter().find(|study| study.study_instance == study_uid(name)).unwrap();
        assert_eq!(study.source_address, address, "{name}");
        assert_eq!(store.source_address(&study_uid(name)).await.unwrap(), address, "{name}");
    }
    assert_eq!(store.source_address(&study_uid("nobody's")).await.unwrap(), None);
}
