//! The decoder and the model, each tried as the daemon starts it.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ichor_core::{ActivationKind, ModelId};
use ichor_decode::Decoder;
use ichor_store::Examined;
use tokio::task::spawn_blocking;

use super::Outcome;
use crate::config::{Config, ModelConfig};
use crate::daemon::open_store;
use crate::engine::engine_program;

/// Time for loading the weights and the self-test.
const PATIENCE: Duration = Duration::from_secs(300);

/// Starts a decoder child.
pub(super) fn decoder(config: &Config) -> Outcome {
    let subject = "decoder";
    let tried = config.decoder.options().map_err(|error| format!("{error:#}")).and_then(|options| {
        let decoder = Decoder::new(options).map_err(|error| error.to_string())?;
        decoder.check().map_err(|error| error.to_string())
    });
    match tried {
        Ok(()) => Outcome::good(subject, "starts"),
        Err(error) => {
            Outcome::failure(subject, error, "install ichor-decode beside ichor, or name it in decoder.program")
        }
    }
}

/// Loads the weights on the configured device and repeats their self-test, in a process of its own: a libtorch that cannot
/// be loaded ends that one only.
pub(super) async fn weights(model: &ModelConfig) -> Outcome {
    let subject = format!("model {}", model.weights.display());
    if !model.weights.is_file() {
        return Outcome::failure(
            subject,
            "are not there",
            "name the .safetensors file in model.weights; its manifest lies beside it",
        );
    }
    let program = match engine_program() {
        Ok(program) => program,
        Err(error) => return Outcome::failure(subject, format!("{error:#}"), "install ichor-torch beside ichor"),
    };
    let mut command = Command::new(&program);
    command.args(["model", "verify", "--weights"]).arg(&model.weights);
    command.args(["--device", &model.device, "--precision", &model.precision]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = match spawn_blocking(move || run(command)).await.map_err(io::Error::other).flatten() {
        Ok(Some(ran)) => ran,
        Ok(None) => {
            let found = format!("the self-test has not come to an end in {} s", PATIENCE.as_secs());
            return Outcome::failure(subject, found, "look at the load of the machine and at model.device");
        }
        Err(error) => {
            let found = format!("{} cannot be started: {error}", program.display());
            return Outcome::failure(subject, found, "install ichor-torch beside ichor");
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ran.status.success() {
        let said = text(&ran.stdout);
        return Outcome::good(subject, said.lines().collect::<Vec<_>>().join("; "));
    }
    let said = text(&ran.stderr);
    let mend = if said.contains("shared librar") || said.contains("shared object") {
        "libtorch cannot be loaded: its libraries belong beside ichor, in ../lib or on LD_LIBRARY_PATH (docs/operations.md)"
    } else if said.contains("CUDA") || said.contains("cuda") {
        "the GPU cannot be used: check the driver (nvidia-smi), or set model.device = \"cpu\""
    } else {
        "use the weights and the manifest that belong together; ichor model verify says more"
    };
    Outcome::failure(subject, said, mend)
}

/// Whether the model that somebody chose to be the active one is still configured; `None` if nobody has chosen.
pub(super) async fn active(config: &Config) -> Option<Outcome> {
    let subject = "active model";
    let Ok(Examined { schema: Some(schema), newest }) = ichor_store::examine(&config.store.database).await else {
        return None;
    };
    if schema < newest {
        return None;
    }
    let store = open_store(config).await.ok()?;
    let active = store.active_model().await;
    store.close().await;
    let chosen = active.ok()?.filter(|active| active.kind != ActivationKind::Configured)?.model;
    let configured: Vec<ModelId> = config.model.each().iter().filter_map(|model| id_of(&model.weights)).collect();
    if configured.contains(&chosen) {
        return Some(Outcome::good(subject, format!("{chosen}, which somebody chose")));
    }
    let found = format!("{chosen}, which somebody chose, is not configured: studies will be received and wait");
    let mend = "name its weights in [model] or [[model.also]] again, or choose another: ichor model activate, rollback";
    Some(Outcome::failure(subject, found, mend))
}

/// The id that the manifest beside a weight file gives.
fn id_of(weights: &Path) -> Option<ModelId> {
    let manifest = std::fs::read(weights.with_extension("manifest.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
    let (card, text) = (&manifest["model"], |value: &serde_json::Value| value.as_str().map(str::to_owned));
    ModelId::new(&text(&card["name"])?, &text(&card["version"])?, &text(&manifest["sha256"])?).ok()
}

/// Runs a program that says little; `None` if it had to be ended.
fn run(mut command: Command) -> io::Result<Option<Output>> {
    let mut child = command.spawn()?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().map(Some)
}
