use std::time::Duration;

use ichor_core::{ModelId, OfferState, Uid};
use ichor_store::{NewOffer, ShadowOutcome, Timestamp};
use serde_json::{Value, json};

use crate::support::{Answer, Site, Who};

const ACTIVE: &str = "ichor-demo@1.0.0+0123456789ab";
const OTHER: &str = "other@2+0123456789ab";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
}

async fn offered(site: &Site) {
    let offer = |id: &str| NewOffer {
        weights: format!("/models/{id}"),
        model: Some(id.parse().unwrap()),
        state: OfferState::Waiting,
        words: String::new(),
    };
    let broken = NewOffer {
        weights: "/models/<broken>".to_owned(),
        model: None,
        state: OfferState::Failed,
        words: "no manifest beside <it>".to_owned(),
    };
    site.store.offer_models(&[offer(ACTIVE), offer(OTHER), broken], at(0)).await.unwrap();
    let facts = json!({
        "id": OTHER, "notice": null, "slice_threshold": 0.7, "study_rule": "3 neighbours", "map": "m", "is_refined": false,
        "precision": "f32",
    });
    site.store.note_offer(&OTHER.parse().unwrap(), Ok(facts), "cpu", at(1)).await.unwrap();
    site.store.adopt_model(&ACTIVE.parse().unwrap(), "test", at(1)).await.unwrap();
}

/// Asks for something, and answers as the daemon would.
async fn answered(site: &Site, who: &Who, path: &str, outcome: Result<(), String>) -> Answer {
    let daemon = async {
        loop {
            if let Some(requested) = site.store.requested_model().await.unwrap() {
                return site.store.settle_model(&requested, outcome, at(9)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (answer, ()) = tokio::join!(site.post(who, path, "{\"why\":\"it is <b>better</b>\"}"), daemon);
    answer
}

#[tokio::test]
async fn admins_change_the_active_model() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let operator = site.user(&admin, "otto", "operator").await;
    offered(&site).await;
    let path = format!("/api/models/{OTHER}/activate");
    let why = "{\"why\":\"better\"}";
    assert!(site.post(&operator, &path, why).await.refusal(403).contains("admin"));
    assert_eq!(site.post(&Who::default(), &path, why).await.status, 401);
    for bad in ["{\"why\":\"  \"}", &format!("{{\"why\":\"{}\"}}", "x".repeat(501))] {
        assert!(site.post(&admin, &path, bad).await.refusal(400).contains("why"), "{bad}");
    }
    assert_eq!(site.post(&admin, &path, "{}").await.status, 422, "a change without a reason");
    assert!(site.post(&admin, "/api/models/x@1/activate", why).await.refusal(404).contains("other@2"));
    assert!(site.post(&admin, &format!("/api/models/{ACTIVE}/activate"), why).await.refusal(400).contains("already"));
    assert!(site.post(&admin, "/api/models/rollback", why).await.refusal(404).contains("former"));
    assert_eq!(site.store.requested_model().await.unwrap(), None, "none of that is a wish");

    let refused = answered(&site, &admin, &path, Err("the self-test failed".to_owned())).await;
    assert!(refused.refusal(409).contains("self-test"));
    assert_eq!(site.store.active_model().await.unwrap().unwrap().model.as_str(), ACTIVE);
    let done = answered(&site, &admin, "/api/models/other@2/activate", Ok(())).await;
    assert_eq!(
        (done.status.as_u16(), done.json()["done"].as_str()),
        (200, Some(&*format!("{OTHER} is the active model")))
    );
    let back = answered(&site, &admin, "/api/models/rollback", Ok(())).await;
    assert_eq!(back.status, 200, "{}", back.text);

    let history = site.get(&operator, "/api/models/history").await.json();
    let line = |at: usize| (history[at]["status"].as_str().unwrap(), history[at]["actor"].as_str().unwrap());
    assert_eq!([line(0), line(1), line(2)], [("active", "anna"), ("former", "anna"), ("refused", "anna")]);
    let audit = site.get(&admin, "/api/audit").await.text;
    assert!(audit.contains("model-activation-requested") && audit.contains("model-rollback-requested"), "{audit}");
    let page = site.get(&admin, "/models").await.text;
    assert!(page.contains("it is &#60;b&#62;better") && !page.contains("<b>better"), "{page}");
}

#[tokio::test]
async fn page_and_list_say_what_each_model_does() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let viewer = site.user(&admin, "vera", "viewer").await;
    let only = site.get(&viewer, "/api/models").await.json();
    assert_eq!((only.as_array().unwrap().len(), &only[0]["role"]), (1, &Value::from("active")), "none is offered yet");
    offered(&site).await;
    let list = site.get(&viewer, "/api/models").await.json();
    let roles: Vec<&str> = list.as_array().unwrap().iter().map(|model| model["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["active", "shadow", "failed"]);
    assert_eq!(list[1]["facts"]["study_rule"], "3 neighbours");
    let page = site.get(&admin, "/models").await.text;
    assert!(page.contains("no manifest beside &#60;it&#62;") && page.contains("cannot be used"), "{page}");
    assert!(page.contains(&format!("/api/models/{OTHER}/activate")) && !page.contains(&format!("{ACTIVE}/activate")));
    let of_viewer = site.get(&viewer, "/models").await;
    assert!(of_viewer.status == 200 && !of_viewer.text.contains("/activate\""), "viewers change nothing");
    assert!(site.get(&viewer, "/models?since=x").await.refusal(400).contains("since"));

    // The active one goes missing.
    site.active.set(None);
    let list = site.get(&viewer, "/api/models").await.json();
    assert_eq!(list[0]["role"], "missing", "{list}");
    let ready = site.get(&Who::default(), "/health/ready").await;
    assert_eq!(ready.status, 200, "a study would be kept");
    assert!(ready.text.contains("\"name\":\"model\",\"passed\":false"), "{}", ready.text);
    assert!(site.get(&Who::default(), "/metrics").await.text.contains("ichor_model_missing 1"));
}

/// A study that both have judged, differently.
async fn compared(site: &Site) -> Uid {
    let model: ModelId = OTHER.parse().unwrap();
    site.store.queue_shadow_runs(std::slice::from_ref(&model), 10, at(1)).await.unwrap();
    let study = site.study("a", "SECRET^NAME").await;
    site.analyse(Some(true)).await;
    let later = Timestamp::from_millis(i64::MAX / 2);
    site.store.queue_shadow_runs(std::slice::from_ref(&model), 10, later).await.unwrap();
    let run = site.store.claim_shadow_run(&[model], later).await.unwrap().unwrap();
    let detail = site.store.study(&ichor_store::StudyKey::Uid(study.clone())).await.unwrap();
    let mut finding = detail.finding.unwrap();
    (finding.verdict, finding.probability, finding.volume_ml) = (ichor_core::Verdict::Negative, 0.125, 0.0);
    let outcome = ShadowOutcome::Judged { finding, dice: None };
    site.store.complete_shadow_run(&run, &outcome, Duration::from_secs(1), later).await.unwrap();
    study
}

#[tokio::test]
async fn agreement_is_told_with_links_and_without_names() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    offered(&site).await;
    let study = compared(&site).await;
    let report = site.get(&admin, &format!("/api/models/{OTHER}/agreement")).await.json();
    assert_eq!((&report["agreement"]["studies"], &report["agreement"]["only_active"]), (&json!(1), &json!(1)));
    assert_eq!(report["disagreements"][0]["study_instance"], study.as_str());
    let difference = report["agreement"]["probability_difference"].as_f64().unwrap();
    assert!((difference - 0.845).abs() < 1e-9, "{difference}");
    assert_eq!(report["sources"][0]["source_ae"], "SCANNER");
    assert!(site.get(&admin, "/api/models/x/agreement").await.refusal(404).contains("offered"));
    assert!(site.get(&admin, &format!("/api/models/{OTHER}/agreement?since=9")).await.refusal(400).contains("day"));
    let page = site.get(&admin, "/models").await.text;
    assert!(page.contains(&format!("/studies/{study}")) && !page.contains("SECRET"), "{page}");
    let page = site.get(&admin, &format!("/studies/{study}")).await.text;
    assert!(page.contains("in the shadow: negative 0.12"), "{page}");
    let metrics = site.get(&Who::default(), "/metrics").await.text;
    assert!(metrics.contains(&format!("ichor_shadow_studies{{model=\"{OTHER}\",status=\"done\"}} 1")), "{metrics}");
}

#[tokio::test]
async fn operators_have_a_study_analysed_by_another_model() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let (operator, viewer) = (site.user(&admin, "otto", "operator").await, site.user(&admin, "vera", "viewer").await);
    offered(&site).await;
    let study = site.study("a", "X^Y").await;
    let path = format!("/api/studies/{study}/reanalyse");
    let wish = format!("{{\"model\":\"{OTHER}\",\"why\":\"second opinion\"}}");
    assert!(site.post(&operator, &path, &wish).await.refusal(409).contains("queued"), "it is under way");
    site.analyse(Some(true)).await;
    assert_eq!(site.post(&viewer, &path, &wish).await.status, 403);
    let unknown = "{\"model\":\"x@1\",\"why\":\"second opinion\"}";
    assert!(site.post(&operator, &path, unknown).await.refusal(404).contains("x@1"));
    assert_eq!(site.post(&operator, "/api/studies/1.2.3/reanalyse", &wish).await.status, 404);
    let done = site.post(&operator, &path, &wish).await;
    assert!(done.text.contains("version 2 is queued"), "{}", done.text);
    assert_eq!(site.post(&operator, &path, &wish).await.status, 409, "two at once: one wins");
    let audit = site.get(&admin, &format!("/api/audit?study={study}")).await.text;
    assert!(audit.contains("study-reanalysed") && audit.contains("second opinion"), "{audit}");
}

/// `ICHOR_WRITE_OPENAPI=1` writes it anew.
#[tokio::test]
async fn document_that_is_served_is_the_one_that_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let served = Site::new().await.get(&Who::default(), "/api/openapi.json").await.text;
    if std::env::var_os("ICHOR_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &served).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == served, "docs/openapi.json has drifted");
    for path in ["/api/models/{id}/agreement", "/api/models/{id}/activate", "/api/models/rollback"] {
        assert!(served.contains(path), "{path}");
    }
}
