use std::time::Duration;

use ichor_core::Uid;
use ichor_store::{Completeness, LookupAnswer, LookupPeer, ToldInstances, ToldSeries};

use crate::support::{Site, Who, now};

#[tokio::test]
async fn what_a_peer_told_is_shown_and_found_and_its_source_named() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let study = site.study("unordered", "A^B").await;
    let name = "ris <1>".to_owned();
    let peer = LookupPeer { name: name.clone(), rank: 0, accession: true, counts: true, sources: Vec::new() };
    site.store.open_lookups(&peer, now()).await.unwrap();
    let due = site.store.due_lookups(&name, 1, now()).await.unwrap().remove(0);
    let series = Uid::derive(["series", "unordered"]);
    let told = ToldSeries { series_instance: series, instances: 5, counts: true };
    let answer = LookupAnswer {
        accession_number: Some("TOLD-1".to_owned()),
        instances: Some(ToldInstances::Series(vec![told])),
        doubts: Vec::new(),
    };
    let completeness = Completeness {
        asked_at: now(),
        close_when_complete: false,
        stable: Duration::from_secs(5),
        wait_for_missing: Duration::from_secs(30),
    };
    site.store.record_lookup(&due, &answer, completeness, None, now()).await.unwrap();
    let found = site.get(&admin, "/api/studies?accession=TOLD-1").await.json();
    let item = &found["items"][0];
    assert_eq!(item["study_instance"], study.as_str());
    assert_eq!((&item["accession_source"], &item["expected_instances"]), (&name.as_str().into(), &5.into()));
    let page = site.get(&admin, &format!("/studies/{study}")).await.text;
    assert!(page.contains("TOLD-1</bdi> (told by <bdi>ris &#60;1&#62;</bdi>)"), "{page}");
    assert!(page.contains("4 of 5 expected"), "{page}");
    let metrics = site.get(&Who::default(), "/metrics").await.text;
    assert!(metrics.contains("ichor_lookups_total{name=\"ris <1>\",outcome=\"answered\"} 1"), "{metrics}");
    assert!(metrics.contains("ichor_lookups_due{name=\"ris <1>\"} 0"), "{metrics}");
}
