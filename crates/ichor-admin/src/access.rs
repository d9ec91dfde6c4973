//! Who is asking, and whether they may.
//!
//! A browser has a session: a cookie that no script can read, and a word that every change must repeat. A program has a
//! token. Of passwords, cookies, tokens and links the store has hashes only.

mod caller;
mod limiter;
mod secrets;

use std::time::Duration;

use ichor_core::Uid;
use ichor_store::{NewAudit, Role, Store, Witness};
use serde_json::Value;

pub(crate) use caller::{
    AsAdmin, AsOperator, AsViewer, COOKIE, Caller, PageAdmin, PageViewer, Peer, check_origin, cookie, cookie_name,
};
pub(crate) use limiter::Limiter;
pub(crate) use secrets::{Passwords, Secret, check_name, check_password};

use crate::App;
use crate::problem::Problem;

/// How access is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessOptions {
    /// Whether anything that shows patients is served: on loopback, behind TLS, or where the site says so.
    pub serves_patients: bool,
    /// Whether connections are encrypted: the cookie then never travels in the clear.
    pub is_tls: bool,
    /// Longest session.
    pub session: Duration,
    /// How long a one-time link is good.
    pub invitation: Duration,
    /// Failed logins from one address, or for one name five times as many, before the next is refused.
    pub login_attempts: u32,
    /// For how long they count.
    pub login_window: Duration,
    /// Longest event stream; a browser goes on with another.
    pub stream: Duration,
    /// Pictures drawn at once.
    pub max_pictures: usize,
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self {
            serves_patients: true,
            is_tls: false,
            session: Duration::from_secs(12 * 3600),
            invitation: Duration::from_secs(24 * 3600),
            login_attempts: 10,
            login_window: Duration::from_secs(900),
            stream: Duration::from_secs(3600),
            max_pictures: 2,
        }
    }
}

/// A row about somebody who is known.
fn entry(app: &App, caller: &Caller, action: &'static str, study: Option<&Uid>, detail: Value) -> NewAudit {
    NewAudit {
        at: (app.facts.now)(),
        actor: caller.admitted.name.clone(),
        role: Some(caller.admitted.role),
        address: caller.peer.ip().to_string(),
        action,
        study: study.cloned(),
        detail,
    }
}

/// Writes who looked at what. Whoever cannot be written down is not answered.
pub(crate) async fn audit(
    app: &App,
    caller: &Caller,
    action: &'static str,
    study: Option<&Uid>,
    detail: Value,
) -> Result<(), Problem> {
    app.facts.store.audit(&entry(app, caller, action, study, detail)).await.map_err(Problem::from)
}

/// The store in the caller's hands: what is changed through it stands in the audit trail by the same transaction.
pub(crate) fn store_of(app: &App, caller: &Caller, action: &'static str, study: Option<&Uid>, detail: Value) -> Store {
    app.facts.store.witnessed(Witness::new(entry(app, caller, action, study, detail)))
}

/// [`store_of`], and the row says under this key what came of it.
pub(crate) fn store_telling(
    app: &App,
    caller: &Caller,
    (action, key): (&'static str, &'static str),
    study: Option<&Uid>,
    detail: Value,
) -> Store {
    app.facts.store.witnessed(Witness::with_outcome(entry(app, caller, action, study, detail), key))
}

/// A row about somebody who is not known, or not yet.
pub(crate) fn stranger(
    app: &App,
    peer: Peer,
    (name, role): (Option<&str>, Option<Role>),
    action: &'static str,
) -> NewAudit {
    NewAudit {
        at: (app.facts.now)(),
        actor: name.unwrap_or("-").to_owned(),
        role,
        address: peer.ip().to_string(),
        action,
        study: None,
        detail: Value::Object(serde_json::Map::new()),
    }
}

/// Writes what a stranger did.
pub(crate) async fn audit_stranger(app: &App, peer: Peer, action: &'static str) -> Result<(), Problem> {
    app.facts.store.audit(&stranger(app, peer, (None, None), action)).await.map_err(Problem::from)
}
