//! `ichor config`.

use std::path::Path;

use serde_json::json;

use crate::config::{self, Config};

/// Reads and checks; what is wrong is the error.
pub(crate) fn check(file: &Path, json: bool) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    if json {
        println!("{}", json!({ "file": file.display().to_string(), "valid": true, "config": config }));
        return Ok(());
    }
    println!("{} is valid", file.display());
    println!("  listens on {} as {}", config.listen.address, config.listen.ae_title);
    if config.sources.is_empty() {
        println!("  warning: without any [[source]] nobody may send");
    }
    if config.destinations.is_empty() {
        println!("  warning: without any [[destination]] results stay here");
    }
    for model in config.model.each().iter().filter(|model| !model.weights.is_file()) {
        println!("  warning: {} is not there", model.weights.display());
    }
    Ok(())
}

/// Says what differs.
pub(crate) fn diff(old: &Path, new: &Path, json: bool) -> anyhow::Result<()> {
    let differences = config::diff(&Config::load(old)?, &Config::load(new)?)?;
    if json {
        println!("{}", serde_json::to_string(&differences)?);
        return Ok(());
    }
    differences.iter().for_each(|difference| println!("{difference}"));
    if differences.is_empty() {
        println!("nothing differs");
    }
    Ok(())
}
