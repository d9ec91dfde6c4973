//! The colours can be told apart: WCAG 2.2, success criteria 1.4.3 (text, 4.5 : 1) and 1.4.11 (what is not text, 3 : 1).

use std::collections::HashMap;

const CSS: &str = include_str!("../../assets/ichor.css");

fn colours() -> HashMap<&'static str, [f64; 3]> {
    let line = |line: &'static str| {
        let (name, value) = line.trim().strip_prefix("--")?.split_once(": #")?;
        let digits = value.trim_end_matches(';');
        let part = |at: usize| Some(f64::from(u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?) / 255.0);
        Some((name, [part(0)?, part(2)?, part(4)?]))
    };
    CSS.lines().filter_map(line).collect()
}

/// Relative luminance.
fn luminance(colour: [f64; 3]) -> f64 {
    let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    let [red, green, blue] = colour.map(linear);
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

fn contrast(one: [f64; 3], two: [f64; 3]) -> f64 {
    let (one, two) = (luminance(one), luminance(two));
    (one.max(two) + 0.05) / (one.min(two) + 0.05)
}

#[test]
fn black_and_white_are_as_far_apart_as_they_are() {
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
    assert!((contrast([0.5; 3], [0.5; 3]) - 1.0).abs() < 1e-9);
}

#[test]
fn text_is_read_on_every_ground() {
    let colours = colours();
    let of = |name: &str| *colours.get(name).unwrap_or_else(|| panic!("no colour {name}"));
    let grounds = ["ground", "panel", "raised"];
    for text in ["text", "dim", "link", "positive", "alert", "failed", "way", "unread", "calm"] {
        for ground in grounds {
            let found = contrast(of(text), of(ground));
            assert!(found >= 4.5, "{text} on {ground}: {found:.2}");
        }
    }
    for kind in ["positive", "alert", "failed", "way", "unread", "calm", "primary"] {
        let found = contrast(of(kind), of(&format!("{kind}-ground")));
        assert!(found >= 4.5, "{kind} on its own ground: {found:.2}");
    }
    // Borders of what can be used, bars, the ring of the focus.
    for edge in ["edge", "alert", "positive"] {
        for ground in grounds {
            let found = contrast(of(edge), of(ground));
            assert!(found >= 3.0, "{edge} beside {ground}: {found:.2}");
        }
    }
}

#[test]
fn every_text_colour_is_one_that_is_checked() {
    // A colour that is written out escapes the test above; black behind a picture is no text.
    for line in CSS.lines().filter(|line| !line.trim_start().starts_with("--")) {
        let allowed = line.contains("#000");
        assert!(allowed || !line.contains(": #"), "{line}");
    }
}
