//! When a destination is sent to: so many objects a minute, within a window of hours.

use std::fmt;
use std::time::{Duration, Instant};

use ichor_core::Zone;
use ichor_store::Timestamp;

/// A window of the day in a zone, such as `19:00-06:30`; one that ends before it begins goes over midnight. The clock on the
/// wall decides: what it leaves out when it is set forward is in no window, and what it says twice is in a window twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes from midnight, by the clock.
    from: u16,
    to: u16,
    zone: Zone,
}

impl Hours {
    /// Reads a window in a zone.
    ///
    /// # Errors
    /// A sentence about the text.
    pub fn parse(text: &str, zone: &Zone) -> Result<Self, String> {
        let minutes = |part: &str| {
            let (hour, minute) = part.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
            let (hour, minute): (u8, u8) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60).then(|| u16::from(hour) * 60 + u16::from(minute))
        };
        let window = text.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
        match window {
            Some((from, to)) if from != to => Ok(Self { from, to, zone: zone.clone() }),
            Some(_) => Err(format!("{text:?} is a window of no length; leave the key out for the whole day")),
            None => Err(format!("{text:?} is not of the form 19:00-06:30")),
        }
    }

    /// Whether the window is open.
    #[must_use]
    pub fn are_open(&self, now: Timestamp) -> bool {
        let of_day = self.zone.minute_of_day(now.as_millis());
        let Self { from, to, .. } = *self;
        if from <= to { (from..to).contains(&of_day) } else { of_day >= from || of_day < to }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, zone } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02} {zone}", from / 60, from % 60, to / 60, to % 60)
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
    use time::macros::datetime;

    use super::*;

    /// Whether a window is open at a moment in UTC.
    fn is_open(window: &str, zone: &str, at: time::OffsetDateTime) -> bool {
        let window = Hours::parse(window, &Zone::parse(zone).unwrap()).unwrap();
        window.are_open(Timestamp::from_millis(at.unix_timestamp() * 1_000))
    }

    #[test]
    fn windows_open_and_close() {
        for (window, zone, at, open) in [
            ("08:00-18:00", "UTC", datetime!(2026-01-15 08:00 UTC), true),
            ("08:00-18:00", "UTC", datetime!(2026-01-15 17:59:59 UTC), true),
            ("08:00-18:00", "UTC", datetime!(2026-01-15 18:00 UTC), false),
            ("08:00-18:00", "UTC", datetime!(2026-01-15 07:59:59 UTC), false),
            ("19:00-06:30", "UTC", datetime!(2026-01-15 23:00 UTC), true),
            ("19:00-06:30", "UTC", datetime!(2026-01-15 00:00 UTC), true),
            ("19:00-06:30", "UTC", datetime!(2026-01-15 06:29:59 UTC), true),
            ("19:00-06:30", "UTC", datetime!(2026-01-15 06:30 UTC), false),
            // India is five and a half hours ahead.
            ("19:00-06:30", "Asia/Kolkata", datetime!(2026-01-15 13:29:59 UTC), false),
            ("19:00-06:30", "Asia/Kolkata", datetime!(2026-01-15 13:30 UTC), true),
        ] {
            assert_eq!(is_open(window, zone, at), open, "{window} {zone} at {at}");
        }
    }

    #[test]
    fn windows_follow_summer_time() {
        // Berlin is an hour ahead in winter and two in summer: forward on 2026-03-29 at 01:00 UTC, back on 2026-10-25 at 01:00 UTC.
        for (window, at, open) in [
            // The evening before, the morning of the change, and the evening after.
            ("19:00-06:30", datetime!(2026-03-28 17:59:59 UTC), false),
            ("19:00-06:30", datetime!(2026-03-28 18:00 UTC), true),
            ("19:00-06:30", datetime!(2026-03-29 04:29:59 UTC), true),
            ("19:00-06:30", datetime!(2026-03-29 04:30 UTC), false),
            ("19:00-06:30", datetime!(2026-03-29 17:00 UTC), true),
            ("19:00-06:30", datetime!(2026-10-24 17:00 UTC), true),
            ("19:00-06:30", datetime!(2026-10-25 05:29:59 UTC), true),
            ("19:00-06:30", datetime!(2026-10-25 05:30 UTC), false),
            ("19:00-06:30", datetime!(2026-10-25 17:59:59 UTC), false),
            ("19:00-06:30", datetime!(2026-10-25 18:00 UTC), true),
            // From 02:00 the clock goes to 03:00: a window that begins between opens then, one that lies between does not.
            ("02:30-05:00", datetime!(2026-03-29 00:59:59 UTC), false),
            ("02:30-05:00", datetime!(2026-03-29 01:00 UTC), true),
            ("02:15-02:45", datetime!(2026-03-29 00:59:59 UTC), false),
            ("02:15-02:45", datetime!(2026-03-29 01:00 UTC), false),
            ("01:00-02:30", datetime!(2026-03-29 00:59:59 UTC), true),
            ("01:00-02:30", datetime!(2026-03-29 01:00 UTC), false),
            // It says 02:00 to 03:00 twice.
            ("02:15-02:45", datetime!(2026-10-25 00:30 UTC), true),
            ("02:15-02:45", datetime!(2026-10-25 00:45 UTC), false),
            ("02:15-02:45", datetime!(2026-10-25 01:30 UTC), true),
            ("02:15-02:45", datetime!(2026-10-25 01:45 UTC), false),
        ] {
            assert_eq!(is_open(window, "Europe/Berlin", at), open, "{window} at {at}");
        }
    }

    #[test]
    fn windows_are_parsed_and_refused() {
        for good in ["00:00-23:59", "19:00-06:30"] {
            assert_eq!(Hours::parse(good, &Zone::UTC).unwrap().to_string(), format!("{good} UTC"));
        }
        for bad in ["", "8-18", "08:00", "08:00-24:00", "08:60-09:00", "08:00-08:00", "-1:00-02:00", "08:00 - 09:00"] {
            assert!(Hours::parse(bad, &Zone::UTC).is_err(), "{bad:?}");
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
