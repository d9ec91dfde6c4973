//! Destinations as a whole: what is told of them, and what was given up, sent again.

use std::time::Duration;

use ichor_core::{Reason, Uid};
use ichor_store::{Context, DeliveryFilter, Forwarding, Timestamp};
use serde_json::{Value, json};

use crate::support::{Site, Who, now};

fn seg() -> Context {
    Context {
        sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.66.4").unwrap(),
        transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
    }
}

async fn state(site: &Site, who: &Who) -> Value {
    let queues = site.get(who, "/api/queues").await.json();
    assert_eq!(queues["destinations"][0]["name"], "pacs");
    queues["destinations"][0]["state"].clone()
}

/// The words of the readiness check, and whether it passed.
async fn check(site: &Site) -> (bool, String) {
    let answer = site.get(&Who::default(), "/health/ready").await;
    assert_eq!(answer.status, 200, "a study that came now would be kept");
    let checks = answer.json()["checks"].as_array().unwrap().clone();
    let check = checks.into_iter().find(|check| check["name"] == "destinations").unwrap();
    (check["passed"].as_bool().unwrap(), check["words"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn who_is_down_since_when_and_why_is_told() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    site.study("a", "X").await;
    site.analyse(Some(true)).await;
    assert_eq!(state(&site, &admin).await, Value::Null, "nothing was sent yet");
    assert_eq!(check(&site).await, (true, "none is down".to_owned()));
    assert!(site.get(&admin, "/queues").await.text.contains("nothing was sent yet"));
    assert!(!site.get(&admin, "/health").await.text.contains("Destinations in trouble"));

    let (since, next) = (now(), now().after(Duration::from_secs(60)));
    let away = Reason::new("unreachable", "no route to <pacs>");
    for _ in 0..2 {
        site.store.destination_down("pacs", &away, next, since).await.unwrap();
    }
    // One that is not configured any more worries nobody.
    site.store.destination_down("gone", &away, next, since).await.unwrap();
    let down = state(&site, &admin).await;
    assert_eq!((&down["is_up"], &down["failures"]), (&json!(false), &json!(2)));
    assert_eq!((&down["since"], &down["next_probe"]), (&json!(since), &json!(next)));
    assert_eq!(down["last_words"], "no route to <pacs> (unreachable)");
    let (passed, words) = check(&site).await;
    assert!(!passed && words.starts_with("pacs is down since 20") && !words.contains("gone"), "{words}");
    assert!(!words.contains("no route"), "why is for those who log in");
    for path in ["/queues", "/health"] {
        let page = site.get(&admin, path).await.text;
        assert!(page.contains(">down<") && page.contains("2 attempts"), "{path}: {page}");
        assert!(page.contains("no route to &#60;pacs&#62; (unreachable)"), "{path}: {page}");
    }

    site.store.destination_up("pacs", now()).await.unwrap();
    let until = Timestamp::from_millis(1_950_000_000_000);
    site.store.contexts_refused("pacs", &[seg()], until, now()).await.unwrap();
    let refusing = state(&site, &admin).await;
    assert_eq!((&refusing["is_up"], &refusing["last_words"]), (&json!(true), &Value::Null));
    let refused = json!({ "sop_class": seg().sop_class, "transfer_syntax": seg().transfer_syntax, "until": until });
    assert_eq!(refusing["refused"], json!([refused]));
    assert_eq!(check(&site).await, (false, "pacs does not accept one kind of object".to_owned()));
    for path in ["/queues", "/health"] {
        let page = site.get(&admin, path).await.text;
        assert!(page.contains("does not accept") && page.contains(seg().sop_class.as_str()), "{path}: {page}");
    }
    let again = site.post(&admin, "/api/destinations/pacs/retry", "").await;
    assert_eq!(again.json()["done"], "nothing for pacs is given up; what it did not accept is proposed again");
    assert!(check(&site).await.0);
}

/// Gives up everything that is queued for a destination.
async fn give_up(site: &Site, destination: &str) -> usize {
    let later = Timestamp::from_millis(1_900_000_000_000);
    let mut given_up = 0;
    while let Some(claim) = site.store.claim_delivery(destination, later).await.unwrap() {
        site.store.delivery_failed(claim, Reason::new("refused", "no room"), None, later).await.unwrap();
        given_up += 1;
    }
    given_up
}

#[tokio::test]
async fn everything_given_up_for_a_destination_is_sent_again() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let (viewer, operator) = (site.user(&admin, "vera", "viewer").await, site.user(&admin, "otto", "operator").await);
    for name in ["a", "b", "c"] {
        site.study(name, "X").await;
        site.analyse(Some(true)).await;
    }
    let path = "/api/destinations/pacs/retry";
    assert!(!site.get(&operator, "/queues").await.text.contains("Send all again"));
    assert_eq!(give_up(&site, "pacs").await, 3);
    let page = site.get(&admin, "/queues").await.text;
    assert!(page.contains(&format!("data-post=\"{path}\"")), "{page}");
    assert_eq!(site.post(&viewer, path, "").await.status, 403);
    assert!(site.post(&operator, "/api/destinations/pcs/retry", "").await.refusal(404).contains("pcs"));
    assert_eq!(site.post(&operator, &format!("{path}?study=x"), "").await.status, 400);
    assert_eq!(site.post(&operator, &format!("{path}?of=x"), "").await.status, 400);
    let dead = async || site.get(&admin, "/api/deliveries?status=dead").await.json().as_array().unwrap().len();
    assert_eq!(dead().await, 3, "nothing of that changed anything");

    let one = Uid::derive(["study", "a"]);
    let again = site.post(&operator, &format!("{path}?study={one}"), "").await;
    assert_eq!(again.json()["done"], "one delivery to pacs is queued again");
    assert_eq!(dead().await, 2);
    assert_eq!(site.post(&operator, path, "").await.json()["done"], "2 deliveries to pacs are queued again");
    assert_eq!(dead().await, 0);

    let rows = site.get(&admin, "/api/audit?limit=200").await.json();
    let rows: Vec<&Value> =
        rows.as_array().unwrap().iter().filter(|row| row["action"] == "deliveries-retried").collect();
    let told: Vec<(&Value, &Value, &Value)> =
        rows.iter().map(|row| (&row["actor"], &row["study_instance"], &row["detail"])).collect();
    let all = json!({ "destination": "pacs", "what": { "deliveries": 2 } });
    let of_one = json!({ "destination": "pacs", "what": { "deliveries": 1 } });
    assert_eq!(told, [(&json!("otto"), &Value::Null, &all), (&json!("otto"), &json!(one), &of_one)]);
}

#[tokio::test]
async fn what_is_forwarded_has_a_line_a_destination() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let study = site.study("a", "X").await;
    let path = format!("/studies/{study}");
    assert!(!site.get(&admin, &path).await.text.contains("Forwarded as received"));
    let undecided = site.store.undecided_studies(10).await.unwrap();
    let to = Forwarding { destinations: vec!["vna & co".to_owned()], urgent: false, words: None };
    assert_eq!(site.store.forward(&undecided[0], &to, now()).await.unwrap(), 4);
    site.analyse(Some(true)).await;
    assert_eq!(give_up(&site, "vna & co").await, 4);
    let page = site.get(&admin, &path).await.text;
    let retry = format!("/api/destinations/vna%20%26%20co/retry?study={study}");
    assert!(page.contains("4 dead") && page.contains(&format!("data-post=\"{retry}\"")), "{page}");
    let view = site.get(&admin, &format!("/api/studies/{study}")).await.json();
    let line = json!([{ "destination": "vna & co", "status": "dead", "count": 4, "last_words": "no room (refused)" }]);
    assert_eq!(view["forwarded"], line);
    assert_eq!(view["deliveries"].as_array().unwrap().len(), 1, "the result's alone");
    assert_eq!(site.post(&admin, &retry, "").await.json()["done"], "4 deliveries to vna & co are queued again");
    let page = site.get(&admin, &path).await.text;
    assert!(page.contains("4 queued") && !page.contains(&retry), "{page}");
    let sources = site.get(&admin, "/api/deliveries?forwarded=true&limit=3").await.json();
    let ids: Vec<i64> = sources.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    let rest = site.get(&admin, &format!("/api/deliveries?forwarded=true&before={}", ids[2])).await.json();
    assert_eq!((ids.len(), rest.as_array().unwrap().len()), (3, 1), "a list goes on where it ended");
}

#[tokio::test]
async fn dead_deliveries_beyond_a_page_are_reached() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    // Four instances to each of thirty destinations: more than the hundred of a page.
    site.study("a", "X").await;
    let undecided = site.store.undecided_studies(10).await.unwrap();
    let destinations: Vec<String> = (0..30).map(|number| format!("vna{number}")).collect();
    let to = Forwarding { destinations: destinations.clone(), urgent: false, words: None };
    assert_eq!(site.store.forward(&undecided[0], &to, now()).await.unwrap(), 120);
    for destination in &destinations {
        give_up(&site, destination).await;
    }
    let shown = |page: &str| page.matches("/retry\">Send again").count();
    let first = site.get(&admin, "/queues").await.text;
    let link = first.split("/queues?dead_before=").nth(1).unwrap().split('"').next().unwrap();
    let rest = site.get(&admin, &format!("/queues?dead_before={link}")).await.text;
    assert_eq!((shown(&first), shown(&rest)), (100, 20));
    assert!(!rest.contains("dead_before"), "that was all");
    assert_eq!(site.get(&admin, "/queues?dead_before=x").await.status, 400);
    let filter = DeliveryFilter { limit: 200, ..DeliveryFilter::default() };
    assert_eq!(site.store.deliveries(&filter).await.unwrap().len(), 120);
}
