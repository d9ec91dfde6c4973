//! Studies by a mark, on the API and on the page; and exports from the page.

use ichor_core::Reason;
use ichor_store::Timestamp;

use crate::support::{Site, Who, now};

async fn names(site: &Site, who: &Who, query: &str) -> Vec<String> {
    let answer = site.get(who, &format!("/api/studies?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|study| study["patient_id"].as_str().unwrap()[3..].to_owned()).collect()
}

#[tokio::test]
async fn studies_are_found_by_what_was_given_up_or_held() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let later = Timestamp::from_millis(1_900_000_000_000);
    for name in ["dead", "held", "plain"] {
        let study = site.study(name, "Test^Of").await;
        site.analyse(Some(name == "held")).await;
        match name {
            "dead" => {
                let claim = site.store.claim_delivery("pacs", later).await.unwrap().unwrap();
                site.store.delivery_failed(claim, Reason::new("refused", "no"), None, later).await.unwrap();
            }
            "held" => assert!(site.store.hold(&study, "a complaint", now()).await.unwrap()),
            _ => {}
        }
    }
    for (query, expected) in [
        ("mark=", &["plain", "held", "dead"][..]),
        ("mark=given-up", &["dead"]),
        ("mark=given-up&sort=priority&name=test", &["dead"]),
        ("mark=on-hold", &["held"]),
        ("mark=on-hold&sort=priority&verdict=positive", &["held"]),
        ("mark=on-hold&patient_id=ID-plain", &[]),
        ("mark=alerted", &[]),
        ("mark=alerted&sort=priority", &[]),
    ] {
        assert_eq!(names(&site, &admin, query).await, expected, "{query}");
    }
    let detail = site.get(&admin, "/api/studies?mark=dead").await.refusal(400);
    assert!(detail.contains("given-up"), "those that there are: {detail}");
    let page = site.get(&admin, "/?mark=given-up").await.text;
    assert!(page.contains("ID-dead") && !page.contains("ID-held"), "{page}");
    assert!(page.contains("<option value=\"given-up\" selected>"), "{page}");
    let exported = site.get(&admin, "/api/studies/export?format=json&mark=on-hold").await.json();
    assert_eq!(exported[0]["patient_id"], "ID-held");
}

#[tokio::test]
async fn either_export_has_a_button_for_those_who_may() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let viewer = site.user(&admin, "vera", "viewer").await;
    for (who, count) in [(&admin, 1), (&viewer, 0)] {
        let page = site.get(who, "/").await.text;
        for format in ["csv", "json"] {
            let button = format!("formaction=\"/api/studies/export\" name=\"format\" value=\"{format}\"");
            assert_eq!(page.matches(&button).count(), count, "{format}");
        }
    }
}
