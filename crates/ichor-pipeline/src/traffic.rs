//! How busy receiving is, and how work that can wait stands back behind it.
//!
//! A priority decides who gets a core, not what the cores share: on a machine whose cores are two threads of one, work
//! of the lowest priority slows its neighbour all the same. So a stage that can wait also limits its share of the time
//! while instances follow each other without a pause. A hint only: nothing rests on it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Receiving is quiet when no instance was under way for this long; a sender that sends without a pause needs less
/// between two slices.
const QUIET: Duration = Duration::from_millis(5);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Longest wait at once.
const LONGEST: Duration = Duration::from_secs(1);

/// The instances under way, as every stage may see them.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    under_way: AtomicUsize,
    /// When the last one ended.
    ended: Mutex<Option<Instant>>,
}

/// An instance under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Passage(Traffic);

impl Traffic {
    /// An instance begins.
    pub(crate) fn enter(&self) -> Passage {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        Passage(self.clone())
    }

    fn is_quiet(&self) -> bool {
        let ended = *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.under_way.load(Ordering::Relaxed) == 0 && ended.is_none_or(|ended| ended.elapsed() >= QUIET)
    }

    async fn quiet(&self) {
        while !self.is_quiet() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Traffic(inner) = &self.0;
        *inner.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        inner.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stage that stands back: while receiving is busy it works for its share of the time only.
#[derive(Debug)]
pub(crate) struct StandBack {
    traffic: Traffic,
    share: f64,
    owed: Duration,
}

impl StandBack {
    /// `share` of the time, above 0 and up to 1; with 1 it never waits.
    pub(crate) fn new(traffic: Traffic, share: f64) -> Self {
        Self { traffic, share, owed: Duration::ZERO }
    }

    /// Has worked for so long.
    pub(crate) fn worked(&mut self, time: Duration) {
        let owed = time.as_secs_f64() * (1.0 / self.share - 1.0).max(0.0);
        // What is owed may be infinite for a share of nothing.
        self.owed = self.owed.saturating_add(Duration::try_from_secs_f64(owed).unwrap_or(LONGEST)).min(LONGEST);
    }

    /// Waits for what is owed, or until receiving is quiet.
    pub(crate) async fn wait(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if !owed.is_zero() {
            let _ = tokio::time::timeout(owed, self.traffic.quiet()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a stage of this share waits after this much work, with `under_way` instances on their way.
    async fn waits(share: f64, worked_ms: u64, under_way: usize) -> u128 {
        let traffic = Traffic::default();
        let passages: Vec<Passage> = (0..under_way).map(|_| traffic.enter()).collect();
        let mut stage = StandBack::new(traffic, share);
        stage.worked(Duration::from_millis(worked_ms));
        let began = Instant::now();
        stage.wait().await;
        drop(passages);
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_its_share_while_receiving_is_busy() {
        assert_eq!(waits(0.2, 40, 1).await, 160);
        assert_eq!(waits(0.2, 40, 3).await, 160);
        assert_eq!(waits(0.5, 40, 1).await, 40);
        assert_eq!(waits(1.0, 40, 1).await, 0);
        assert_eq!(waits(0.01, 40, 1).await, LONGEST.as_millis());
        assert_eq!(waits(0.2, 40, 0).await, 0, "nothing under way");
        assert_eq!(waits(0.2, 0, 1).await, 0, "nothing owed");
    }

    #[tokio::test(start_paused = true)]
    async fn goes_on_once_receiving_pauses() {
        let traffic = Traffic::default();
        let mut stage = StandBack::new(traffic.clone(), 0.1);
        stage.worked(Duration::from_millis(100));
        let began = Instant::now();
        let sender = async {
            for _ in 0..10 {
                let passage = traffic.enter();
                tokio::time::sleep(Duration::from_millis(3)).await;
                drop(passage);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::join!(sender, stage.wait());
        let waited = began.elapsed().as_millis();
        assert!(
            (44..=48).contains(&waited),
            "{waited} ms: from the end of the last, at 39 ms, the quiet time and a look"
        );
        // What was owed is paid.
        let passage = traffic.enter();
        let again = Instant::now();
        stage.wait().await;
        assert_eq!(again.elapsed(), Duration::ZERO);
        drop(passage);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_leaves_the_others_under_way() {
        let traffic = Traffic::default();
        let (first, second) = (traffic.enter(), traffic.enter());
        drop(first);
        tokio::time::sleep(QUIET * 2).await;
        assert!(!traffic.is_quiet());
        drop(second);
        assert!(!traffic.is_quiet());
        tokio::time::sleep(QUIET).await;
        assert!(traffic.is_quiet());
    }
}
