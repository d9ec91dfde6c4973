//! Login by an OpenID provider: one that behaves, and one that does not.

mod logout;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Settings};
use crate::support::tools::{python, requires};
use crate::support::{eventually, free_port, seconds};

/// What ichor proves itself with.
const SECRET: &str = "a-secret-of-the-client-at-the-provider";

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A browser of few words: it keeps cookies, by port, and follows nothing by itself.
#[derive(Default)]
struct Browser {
    cookies: BTreeMap<(u16, String), String>,
}

impl Browser {
    fn ask(&mut self, port: u16, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(port, method, path, body, "")
    }

    /// `more`: further lines of the header.
    fn ask_with(&mut self, port: u16, method: &str, path: &str, body: &str, more: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(seconds(20))).unwrap();
        let of_port = self.cookies.iter().filter(|((of, _), _)| *of == port);
        let cookies: Vec<String> = of_port.map(|((_, name), value)| format!("{name}={value}")).collect();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nCookie: {}\r\nContent-Type: \
             application/x-www-form-urlencoded\r\n{more}Content-Length: {}\r\n\r\n{body}",
            cookies.join("; "),
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        for line in head.lines().filter(|line| line.to_lowercase().starts_with("set-cookie:")) {
            let pair = line.split_once(':').unwrap().1.split(';').next().unwrap().trim().to_owned();
            let (name, value) = pair.split_once('=').unwrap();
            match line.contains("Max-Age=0") {
                true => self.cookies.remove(&(port, name.to_owned())),
                false => self.cookies.insert((port, name.to_owned()), value.to_owned()),
            };
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), text: text.to_owned() }
    }

    /// Goes where an answer points to, on loopback.
    fn follow(&mut self, answer: &Answer) -> Answer {
        let location = answer.header("location").unwrap_or_else(|| panic!("no way on: {answer:?}"));
        let (port, path) = split(location);
        self.ask(port, "GET", &path, "")
    }

    fn has_session(&self, port: u16) -> bool {
        self.cookies.contains_key(&(port, "ichor-session".to_owned()))
    }

    /// From the login page's button to what ichor says at the end.
    fn log_in(&mut self, port: u16) -> Answer {
        let to_provider = self.ask(port, "GET", "/oidc/login", "");
        assert_eq!(to_provider.status, 303, "{to_provider:?}");
        let back = self.follow(&to_provider);
        assert_eq!(back.status, 302, "{back:?}");
        self.follow(&back)
    }
}

/// Port and path of a URL on loopback.
fn split(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://127.0.0.1:").unwrap_or_else(|| panic!("not on loopback: {url}"));
    let (port, path) = rest.split_once('/').unwrap();
    (port.parse().unwrap(), format!("/{path}"))
}

/// The provider that misbehaves; it ends with the value.
struct Provider {
    port: u16,
    child: Child,
}

impl Provider {
    fn start(port: u16) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/counterparts/oidc_provider.py");
        let child = listening(Command::new(python()).args([script, &port.to_string(), SECRET]));
        Self { port, child }
    }

    fn says(&self, mode: &str, claims: &Value) {
        let body = json!({ "mode": mode, "claims": claims }).to_string();
        assert_eq!(Browser::default().ask(self.port, "PUT", "/control", &body).status, 204);
    }

    fn log(&self) -> Vec<Value> {
        serde_json::from_str(&Browser::default().ask(self.port, "GET", "/log", "").text).unwrap()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that says "listening" when it does.
fn listening(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "listening", "the provider did not start");
    child
}

fn secret_file(folder: &Path, mode: u32) -> std::path::PathBuf {
    let path = folder.join("oidc.secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn sections(admin: u16, provider: u16, secret: &Path, more: &str) -> String {
    format!(
        "[admin]\naddress = \"127.0.0.1:{admin}\"\nurl = \"http://127.0.0.1:{admin}\"\nlogin_attempts = 60\n\n\
         [admin.oidc]\nissuer = \"http://127.0.0.1:{provider}\"\nclient_id = \"ichor\"\n\
         client_secret_file = {secret:?}\nviewers = [\"readers\"]\nadmins = [\"it\"]\nlabel = \"Example Hospital\"\n\
         timeout_s = 3.0\n{more}\n"
    )
}

fn anna(groups: &Value) -> Value {
    json!({ "preferred_username": "anna", "groups": groups })
}

/// The audit trail: action, and why.
fn audited(daemon: &Daemon) -> Vec<(String, String, String)> {
    let query = "import json, sqlite3, sys; rows = sqlite3.connect(sys.argv[1]).execute('SELECT actor, action, detail FROM audit \
                 ORDER BY id'); print(json.dumps(rows.fetchall()))";
    let output = Command::new(python()).args(["-c", query]).arg(daemon.database()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_provider_lets_people_in_and_says_what_they_may() {
    requires!(OidcProvider);
    let scratch = tempfile::tempdir().unwrap();
    let (admin, provider) = (free_port(), Provider::start(free_port()));
    let secret = secret_file(scratch.path(), 0o600);
    let daemon =
        Daemon::start(&Settings { sections: sections(admin, provider.port, &secret, ""), ..Settings::default() });
    let page = Browser::default().ask(admin, "GET", "/login", "");
    assert!(
        page.text.contains("Log in with Example Hospital") && page.text.contains("type=\"password\""),
        "{}",
        page.text
    );

    provider.says("good", &anna(&json!(["readers", "choir"])));
    let mut browser = Browser::default();
    let came = browser.log_in(admin);
    assert_eq!((came.status, came.header("location")), (303, Some("/")), "{came:?}");
    assert!(browser.has_session(admin) && browser.cookies.len() == 1, "the cookie of the way there is gone");
    let me = |browser: &mut Browser| -> Value {
        serde_json::from_str(&browser.ask(admin, "GET", "/api/me", "").text).unwrap()
    };
    assert_eq!(me(&mut browser), json!({ "name": "anna", "role": "viewer" }));
    assert_eq!(browser.ask(admin, "GET", "/", "").status, 200);
    assert_eq!(browser.ask(admin, "GET", "/api/users", "").status, 403);
    let asked = provider.log();
    assert!(asked.iter().any(|one| one["path"] == "/token" && one["client"] == true), "{asked:?}");

    // The role is read again at each login, and holds at once for what was begun before.
    provider.says("good", &anna(&json!("it")));
    let mut again = Browser::default();
    assert_eq!(again.log_in(admin).status, 303);
    assert_eq!(me(&mut browser)["role"], "admin");
    let users: Value = serde_json::from_str(&again.ask(admin, "GET", "/api/users", "").text).unwrap();
    assert_eq!(
        (users.as_array().unwrap().len(), &users[0]["source"], &users[0]["has_password"]),
        (1, &json!("oidc"), &json!(false))
    );
    assert!(again.ask(admin, "GET", "/users", "").text.contains("by the provider"));

    // Whom the claim gives nothing stays out, and is out.
    provider.says("good", &anna(&json!(["choir"])));
    let refused = Browser::default().log_in(admin);
    assert!(refused.status == 403 && refused.text.contains("have no role here"), "{refused:?}");
    assert_eq!(browser.ask(admin, "GET", "/api/me", "").status, 401, "the session of before has ended");
    for claims in [json!({ "groups": "it" }), json!({ "preferred_username": "<script>", "groups": "it" })] {
        provider.says("good", &claims);
        let refused = Browser::default().log_in(admin);
        assert!(refused.status == 401 && refused.text.contains("You cannot come in"), "{refused:?}");
        assert!(!refused.text.contains("<script>"));
    }
    // Another subject with the same name is another person.
    provider.says("good", &json!({ "sub": "8", "preferred_username": "ANNA", "groups": "it" }));
    let refused = Browser::default().log_in(admin);
    assert!(refused.status == 403 && refused.text.contains("Another user has your name"), "{refused:?}");

    let trail = audited(&daemon);
    let logged_in = trail.iter().filter(|(actor, action, _)| actor == "anna" && action == "logged-in").count();
    assert_eq!(logged_in, 2, "{trail:?}");
    let says = |words: &str| trail.iter().any(|(_, action, why)| action == "login-failed" && why.contains(words));
    assert!(says("nothing gives this user a role") && says("another user has this name"), "{trail:?}");
    let log = daemon.log();
    assert!(
        !log.contains(SECRET) && log.contains("this link makes the first one"),
        "a way in without the provider stays"
    );

    let doctor = daemon.command(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("OpenID provider") && said.contains("/oidc/callback"), "{said}");
}

#[test]
fn a_provider_that_misbehaves_lets_nobody_in() {
    requires!(OidcProvider);
    let scratch = tempfile::tempdir().unwrap();
    let (admin, provider) = (free_port(), Provider::start(free_port()));
    let secret = secret_file(scratch.path(), 0o600);
    let daemon = Daemon::start(&Settings {
        sections: sections(admin, provider.port, &secret, "discovery_s = 0.0\nkeys_pause_s = 0.0"),
        ..Settings::default()
    });
    let it = anna(&json!(["it"]));
    let modes = [
        ("wrong-nonce", "nonce"),
        ("no-nonce", "nonce"),
        ("wrong-audience", "audience"),
        ("more-audiences", "audience"),
        ("wrong-azp", "azp"),
        ("wrong-issuer", "issuer"),
        ("expired", "expired"),
        ("stale", "issued"),
        ("wrong-at-hash", "at_hash"),
        ("alg-none", "algorithm"),
        ("hmac", "algorithm"),
        ("unknown-key", "key"),
        ("foreign-key", "signature"),
        ("broken", "signature"),
        ("no-token", "there is none"),
        ("huge", "longer"),
        ("refuses", "provider refused"),
        ("mixed-up", "another provider"),
    ];
    for (mode, word) in modes {
        provider.says(mode, &it);
        let mut browser = Browser::default();
        let refused = browser.log_in(admin);
        assert!((400..600).contains(&refused.status) && !browser.has_session(admin), "{mode}: {refused:?}");
        assert!(refused.text.contains("role=\"alert\"") && !refused.text.contains("DOE"), "{mode}: {}", refused.text);
        let trail = audited(&daemon);
        let (_, action, why) = trail.last().unwrap();
        assert!(action == "login-failed" && why.to_lowercase().contains(word), "{mode}: {action} {why}");
    }

    // Other keys since the login began: asked for once more, and believed.
    provider.says("rotated", &it);
    let mut browser = Browser::default();
    let came = browser.log_in(admin);
    assert!(came.status == 303 && browser.has_session(admin), "{came:?}");

    // A state is good once, for its own browser; a code of another login is none.
    provider.says("good", &it);
    let mut browser = Browser::default();
    let to_provider = browser.ask(admin, "GET", "/oidc/login", "");
    let back = browser.follow(&to_provider);
    let thief = Browser::default().follow(&back);
    assert!(thief.status == 400 && thief.text.contains("begun elsewhere"), "{thief:?}");
    let kept = browser.cookies.clone();
    assert_eq!(browser.follow(&back).status, 303, "the thief has spoilt nothing");
    let mut replayed = Browser { cookies: kept };
    let refused = replayed.follow(&back);
    assert!(refused.status == 400 && refused.text.contains("was used"), "{refused:?}");
    let other = browser.ask(admin, "GET", "/oidc/login", "");
    let (_, query) = other.header("location").unwrap().split_once("state=").unwrap();
    let state = query.split('&').next().unwrap();
    let (_, used) = back.header("location").unwrap().split_once("code=").unwrap();
    let used = used.split('&').next().unwrap();
    let refused = browser.ask(admin, "GET", &format!("/oidc/callback?code={used}&state={state}"), "");
    assert!(refused.status == 401 && refused.text.contains("role=\"alert\""), "a code that was used: {refused:?}");
    for query in ["", "?code=x", "?state=x", "?code=x&state=x", "?code=x&state=x&next=https://evil.example"] {
        let refused = Browser::default().ask(admin, "GET", &format!("/oidc/callback{query}"), "");
        assert!(refused.status == 400 && refused.header("location").is_none(), "{query}: {refused:?}");
    }

    // Away, or another than it was: the page says so, and a password still works.
    for mode in ["down", "another-provider"] {
        provider.says(mode, &it);
        let refused = Browser::default().ask(admin, "GET", "/oidc/login", "");
        assert!(
            refused.status == 502 && refused.text.contains("Example Hospital does not answer"),
            "{mode}: {refused:?}"
        );
        assert!(refused.text.contains("type=\"password\""), "{mode}");
    }
    drop(provider);
    let mut local = Browser::default();
    assert_eq!(local.ask(admin, "GET", "/oidc/login", "").status, 502);
    let log = daemon.log();
    let (_, code) = log.split_once("/welcome?code=").unwrap();
    let code: String = code.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    let password = "seven+grey+pianos";
    let form = format!("code={code}&name=root&password={password}&again={password}");
    assert_eq!(local.ask(admin, "POST", "/welcome", &form).status, 303);
    let mut later = Browser::default();
    assert_eq!(later.ask(admin, "POST", "/login", &format!("name=root&password={password}")).status, 303);
    assert!(later.has_session(admin));
}

#[test]
fn mistakes_are_told_and_failures_are_limited() {
    requires!(OidcProvider);
    let scratch = tempfile::tempdir().unwrap();
    let (admin, provider) = (free_port(), Provider::start(free_port()));
    let refusal = |sections: String| Daemon::refuses_to_start(&Settings { sections, ..Settings::default() });
    let open = secret_file(scratch.path(), 0o644);
    let said = refusal(sections(admin, provider.port, &open, ""));
    assert!(said.contains("anybody may read it") && !said.contains(SECRET), "{said}");
    let secret = secret_file(scratch.path(), 0o600);
    let whole = sections(admin, provider.port, &secret, "");
    let said = refusal(
        whole
            .replace("http://127.0.0.1:", "http://login.example:")
            .replace("url = \"http://login.example:", "url = \"http://127.0.0.1:"),
    );
    assert!(said.contains("admin.oidc.issuer"), "{said}");
    let said = refusal(whole.replace("admins", "bosses"));
    assert!(said.contains("bosses"), "{said}");

    let few = whole.replace("login_attempts = 60", "login_attempts = 3") + "hide_local_login = true\n";
    let daemon = Daemon::start(&Settings { sections: few, ..Settings::default() });
    let page = Browser::default().ask(admin, "GET", "/login", "");
    assert!(!page.text.contains("type=\"password\"") && page.text.contains("/login?local=true"), "{}", page.text);
    let page = Browser::default().ask(admin, "GET", "/login?local=true", "");
    assert!(page.text.contains("type=\"password\""), "{}", page.text);
    // Any page elsewhere can send a browser here: a state that is unknown counts for nobody.
    for _ in 0..5 {
        let refused = Browser::default().ask(admin, "GET", "/oidc/callback?code=x&state=x", "");
        assert_eq!(refused.status, 400);
    }
    let trail = audited(&daemon);
    assert_eq!(trail.iter().filter(|(_, _, why)| why.contains("has this state")).count(), 1, "once: {trail:?}");
    provider.says("wrong-nonce", &anna(&json!(["it"])));
    for _ in 0..3 {
        assert_eq!(Browser::default().log_in(admin).status, 401);
    }
    let limited = Browser::default().ask(admin, "GET", "/oidc/callback?code=x&state=x", "");
    assert!(limited.status == 429 && limited.header("retry-after").is_some(), "{limited:?}");
    assert_eq!(Browser::default().ask(admin, "GET", "/oidc/login", "").status, 429);
    let password = Browser::default().ask(admin, "POST", "/login", "name=nobody&password=none");
    assert_eq!(password.status, 401, "the local login is another matter");
    assert!(audited(&daemon).iter().any(|(_, action, _)| action == "login-limited"));
}

/// The provider mock of others, `oidc-provider-mock`, whose page asks who somebody is.
#[test]
fn a_provider_of_others_lets_somebody_in() {
    requires!(OidcProvider);
    let scratch = tempfile::tempdir().unwrap();
    let (admin, port) = (free_port(), free_port());
    let script = "import sys, threading, oidc_provider_mock as mock\n\
                  user = mock.User(sub='7', claims={'preferred_username': 'anna', 'groups': ['readers']})\n\
                  with mock.run_server_in_thread(port=int(sys.argv[1]), user_claims=[user]):\n    \
                  print('listening', flush=True)\n    threading.Event().wait()\n";
    let child = listening(
        Command::new(python()).args(["-c", script, &port.to_string()]).env("AUTHLIB_INSECURE_TRANSPORT", "1"),
    );
    let provider = Provider { port, child };
    let secret = secret_file(scratch.path(), 0o600);
    // It names itself by the host that it is asked by.
    let sections = sections(admin, port, &secret, "");
    let _daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    eventually(seconds(10), "the provider's page", || {
        match Browser::default().ask(provider.port, "GET", "/.well-known/openid-configuration", "").status {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    let mut browser = Browser::default();
    let to_provider = browser.ask(admin, "GET", "/oidc/login", "");
    let (at, path) = split(to_provider.header("location").unwrap());
    assert_eq!((to_provider.status, at), (303, port));
    assert_eq!(browser.ask(port, "GET", &path, "").status, 200, "it asks who somebody is");
    let back = browser.ask(port, "POST", &path, "sub=7");
    assert_eq!(back.status, 302, "{back:?}");
    let came = browser.follow(&back);
    assert!(came.status == 303 && browser.has_session(admin), "{came:?}");
    let me: Value = serde_json::from_str(&browser.ask(admin, "GET", "/api/me", "").text).unwrap();
    assert_eq!(me, json!({ "name": "anna", "role": "viewer" }));
}
