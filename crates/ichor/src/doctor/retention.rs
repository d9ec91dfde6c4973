//! Whether retention, where there is one, finds the space that it is to make.

use ichor_pipeline::now;
use ichor_pipeline::retain::{Plan, RetentionOptions, plan};
use ichor_store::{Examined, Store, StoreError};

use super::Outcome;
use crate::config::Config;
use crate::daemon::open_store;
use crate::retention;

/// Times the space that must be free, below which it is asked what a full disk would come to.
const NEAR: u64 = 2;

/// Looks at what would go; `None` without `[retention]`.
pub(super) async fn examine(config: &Config) -> Option<Outcome> {
    let options = retention::options(config)?;
    let subject = "retention";
    let Ok(Examined { schema: Some(schema), newest }) = ichor_store::examine(&config.store.database).await else {
        return Some(Outcome::good(subject, "there is nothing yet that could go"));
    };
    if schema < newest {
        return Some(Outcome::good(subject, "will be looked at when the database has its new schema"));
    }
    let failed = |error: anyhow::Error| Outcome::failure(subject, format!("{error:#}"), "see the database above");
    let store = match open_store(config).await {
        Ok(store) => store,
        Err(error) => return Some(failed(error)),
    };
    let found = look(&store, &options).await;
    store.close().await;
    Some(found.unwrap_or_else(|error| failed(error.into())))
}

async fn look(store: &Store, options: &RetentionOptions) -> Result<Outcome, StoreError> {
    let free = store.blobs().free_bytes()?;
    let present = plan(store, options, free, now()).await?;
    if present.short_bytes > 0 {
        let found = format!("{} MiB more should be free, and nothing more may go: {}", mib(&present), kept(&present));
        return Ok(warning(found));
    }
    if let Some(space) = options.space.filter(|space| free >= space.below && free < space.below.saturating_mul(NEAR)) {
        // The disk is filling: would there be room?
        let full = plan(store, options, space.below.saturating_sub(1), now()).await?;
        if full.short_bytes > 0 {
            let found = format!("were the disk full now, {} MiB could not be made free: {}", mib(&full), kept(&full));
            return Ok(warning(found));
        }
    }
    let (going, spared) = (present.going.len(), present.spared_studies);
    Ok(Outcome::good("retention", format!("{going} studies may go now, {spared} are due and stay")))
}

fn warning(found: String) -> Outcome {
    let mend = "ichor retention plan says what keeps which study: settle that, lower free_after_days or free_until_mib, or \
                enlarge the disk";
    Outcome::warning("retention", found, mend)
}

fn mib(plan: &Plan) -> u64 {
    plan.short_bytes >> 20
}

fn kept(plan: &Plan) -> String {
    let why: Vec<String> =
        plan.protected_by.iter().map(|(protection, studies)| format!("{studies} {}", protection.as_str())).collect();
    if why.is_empty() { "all others are too young, or gone".to_owned() } else { why.join(", ") }
}
