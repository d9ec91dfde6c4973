//! Words in pictures.

use std::convert::Infallible;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_1::{FONT_6X10, FONT_9X15};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};

use crate::color::Color;
use crate::image::Image;

/// A typeface of fixed width; it has the letters of Western Europe (ISO 8859-1), others become `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Font {
    /// 6 pixels wide, 10 high.
    Small,
    /// 9 pixels wide, 15 high.
    Large,
}

impl Font {
    fn face(self) -> &'static MonoFont<'static> {
        match self {
            Self::Small => &FONT_6X10,
            Self::Large => &FONT_9X15,
        }
    }

    /// Width of a letter, pixels.
    #[must_use]
    pub fn width(self) -> usize {
        self.face().character_size.width as usize
    }

    /// Height of a line, pixels.
    #[must_use]
    pub fn height(self) -> usize {
        self.face().character_size.height as usize
    }
}

impl Image {
    /// Writes one line of text, its upper left corner at (left, top); what does not fit is cut off.
    pub fn write(&mut self, text: &str, left: usize, top: usize, font: Font, [r, g, b]: Color) {
        let (Ok(x), Ok(y)) = (i32::try_from(left), i32::try_from(top)) else { return };
        let style = MonoTextStyle::new(font.face(), Rgb888::new(r, g, b));
        let Ok(_) = Text::with_baseline(text, Point::new(x, y), style, Baseline::Top).draw(self);
    }
}

impl OriginDimensions for Image {
    fn size(&self) -> Size {
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        Size::new(side(self.width), side(self.height))
    }
}

impl DrawTarget for Image {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            if let (Ok(column), Ok(row)) = (usize::try_from(x), usize::try_from(y)) {
                self.set(row, column, [color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

/// A line of words in lines of at most `most` letters, broken between words where that is possible.
#[must_use]
pub fn wrapped(words: &str, most: usize) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_leave_pixels_and_stay_inside() {
        let mut image = Image::new(40, 12, [0; 3]);
        image.write("Für mehr als diese Breite", 2, 1, Font::Small, [255; 3]);
        let lit = image.rgb.iter().filter(|value| **value == 255).count();
        assert!(lit > 100, "{lit}");
        let before = image.clone();
        image.write("unseen", 0, 4000, Font::Large, [255; 3]);
        assert_eq!(image, before);
    }

    #[test]
    fn words_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbr", "eaka", "ble"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
