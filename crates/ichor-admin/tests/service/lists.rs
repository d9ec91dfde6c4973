use std::time::Duration;

use crate::support::{Site, Who};

async fn names(site: &Site, who: &Who, query: &str) -> Vec<String> {
    let answer = site.get(who, &format!("/api/studies?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|study| study["patient_id"].as_str().unwrap()[3..].to_owned()).collect()
}

/// Four studies: negative, positive, not analysed, under way; in this order of arrival.
async fn four(site: &Site) {
    for (name, patient, verdict) in [
        ("negative", "Yamada^Tarou=山田^太郎", Some(Some(false))),
        ("positive", "O'Brien^<script>", Some(Some(true))),
        ("unread", "قباني^لنزار", Some(None)),
        ("waiting", "=1+1^CSV", None),
    ] {
        site.study(name, patient).await;
        if let Some(verdict) = verdict {
            site.analyse(verdict).await;
        }
    }
}

#[tokio::test]
async fn studies_are_searched_and_sorted() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    four(&site).await;
    for (query, expected) in [
        ("", &["waiting", "unread", "positive", "negative"][..]),
        ("sort=priority", &["positive", "waiting", "unread", "negative"]),
        ("sort=priority&limit=1&name=", &["positive"]),
        ("name=brien", &["positive"]),
        ("name=%E5%B1%B1%E7%94%B0", &["negative"]),
        ("name=%D9%82%D8%A8%D8%A7", &["unread"]),
        ("patient_id=ID-unread", &["unread"]),
        ("accession=ACC-waiting", &["waiting"]),
        ("status=not-analysed", &["unread"]),
        ("verdict=positive", &["positive"]),
        ("verdict=negative&sort=priority", &["negative"]),
        ("reason=single-slice", &["unread"]),
        ("source=SCANNER&sort=priority", &["positive", "waiting", "unread", "negative"]),
        ("source=OTHER", &[]),
        ("date_from=2026-03-01&date_to=20260301", &["waiting", "unread", "positive", "negative"]),
        ("date_from=2026-03-02", &[]),
        ("study=2.25.&limit=4", &["waiting", "unread", "positive", "negative"]),
    ] {
        assert_eq!(names(&site, &admin, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_tokens_belong_to_their_question() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    four(&site).await;
    for sort in ["time", "priority"] {
        let whole = names(&site, &admin, &format!("sort={sort}")).await;
        let (mut seen, mut page) = (Vec::new(), String::new());
        loop {
            let answer = site.get(&admin, &format!("/api/studies?sort={sort}&limit=1&page={page}")).await.json();
            seen.push(answer["items"][0]["patient_id"].as_str().unwrap()[3..].to_owned());
            let Some(next) = answer["next"].as_str() else { break };
            page = next.to_owned();
        }
        assert_eq!(seen, whole, "{sort}");
        for other in ["", "sort=priority&verdict=positive", "sort=priority&name=a"] {
            let answer = site.get(&admin, &format!("/api/studies?{other}&page={page}")).await;
            if sort == "time" && other.is_empty() {
                assert_eq!(answer.status, 200, "time is what is meant without a word");
            } else {
                assert!(answer.refusal(400).contains("another question"), "{sort} {other}");
            }
        }
        let damaged = format!("{}0", &page[..page.len() - 1]);
        let damaged = if damaged == page { format!("{}1", &page[..page.len() - 1]) } else { damaged };
        assert_eq!(site.get(&admin, &format!("/api/studies?sort={sort}&page={damaged}")).await.status, 400);
    }
    for bad in ["status=done", "limit=0", "sort=up", "date_from=1", "page=zz", "nme=x", "name=^", "source=%20a%5Cb"] {
        let detail = site.get(&admin, &format!("/api/studies?{bad}")).await.refusal(400);
        assert!(!detail.is_empty(), "{bad}");
    }
}

#[tokio::test]
async fn a_study_is_told_whole() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let study = site.study("a", "X^Y").await;
    site.analyse(Some(true)).await;
    let view = site.get(&admin, &format!("/api/studies/{study}")).await.json();
    assert_eq!((view["summary"]["urgency"].as_u64(), view["slices"].as_array().unwrap().len()), (Some(4), 4));
    assert_eq!(view["deliveries"][0]["status"], "queued");
    assert_eq!(view["finding"]["lesions_ml"], serde_json::json!([20.0, 3.5]));
    assert!(view["timeline"].as_array().unwrap().iter().any(|event| event["kind"] == "analysed"));
    assert!(!view.to_string().contains("blobs"), "no path of this machine");
    assert!(site.get(&admin, "/api/studies/1.2.3").await.refusal(404).contains("1.2.3"));
    assert!(site.get(&admin, "/api/studies/x").await.refusal(400).contains("UID"));
    let slice = ichor_core::Uid::derive(["slice", "a", "0"]);
    let picture = |rest: &str| format!("/api/studies/{study}/slices/{slice}/picture?{rest}");
    assert_eq!(site.get(&admin, &picture("window=bone")).await.text, "(600.0, 2800.0) nothing");
    assert!(site.get(&admin, &picture("window=liver")).await.refusal(400).contains("liver"));
    assert!(site.get(&admin, &picture("frame=9")).await.refusal(422).contains("frame"));
    let elsewhere = format!("/api/studies/1.2.3/slices/{slice}/picture");
    assert_eq!(site.get(&admin, &elsewhere).await.status, 404, "a slice of another study");
}

#[tokio::test]
async fn exports_hold_every_study_and_no_formula() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    four(&site).await;
    let csv = site.get(&admin, "/api/studies/export?sort=time").await;
    assert!(csv.headers["content-disposition"].to_str().unwrap().contains("studies.csv"));
    assert_eq!(csv.text.lines().count(), 5, "{}", csv.text);
    assert!(csv.text.starts_with("\u{feff}study_instance,") && csv.text.contains(",'=1+1^CSV,"), "{}", csv.text);
    assert!(csv.text.contains("O'Brien^<script>") && csv.text.contains("山田^太郎"));
    let json = site.get(&admin, "/api/studies/export?format=json&verdict=positive").await.json();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(site.get(&admin, "/api/studies/export?format=json&source=NOBODY").await.json(), serde_json::json!([]));
    for bad in ["format=xml", "limit=5", "nme=x", "status=done"] {
        assert_eq!(site.get(&admin, &format!("/api/studies/export?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn the_stream_goes_on_where_it_was() {
    let access = ichor_admin::AccessOptions { stream: Duration::from_millis(100), ..Default::default() };
    let site = Site::with(access).await;
    let admin = site.first_admin().await;
    let nothing = site.get(&admin, "/api/events").await;
    assert_eq!(nothing.headers["content-type"], "text/event-stream");
    assert!(!nothing.text.contains("data:"), "{}", nothing.text);
    site.study("a", "SECRET^NAME").await;
    let all = site.get(&admin, "/api/events?after=0").await.text;
    let ids: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert!(ids.len() > 2 && all.contains("\"kind\":\"study-opened\"") && !all.contains("SECRET"), "{all}");
    let heard = ids[1];
    let rest = site.get(&admin.clone().with("last-event-id", heard), "/api/events?after=0").await.text;
    let rest: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(rest[1..], ids[2..], "nothing twice, nothing missed");
    let bad = site.get(&admin.clone().with("last-event-id", "x"), "/api/events").await;
    assert!(bad.refusal(400).contains("Last-Event-ID"));
}

#[tokio::test]
async fn the_site_is_told() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    four(&site).await;
    let statistics = site.get(&admin, "/api/statistics?days=1").await.json();
    assert_eq!((statistics["studies"].as_u64(), statistics["positive"].as_u64()), (Some(4), Some(1)), "{statistics}");
    assert_eq!(statistics["reasons"][0]["code"], "single-slice");
    assert_eq!(statistics["time_zone"], "Asia/Kolkata", "{statistics}");
    let page = site.get(&admin, "/statistics?days=1").await.text;
    assert!(page.contains("By day (Asia/Kolkata)"), "{page}");
    assert_eq!(statistics["sources"][0]["source_ae"], "SCANNER");
    assert!(site.get(&admin, "/api/statistics?days=0").await.refusal(400).contains("days"));
    let queues = site.get(&admin, "/api/queues").await.json();
    assert_eq!(
        (&queues["destinations"][0]["name"], &queues["destinations"][0]["depths"]["queued"]),
        (&serde_json::json!("pacs"), &serde_json::json!(2))
    );
    assert_eq!(queues["studies"]["queued"], 1);
    assert_eq!(site.get(&admin, "/api/models").await.json()[0]["notice"], "demonstration weights");
    assert_eq!(site.get(&admin, "/api/deliveries?status=queued").await.json().as_array().unwrap().len(), 2);
    assert!(site.get(&admin, "/api/messages?status=gone").await.refusal(400).contains("gone"));
}
