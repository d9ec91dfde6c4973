//! Where an image lies in the patient.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The Image Plane of one slice (PS3.3 C.7.6.2), all lengths in millimetres in the patient coordinate system
/// (x to the left, y to the back, z to the head).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImagePlane {
    /// Image Position (Patient): centre of the first pixel.
    pub position: [f64; 3],
    /// First three values of Image Orientation (Patient): unit vector along a row, in increasing column index.
    pub row: [f64; 3],
    /// Last three values: unit vector along a column, in increasing row index.
    pub column: [f64; 3],
    /// Pixel Spacing: \[between rows, between columns\].
    pub spacing: [f64; 2],
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
}

/// Why numbers do not make an [`ImagePlane`].
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidPlane {
    /// Not a number, or infinite.
    #[error("{0} holds a value that is not finite")]
    NotFinite(&'static str),
    /// Zero or negative spacing.
    #[error("pixel spacing {0:?} is not positive")]
    Spacing([f64; 2]),
    /// Direction cosines that are not two orthogonal unit vectors.
    #[error("image orientation {row:?} {column:?} is singular: {why}")]
    Orientation {
        /// Row direction as read.
        row: [f64; 3],
        /// Column direction as read.
        column: [f64; 3],
        /// What is wrong with them.
        why: &'static str,
    },
    /// No rows or no columns.
    #[error("image of {rows} rows and {columns} columns")]
    Empty {
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
    },
}

/// Scalar product.
fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

impl ImagePlane {
    /// How far direction cosines may be from unit length, and from orthogonal, before they are refused.
    pub const TOLERANCE: f64 = 1e-2;

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`InvalidPlane`] says which attribute is wrong and how.
    pub fn checked(self) -> Result<Self, InvalidPlane> {
        let finite = |v: &[f64]| v.iter().all(|x| x.is_finite());
        if self.rows == 0 || self.columns == 0 {
            return Err(InvalidPlane::Empty { rows: self.rows, columns: self.columns });
        }
        if !finite(&self.position) {
            return Err(InvalidPlane::NotFinite("image position"));
        }
        if !finite(&self.row) || !finite(&self.column) {
            return Err(InvalidPlane::NotFinite("image orientation"));
        }
        if !finite(&self.spacing) {
            return Err(InvalidPlane::NotFinite("pixel spacing"));
        }
        if self.spacing.iter().any(|s| *s <= 0.0) {
            return Err(InvalidPlane::Spacing(self.spacing));
        }
        let singular = |why| InvalidPlane::Orientation { row: self.row, column: self.column, why };
        for direction in [self.row, self.column] {
            if (dot(direction, direction).sqrt() - 1.0).abs() > Self::TOLERANCE {
                return Err(singular("a direction is not of unit length"));
            }
        }
        if dot(self.row, self.column).abs() > Self::TOLERANCE {
            return Err(singular("the directions are not orthogonal"));
        }
        Ok(self)
    }

    /// Unit normal of the plane: row × column. For an axial head-first supine image it points to the head.
    #[must_use]
    pub fn normal(&self) -> [f64; 3] {
        let (r, c) = (self.row, self.column);
        let n = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
        let length = dot(n, n).sqrt();
        n.map(|x| x / length)
    }

    /// Where the plane lies along its normal: distance from the origin of the patient coordinate system, in mm.
    #[must_use]
    pub fn height(&self) -> f64 {
        dot(self.normal(), self.position)
    }

    /// Centre of the pixel at a (possibly fractional) row and column, in mm.
    #[must_use]
    pub fn point(&self, row: f64, column: f64) -> [f64; 3] {
        std::array::from_fn(|i| {
            self.position[i] + self.row[i] * self.spacing[1] * column + self.column[i] * self.spacing[0] * row
        })
    }

    /// The row and column, fractional, at which a point in mm projects onto the plane, and its signed distance from
    /// the plane along the normal.
    #[must_use]
    pub fn project(&self, point: [f64; 3]) -> (f64, f64, f64) {
        let d: [f64; 3] = std::array::from_fn(|i| point[i] - self.position[i]);
        (dot(d, self.column) / self.spacing[0], dot(d, self.row) / self.spacing[1], dot(d, self.normal()))
    }

    /// Signed distance from `other`'s first pixel to this plane's first pixel along this plane's normal, in mm.
    /// With gantry tilt this, not the difference of table positions, is the distance between slices.
    #[must_use]
    pub fn distance_from(&self, other: &Self) -> f64 {
        let d: [f64; 3] = std::array::from_fn(|i| self.position[i] - other.position[i]);
        dot(d, self.normal())
    }

    /// Area of one pixel in mm².
    #[must_use]
    pub fn pixel_area(&self) -> f64 {
        self.spacing[0] * self.spacing[1]
    }

    /// Whether both planes have the same orientation within `tolerance` (1 − cosine of row and of column direction).
    #[must_use]
    pub fn is_parallel_to(&self, other: &Self, tolerance: f64) -> bool {
        1.0 - dot(self.row, other.row) <= tolerance && 1.0 - dot(self.column, other.column) <= tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axial() -> ImagePlane {
        ImagePlane {
            position: [-100.0, -120.0, 40.0],
            row: [1.0, 0.0, 0.0],
            column: [0.0, 1.0, 0.0],
            spacing: [0.5, 0.4],
            rows: 512,
            columns: 512,
        }
    }

    #[test]
    fn points_and_projection_are_inverse() {
        let (sin, cos) = 18.5f64.to_radians().sin_cos();
        let tilted = ImagePlane { column: [0.0, cos, -sin], ..axial() };
        let (row, column, off) = tilted.project(tilted.point(12.25, 400.5));
        assert!((row - 12.25).abs() < 1e-9 && (column - 400.5).abs() < 1e-9 && off.abs() < 1e-9);
    }

    #[test]
    fn bad_numbers_are_refused() {
        let bad = [
            ImagePlane { row: [0.0; 3], ..axial() },
            ImagePlane { row: [0.0, 1.0, 0.0], ..axial() },
            ImagePlane { spacing: [0.0, 0.4], ..axial() },
            ImagePlane { spacing: [0.5, -0.4], ..axial() },
            ImagePlane { position: [f64::NAN, 0.0, 0.0], ..axial() },
            ImagePlane { rows: 0, ..axial() },
        ];
        for plane in bad {
            assert!(plane.checked().is_err(), "{plane:?}");
        }
        assert!(axial().checked().is_ok());
    }
}
