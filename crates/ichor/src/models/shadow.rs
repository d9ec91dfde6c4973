//! The process of the shadow. It has the models that are not active, reads and writes the store as any other process may, and is
//! the first that the kernel ends when memory runs out. The daemon starts it, and starts it again when it ends.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use ichor_core::ModelId;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::now;
use ichor_pipeline::shadow::{self, ShadowOptions};
use ichor_store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::loader;
use crate::config::{Config, seconds};
use crate::daemon::{open_decoder, open_store};
use crate::engine::{Engine, engine_program};
use crate::logging;

/// The hidden command.
const COMMAND: &str = "shadow-process";
/// Time for the process to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks at whether it runs.
const LOOK: Duration = Duration::from_millis(100);
/// Wait before the first restart.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Keeps the process alive until `stop`.
pub(super) fn start(
    config: &Config,
    store: &Store,
    stop: &CancellationToken,
    tasks: &mut JoinSet<&'static str>,
) -> anyhow::Result<()> {
    let (program, store, stop) = (engine_program()?, store.clone(), stop.clone());
    // Whatever becomes of the file meanwhile, both processes have the same settings.
    let mut settings = serde_json::to_vec(config).context("writing the configuration as JSON")?;
    settings.push(b'\n');
    let backoff = Backoff { first: FIRST_WAIT, longest: seconds(config.shadow.retry_s).max(FIRST_WAIT), attempts: 0 };
    tasks.spawn(async move {
        let mut ends = 0u32;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let how = once(&program, &settings, &stop).await;
            if stop.is_cancelled() {
                break;
            }
            // One that ran for long did not end because it began.
            ends = if began.elapsed() > backoff.longest { 1 } else { ends.saturating_add(1) };
            let wait = backoff.after(ends).unwrap_or(backoff.longest);
            let text = format!(
                "the process of the shadow {how}; the active model goes on, the shadow begins anew in {wait:.0?}"
            );
            error!("{text}");
            if let Err(error) = store.note_models("shadow-ended", &text, now()).await {
                warn!(%error, "the end of the shadow's process is not in the job log");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        "shadow"
    });
    Ok(())
}

/// Runs the process to its end; how it ended.
async fn once(program: &Path, settings: &[u8], stop: &CancellationToken) -> String {
    let mut process = match Process::spawn(program, settings) {
        Ok(process) => process,
        Err(error) => return format!("cannot be started ({}: {error})", program.display()),
    };
    let mut told = None;
    loop {
        match process.0.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return format!("ended with {status}"),
            Err(error) => return format!("is lost ({error})"),
        }
        if stop.is_cancelled() {
            // The end of its input ends it.
            drop(process.0.stdin.take());
            if told.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return "was killed".to_owned();
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The process; it goes with the value.
struct Process(Child);

impl Process {
    fn spawn(program: &Path, settings: &[u8]) -> io::Result<Self> {
        let mut process = Self(Command::new(program).arg(COMMAND).stdin(Stdio::piped()).spawn()?);
        match process.0.stdin.as_mut() {
            Some(input) => input.write_all(settings)?,
            None => return Err(io::Error::other("it has no input")),
        }
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait()
            && let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(|_| ()))
        {
            warn!(%error, "the process of the shadow cannot be ended");
        }
    }
}

/// What the process does, until its input ends: then the daemon is gone, or wants it to.
pub(crate) async fn work<E: Engine>() -> anyhow::Result<()> {
    let mut settings = String::new();
    io::stdin().read_line(&mut settings).context("reading the settings")?;
    let config: Config = serde_json::from_str(&settings).context("the settings of the shadow")?;
    logging::start(&config.log)?;
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        warn!(%error, "the kernel may end another process first when memory runs out");
    }
    // Who ends the daemon and all its children at once ends the daemon; this process goes with its input.
    let _terminate = signal(SignalKind::terminate()).context("SIGTERM handler")?;
    let _interrupt = signal(SignalKind::interrupt()).context("SIGINT handler")?;
    let store = open_store(&config).await?;
    let models: Vec<ModelId> = config.model.each().iter().filter_map(|model| E::identify(model).ok()).collect();
    info!(models = models.len(), "the shadow looks on");
    let stop = CancellationToken::new();
    let token = stop.clone();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        token.cancel();
    });
    let options = ShadowOptions {
        gate: config.gate.options(),
        decoder: open_decoder(&config)?,
        min_lesion_ml: config.analysis.min_lesion_ml,
        backoff: Backoff {
            first: seconds(config.analysis.first_backoff_s),
            longest: Duration::from_secs(600),
            attempts: config.shadow.attempts,
        },
        max_queue: config.shadow.max_queue,
        quiet: seconds(config.shadow.quiet_s),
        reload: seconds(config.shadow.retry_s),
    };
    shadow::run(store.clone(), models, loader::<E>(&config, &store), options, stop).await;
    store.close().await;
    // A model's thread in the middle of a batch has nothing that anybody waits for.
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both processes have the same settings.
    #[test]
    fn configuration_survives_the_way_to_the_process() {
        let config = Config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/ichor.toml"))).unwrap();
        let sent = serde_json::to_string(&config).unwrap();
        let arrived: Config = serde_json::from_str(&sent).unwrap();
        assert_eq!(serde_json::to_string(&arrived).unwrap(), sent);
        assert_eq!(format!("{arrived:?}"), format!("{config:?}"));
    }

    #[tokio::test]
    async fn process_that_cannot_be_started_is_named() {
        let said = once(Path::new("/nonexistent/ichor-torch"), b"{}\n", &CancellationToken::new()).await;
        assert!(said.contains("/nonexistent/ichor-torch"), "{said}");
    }

    #[tokio::test]
    async fn process_ends_with_its_input() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("reads");
        std::fs::write(&program, "#!/bin/sh\nexec cat > /dev/null\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let stop = CancellationToken::new();
        let run = once(&program, b"settings\n", &stop);
        let end = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.cancel();
        };
        let (how, ()) = tokio::join!(run, end);
        assert_eq!(how, "ended with exit status: 0");
    }
}
