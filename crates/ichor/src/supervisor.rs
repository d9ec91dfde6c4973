//! What a supervisor such as systemd is told (sd_notify): ready, stopping, and alive for as long as the store answers.

use std::time::Duration;

use ichor_store::Store;
use sd_notify::NotifyState;
use tracing::warn;

/// The daemon listens and works.
pub(crate) fn ready() {
    say(NotifyState::Ready);
}

/// The configuration is being read again; [`ready`] follows.
pub(crate) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    let said = now.and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]));
    if let Err(error) = said {
        warn!(%error, "the supervisor could not be told");
    }
}

/// The daemon has been told to end.
pub(crate) fn stopping() {
    say(NotifyState::Stopping);
}

/// Says "alive" three times in each interval of the supervisor's watchdog, each time after the store has answered a question.
/// A daemon whose runtime or database hangs says nothing, and is restarted. Ends at once where no watchdog is set.
pub(crate) async fn watch(store: Store) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let pause = (interval / 3).max(Duration::from_millis(1));
    loop {
        match tokio::time::timeout(interval, store.queue_depths()).await {
            Ok(Ok(_)) => say(NotifyState::Watchdog),
            Ok(Err(error)) => warn!(%error, "the store does not answer the watchdog's question"),
            Err(_) => warn!(
                limit_s = interval.as_secs_f64(),
                "the store is silent; the watchdog is not told that all is well"
            ),
        }
        tokio::time::sleep(pause).await;
    }
}

/// Without a supervisor this does nothing.
fn say(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the supervisor could not be told");
    }
}
