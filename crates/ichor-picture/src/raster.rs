//! Pictures as others ask for them: any part, any size, grey or coloured.

use crate::PictureError;

/// Grey or RGB samples of eight bits, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raster {
    width: u32,
    height: u32,
    /// Samples a pixel: 1 or 3.
    depth: usize,
    samples: Vec<u8>,
}

impl Raster {
    /// Greys.
    ///
    /// # Errors
    /// [`PictureError`] if there are not as many as pixels.
    pub fn grey(width: u32, height: u32, samples: Vec<u8>) -> Result<Self, PictureError> {
        Self::of(width, height, 1, samples)
    }

    /// Colours, red, green and blue of each pixel.
    ///
    /// # Errors
    /// [`PictureError`] if there are not three times as many as pixels.
    pub fn rgb(width: u32, height: u32, samples: Vec<u8>) -> Result<Self, PictureError> {
        Self::of(width, height, 3, samples)
    }

    fn of(width: u32, height: u32, depth: usize, mut samples: Vec<u8>) -> Result<Self, PictureError> {
        let wanted = width as usize * height as usize * depth;
        // A value of odd length has a byte behind it.
        samples.truncate(wanted);
        crate::image::check_size("picture", samples.len(), height as usize, width as usize * depth)?;
        Ok(Self { width, height, depth, samples })
    }

    /// Width in pixels.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Whether it has colours.
    #[must_use]
    pub const fn is_rgb(&self) -> bool {
        self.depth == 3
    }

    /// Its samples.
    #[must_use]
    pub fn samples(&self) -> &[u8] {
        &self.samples
    }

    /// A part of it; what lies outside is left out.
    ///
    /// # Errors
    /// [`PictureError`] if nothing is left.
    pub fn part(&self, left: u32, top: u32, width: u32, height: u32) -> Result<Self, PictureError> {
        let (left, top) = (left.min(self.width), top.min(self.height));
        let (width, height) = (width.min(self.width - left), height.min(self.height - top));
        crate::image::check_size("part", usize::from(width > 0 && height > 0), 1, 1)?;
        let samples = (top..top + height).flat_map(|row| {
            let start = (row as usize * self.width as usize + left as usize) * self.depth;
            &self.samples[start..start + width as usize * self.depth]
        });
        Self::of(width, height, self.depth, samples.copied().collect())
    }

    /// As large as fits into so many pixels, its sides in the same proportion; each new pixel is the mean of what it covers.
    #[must_use]
    pub fn fitted(&self, width: u32, height: u32) -> Self {
        let scale = (f64::from(width) / f64::from(self.width)).min(f64::from(height) / f64::from(self.height));
        let side = |side: u32, most: u32| ((f64::from(side) * scale).round() as u32).clamp(1, most.max(1));
        let (new_width, new_height) = (side(self.width, width), side(self.height, height));
        let (columns, rows) = (cover(self.width, new_width), cover(self.height, new_height));
        let mut samples = Vec::with_capacity(new_width as usize * new_height as usize * self.depth);
        for row in &rows {
            for column in &columns {
                for sample in 0..self.depth {
                    let (mut sum, mut whole) = (0.0, 0.0);
                    for (y, share_y) in row {
                        for (x, share_x) in column {
                            let at = (y * self.width as usize + x) * self.depth + sample;
                            sum += f64::from(self.samples[at]) * share_x * share_y;
                            whole += share_x * share_y;
                        }
                    }
                    samples.push((sum / whole).round().clamp(0.0, 255.0) as u8);
                }
            }
        }
        Self { width: new_width, height: new_height, depth: self.depth, samples }
    }

    /// Reads a PNG of one grey sample of eight bits a pixel, as [`Self::png`] writes it.
    ///
    /// # Errors
    /// [`PictureError::Unreadable`] if it is anything else.
    pub fn read_grey(bytes: &[u8]) -> Result<Self, PictureError> {
        let unreadable = |error: png::DecodingError| PictureError::Unreadable(error.to_string());
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().map_err(unreadable)?;
        let form = reader.output_color_type();
        if form != (png::ColorType::Grayscale, png::BitDepth::Eight) {
            return Err(PictureError::Unreadable(format!("its samples are {form:?}")));
        }
        let size = reader.output_buffer_size().ok_or_else(|| PictureError::Unreadable("it is too large".to_owned()))?;
        let mut samples = vec![0; size];
        reader.next_frame(&mut samples).map_err(unreadable)?;
        let (width, height) = reader.info().size();
        Self::grey(width, height, samples)
    }

    /// The picture as PNG.
    ///
    /// # Errors
    /// [`PictureError`] if it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(if self.is_rgb() { png::ColorType::Rgb } else { png::ColorType::Grayscale });
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.samples)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// Which old pixels each new one covers, and how much of each.
fn cover(old: u32, new: u32) -> Vec<Vec<(usize, f64)>> {
    let scale = f64::from(old) / f64::from(new);
    let of = |index: u32| {
        let (start, end) = (f64::from(index) * scale, f64::from(index + 1) * scale);
        let last = (end.ceil() as usize).min(old as usize).max(start as usize + 1);
        let share = |at: usize| (end.min(at as f64 + 1.0) - start.max(at as f64)).max(1e-9);
        (start as usize..last).map(|at| (at.min(old as usize - 1), share(at))).collect()
    };
    (0..new).map(of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_and_sizes() {
        let raster = Raster::grey(4, 2, vec![0, 0, 100, 100, 0, 0, 100, 200]).unwrap();
        assert_eq!(raster.fitted(2, 2).samples(), [0, 125]);
        let large = raster.fitted(8, 8);
        assert_eq!((large.width(), large.height(), large.samples()[0], large.samples()[31]), (8, 4, 0, 200));
        assert_eq!(raster.part(2, 1, 9, 9).unwrap().samples(), [100, 200]);
        assert!(raster.part(4, 0, 1, 1).is_err());
        assert!(Raster::rgb(2, 1, vec![0; 5]).is_err());
        let rgb = Raster::rgb(2, 1, vec![10, 20, 30, 30, 40, 50]).unwrap();
        assert_eq!(rgb.fitted(1, 1).samples(), [20, 30, 40]);
    }

    #[test]
    fn a_png_holds_its_samples() {
        let raster = Raster::grey(3, 1, vec![1, 2, 3]).unwrap();
        let png = raster.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut read = vec![0; 3];
        reader.next_frame(&mut read).unwrap();
        assert_eq!(read, [1, 2, 3]);
        let png = raster.png().unwrap();
        assert_eq!(Raster::read_grey(&png).unwrap(), raster);
        let colours = Raster::rgb(1, 1, vec![1, 2, 3]).unwrap().png().unwrap();
        for bad in [&b""[..], b"no picture", &png[..png.len() / 2], &colours] {
            assert!(matches!(Raster::read_grey(bad), Err(PictureError::Unreadable(_))));
        }
    }

    proptest! {
        #[test]
        fn any_size_is_made(width in 1u32..40, height in 1u32..40, to_width in 1u32..60, to_height in 1u32..60, value: u8) {
            let raster = Raster::grey(width, height, vec![value; (width * height) as usize]).unwrap();
            let fitted = raster.fitted(to_width, to_height);
            prop_assert!(fitted.width() <= to_width && fitted.height() <= to_height);
            prop_assert!(fitted.samples().iter().all(|sample| *sample == value));
        }
    }
}
