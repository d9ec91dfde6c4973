//! When a destination is sent to: so many objects a minute, within a window of hours.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ichor_store::Timestamp;

const DAY_MINUTES: i64 = 24 * 60;

/// A window of the day in UTC, such as `19:00-06:30`; one that ends before it begins goes over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes from midnight.
    from: i64,
    to: i64,
}

impl Hours {
    /// How long it is until the window is open; `None`: it is.
    #[must_use]
    pub fn opens_in(self, now: Timestamp) -> Option<Duration> {
        let day = DAY_MINUTES * 60_000;
        let of_day = now.as_millis().rem_euclid(day);
        let (from, to) = (self.from * 60_000, self.to * 60_000);
        let is_open = if from <= to { (from..to).contains(&of_day) } else { of_day >= from || of_day < to };
        let left = u64::try_from((from - of_day).rem_euclid(day)).unwrap_or(0);
        (!is_open).then(|| Duration::from_millis(left))
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let minutes = |part: &str| {
            let (hour, minute) = part.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
            let (hour, minute): (u8, u8) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60).then(|| i64::from(hour) * 60 + i64::from(minute))
        };
        let window = text.split_once('-').and_then(|(from, to)| Some(Self { from: minutes(from)?, to: minutes(to)? }));
        match window {
            Some(window) if window.from != window.to => Ok(window),
            Some(_) => Err(format!("{text:?} is a window of no length; leave the key out for the whole day")),
            None => Err(format!("{text:?} is not of the form 19:00-06:30")),
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// Spaces objects out.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    next: Option<Instant>,
}

impl Rate {
    /// `per_minute` 0: as fast as it goes.
    pub(super) fn new(per_minute: u32) -> Self {
        let interval = if per_minute == 0 { Duration::ZERO } else { Duration::from_secs(60) / per_minute };
        Self { interval, next: None }
    }

    /// How long the next object waits; `None`: it may go.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.next?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// An object goes.
    pub(super) fn sent(&mut self, now: Instant) {
        self.next = Some(now + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(window: &str, hour: i64, minute: i64) -> Option<u64> {
        let window: Hours = window.parse().unwrap();
        let day = 20_000 * DAY_MINUTES;
        let now = Timestamp::from_millis((day + hour * 60 + minute) * 60_000);
        window.opens_in(now).map(|wait| wait.as_secs() / 60)
    }

    #[test]
    fn windows_open_and_close() {
        for (window, hour, minute, wait) in [
            ("08:00-18:00", 8, 0, None),
            ("08:00-18:00", 17, 59, None),
            ("08:00-18:00", 18, 0, Some(14 * 60)),
            ("08:00-18:00", 7, 30, Some(30)),
            ("19:00-06:30", 23, 0, None),
            ("19:00-06:30", 0, 0, None),
            ("19:00-06:30", 6, 29, None),
            ("19:00-06:30", 6, 30, Some(12 * 60 + 30)),
        ] {
            assert_eq!(opens(window, hour, minute), wait, "{window} at {hour}:{minute}");
        }
    }

    #[test]
    fn windows_are_parsed_and_refused() {
        for good in ["00:00-23:59", "19:00-06:30"] {
            assert_eq!(good.parse::<Hours>().unwrap().to_string(), good);
        }
        for bad in ["", "8-18", "08:00", "08:00-24:00", "08:60-09:00", "08:00-08:00", "-1:00-02:00", "08:00 - 09:00"] {
            assert!(bad.parse::<Hours>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rate_spaces_objects_out() {
        let now = Instant::now();
        let mut rate = Rate::new(120);
        assert_eq!(rate.wait(now), None);
        rate.sent(now);
        assert_eq!(rate.wait(now), Some(Duration::from_millis(500)));
        assert_eq!(rate.wait(now + Duration::from_millis(500)), None);
        let mut free = Rate::new(0);
        free.sent(now);
        assert_eq!(free.wait(now), None);
    }
}
