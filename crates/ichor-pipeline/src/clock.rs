//! The wall clock, read in one place, and never going back.
//!
//! A quiet period, a backoff and the order of a timeline all count on it. When the system's clock is set back, time goes
//! on here from where it was, and the log says so, until the system's clock has caught up or the daemon is started again
//! (`ichor_store::Store::recover` sees to what was to wait until a moment that is far off then).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ichor_store::Timestamp;
use time::OffsetDateTime;
use tracing::{info, warn};

/// How far the system's clock may be behind before that is a step back: what NTP slews is followed.
const STEP: Duration = Duration::from_secs(1);

static CLOCK: Mutex<Option<SteadyClock>> = Mutex::new(None);

/// The present moment; never before one that was told earlier in this process.
#[must_use]
pub fn now() -> Timestamp {
    let milliseconds = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    let system = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let (instant, clock) = (Instant::now(), clock.get_or_insert_with(|| SteadyClock::new(system, Instant::now())));
    Timestamp::from_millis(clock.tell(system, instant))
}

/// The system's clock, as long as it does not step back.
struct SteadyClock {
    /// What was told last, in milliseconds since 1970, and when.
    told: (i64, Instant),
    /// Whether the system's clock was set back.
    is_behind: bool,
}

impl SteadyClock {
    const fn new(system: i64, instant: Instant) -> Self {
        Self { told: (system, instant), is_behind: false }
    }

    fn tell(&mut self, system: i64, instant: Instant) -> i64 {
        let (told, at) = self.told;
        let elapsed = i64::try_from(instant.saturating_duration_since(at).as_millis()).unwrap_or(i64::MAX);
        let steady = told.saturating_add(elapsed);
        let behind = steady.saturating_sub(system);
        let is_behind = behind > i64::try_from(STEP.as_millis()).unwrap_or(i64::MAX);
        if is_behind && !self.is_behind {
            let seconds = behind / 1000;
            warn!(seconds, "the system's clock was set back: time goes on here as before until it has caught up");
        } else if self.is_behind && !is_behind {
            info!("the system's clock has caught up");
        }
        self.is_behind = is_behind;
        let present = if is_behind { steady } else { system.max(told) };
        // Unless a millisecond has passed, what passed must go on counting.
        if present != told {
            self.told = (present, instant);
        }
        present
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_700_000_000_000;

    /// What a clock tells when the system's clock shows `system` so many milliseconds after the beginning.
    fn told(readings: &[(u64, i64)]) -> Vec<i64> {
        let begin = Instant::now();
        let mut clock = SteadyClock::new(NOON, begin);
        let tell =
            |&(after, system): &(u64, i64)| clock.tell(NOON + system, begin + Duration::from_millis(after)) - NOON;
        readings.iter().map(tell).collect()
    }

    #[test]
    fn follows_the_system_forward_and_when_slewed() {
        assert_eq!(
            told(&[(10, 10), (20, 3_600_000), (5_020, 3_604_900), (5_030, 3_604_905)]),
            [10, 3_600_000, 3_604_900, 3_604_905]
        );
    }

    #[test]
    fn goes_on_when_set_back_and_joins_again() {
        let readings = [
            (1_000, 1_000),
            (2_000, -3_600_000),
            (62_000, -3_540_000),
            (3_700_000, 98_000),
            // Set right again.
            (3_701_000, 3_701_000),
            (3_702_000, 3_702_000),
        ];
        assert_eq!(told(&readings), [1_000, 2_000, 62_000, 3_700_000, 3_701_000, 3_702_000]);
    }

    #[test]
    fn many_readings_within_a_millisecond_do_not_stop_the_time() {
        let begin = Instant::now();
        let mut clock = SteadyClock::new(NOON, begin);
        let mut present = NOON;
        for tick in 1..=40_000_u64 {
            present = clock.tell(NOON - 3_600_000, begin + Duration::from_micros(tick * 250));
        }
        assert_eq!(present, NOON + 10_000);
    }

    #[test]
    fn present_does_not_go_back() {
        let mut last = now();
        for _ in 0..1_000 {
            let present = now();
            assert!(present >= last);
            last = present;
        }
    }
}
