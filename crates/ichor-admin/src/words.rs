//! Times and numbers in words.

use ichor_store::Timestamp;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const MOMENT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const CLOCK: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

fn date_time(at: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_millis()) * 1_000_000).ok()
}

/// A moment for programs: ISO 8601, UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    date_time(at).and_then(|at| at.format(MOMENT).ok()).unwrap_or_else(|| at.to_string())
}

/// A moment for people, UTC; their browser shows it in their own zone.
pub(crate) fn clock(at: Timestamp) -> String {
    date_time(at).and_then(|at| at.format(CLOCK).ok()).unwrap_or_else(|| at.to_string())
}

/// A span for people.
pub(crate) fn span(ms: i64) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Bytes for people.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        ..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// A Patient's Name for people (PS3.5 6.2.1): the groups that there are, the family name before a comma.
pub(crate) fn name(dicom: &str) -> String {
    let group = |group: &str| {
        let mut parts = group.split('^').map(str::trim);
        let family = parts.next().unwrap_or_default().to_owned();
        let given: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        match (family.is_empty(), given.is_empty()) {
            (_, true) => family,
            (true, false) => given.join(" "),
            (false, false) => format!("{family}, {}", given.join(" ")),
        }
    };
    let groups: Vec<String> = dicom.split('=').map(group).filter(|group| !group.is_empty()).collect();
    groups.join(" · ")
}

/// A Study Date for people.
pub(crate) fn day(dicom: &str) -> String {
    match (dicom.get(..4), dicom.get(4..6), dicom.get(6..8)) {
        (Some(year), Some(month), Some(day)) if dicom.len() == 8 => format!("{year}-{month}-{day}"),
        _ => dicom.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!(name("O'Brien^<script>"), "O'Brien, <script>");
        assert_eq!(name("Yamada^Tarou=山田^太郎=やまだ^たろう"), "Yamada, Tarou · 山田, 太郎 · やまだ, たろう");
        assert_eq!(name("قباني^لنزار"), "قباني, لنزار");
        assert_eq!(name("^^"), "");
        assert_eq!(name("ONE"), "ONE");
    }

    #[test]
    fn times_are_read() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!((moment(at), clock(at)), ("2023-11-14T22:13:20.123Z".to_owned(), "2023-11-14 22:13:20".to_owned()));
        assert_eq!(span(90_000), "1 min 30 s");
        assert_eq!(
            (day("20260301"), day("2026"), bytes(2_500_000)),
            ("2026-03-01".into(), "2026".into(), "2.4 MiB".into())
        );
    }
}
