use ichor_admin::AccessOptions;

use crate::support::{Site, Who};

/// Every path of the document, as it can be asked for.
async fn paths(site: &Site) -> Vec<(String, String)> {
    let document = site.get(&Who::default(), "/api/openapi.json").await.json();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{study}", "1.2.3").replace("{instance}", "1.2.4").replace("{id}", "1");
        all.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    assert!(all.len() > 20, "{all:?}");
    all
}

#[tokio::test]
async fn strangers_see_nothing() {
    let site = Site::new().await;
    for (method, path) in paths(&site).await {
        for who in [Who::default(), Who::token("guess"), Who::default().with("cookie", "ichor-session=guess")] {
            let answer = site.ask(&who, &method, &path, None).await;
            assert!(answer.refusal(401).contains("log in"), "{method} {path}");
        }
    }
    for page in ["/", "/studies/1.2.3", "/queues", "/users", "/audit", "/worklist/rows"] {
        let answer = site.get(&Who::default(), page).await;
        assert!(answer.status == 303 && answer.headers["location"] == "/login", "{page}: {answer:?}");
    }
    for open in [
        "/health/live",
        "/health/ready",
        "/metrics",
        "/login",
        "/assets/ichor.css",
        "/assets/ichor.js",
        "/assets/ichor.svg",
    ] {
        assert_eq!(site.get(&Who::default(), open).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn nothing_of_patients_is_served_in_the_clear() {
    let site = Site::with(AccessOptions { serves_patients: false, ..AccessOptions::default() }).await;
    assert_eq!(site.admin.first_link().await.unwrap(), None);
    for path in ["/api/studies", "/login", "/welcome?code=x"] {
        assert!(site.get(&Who::default(), path).await.refusal(403).contains("tls_certificate_file"), "{path}");
    }
    assert_eq!(site.get(&Who::default(), "/metrics").await.status, 200);
}

#[tokio::test]
async fn the_first_link_is_good_once() {
    let site = Site::new().await;
    let old = site.admin.first_link().await.unwrap().unwrap();
    let link = site.admin.first_link().await.unwrap().unwrap();
    let path = |link: &str| link.strip_prefix("http://ichor").unwrap().to_owned();
    assert_eq!(site.get(&Who::default(), &path(&old)).await.status, 404, "a later start replaces it");
    assert_eq!(site.get(&Who::default(), &path(&link)).await.status, 200);
    let code = link.split_once("code=").unwrap().1;
    for (name, password, again, why) in [
        ("anna", "short", "short", "12 characters"),
        ("a b", "seven+grey+pianos", "seven+grey+pianos", "a name has"),
        ("anna", "seven+grey+pianos", "seven+grey+piano", "differ"),
        ("anna", "my+name+is+anna", "my+name+is+anna", "does not hold the name"),
    ] {
        let form = format!("code={code}&name={name}&password={password}&again={again}");
        let answer = site.form(&Who::default(), "/welcome", &form).await;
        assert!(answer.status == 400 && answer.text.contains(why), "{why}: {}", answer.text);
    }
    let admin = site.choose_password(code, "anna").await;
    assert_eq!(site.get(&admin, "/api/me").await.json(), serde_json::json!({ "name": "anna", "role": "admin" }));
    let again = format!("code={code}&name=eve&password=seven+grey+pianos&again=seven+grey+pianos");
    assert_eq!(site.form(&Who::default(), "/welcome", &again).await.status, 404);
    assert_eq!(site.admin.first_link().await.unwrap(), None, "there is an admin");
}

/// What stands in the audit trail, the newest first.
async fn actions(site: &Site, admin: &Who) -> Vec<String> {
    let rows = site.get(admin, "/api/audit?limit=1000").await.json();
    rows.as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_that_stays_open_is_written_down_once_and_another_question_anew() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    site.study("a", "X^Y").await;
    let mut written = actions(&site, &admin).await.iter().filter(|action| *action == "worklist-viewed").count();
    for (path, is_new) in [
        ("/?name=x", true),
        ("/worklist/rows?name=x", false),
        ("/worklist/rows?name=x&status=", false),
        ("/worklist/rows?name=y", true),
        ("/worklist/rows?name=y", false),
        ("/worklist/rows?name=y&page=zz", true),
        ("/?name=y", true),
    ] {
        assert_eq!(site.get(&admin, path).await.status, 200, "{path}");
        written += usize::from(is_new);
        let now = actions(&site, &admin).await.iter().filter(|action| *action == "worklist-viewed").count();
        assert_eq!(now, written, "{path}");
    }
}

#[tokio::test]
async fn a_good_login_does_not_wipe_out_failures_for_others() {
    let site = Site::with(AccessOptions { login_attempts: 3, ..AccessOptions::default() }).await;
    site.first_admin().await;
    for (name, password, status) in [
        ("bob", "x", 401),
        ("bob", "y", 401),
        ("anna", "seven+grey+pianos", 303),
        ("anna", "seven+grey+pianos", 303),
        ("bob", "z", 401),
        ("bob", "z", 429),
    ] {
        let answer = site.form(&Who::default(), "/login", &format!("name={name}&password={password}")).await;
        assert_eq!(answer.status, status, "{name} {password}");
    }
}

#[tokio::test]
async fn login_counts_failures() {
    let site = Site::with(AccessOptions { login_attempts: 3, ..AccessOptions::default() }).await;
    let admin = site.first_admin().await;
    let right = "name=ANNA&password=seven+grey+pianos";
    let answer = site.form(&Who::default(), "/login", right).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(answer.status == 303 && cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
    for wrong in ["name=anna&password=x", "name=nobody&password=seven+grey+pianos", "name=anna&password="] {
        let answer = site.form(&Who::default(), "/login", wrong).await;
        assert!(answer.status == 401 && answer.text.contains("not right"), "{wrong}");
    }
    let limited = site.form(&Who::default(), "/login", right).await;
    assert_eq!(limited.status, 429, "even the right one");
    assert!(limited.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 800);
    assert_eq!(site.form(&Who::default(), "/login", right).await.status, 429);
    assert_eq!(actions(&site, &admin).await.iter().filter(|action| *action == "login-limited").count(), 1, "once");
    let evil = Who::default().with("origin", "https://evil");
    assert!(site.form(&evil, "/login", right).await.refusal(403).contains("another site"));
}

#[tokio::test]
async fn a_cookie_alone_changes_nothing() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let cookie = Who(admin.0.iter().filter(|(name, _)| name == "cookie").cloned().collect());
    let body = "{\"label\":\"x\"}";
    assert_eq!(site.get(&cookie, "/api/me").await.status, 200);
    assert!(site.post(&cookie, "/api/tokens", body).await.refusal(403).contains("X-CSRF-Token"));
    let wrong = cookie.clone().with("x-csrf-token", "guess");
    assert!(site.post(&wrong, "/api/tokens", body).await.refusal(403).contains("X-CSRF-Token"));
    let foreign = admin.clone().with("origin", "https://evil");
    assert!(site.post(&foreign, "/api/tokens", body).await.refusal(403).contains("another site"));
    assert_eq!(site.post(&admin, "/api/tokens", body).await.status, 201);
    assert_eq!(site.post(&admin, "/logout", "").await.status, 204);
    assert_eq!(site.get(&admin, "/api/me").await.status, 401, "logged out");
}

#[tokio::test]
async fn roles_hold() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let (viewer, operator) = (site.user(&admin, "vera", "viewer").await, site.user(&admin, "otto", "operator").await);
    let study = site.study("a", "X").await;
    let (retry, audit) = (format!("/api/studies/{study}/retry"), "/api/audit");
    assert!(site.post(&viewer, &retry, "").await.refusal(403).contains("role operator"));
    assert_eq!(site.post(&operator, &retry, "").await.status, 409, "it waits already");
    for who in [&viewer, &operator] {
        for path in [audit, "/api/users", "/api/configuration"] {
            assert!(site.get(who, path).await.refusal(403).contains("role admin"), "{path}");
        }
        let taken = site.post(who, "/api/tokens", "{\"label\":\"more\"}").await;
        assert!(taken.refusal(403).contains("does not make tokens"));
        let grab = site.post(who, "/api/users", "{\"name\":\"eve\",\"role\":\"admin\"}").await;
        assert_eq!(grab.status, 403);
    }
    assert!(site.get(&viewer, "/api/studies/export").await.refusal(403).contains("operator"));
    let shown = site.get(&admin, "/api/configuration").await;
    assert!(shown.status == 200 && !shown.text.contains("s3cret"), "{}", shown.text);

    // Who is put out is out at once; the last admin stays.
    let users = site.get(&admin, "/api/users").await.json();
    let id = |name: &str| {
        users.as_array().unwrap().iter().find(|user| user["name"] == name).unwrap()["id"].as_i64().unwrap()
    };
    let patch = async |user: &str, body: &str| {
        let path = format!("/api/users/{}", id(user));
        site.ask(&admin, "PATCH", &path, Some(("application/json", body))).await
    };
    assert_eq!(patch("vera", "{\"role\":\"viewer\",\"enabled\":false}").await.status, 204);
    assert_eq!(site.get(&viewer, "/api/me").await.status, 401);
    assert_eq!(patch("vera", "{\"role\":\"viewer\",\"enabled\":true}").await.status, 204);
    assert_eq!(site.get(&viewer, "/api/me").await.status, 401, "an old token is not good again");
    assert!(patch("anna", "{\"role\":\"viewer\",\"enabled\":true}").await.refusal(400).contains("no admin"));
    assert!(patch("otto", "{\"role\":\"boss\",\"enabled\":true}").await.refusal(422).contains("boss"));
    let double = site.post(&admin, "/api/users", "{\"name\":\"OTTO\",\"role\":\"viewer\"}").await;
    assert!(double.refusal(400).contains("taken"));
    let tokens = site.get(&admin, "/api/tokens").await.json();
    let otto = tokens.as_array().unwrap().iter().find(|token| token["user"] == "otto").unwrap()["id"].as_i64().unwrap();
    assert_eq!(site.ask(&admin, "DELETE", &format!("/api/tokens/{otto}"), None).await.status, 204);
    assert_eq!(site.get(&operator, "/api/me").await.status, 401, "taken back");
}

#[tokio::test]
async fn what_is_seen_and_done_stands_in_the_audit_trail() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let viewer = site.user(&admin, "vera", "viewer").await;
    let study = site.study("a", "O'Brien^<script>").await;
    site.analyse(Some(true)).await;
    let slice = ichor_core::Uid::derive(["slice", "a", "0"]);
    let object = ichor_core::Uid::derive(["seg", study.as_str()]);
    site.get(&viewer, "/api/studies?name=brien").await;
    site.get(&viewer, &format!("/api/studies/{study}")).await;
    for _ in 0..3 {
        let picture = site.get(&viewer, &format!("/api/studies/{study}/slices/{slice}/picture?overlay=true")).await;
        assert_eq!((picture.text.as_str(), picture.status.as_u16()), ("(40.0, 80.0) outline", 200));
    }
    let file = site.get(&viewer, &format!("/api/studies/{study}/objects/{object}")).await;
    assert_eq!(
        (file.text.as_str(), file.headers["content-type"].to_str().unwrap()),
        ("segmentation", "application/dicom")
    );
    site.post(&admin, &format!("/api/studies/{study}/retry"), "").await;
    let of_study = site.get(&admin, &format!("/api/audit?study={study}")).await.json();
    let actions: Vec<(&str, &str)> = of_study
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["actor"].as_str().unwrap(), row["action"].as_str().unwrap()))
        .collect();
    assert_eq!(
        actions,
        [("anna", "study-retried"), ("vera", "object-downloaded"), ("vera", "slices-viewed"), ("vera", "study-viewed"),]
    );
    let all = site.get(&admin, "/api/audit?limit=1000").await.text;
    for word in ["studies-searched", "brien", "password-chosen", "user-added", "token-added"] {
        assert!(all.contains(word), "{word}");
    }
    assert!(!all.contains("seven"), "no passwords");
}

#[tokio::test]
async fn every_answer_keeps_the_browser_in_bounds() {
    let site = Site::new().await;
    for path in ["/login", "/api/studies", "/metrics", "/nowhere", "/assets/ichor.js"] {
        let headers = site.get(&Who::default(), path).await.headers;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin")] {
            assert_eq!(headers[name], value, "{path}");
        }
        assert!(!headers.contains_key("strict-transport-security"), "not in the clear");
    }
    assert!(site.get(&Who::default(), "/nowhere").await.refusal(404).contains("/nowhere"));
    assert_eq!(site.post(&Who::default(), "/metrics", "").await.status, 405);
    let secure = Site::with(AccessOptions { is_tls: true, ..AccessOptions::default() }).await;
    let link = secure.admin.first_link().await.unwrap().unwrap();
    let form = format!(
        "code={}&name=anna&password=seven+grey+pianos&again=seven+grey+pianos",
        link.split_once("code=").unwrap().1
    );
    let answer = secure.form(&Who::default(), "/welcome", &form).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-ichor-session=") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(answer.headers.contains_key("strict-transport-security"));
    let value = answer.cookie().split_once('=').unwrap().1.to_owned();
    for (name, status) in [("__Host-ichor-session", 200), ("ichor-session", 401)] {
        let who = Who::default().with("cookie", &format!("{name}={value}"));
        assert_eq!(secure.get(&who, "/api/me").await.status, status, "{name}");
    }
}
