//! Days that people ask for.

/// A day of the calendar, written YYYYMMDD or YYYY-MM-DD, as the store keeps it: YYYYMMDD. `None` for anything else.
#[must_use]
pub fn study_day(text: &str) -> Option<String> {
    let digits = match text.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _] => text.replace('-', ""),
        _ => text.to_owned(),
    };
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u32>().ok();
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        assert_eq!(study_day("2026-03-01").as_deref(), Some("20260301"));
        assert_eq!(study_day("20240229").as_deref(), Some("20240229"));
        for bad in [
            "20250229",
            "21000229",
            "20251301",
            "20250431",
            "20250100",
            "2025-1-01",
            "2-0260301",
            "March",
            "2026031",
            "２０２６０３０１",
        ] {
            assert_eq!(study_day(bad), None, "{bad}");
        }
    }
}
