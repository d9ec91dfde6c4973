//! The time zone of a site: what the clock on its wall says, and where its days begin. Moments stay milliseconds since
//! 1970-01-01 UTC everywhere; a zone is for hours and days that people write and read. The database of zones is compiled in.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A time zone by its name in the IANA database, such as `Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

/// Why a text is no [`Zone`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no time zone of the IANA database; such as \"Europe/Berlin\", or \"UTC\"")]
pub struct UnknownZone(String);

impl Zone {
    /// Coordinated Universal Time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Looks a name up; case does not count.
    ///
    /// # Errors
    /// [`UnknownZone`].
    pub fn parse(name: &str) -> Result<Self, UnknownZone> {
        let zone = TimeZone::get(name).ok().filter(|zone| zone.iana_name().is_some());
        zone.map(Self).ok_or_else(|| UnknownZone(name.to_owned()))
    }

    /// Its name in the IANA database.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// What the clock says at a moment, in whole minutes from 00:00 of its own day: 0 to 1439. Where the clock is set forward
    /// some minutes are never said; where it is set back some are said twice.
    #[must_use]
    pub fn minute_of_day(&self, at_ms: i64) -> u16 {
        let clock = self.clock(at_ms);
        u16::from(clock.hour().unsigned_abs()) * 60 + u16::from(clock.minute().unsigned_abs())
    }

    /// The day of a moment, as YYYY-MM-DD.
    #[must_use]
    pub fn day(&self, at_ms: i64) -> String {
        self.clock(at_ms).date().to_string()
    }

    /// The first moment of the day that is so many days before that of a moment.
    #[must_use]
    pub fn start_of_day(&self, at_ms: i64, days_before: u32) -> i64 {
        let back = SignedDuration::from_hours(24 * i64::from(days_before));
        let day: Date = self.clock(at_ms).date().saturating_sub(back);
        // Where no clock says midnight the day begins when the clock has been set forward.
        day.to_zoned_datetime(self.0.clone()).map_or(at_ms, |midnight| midnight.timestamp().as_millisecond())
    }

    /// The first moment of a day that is written as YYYYMMDD; `None` if it is none.
    #[must_use]
    pub fn beginning_of(&self, day: &str) -> Option<i64> {
        let day = Date::strptime("%Y%m%d", day).ok()?;
        Some(day.to_zoned_datetime(self.0.clone()).ok()?.timestamp().as_millisecond())
    }

    /// When the clock says this hour and minute on the day of a moment: the first time where it says it twice, as much later
    /// where it never does; `None` for a time of day that is none.
    #[must_use]
    pub fn on_the_day_of(&self, at_ms: i64, hour: u8, minute: u8) -> Option<i64> {
        let time = Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()?;
        let moment = self.clock(at_ms).date().to_datetime(time).to_zoned_datetime(self.0.clone()).ok()?;
        Some(moment.timestamp().as_millisecond())
    }

    fn clock(&self, at_ms: i64) -> DateTime {
        let furthest = if at_ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
        self.0.to_datetime(Timestamp::from_millisecond(at_ms).unwrap_or(furthest))
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn ms(at: time::OffsetDateTime) -> i64 {
        at.unix_timestamp() * 1_000
    }

    #[test]
    fn names_are_those_of_the_database() {
        for (name, known) in [("UTC", "UTC"), ("europe/berlin", "Europe/Berlin"), ("Asia/Kolkata", "Asia/Kolkata")] {
            assert_eq!(Zone::parse(name).unwrap().name(), known);
        }
        for bad in
            ["", "Europe", "Europe/Bärlin", "Etc/Unknown", "CEST", "+02:00", "Europe/Berlin ", "../etc/localtime"]
        {
            assert_eq!(Zone::parse(bad), Err(UnknownZone(bad.to_owned())));
        }
        assert_eq!(Zone::default().name(), "UTC");
    }

    #[test]
    fn clock_leaves_an_hour_out_and_says_one_twice() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        for (at, hour, minute) in [
            (datetime!(2026-03-29 00:59:59 UTC), 1, 59),
            (datetime!(2026-03-29 01:00 UTC), 3, 0),
            (datetime!(2026-10-25 00:30 UTC), 2, 30),
            (datetime!(2026-10-25 01:30 UTC), 2, 30),
            (datetime!(2026-10-25 02:00 UTC), 3, 0),
        ] {
            assert_eq!(berlin.minute_of_day(ms(at)), hour * 60 + minute, "{at}");
        }
    }

    #[test]
    fn hours_of_a_day() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        for (day, hour, at) in [
            (datetime!(2026-07-01 22:30 UTC), 1, datetime!(2026-07-01 23:00 UTC)),
            (datetime!(2026-03-29 12:00 UTC), 2, datetime!(2026-03-29 01:00 UTC)),
            (datetime!(2026-10-25 12:00 UTC), 2, datetime!(2026-10-25 00:00 UTC)),
        ] {
            assert_eq!(berlin.on_the_day_of(ms(day), hour, 0), Some(ms(at)), "{day}");
        }
        assert_eq!(berlin.on_the_day_of(0, 24, 0), None);
        assert_eq!(berlin.on_the_day_of(0, 0, 60), None);
        assert_eq!(Zone::UTC.on_the_day_of(86_400_007, 1, 2), Some(86_400_000 + 62 * 60_000));
    }

    #[test]
    fn days_have_23_24_or_25_hours() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        for (noon, start, hours) in [
            (datetime!(2026-03-28 12:00 UTC), datetime!(2026-03-27 23:00 UTC), 24),
            (datetime!(2026-03-29 12:00 UTC), datetime!(2026-03-28 23:00 UTC), 23),
            (datetime!(2026-10-25 12:00 UTC), datetime!(2026-10-24 22:00 UTC), 25),
        ] {
            let first = berlin.start_of_day(ms(noon), 0);
            assert_eq!(first, ms(start), "{noon}");
            let end = first + hours * 3_600_000;
            assert_eq!((berlin.day(first), berlin.day(end - 1)), (berlin.day(ms(noon)), berlin.day(ms(noon))));
            assert_ne!(berlin.day(end), berlin.day(ms(noon)));
            assert_eq!(berlin.start_of_day(end, 1), first);
        }
        assert_eq!(berlin.day(ms(datetime!(2026-07-01 22:00 UTC))), "2026-07-02");
        assert_eq!(berlin.beginning_of("20260702"), Some(ms(datetime!(2026-07-01 22:00 UTC))));
        assert_eq!(Zone::UTC.beginning_of("20260702"), Some(ms(datetime!(2026-07-02 0:00 UTC))));
        for none in ["20260231", "2026070", "2026-07-02", "202607021", ""] {
            assert_eq!(berlin.beginning_of(none), None, "{none}");
        }
        assert_eq!(Zone::UTC.start_of_day(ms(datetime!(2026-07-01 22:00 UTC)), 30), ms(datetime!(2026-06-01 0:00 UTC)));
    }

    #[test]
    fn day_without_a_midnight_begins_where_the_clock_goes_on() {
        // In Beirut the clocks of 2026-03-29 go from 00:00 to 01:00.
        let beirut = Zone::parse("Asia/Beirut").unwrap();
        let at = beirut.start_of_day(ms(datetime!(2026-03-29 12:00 UTC)), 0);
        assert_eq!((at, beirut.minute_of_day(at)), (ms(datetime!(2026-03-28 22:00 UTC)), 60));
        assert_eq!((beirut.day(at - 1).as_str(), beirut.day(at).as_str()), ("2026-03-28", "2026-03-29"));
    }

    #[test]
    fn no_moment_is_too_far() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        for at in [i64::MIN, i64::MAX] {
            assert!(berlin.minute_of_day(at) < 1440 && !berlin.day(at).is_empty());
            let _ = berlin.start_of_day(at, u32::MAX);
        }
    }
}
