//! What is changed and cannot be written down is not changed.

use ichor_core::Reason;
use ichor_store::{StudyKey, Timestamp};

use crate::support::{Answer, Site, Who};

/// Everything that the changes of this file change.
async fn state(site: &Site, admin: &Who, study: &ichor_core::Uid) -> (String, String, String) {
    let known = site.store.study(&StudyKey::Uid(study.clone())).await.unwrap();
    let lists = (site.get(admin, "/api/users").await.text, site.get(admin, "/api/tokens").await.text);
    (lists.0, lists.1, format!("{:?} {:?}", known.summary.status, known.deliveries))
}

#[tokio::test]
async fn no_change_without_its_row() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let token = site.post(&admin, "/api/tokens", "{\"label\":\"test\"}").await.json()["id"].as_i64().unwrap();
    let vera = site.post(&admin, "/api/users", "{\"name\":\"vera\",\"role\":\"viewer\"}").await.json();
    let (vera, welcome) = (vera["user"].as_i64().unwrap(), vera["link"].as_str().unwrap().to_owned());
    let study = site.study("a", "Test^A").await;
    site.analyse(Some(true)).await;
    let later = Timestamp::from_millis(1_900_000_000_000);
    let claim = site.store.claim_delivery("pacs", later).await.unwrap().unwrap();
    site.store.delivery_failed(claim, Reason::new("refused", "no"), None, later).await.unwrap();
    let paths = [
        ("POST", "/api/users".to_owned(), "{\"name\":\"otto\",\"role\":\"viewer\"}"),
        ("PATCH", format!("/api/users/{vera}"), "{\"role\":\"operator\",\"enabled\":false}"),
        ("POST", format!("/api/users/{vera}/invitation"), ""),
        ("POST", "/api/tokens".to_owned(), "{\"label\":\"another\"}"),
        ("DELETE", format!("/api/tokens/{token}"), ""),
        ("POST", "/api/destinations/pacs/retry".to_owned(), ""),
        ("POST", format!("/api/studies/{study}/retry"), ""),
        ("POST", "/logout".to_owned(), ""),
    ];
    let before = state(&site, &admin, &study).await;
    site.break_audit(true).await;
    let refused = |answer: &Answer, what: &str| assert!(answer.status.is_server_error(), "{what}: {}", answer.text);
    for (method, path, body) in &paths {
        let answer = site.ask(&admin, method, path, Some(("application/json", body))).await;
        refused(&answer, path);
        // Asking who there is leaves no row, and the session that asks has not ended.
        assert_eq!(state(&site, &admin, &study).await, before, "{path} changed something");
    }
    let form = "name=anna&password=seven+grey+pianos";
    let answer = site.form(&Who::default(), "/login", form).await;
    refused(&answer, "/login");
    assert!(!answer.headers.contains_key("set-cookie"));
    let form =
        format!("code={}&password=nine+green+violins&again=nine+green+violins", welcome.split_once("code=").unwrap().1);
    refused(&site.form(&Who::default(), "/welcome", &form).await, "/welcome");

    site.break_audit(false).await;
    for (method, path, body) in &paths {
        let answer = site.ask(&admin, method, path, Some(("application/json", body))).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
    }
    assert!(site.get(&admin, "/api/me").await.status == 401, "logged out at last");
}
