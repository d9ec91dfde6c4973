//! A mask's outline, drawn around it: the mask's own pixels stay to be seen.

use crate::color::Color;
use crate::image::{Image, PictureError, check_size};

/// An outline to draw on the picture of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Contour<'a> {
    /// The mask, of the slice's rows and columns, non-zero inside.
    pub mask: &'a [u8],
    /// Its colour.
    pub color: Color,
    /// Its thickness, in pixels of the picture.
    pub thickness: usize,
}

impl Image {
    /// Draws a contour around a mask: every pixel of the picture outside of the mask that lies within the thickness of it.
    /// Where the mask reaches the picture's border, there is no outside, and the border's own pixels are drawn: what is
    /// inside is always cut off from what is outside.
    ///
    /// # Errors
    /// [`PictureError::Size`] if the mask is not of the slice's size.
    pub fn contour(&mut self, contour: &Contour<'_>) -> Result<(), PictureError> {
        let (rows, columns) = (self.height / self.scale, self.width / self.scale);
        let Contour { mask, color, thickness } = *contour;
        check_size("mask", mask.len(), rows, columns)?;
        let (scale, reach) = (self.scale, thickness.max(1));
        let is_inside = |y: usize, x: usize| mask[y / scale * columns + x / scale] != 0;
        let is_edge = |row: usize, column: usize| {
            let near = |at: usize, most: usize| at.saturating_sub(1)..=(at + 1).min(most - 1);
            near(row, rows).any(|r| near(column, columns).any(|c| mask[r * columns + c] == 0))
        };
        for at in (0..mask.len()).filter(|at| mask[*at] != 0) {
            let (row, column) = (at / columns, at % columns);
            let (top, left) = (row * scale, column * scale);
            if is_edge(row, column) {
                for y in top.saturating_sub(reach)..(top + scale + reach).min(self.height) {
                    for x in left.saturating_sub(reach)..(left + scale + reach).min(self.width) {
                        if !is_inside(y, x) {
                            self.set(y, x, color);
                        }
                    }
                }
            }
            self.border(row, column, (rows, columns), color);
        }
        Ok(())
    }

    /// Draws the sides of a pixel of the slice that lie on the picture's border.
    fn border(&mut self, row: usize, column: usize, (rows, columns): (usize, usize), color: Color) {
        let (scale, top, left) = (self.scale, row * self.scale, column * self.scale);
        if row == 0 {
            self.fill(left, 0, scale, 1, color);
        }
        if row + 1 == rows {
            self.fill(left, top + scale - 1, scale, 1, color);
        }
        if column == 0 {
            self.fill(0, top, 1, scale, color);
        }
        if column + 1 == columns {
            self.fill(left + scale - 1, top, 1, scale, color);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RED: Color = [255, 0, 0];

    fn drawn(mask: &[u8], rows: usize, columns: usize, scale: usize, thickness: usize) -> Image {
        let mut image = Image::mask(mask, rows, columns, scale).unwrap();
        image.contour(&Contour { mask, color: RED, thickness }).unwrap();
        image
    }

    #[test]
    fn a_pixel_has_a_ring() {
        let mut mask = [0u8; 25];
        mask[12] = 1;
        let image = drawn(&mask, 5, 5, 1, 1);
        let ring = (0..25).filter(|at| image.pixel(at / 5, at % 5) == Some(RED)).count();
        assert_eq!(ring, 8);
        assert_eq!(image.pixel(2, 2), Some([255; 3]), "the mask itself stays");
        assert!(Image::new(4, 4, [0; 3]).contour(&Contour { mask: &mask, color: RED, thickness: 1 }).is_err());
        let none = drawn(&[0; 25], 5, 5, 3, 2);
        assert!(none.rgb.iter().all(|value| *value == 0));
    }

    proptest! {
        /// Who starts outside and never steps on the contour does not come into the mask, in eight directions.
        #[test]
        fn the_contour_encloses_the_mask(
            columns in 1usize..10,
            mask in prop::collection::vec(prop::bool::weighted(0.4), 1..90),
            scale in 1usize..4,
            thickness in 1usize..4,
        ) {
            let rows = mask.len() / columns;
            prop_assume!(rows > 0);
            let mask: Vec<u8> = mask[..rows * columns].iter().map(|inside| u8::from(*inside)).collect();
            let image = drawn(&mask, rows, columns, scale, thickness);
            let is_inside = |y: usize, x: usize| mask[y / scale * columns + x / scale] != 0;
            let is_free = |y: usize, x: usize| image.pixel(y, x) != Some(RED);
            let mut seen = vec![false; image.width() * image.height()];
            let mut stack: Vec<(usize, usize)> = (0..image.height())
                .flat_map(|y| (0..image.width()).map(move |x| (y, x)))
                .filter(|&(y, x)| !is_inside(y, x) && is_free(y, x))
                .collect();
            while let Some((y, x)) = stack.pop() {
                if std::mem::replace(&mut seen[y * image.width() + x], true) {
                    continue;
                }
                prop_assert!(!is_inside(y, x), "came into the mask at {} {}", y, x);
                for near_y in y.saturating_sub(1)..(y + 2).min(image.height()) {
                    for near_x in x.saturating_sub(1)..(x + 2).min(image.width()) {
                        if is_free(near_y, near_x) {
                            stack.push((near_y, near_x));
                        }
                    }
                }
            }
            // It touches nothing but the mask's neighbourhood, and of the mask only the picture's border.
            for y in 0..image.height() {
                for x in 0..image.width() {
                    let on_border = y == 0 || x == 0 || y + 1 == image.height() || x + 1 == image.width();
                    prop_assert!(is_free(y, x) || !is_inside(y, x) || on_border);
                }
            }
        }
    }
}
