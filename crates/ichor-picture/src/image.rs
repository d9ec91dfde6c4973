//! A picture in the making.

use thiserror::Error;

use crate::color::{Color, blended, heat_color, map_color};

/// No picture can be made.
#[derive(Debug, Error)]
pub enum PictureError {
    /// An array is not of the size that was announced.
    #[error("{what} holds {got} values, {rows} rows x {columns} columns were announced")]
    Size {
        /// Slice, map or mask.
        what: &'static str,
        /// Its values.
        got: usize,
        /// Rows announced.
        rows: usize,
        /// Columns announced.
        columns: usize,
    },
    /// The picture is larger than a PNG can be.
    #[error("a picture of {width} x {height} pixels is too large")]
    TooLarge {
        /// Its width.
        width: usize,
        /// Its height.
        height: usize,
    },
    /// What is to be read is no PNG of one grey sample of eight bits a pixel.
    #[error("no PNG of eight bits of grey: {0}")]
    Unreadable(String),
    /// The PNG cannot be written.
    #[error("PNG: {0}")]
    Png(#[from] png::EncodingError),
}

/// Which HU are shown, as PS3.3 C.11.2.1.2.1 has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Its centre, HU.
    pub center: f64,
    /// Its width, HU.
    pub width: f64,
}

impl Window {
    /// Brain: centre 40, width 80.
    pub const BRAIN: Self = Self { center: 40.0, width: 80.0 };

    /// The grey of a value.
    #[must_use]
    pub fn grey(self, hu: i16) -> u8 {
        let width = (self.width - 1.0).max(1.0);
        let share = (f64::from(hu) - (self.center - 0.5)) / width + 0.5;
        (share.clamp(0.0, 1.0) * 255.0).round() as u8
    }
}

/// An RGB picture. One that was made of a slice knows how many of its pixels a pixel of the slice is wide and high.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) scale: usize,
    pub(crate) rgb: Vec<u8>,
}

impl Image {
    /// One colour all over.
    #[must_use]
    pub fn new(width: usize, height: usize, color: Color) -> Self {
        Self { width, height, scale: 1, rgb: color.repeat(width * height) }
    }

    /// A slice in a window, each pixel `scale × scale`. `hu`: `rows × columns` values, row by row.
    ///
    /// # Errors
    /// [`PictureError::Size`].
    pub fn slice(hu: &[i16], rows: usize, columns: usize, window: Window, scale: usize) -> Result<Self, PictureError> {
        check_size("slice", hu.len(), rows, columns)?;
        Ok(Self::of(rows, columns, scale, |at| [window.grey(hu[at]); 3]))
    }

    /// A map of values from 0 to 1 in the colours of [`map_color`].
    ///
    /// # Errors
    /// [`PictureError::Size`].
    pub fn map(map: &[f32], rows: usize, columns: usize, scale: usize) -> Result<Self, PictureError> {
        check_size("map", map.len(), rows, columns)?;
        Ok(Self::of(rows, columns, scale, |at| map_color(map[at])))
    }

    /// A mask: white where it is not 0, else black.
    ///
    /// # Errors
    /// [`PictureError::Size`].
    pub fn mask(mask: &[u8], rows: usize, columns: usize, scale: usize) -> Result<Self, PictureError> {
        check_size("mask", mask.len(), rows, columns)?;
        Ok(Self::of(rows, columns, scale, |at| if mask[at] == 0 { [0; 3] } else { [255; 3] }))
    }

    fn of(rows: usize, columns: usize, scale: usize, color: impl Fn(usize) -> Color) -> Self {
        let scale = scale.max(1);
        let mut rgb = Vec::with_capacity(rows * columns * scale * scale * 3);
        for row in 0..rows {
            let start = rgb.len();
            (0..columns).for_each(|column| rgb.extend(color(row * columns + column).repeat(scale)));
            let line = rgb[start..].to_vec();
            (1..scale).for_each(|_| rgb.extend_from_slice(&line));
        }
        Self { width: columns * scale, height: rows * scale, scale, rgb }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The colour of a pixel, if there is one.
    #[must_use]
    pub fn pixel(&self, row: usize, column: usize) -> Option<Color> {
        let at = (row * self.width + column) * 3;
        let inside = row < self.height && column < self.width;
        inside.then(|| [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]])
    }

    pub(crate) fn set(&mut self, row: usize, column: usize, color: Color) {
        if row < self.height && column < self.width {
            let at = (row * self.width + column) * 3;
            self.rgb[at..at + 3].copy_from_slice(&color);
        }
    }

    /// Lays a map over the picture of a slice, in the colours of [`heat_color`]. `map`: one value a pixel of the slice, 255 is 1.
    ///
    /// # Errors
    /// [`PictureError::Size`] if the map is not of the slice's size.
    pub fn heat(&mut self, map: &[u8]) -> Result<(), PictureError> {
        let (rows, columns, scale) = (self.height / self.scale, self.width / self.scale, self.scale);
        check_size("map", map.len(), rows, columns)?;
        for (at, pixel) in self.rgb.chunks_exact_mut(3).enumerate() {
            let (row, column) = (at / self.width / scale, at % self.width / scale);
            let (color, share) = heat_color(map[row * columns + column]);
            let under = [pixel[0], pixel[1], pixel[2]];
            pixel.copy_from_slice(&blended(under, color, share));
        }
        Ok(())
    }

    /// Fills a rectangle; what lies outside of the picture is left out.
    pub fn fill(&mut self, left: usize, top: usize, width: usize, height: usize, color: Color) {
        for row in top..(top + height).min(self.height) {
            (left..(left + width).min(self.width)).for_each(|column| self.set(row, column, color));
        }
    }

    /// Puts another picture into this one; what does not fit is left out.
    pub fn paste(&mut self, other: &Self, left: usize, top: usize) {
        let width = other.width.min(self.width.saturating_sub(left));
        for row in 0..other.height.min(self.height.saturating_sub(top)) {
            let (from, to) = (row * other.width * 3, ((top + row) * self.width + left) * 3);
            self.rgb[to..to + width * 3].copy_from_slice(&other.rgb[from..from + width * 3]);
        }
    }

    /// The part between rows and columns: \[top, bottom, left, right\], bottom and right exclusive, brought to within the
    /// picture.
    #[must_use]
    pub fn cropped(&self, [top, bottom, left, right]: [usize; 4]) -> Self {
        let (bottom, right) = (bottom.min(self.height), right.min(self.width));
        let (top, left) = (top.min(bottom), left.min(right));
        let rows = (top..bottom).flat_map(|row| {
            let start = row * self.width * 3;
            self.rgb[start + left * 3..start + right * 3].iter().copied()
        });
        Self { width: right - left, height: bottom - top, scale: self.scale, rgb: rows.collect() }
    }

    /// The picture as PNG, with keyword and text of each text chunk (`iTXt`, UTF-8).
    ///
    /// # Errors
    /// [`PictureError::TooLarge`] or [`PictureError::Png`].
    pub fn png(&self, texts: &[(&str, &str)]) -> Result<Vec<u8>, PictureError> {
        let too_large = |_| PictureError::TooLarge { width: self.width, height: self.height };
        let (width, height) =
            (u32::try_from(self.width).map_err(too_large)?, u32::try_from(self.height).map_err(too_large)?);
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (keyword, text) in texts {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

pub(crate) fn check_size(what: &'static str, got: usize, rows: usize, columns: usize) -> Result<(), PictureError> {
    let fits = rows.checked_mul(columns) == Some(got);
    if fits { Ok(()) } else { Err(PictureError::Size { what, got, rows, columns }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_scale_and_crop() {
        let image = Image::slice(&[-100, 0, 40, 80, 200, 39], 2, 3, Window::BRAIN, 2).unwrap();
        assert_eq!((image.width(), image.height()), (6, 4));
        assert_eq!(image.pixel(0, 1), Some([0; 3]));
        assert_eq!(image.pixel(3, 1), Some([255; 3]));
        let [grey, ..] = image.pixel(1, 5).unwrap();
        assert!((126..=131).contains(&grey), "{grey}");
        assert_eq!(image.pixel(4, 0), None);
        let part = image.cropped([2, 99, 4, 6]);
        assert_eq!((part.width(), part.height(), part.pixel(0, 0)), (2, 2, image.pixel(2, 4)));
    }

    #[test]
    fn heat_lies_where_the_map_is() {
        let hu = [-100, 40, 80, 200, 0, 40];
        let mut image = Image::slice(&hu, 2, 3, Window::BRAIN, 2).unwrap();
        let plain = image.clone();
        image.heat(&[0, 255, 0, 128, 0, 0]).unwrap();
        for (row, column) in (0..4).flat_map(|row| (0..6).map(move |column| (row, column))) {
            let is_hot = matches!((row / 2, column / 2), (0, 1) | (1, 0));
            assert_eq!(image.pixel(row, column) != plain.pixel(row, column), is_hot, "{row} {column}");
        }
        // 70 % of [249, 164, 26] and 30 % of the grey below.
        let grey = f32::from(plain.pixel(1, 2).unwrap()[0]) * 0.3;
        let seen = [249.0, 164.0, 26.0].map(|over: f32| (grey + over * 0.7).round() as u8);
        assert_eq!(image.pixel(1, 2), Some(seen));
        assert!(image.heat(&[0; 5]).is_err());
    }

    #[test]
    fn wrong_sizes_are_named() {
        let error = Image::mask(&[0; 5], 2, 3, 1).unwrap_err().to_string();
        assert_eq!(error, "mask holds 5 values, 2 rows x 3 columns were announced");
        assert!(Image::map(&[0.0; 6], usize::MAX, 6, 1).is_err());
    }

    #[test]
    fn png_keeps_pixels_and_words() {
        let mut image = Image::new(5, 3, [1, 2, 3]);
        image.fill(3, 1, 9, 9, [200, 0, 0]);
        let bytes = image.png(&[("Comment", "für Menschen <nicht klinisch>")]).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        assert_eq!(rgb, image.rgb);
        let text = &reader.info().utf8_text[0];
        assert_eq!(
            (text.keyword.as_str(), text.get_text().unwrap().as_str()),
            ("Comment", "für Menschen <nicht klinisch>")
        );
    }
}
