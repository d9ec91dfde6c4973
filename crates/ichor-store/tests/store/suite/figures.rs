use ichor_core::{DeliveryStatus, MessageStatus, Reason, StudyStatus, Subject};
use ichor_store::Figures;

use crate::support::*;

pub(crate) async fn an_empty_store_has_figures(backend: impl Backend) {
    let store = backend.open().await;
    assert_eq!(store.figures(at(0)).await.unwrap(), Figures::default());
}

pub(crate) async fn figures_tell_what_waits(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", Subject::ALL, at(0)).await.unwrap();
    closed_study(&store, "old", 2, -100_000).await;
    analyse(&store, true, &["pacs", "vna"], at(-99_000)).await;
    closed_study(&store, "positive", 2, 10).await;
    analyse(&store, true, &["pacs"], at(25)).await;
    closed_study(&store, "negative", 3, 30).await;
    analyse(&store, false, &["pacs"], at(47)).await;
    closed_study(&store, "waits", 1, 50).await;
    open_association(&store, at(60)).await;
    Slice::of("arrives", 1).record(&store, at(61)).await;
    store.follow_events("ris", &[Subject::Positive], at(62)).await.unwrap();
    let dead = store.claim_delivery("vna", at(62)).await.unwrap().unwrap();
    store.delivery_failed(dead, Reason::new("refused", "no"), None, at(63)).await.unwrap();

    let figures = store.figures(at(0)).await.unwrap();
    let mut studies = figures.studies.clone();
    studies.sort();
    let expected = [(StudyStatus::Receiving, 1), (StudyStatus::Queued, 1), (StudyStatus::Analysed, 3)];
    assert_eq!(studies, expected);
    assert_eq!((figures.instances, figures.open_associations), (9, 1));
    assert_eq!(figures.oldest_analysis, Some(quiet_after(50)));
    assert_eq!(figures.oldest_deliveries, [("pacs".to_owned(), at(-99_000))], "the dead one waits no more");
    let dead = figures.deliveries.iter().find(|depth| depth.status == DeliveryStatus::Dead).unwrap();
    assert_eq!((dead.destination.as_str(), dead.count), ("vna", 1));
    assert_eq!((figures.messages.len(), figures.messages[0].status), (1, MessageStatus::Queued));
    assert_eq!(figures.oldest_messages[0].0, "ris");
    let recent = &figures.recent;
    assert_eq!((recent.positive, recent.negative, recent.alerted), (1, 1, 0), "the old one does not count");
}
