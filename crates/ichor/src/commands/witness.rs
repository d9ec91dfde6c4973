//! Who stands in the audit trail for what the command line changes.

use ichor_core::Uid;
use ichor_store::{NewAudit, Store, Witness};
use serde_json::{Map, Value, json};

/// By whose word: who became root has a name too.
pub(super) fn who(by: Option<&str>) -> String {
    let of_shell =
        || ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    by.map(str::to_owned).or_else(of_shell).unwrap_or_else(|| "command line".to_owned())
}

/// The store in the hands of whoever gives the command: the change stands in the audit trail by the same transaction, and what
/// came of it under `what`. The actor is the user of the shell, whose word it is stands in the detail.
pub(super) fn witnessed(
    store: &Store,
    action: &'static str,
    study: Option<&Uid>,
    (by, detail): (Option<&str>, Value),
) -> Store {
    let mut told = match detail {
        Value::Object(told) => told,
        _ => Map::new(),
    };
    told.insert("by".to_owned(), json!(who(by)));
    let entry = NewAudit {
        at: ichor_pipeline::now(),
        actor: who(None),
        role: None,
        address: "command line".to_owned(),
        action,
        study: study.cloned(),
        detail: Value::Object(told),
    };
    store.witnessed(Witness::with_outcome(entry, "what"))
}
