//! Charts as SVG: axes, ticks, lines and marks, with classes for colours so that the page's themes decide them.

use std::fmt::Write as _;

/// How values lie along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Evenly from low to high.
    Linear(f64, f64),
    /// By their logarithm; both ends above 0.
    Log(f64, f64),
}

impl Scale {
    /// An even axis that holds all values and 0, ending at ticks.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.filter(|v| v.is_finite()).fold((0.0f64, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if high > low { (low, high) } else { (0.0, 1.0) };
        let step = step(low, high);
        Self::Linear((low / step).floor() * step, (high / step).ceil() * step)
    }

    /// A logarithmic axis over whole decades that holds all values above 0.
    pub(super) fn decades(values: impl Iterator<Item = f64>) -> Self {
        let range = values.filter(|v| *v > 0.0 && v.is_finite());
        let (low, high) = range.fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        if high <= 0.0 {
            return Self::Log(0.1, 100.0);
        }
        let (from, to) = (low.log10().floor(), (high * 1.0001).log10().ceil());
        Self::Log(10f64.powf(from), 10f64.powf(to.max(from + 1.0)))
    }

    /// Where a value lies: 0 at the axis's start, 1 at its end; what is beyond is brought to the end.
    pub(super) fn place(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(low, high) => (value - low) / (high - low),
            Self::Log(low, high) => (value.max(low) / low).ln() / (high / low).ln(),
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Values and words of the ticks.
    pub(super) fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear(low, high) => {
                let step = step(low, high);
                let decimals = if step >= 1.0 { 0 } else { (-step.log10()).ceil().max(1.0) as usize };
                let first = (low / step).ceil();
                let count = ((high - first * step) / step + 1e-9).floor().max(0.0) as usize;
                let tick = |at: usize| {
                    let value = (first + at as f64) * step;
                    // No tick is called "-0".
                    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
                    (value, format!("{value:.decimals$}").replace('-', "−"))
                };
                (0..=count).map(tick).collect()
            }
            Self::Log(low, high) => {
                let (from, to) = (low.log10().round() as i32, high.log10().round() as i32);
                (from..=to).map(|power| (10f64.powi(power), format!("{}", 10f64.powi(power)))).collect()
            }
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten that gives four to nine ticks.
fn step(low: f64, high: f64) -> f64 {
    let rough = (high - low).max(f64::MIN_POSITIVE) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999).unwrap_or(10.0);
    factor * power
}

/// A mark's form: series are told apart without colours too.
const FORMS: usize = 4;

/// A chart in the making.
#[derive(Debug)]
pub(super) struct Chart {
    width: f64,
    height: f64,
    /// Space of the axes: left, right, top, bottom.
    margin: [f64; 4],
    pub(super) x: Scale,
    pub(super) y: Scale,
    title: String,
    description: String,
    body: String,
}

impl Chart {
    /// An empty chart. Title and description are for who cannot see it.
    pub(super) fn new((width, height): (f64, f64), x: Scale, y: Scale, title: &str, description: &str) -> Self {
        let (title, description) = (title.to_owned(), description.to_owned());
        Self { width, height, margin: [56.0, 14.0, 12.0, 46.0], x, y, title, description, body: String::new() }
    }

    /// More space on the left, for words instead of numbers.
    pub(super) fn with_left(mut self, left: f64) -> Self {
        self.margin[0] = left;
        self
    }

    /// Place of a value along the horizontal, in the chart's units.
    pub(super) fn at_x(&self, value: f64) -> f64 {
        let [left, right, ..] = self.margin;
        left + self.x.place(value) * (self.width - left - right)
    }

    /// Place of a value along the vertical; upwards is more.
    pub(super) fn at_y(&self, value: f64) -> f64 {
        let [.., top, bottom] = self.margin;
        self.height - bottom - self.y.place(value) * (self.height - top - bottom)
    }

    /// Grid lines, ticks and names of both axes.
    pub(super) fn axes(&mut self, name_x: &str, name_y: &str) {
        self.x_axis(name_x);
        let [left, right, top, bottom] = self.margin;
        for (value, words) in self.y.ticks() {
            let y = self.at_y(value);
            self.rule("grid", (left, y), (self.width - right, y));
            self.text(&words, (left - 8.0, y + 4.0), "tick end");
        }
        let middle = (top + self.height - bottom) / 2.0;
        let turned = format!(" transform=\"rotate(-90 14 {middle:.1})\"");
        self.words(name_y, (14.0, middle), "axis mid", &turned);
    }

    /// The same of the horizontal axis alone.
    pub(super) fn x_axis(&mut self, name: &str) {
        let [left, right, top, bottom] = self.margin;
        for (value, words) in self.x.ticks() {
            let x = self.at_x(value);
            self.rule("grid", (x, top), (x, self.height - bottom));
            self.text(&words, (x, self.height - bottom + 18.0), "tick mid");
        }
        self.text(name, ((left + self.width - right) / 2.0, self.height - 8.0), "axis mid");
    }

    /// A straight line between places in the chart's units.
    pub(super) fn rule(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ =
            write!(self.body, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
    }

    /// A straight line between values.
    pub(super) fn segment(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.rule(class, (self.at_x(from.0), self.at_y(from.1)), (self.at_x(to.0), self.at_y(to.1)));
    }

    /// A line through values; the series decides colour and dashes.
    pub(super) fn line(&mut self, points: impl Iterator<Item = (f64, f64)>, series: usize) {
        let mut way = String::new();
        for (index, (x, y)) in points.enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(way, "{command}{:.1} {:.1}", self.at_x(x), self.at_y(y));
        }
        let _ = write!(self.body, "<path class=\"line s{series} d{series}\" d=\"{way}\"/>");
    }

    /// A mark at values, with words that are seen when it is pointed at.
    pub(super) fn mark(&mut self, (x, y): (f64, f64), series: usize, words: &str) {
        let place = (self.at_x(x), self.at_y(y));
        self.mark_at(place, series, words);
    }

    /// A mark at a place in the chart's units.
    pub(super) fn mark_at(&mut self, (x, y): (f64, f64), series: usize, words: &str) {
        let class = format!("mark s{series}");
        let shape = match series % FORMS {
            0 => format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\">"),
            1 => polygon(&class, &[(x, y - 5.0), (x + 5.0, y + 4.0), (x - 5.0, y + 4.0)]),
            2 => polygon(&class, &[(x - 4.0, y - 4.0), (x + 4.0, y - 4.0), (x + 4.0, y + 4.0), (x - 4.0, y + 4.0)]),
            _ => polygon(&class, &[(x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y)]),
        };
        let end = if series.is_multiple_of(FORMS) { "</circle>" } else { "</polygon>" };
        let _ = write!(self.body, "{shape}<title>{}</title>{end}", escaped(words));
    }

    /// A bar from the horizontal axis's start to a value, between two other values.
    pub(super) fn column(&mut self, class: &str, (from, to): (f64, f64), height: f64) {
        let (left, right) = (self.at_x(from), self.at_x(to));
        let (top, bottom) = (self.at_y(height), self.at_y(f64::NEG_INFINITY));
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            (right - left).max(0.5),
            (bottom - top).max(0.0)
        );
    }

    /// Words at a place in the chart's units.
    pub(super) fn text(&mut self, words: &str, place: (f64, f64), class: &str) {
        self.words(words, place, class, "");
    }

    fn words(&mut self, words: &str, (x, y): (f64, f64), class: &str, more: &str) {
        let words = escaped(words);
        let _ = write!(self.body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\"{more}>{words}</text>");
    }

    /// The finished chart.
    pub(super) fn finish(self) -> String {
        let Self { width, height, title, description, body, .. } = self;
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\
             <title>{}</title><desc>{}</desc>{body}</svg>",
            escaped(&title),
            escaped(&title),
            escaped(&description)
        )
    }
}

fn polygon(class: &str, corners: &[(f64, f64)]) -> String {
    let corners: Vec<String> = corners.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!("<polygon class=\"{class}\" points=\"{}\">", corners.join(" "))
}

/// Text that can stand in XML.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Forbidden in XML 1.0.
            c if c.is_control() && !['\n', '\t', '\r'].contains(&c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_place_values_and_end_at_ticks() {
        let words = |scale: Scale| scale.ticks().into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(words(Scale::Linear(0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(Scale::around([-7.0, 12.0].into_iter()), Scale::Linear(-10.0, 15.0));
        assert_eq!(words(Scale::Linear(-10.0, 15.0)), ["−10", "−5", "0", "5", "10", "15"]);
        assert_eq!(Scale::around([].into_iter()), Scale::Linear(0.0, 1.0));
        let decades = Scale::decades([0.3, 42.0, 0.0].into_iter());
        assert_eq!(words(decades), ["0.1", "1", "10", "100"]);
        assert!((decades.place(1.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!((decades.place(0.0), decades.place(1e9)), (0.0, 1.0));
        assert_eq!(words(Scale::decades([5.0, 5.0].into_iter())), ["1", "10"]);
    }

    #[test]
    fn words_cannot_leave_their_place() {
        let mut chart =
            Chart::new((200.0, 100.0), Scale::Linear(0.0, 1.0), Scale::Linear(0.0, 1.0), "<script>", "\"a\" & 'b'");
        chart.mark((0.5, 0.5), 1, "</title><script>alert(1)</script>");
        let svg = chart.finish();
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("aria-label=\"&lt;script&gt;\"") && svg.contains("&quot;a&quot; &amp; &#39;b&#39;"));
        assert_eq!(escaped("a\u{1}b"), "a\u{fffd}b");
    }
}
