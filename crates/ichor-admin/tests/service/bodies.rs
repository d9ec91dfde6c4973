//! Bodies that cannot be read are told as problems, like everything that goes wrong.

use crate::support::Site;

#[tokio::test]
async fn bodies_that_are_no_json_are_told() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let study = site.study("a", "X").await;
    let model = "/api/models/ichor-demo@1.0.0+0123456789ab/activate";
    let paths = [
        ("POST", "/api/users".to_owned()),
        ("PATCH", "/api/users/1".to_owned()),
        ("POST", "/api/tokens".to_owned()),
        ("POST", model.to_owned()),
        ("POST", "/api/models/rollback".to_owned()),
        ("POST", format!("/api/studies/{study}/reanalyse")),
    ];
    let long = format!("{{\"name\":\"{}\",\"role\":\"viewer\"}}", "x".repeat(64 << 10));
    let before = site.get(&admin, "/api/users").await.text;
    for (method, path) in &paths {
        for (kind, body, status) in [
            ("application/json", "{", 400),
            ("application/json", "", 400),
            ("application/json", "[]", 422),
            ("application/json", "{\"nobody\":1}", 422),
            ("text/plain", "{}", 415),
            ("application/x-www-form-urlencoded", "name=vera", 415),
            ("application/json", long.as_str(), 413),
        ] {
            let answer = site.ask(&admin, method, path, Some((kind, body))).await;
            assert_eq!(answer.status, status, "{method} {path} {kind} {body:.40}: {}", answer.text);
            assert!(!answer.refusal(status).is_empty(), "{path} {body:.40}");
        }
        let answer = site.ask(&admin, method, path, None).await;
        assert!(!answer.refusal(415).is_empty(), "{path}: no body at all");
    }
    assert_eq!(site.get(&admin, "/api/users").await.text, before, "and nothing was changed");
}

#[tokio::test]
async fn paths_that_are_no_number_are_told() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    for path in ["/api/deliveries/x/retry", "/api/messages/1.5/release", "/api/deliveries/99999999999999999999/release"]
    {
        let detail = site.post(&admin, path, "").await.refusal(400);
        assert!(detail.contains("Invalid URL"), "{path}: {detail}");
    }
    let pages = site.get(&admin, "/api/studies?limit=1&limit=2").await;
    assert!(!pages.refusal(400).is_empty(), "{}", pages.text);
}
