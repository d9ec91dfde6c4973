//! The certificate of the TLS port: read at start, and again on SIGHUP or when its files change. Open associations go on
//! with what they have; a file that cannot be used leaves the last good one in force, and is complained of until it can.
//! Those of the services over HTTP are read at start. All are warned of before they end.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use ichor_dimse::tls::{CertificateSummary, ServerTls, TlsError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, TlsConfig};
use crate::tls_files;

/// The section of the TLS port, for the log.
const TLS_PORT: &str = "[listen.tls]";
/// A certificate that ends within this time is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);
/// Pause between two complaints about the same thing.
const REMIND: Duration = Duration::from_secs(600);
/// Pause between two looks at the end of the certificate in force.
const LOOK_AT_EXPIRY: Duration = Duration::from_secs(86_400);

/// Reads the files for the first time.
pub(crate) fn load(settings: &TlsConfig) -> anyhow::Result<(ServerTls, CertificateSummary)> {
    let options = settings.options().map_err(|message| anyhow::anyhow!("listen.tls: {message}"))?;
    let (tls, summary) = ServerTls::load(options).context("listen.tls")?;
    announce(TLS_PORT, &summary);
    Ok((tls, summary))
}

/// The certificates of the services over HTTP, by their sections.
///
/// # Errors
/// With the section: files that cannot be used.
pub(crate) fn of_services(config: &Config) -> anyhow::Result<Vec<(&'static str, CertificateSummary)>> {
    let loaded = tls_files::of_services(config).into_iter();
    let shown: Vec<_> =
        loaded.map(|(section, found)| Ok((section, found.context(section)?))).collect::<anyhow::Result<_>>()?;
    shown.iter().for_each(|(section, summary)| announce(section, summary));
    Ok(shown)
}

/// Warns once a day of those that end soon.
pub(crate) async fn remind(shown: Vec<(&'static str, CertificateSummary)>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AT_EXPIRY) => {}
        }
        shown.iter().for_each(|(section, summary)| warn_of_expiry(section, summary));
    }
}

/// Reads the files again on SIGHUP, and when a look every `interval` finds them changed; zero: on SIGHUP only.
pub(crate) async fn keep_fresh(
    tls: ServerTls,
    mut in_force: CertificateSummary,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            error!(%error, "SIGHUP cannot be heard: certificates are not read again");
            return stop.cancelled().await;
        }
    };
    let mut complaints = Complaints::default();
    let mut look_at_expiry = Instant::now() + LOOK_AT_EXPIRY;
    let pause = if interval.is_zero() { LOOK_AT_EXPIRY } else { interval };
    loop {
        let is_asked = tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => true,
            () = tokio::time::sleep(pause) => false,
        };
        let read = tls.clone();
        let reading = move || match is_asked {
            true => Some(read.reload()),
            false if interval.is_zero() => None,
            false => read.reload_if_changed(),
        };
        match tokio::task::spawn_blocking(reading).await {
            Ok(Some(Ok(summary))) => {
                announce(TLS_PORT, &summary);
                complaints = Complaints::default();
                in_force = summary;
            }
            Ok(Some(Err(error))) => complaints.about(&error, is_asked),
            Ok(None) => {}
            Err(error) => error!(%error, "certificates could not be read"),
        }
        if Instant::now() >= look_at_expiry {
            look_at_expiry = Instant::now() + LOOK_AT_EXPIRY;
            warn_of_expiry(TLS_PORT, &in_force);
        }
    }
}

/// What was complained of last, so that a lasting fault is told of now and then, and not all the time.
#[derive(Default)]
struct Complaints {
    last: Option<(String, Instant)>,
}

impl Complaints {
    fn about(&mut self, fault: &TlsError, is_asked: bool) {
        let words = fault.to_string();
        let is_known = matches!(&self.last, Some((said, at)) if *said == words && at.elapsed() < REMIND);
        if is_asked || !is_known {
            error!(reason = %words, "TLS: the new files cannot be used; the certificate read before stays in force");
            self.last = Some((words, Instant::now()));
        }
    }
}

fn announce(section: &str, summary: &CertificateSummary) {
    info!(section, certificate = %summary, "TLS: certificate in force");
    warn_of_expiry(section, summary);
}

fn warn_of_expiry(section: &str, summary: &CertificateSummary) {
    match summary.expires_in(SystemTime::now()) {
        Some(left) if left.is_zero() => error!(section, certificate = %summary, "TLS: this certificate has expired"),
        Some(left) if left < EXPIRES_SOON => {
            warn!(section, certificate = %summary, days = left.as_secs() / 86_400, "TLS: this certificate expires soon");
        }
        _ => {}
    }
}
