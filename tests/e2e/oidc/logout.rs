//! Logging out: here, which leads on to the provider; there, which is heard here; and what anybody else sends.

use super::*;

/// What the provider made up as a logout token.
fn logout_token(provider: &Provider, kind: &str, claims: &Value) -> String {
    let query = format!("/logout-token?kind={kind}&claims={}", escaped(&claims.to_string()));
    let answer = Browser::default().ask(provider.port, "GET", &query, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn says_logout(admin: u16, token: &str) -> Answer {
    Browser::default().ask(admin, "POST", "/oidc/backchannel-logout", &format!("logout_token={token}"))
}

fn is_in(browser: &mut Browser, admin: u16) -> bool {
    browser.ask(admin, "GET", "/api/me", "").status == 200
}

fn came_in(provider: &Provider, admin: u16, claims: &Value) -> Browser {
    provider.says("good", claims);
    let mut browser = Browser::default();
    let came = browser.log_in(admin);
    assert!(came.status == 303 && browser.has_session(admin), "{came:?}");
    browser
}

fn with_sid(sub: &str, name: &str, sid: &str) -> Value {
    json!({ "sub": sub, "preferred_username": name, "groups": ["readers"], "sid": sid })
}

#[test]
fn a_logout_at_the_provider_ends_the_sessions_that_it_names() {
    requires!(OidcProvider);
    let scratch = tempfile::tempdir().unwrap();
    let (admin, provider) = (free_port(), Provider::start(free_port()));
    let secret = secret_file(scratch.path(), 0o600);
    let daemon = Daemon::start(&Settings {
        sections: sections(admin, provider.port, &secret, "keys_pause_s = 0.0"),
        ..Settings::default()
    });
    let mut anna = came_in(&provider, admin, &with_sid("7", "anna", "s1"));
    let mut elsewhere = came_in(&provider, admin, &with_sid("7", "anna", "s2"));
    let mut bob = came_in(&provider, admin, &with_sid("8", "bob", "s3"));

    // What is not the provider's word of just now ends nothing.
    let whole = json!({ "sub": "7" });
    let good = logout_token(&provider, "good", &whole);
    for (kind, word) in [
        ("alg-none", "algorithm"),
        ("hmac", "algorithm"),
        ("foreign-key", "signature"),
        ("unknown-key", "key"),
        ("broken", "signature"),
        ("expired", "expired"),
        ("stale", "issued"),
        ("nonce", "nonce"),
        ("no-events", "events"),
        ("other-event", "events"),
        ("wrong-audience", "audience"),
        ("wrong-issuer", "issuer"),
        ("no-jti", "jti"),
        ("nobody", "neither"),
    ] {
        let refused = says_logout(admin, &logout_token(&provider, kind, &whole));
        assert!(refused.status == 400 && refused.text.contains(word), "{kind}: {refused:?}");
        assert!(refused.text.contains("\"error\":\"invalid_request\""), "{kind}: {refused:?}");
        assert_eq!(refused.header("cache-control"), Some("no-store"));
    }
    let id_token = provider.log().iter().rev().find_map(|one| one["id_token"].as_str().map(str::to_owned));
    let refused = says_logout(admin, &id_token.expect("an ID token"));
    assert!(refused.status == 400 && refused.text.contains("events"), "an ID token is no logout token: {refused:?}");
    for body in ["", "token=x", "logout_token=", "logout_token=a.b.c"] {
        let refused = Browser::default().ask(admin, "POST", "/oidc/backchannel-logout", body);
        assert_eq!(refused.status, 400, "{body}: {refused:?}");
    }
    let got = Browser::default().ask(admin, "GET", "/oidc/backchannel-logout", "");
    assert_eq!(got.status, 405, "{got:?}");
    assert!(is_in(&mut anna, admin) && is_in(&mut elsewhere, admin) && is_in(&mut bob, admin));
    let trail = audited(&daemon);
    assert_eq!(trail.iter().filter(|(_, action, _)| action == "logout-refused").count(), 1, "once: {trail:?}");

    // One session by its number; then all of a user's.
    let of_session = logout_token(&provider, "good", &json!({ "sub": "7", "sid": "s1" }));
    let heard = says_logout(admin, &of_session);
    assert_eq!((heard.status, heard.header("cache-control")), (200, Some("no-store")), "{heard:?}");
    assert!(!is_in(&mut anna, admin) && is_in(&mut elsewhere, admin) && is_in(&mut bob, admin));
    let replayed = says_logout(admin, &of_session);
    assert!(replayed.status == 400 && replayed.text.contains("heard before"), "{replayed:?}");
    let mut again = came_in(&provider, admin, &with_sid("7", "anna", "s4"));
    assert_eq!(says_logout(admin, &good).status, 200);
    assert!(!is_in(&mut again, admin) && !is_in(&mut elsewhere, admin) && is_in(&mut bob, admin));
    let sid_alone = logout_token(&provider, "good", &json!({ "sid": "s3" }));
    assert_eq!(says_logout(admin, &sid_alone).status, 200);
    assert!(!is_in(&mut bob, admin));
    // Whose sessions have ended already is out: that is what was asked for.
    assert_eq!(says_logout(admin, &logout_token(&provider, "good", &json!({ "sub": "7" }))).status, 200);
    let trail = audited(&daemon);
    let ended: Vec<&str> =
        trail.iter().filter(|(_, action, _)| action == "logged-out").map(|(_, _, detail)| detail.as_str()).collect();
    assert_eq!(ended.len(), 3, "{ended:?}");
    assert!(ended[0].contains("\"users\":[\"anna\"]") && ended[1].matches("anna").count() == 2, "{ended:?}");

    // A login that the provider vouched for before the logout begins no session after it.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let later = json!({ "sub": "9", "iat": now + 60, "exp": now + 180 });
    assert_eq!(says_logout(admin, &logout_token(&provider, "good", &later)).status, 200);
    provider.says("good", &with_sid("9", "eve", "s9"));
    let mut eve = Browser::default();
    let refused = eve.log_in(admin);
    assert!(refused.status == 401 && refused.text.contains("logged out at Example Hospital"), "{refused:?}");
    assert!(!eve.has_session(admin) && !is_in(&mut eve, admin));
}

#[test]
fn logging_out_here_leads_on_to_the_provider() {
    requires!(OidcProvider);
    let scratch = tempfile::tempdir().unwrap();
    let (admin, provider) = (free_port(), Provider::start(free_port()));
    let secret = secret_file(scratch.path(), 0o600);
    let daemon =
        Daemon::start(&Settings { sections: sections(admin, provider.port, &secret, ""), ..Settings::default() });
    let mut anna = came_in(&provider, admin, &with_sid("7", "anna", "s1"));
    let page = anna.ask(admin, "GET", "/", "").text;
    let csrf = page.split_once("name=\"csrf\" content=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let out = anna.ask_with(admin, "POST", "/logout", "", &format!("X-CSRF-Token: {csrf}\r\n"));
    assert_eq!(out.status, 200, "{out:?}");
    assert!(!anna.has_session(admin) && !is_in(&mut anna, admin));
    let said: Value = serde_json::from_str(&out.text).unwrap();
    let location = said["location"].as_str().unwrap();
    let (at, path) = split(location);
    assert_eq!(at, provider.port);
    let there = anna.ask(at, "GET", &path, "");
    let back = format!("http://127.0.0.1:{admin}/login");
    assert_eq!((there.status, there.header("location")), (302, Some(back.as_str())), "it knows whose logout it is");
    let log = daemon.log();
    assert!(!log.contains("id_token_hint") && !log.contains("eyJ"), "no token in the log");

    // A user with a password has nothing to log out of elsewhere.
    let (_, code) = log.split_once("/welcome?code=").unwrap();
    let code: String = code.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    let form = format!("code={code}&name=root&password=seven+grey+pianos&again=seven+grey+pianos");
    let mut root = Browser::default();
    assert_eq!(root.ask(admin, "POST", "/welcome", &form).status, 303);
    let page = root.ask(admin, "GET", "/", "").text;
    let csrf = page.split_once("name=\"csrf\" content=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let out = root.ask_with(admin, "POST", "/logout", "", &format!("X-CSRF-Token: {csrf}\r\n"));
    assert_eq!((out.status, out.text.as_str()), (204, ""));
}

#[test]
fn the_provider_is_asked_seldom() {
    requires!(OidcProvider);
    let scratch = tempfile::tempdir().unwrap();
    let (admin, provider) = (free_port(), Provider::start(free_port()));
    let secret = secret_file(scratch.path(), 0o600);
    let more = "keys_pause_s = 6.0";
    let _daemon =
        Daemon::start(&Settings { sections: sections(admin, provider.port, &secret, more), ..Settings::default() });
    let asked = |path: &str| provider.log().iter().filter(|one| one["path"] == path).count();
    provider.says("good", &anna(&json!(["readers"])));
    for _ in 0..3 {
        assert_eq!(Browser::default().log_in(admin).status, 303);
    }
    assert_eq!((asked("/.well-known/openid-configuration"), asked("/jwks"), asked("/token")), (1, 1, 3));
    // Tokens that anybody makes up bring about one question for keys in a while, not one each.
    provider.says("good", &anna(&json!(["readers"])));
    std::thread::sleep(seconds(6));
    let forged = logout_token(&provider, "unknown-key", &json!({ "sub": "7" }));
    assert_eq!(says_logout(admin, &forged).status, 400, "it was asked, and has no such key");
    for _ in 0..5 {
        assert_eq!(says_logout(admin, &forged).status, 503, "nobody knows now");
    }
    assert_eq!((asked("/.well-known/openid-configuration"), asked("/jwks")), (0, 1));
    // Other keys are believed when they are asked for again.
    provider.says("rotated", &anna(&json!(["readers"])));
    assert_eq!(Browser::default().log_in(admin).status, 502, "not yet");
    std::thread::sleep(seconds(6));
    provider.says("rotated", &anna(&json!(["readers"])));
    assert_eq!(Browser::default().log_in(admin).status, 303);
    // A provider that cannot be talked to where it was is asked anew where it is.
    provider.says("down", &anna(&json!(["readers"])));
    let mut browser = Browser::default();
    assert_eq!(browser.ask(admin, "GET", "/oidc/login", "").status, 303, "what it said is still believed");
}
