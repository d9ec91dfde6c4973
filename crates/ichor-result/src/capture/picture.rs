//! The picture of one slice: source in its window, mask with contour, the probabilities of all slices beside it, and
//! below it who says so.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_6X10;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::{Primitive, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};

use super::{CaptureInput, CaptureLook};
use crate::error::ResultError;
use crate::mask::SliceMask;
use crate::segmentation::SourceSlice;

/// Smaller slices are enlarged by a whole number, so that words find room.
const LEAST_SIDE: u32 = 512;
/// Width of the strip of probabilities, and of its bars at a probability of 1.
const STRIP: u32 = 64;
const BAR: u32 = 50;
/// From the slice to the bars.
const MARGIN: u32 = 8;
/// Width of a character, and height of a line of words.
const CHARACTER: u32 = 6;
const LINE: u32 = 12;

const RED: Rgb888 = Rgb888::new(255, 64, 64);
const GREY: Rgb888 = Rgb888::new(120, 120, 120);
const FAINT: Rgb888 = Rgb888::new(70, 70, 70);
const WORDS: Rgb888 = Rgb888::new(230, 230, 230);

/// A finished picture: `rows × columns` RGB pixels.
pub(super) struct Picture {
    pub(super) rows: u32,
    pub(super) columns: u32,
    /// Pixels a pixel of the slice is wide and high.
    pub(super) scale: u32,
    pub(super) rgb: Vec<u8>,
}

/// What is to be seen.
pub(super) struct Scene<'a> {
    at: usize,
    rows: u32,
    columns: u32,
    hu: &'a [i16],
    /// Not 0 in the mask.
    mask: Vec<u8>,
    probabilities: &'a [f32],
    threshold: f32,
    look: CaptureLook,
    words: Vec<String>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        input: &CaptureInput<'a>,
        at: usize,
        slice: &SourceSlice,
        mask: &SliceMask,
        hu: &'a [i16],
    ) -> Result<Self, ResultError> {
        let (rows, columns) = (slice.plane.rows, slice.plane.columns);
        let refused = |fault: String| ResultError::Mask { instance: slice.sop_instance.clone(), fault };
        let pixels = rows as usize * columns as usize;
        if pixels == 0 || hu.len() != pixels {
            return Err(refused(format!("{} pixels of {rows} rows x {columns} columns", hu.len())));
        }
        if let Some(fault) = mask.fault(rows, columns, u16::MAX) {
            return Err(refused(fault));
        }
        let mut painted = vec![0; pixels * 2];
        mask.paint_labels(columns as usize, 2, &mut painted);
        let mask = painted.chunks_exact(2).map(|label| u8::from(label != [0, 0])).collect();
        let (probabilities, threshold) = (input.probabilities, input.slice_threshold);
        let here = probabilities.get(at).copied().unwrap_or_default();
        let mut words = vec![
            format!(
                "{} of {} | probability of hemorrhage {here:.2} | {}",
                at + 1,
                input.slices.len(),
                input.provenance.model
            ),
            "Result of an algorithm, not a diagnosis. The mask shows where, not how far.".to_owned(),
        ];
        words.extend(input.provenance.notice());
        Ok(Self { at, rows, columns, hu, mask, probabilities, threshold, look: input.look, words })
    }

    pub(super) fn paint(&self) -> Picture {
        let scale = LEAST_SIDE.div_ceil(self.columns.max(self.rows)).max(1);
        let (width, height) = (self.columns * scale, self.rows * scale);
        let columns = width + STRIP;
        let lines: Vec<String> =
            self.words.iter().flat_map(|words| wrapped(words, (columns / CHARACTER) as usize - 2)).collect();
        let rows = height + LINE * lines.len() as u32 + LINE / 2;
        let mut canvas = Canvas { rows, columns, rgb: vec![0; rows as usize * columns as usize * 3] };
        self.paint_slice(scale, &mut canvas);
        self.paint_strip(width, height, &mut canvas);
        let style = MonoTextStyle::new(&FONT_6X10, WORDS);
        for (number, line) in (0u32..).zip(&lines) {
            let place = Point::new(CHARACTER as i32, (height + LINE / 2 + LINE * number) as i32);
            let Ok(_) = Text::with_baseline(line, place, style, Baseline::Top).draw(&mut canvas);
        }
        Picture { rows, columns, scale, rgb: canvas.rgb }
    }

    fn paint_slice(&self, scale: u32, canvas: &mut Canvas) {
        let (rows, columns) = (self.rows as usize, self.columns as usize);
        let (scale, stride) = (scale as usize, canvas.columns as usize);
        for row in 0..rows {
            for column in 0..columns {
                let color = self.color(row, column);
                for y in row * scale..(row + 1) * scale {
                    let start = (y * stride + column * scale) * 3;
                    for pixel in canvas.rgb[start..start + scale * 3].chunks_exact_mut(3) {
                        pixel.copy_from_slice(&color);
                    }
                }
            }
        }
    }

    /// The colour of a pixel of the slice: grey, tinted in the mask, all red where the mask ends.
    fn color(&self, row: usize, column: usize) -> [u8; 3] {
        let (rows, columns) = (self.rows as usize, self.columns as usize);
        let at = row * columns + column;
        let CaptureLook { window_center, window_width, opacity_percent } = self.look;
        // The window of PS3.3 C.11.2.1.2.1.
        let (center, width) = (f64::from(window_center), f64::from(window_width.max(2)));
        let grey = ((f64::from(self.hu[at]) - (center - 0.5)) / (width - 1.0) + 0.5).clamp(0.0, 1.0) * 255.0;
        if self.mask[at] == 0 {
            return [grey.round() as u8; 3];
        }
        let inside =
            |row: usize, column: usize| row < rows && column < columns && self.mask[row * columns + column] != 0;
        let is_inner = row > 0
            && column > 0
            && inside(row - 1, column)
            && inside(row, column - 1)
            && inside(row + 1, column)
            && inside(row, column + 1);
        let share = if is_inner { f64::from(opacity_percent.min(100)) / 100.0 } else { 1.0 };
        let mixed = |color: u8| (grey * (1.0 - share) + f64::from(color) * share).round() as u8;
        [mixed(RED.r()), mixed(RED.g()), mixed(RED.b())]
    }

    /// One bar a slice, from the top down in the order of the stack; this slice is marked, and the threshold drawn.
    fn paint_strip(&self, left: u32, height: u32, canvas: &mut Canvas) {
        let count = self.probabilities.len().max(1) as u64;
        let band = |slice: usize| {
            let edge = |number: u64| (u64::from(height) * number / count) as u32;
            (edge(slice as u64), edge(slice as u64 + 1).max(edge(slice as u64) + 1))
        };
        let start = left + MARGIN;
        let along = |probability: f32| (f64::from(probability.clamp(0.0, 1.0)) * f64::from(BAR)).round() as u32;
        for (slice, probability) in self.probabilities.iter().enumerate() {
            let (top, bottom) = band(slice);
            // A gap between bars where there is room for it.
            let thick = if bottom - top > 2 { bottom - top - 1 } else { bottom - top };
            let color = if *probability >= self.threshold { RED } else { GREY };
            canvas.fill(start, top, along(*probability).max(1), thick, color);
        }
        canvas.fill(start + along(self.threshold), 0, 1, height, FAINT);
        let (top, bottom) = band(self.at);
        canvas.fill(left + 2, top, 4, bottom - top, Rgb888::WHITE);
    }
}

/// A line of words in lines of at most `most` characters, broken between words where that is possible.
fn wrapped(words: &str, most: usize) -> Vec<String> {
    let most = most.max(1);
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(most) {
            let used = lines.last().map_or(0, |line| line.chars().count());
            if used > 0 && used + 1 + piece.len() > most {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.extend(piece);
            }
        }
    }
    lines
}

/// Where words and bars are drawn.
struct Canvas {
    rows: u32,
    columns: u32,
    rgb: Vec<u8>,
}

impl Canvas {
    fn fill(&mut self, left: u32, top: u32, width: u32, height: u32, color: Rgb888) {
        let rectangle = Rectangle::new(Point::new(left as i32, top as i32), Size::new(width, height));
        let Ok(()) = rectangle.into_styled(PrimitiveStyle::with_fill(color)).draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.columns, self.rows)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { continue };
            if x < self.columns && y < self.rows {
                let start = (y as usize * self.columns as usize + x as usize) * 3;
                self.rgb[start..start + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbr", "eaka", "ble"]);
        assert_eq!(wrapped("", 4), [""]);
        assert!(wrapped("Für Forschung, nicht für Diagnosen", 12).iter().all(|line| line.chars().count() <= 12));
    }
}
