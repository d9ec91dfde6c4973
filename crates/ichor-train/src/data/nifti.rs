//! NIfTI volumes slice by slice, turned to lie as DICOM does.
//!
//! As published, arrays run along the patient's right–left axis first, rows from the back of the head upwards: the image that
//! DICOM has is the array turned by 90° counter-clockwise (`numpy.rot90`).

use std::path::Path;

use nifti::volume::{InMemNiftiVolume, StreamedNiftiVolume};
use nifti::{Endianness, NiftiHeader, NiftiObject, NiftiType, NiftiVolume, ReaderStreamedOptions};

/// Largest side of a slice.
const LARGEST_SIDE: u16 = 2048;
/// Most slices of a volume.
const MOST_SLICES: u16 = 4096;

/// Extent of a volume as it lies after the turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Rows of a slice.
    pub rows: usize,
    /// Columns of a slice.
    pub columns: usize,
    /// Slices.
    pub slices: usize,
    /// Between rows, between columns, between slices, mm.
    pub spacing: [f64; 3],
}

impl Extent {
    /// Whether two volumes have the same voxels.
    #[must_use]
    pub fn has_shape_of(&self, other: &Self) -> bool {
        (self.rows, self.columns, self.slices) == (other.rows, other.columns, other.slices)
    }
}

/// Reads a header.
///
/// # Errors
/// Why the file is no volume of CT slices.
pub fn extent(path: &Path) -> Result<Extent, String> {
    of(&NiftiHeader::from_file(path).map_err(|error| error.to_string())?)
}

fn of(header: &NiftiHeader) -> Result<Extent, String> {
    let dim = header.dim().map_err(|error| error.to_string())?;
    let [columns, rows, slices] = match *dim {
        [x, y, z] | [x, y, z, 1] | [x, y, z, 1, 1] => [x, y, z],
        _ => return Err(format!("has dimensions {dim:?}, three are needed")),
    };
    if [columns, rows].iter().any(|side| !(1..=LARGEST_SIDE).contains(side)) || !(1..=MOST_SLICES).contains(&slices) {
        return Err(format!(
            "is {columns} × {rows} × {slices}, at most {LARGEST_SIDE} × {LARGEST_SIDE} × {MOST_SLICES} is read"
        ));
    }
    let spacing = [header.pixdim[2], header.pixdim[1], header.pixdim[3]].map(f64::from);
    if !spacing.iter().all(|mm| mm.is_finite() && *mm > 0.0) {
        return Err(format!("has voxels of {spacing:?} mm"));
    }
    Ok(Extent { rows: rows.into(), columns: columns.into(), slices: slices.into(), spacing })
}

/// An open volume.
pub struct Slicer {
    extent: Extent,
    /// The stream goes on giving errors for ever.
    has_ended: bool,
    scale: Scale,
    slices: Box<dyn Iterator<Item = nifti::Result<InMemNiftiVolume>> + Send>,
}

impl std::fmt::Debug for Slicer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slicer").field("extent", &self.extent).finish_non_exhaustive()
    }
}

impl Slicer {
    /// Opens a `.nii` or `.nii.gz` file.
    ///
    /// # Errors
    /// As [`extent`].
    pub fn open(path: &Path) -> Result<Self, String> {
        let extent = extent(path)?;
        let header = NiftiHeader::from_file(path).map_err(|error| error.to_string())?;
        let object = ReaderStreamedOptions::new().read_file_rank(path, 2).map_err(|error| error.to_string())?;
        let volume: StreamedNiftiVolume<_> = object.into_volume();
        Ok(Self { extent, has_ended: false, scale: Scale::of(&header), slices: Box::new(volume) })
    }

    /// Its extent.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }
}

impl Iterator for Slicer {
    type Item = Result<Vec<f32>, String>;

    /// The next slice, row by row, scaled as the header says; nothing after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let Extent { rows, columns, .. } = self.extent;
        if self.has_ended {
            return None;
        }
        let values = match self.slices.next()? {
            Ok(volume) => self.scale.values(volume.data_type(), volume.raw_data()),
            Err(error) => Err(error.to_string()),
        };
        self.has_ended = values.is_err();
        Some(values.and_then(|values| {
            if values.len() != rows * columns {
                return Err(format!("a slice has {} values instead of {rows} × {columns}", values.len()));
            }
            Ok(turned(&values, rows, columns))
        }))
    }
}

/// How stored numbers become values.
#[derive(Debug, Clone, Copy)]
struct Scale {
    endianness: Endianness,
    slope: f64,
    intercept: f64,
}

impl Scale {
    /// A slope of 0 means that there is none (NIfTI-1, `scl_slope`).
    fn of(header: &NiftiHeader) -> Self {
        let (slope, intercept) = (f64::from(header.scl_slope), f64::from(header.scl_inter));
        let is_scaled = slope.is_finite() && slope != 0.0 && intercept.is_finite();
        let (slope, intercept) = if is_scaled { (slope, intercept) } else { (1.0, 0.0) };
        Self { endianness: header.endianness, slope, intercept }
    }

    fn values(self, kind: NiftiType, bytes: &[u8]) -> Result<Vec<f32>, String> {
        match kind {
            NiftiType::Uint8 => Ok(self.each(bytes, |[a]| f64::from(a))),
            NiftiType::Int8 => Ok(self.each(bytes, |[a]| f64::from(a.cast_signed()))),
            NiftiType::Int16 => Ok(self.each(bytes, |b: [u8; 2]| f64::from(i16::from_le_bytes(b)))),
            NiftiType::Uint16 => Ok(self.each(bytes, |b: [u8; 2]| f64::from(u16::from_le_bytes(b)))),
            NiftiType::Int32 => Ok(self.each(bytes, |b: [u8; 4]| f64::from(i32::from_le_bytes(b)))),
            NiftiType::Uint32 => Ok(self.each(bytes, |b: [u8; 4]| f64::from(u32::from_le_bytes(b)))),
            NiftiType::Float32 => Ok(self.each(bytes, |b: [u8; 4]| f64::from(f32::from_le_bytes(b)))),
            NiftiType::Float64 => Ok(self.each(bytes, |b: [u8; 8]| f64::from_le_bytes(b))),
            other => Err(format!("holds values of type {other:?}, which is not read")),
        }
    }

    /// `number` takes little-endian bytes.
    #[expect(clippy::cast_possible_truncation, reason = "Hounsfield units need no more than float32")]
    fn each<const N: usize>(self, bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f32> {
        let (cells, _) = bytes.as_chunks::<N>();
        let value = |cell: &[u8; N]| {
            let mut cell = *cell;
            if self.endianness == Endianness::Big {
                cell.reverse();
            }
            (number(cell) * self.slope + self.intercept) as f32
        };
        cells.iter().map(value).collect()
    }
}

/// `numpy.rot90`: pixel (row, column) is array\[column, rows − 1 − row\], the first index running fastest in the file.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    values.chunks_exact(columns).rev().take(rows).flatten().copied().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A NIfTI-1 file: `values` with the first index running fastest, as 16-bit integers.
    pub(in crate::data) fn write(path: &Path, dim: [u16; 3], pixdim: [f32; 3], values: &[i16]) {
        let mut header = NiftiHeader {
            dim: [3, dim[0], dim[1], dim[2], 1, 1, 1, 1],
            pixdim: [1.0, pixdim[0], pixdim[1], pixdim[2], 1.0, 1.0, 1.0, 1.0],
            datatype: 4,
            bitpix: 16,
            scl_slope: 1.0,
            vox_offset: 352.0,
            ..NiftiHeader::default()
        };
        header.magic = *b"n+1\0";
        let mut bytes = Vec::new();
        bytes.extend(348i32.to_le_bytes());
        bytes.resize(40, 0);
        header.dim.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        bytes.resize(70, 0);
        bytes.extend(header.datatype.to_le_bytes());
        bytes.extend(header.bitpix.to_le_bytes());
        bytes.resize(76, 0);
        header.pixdim.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        bytes.extend(header.vox_offset.to_le_bytes());
        bytes.extend(header.scl_slope.to_le_bytes());
        bytes.resize(344, 0);
        bytes.extend(header.magic);
        bytes.resize(352, 0);
        values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        if path.extension().is_some_and(|end| end == "gz") {
            let file = std::fs::File::create(path).unwrap();
            let mut coder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            std::io::Write::write_all(&mut coder, &bytes).unwrap();
            coder.finish().unwrap();
        } else {
            std::fs::write(path, bytes).unwrap();
        }
    }

    #[test]
    fn slices_are_turned_like_numpy_does() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.nii", "a.nii.gz"] {
            let path = folder.path().join(name);
            // array[x, y, z] = 100 z + 10 y + x, of shape (3, 2, 2).
            let values: Vec<i16> =
                (0..2).flat_map(|z| (0..2).flat_map(move |y| (0..3).map(move |x| 100 * z + 10 * y + x))).collect();
            write(&path, [3, 2, 2], [0.5, 0.7, 5.0], &values);
            let slicer = Slicer::open(&path).unwrap();
            let spacing = slicer.extent().spacing;
            assert_eq!((slicer.extent().rows, slicer.extent().columns, slicer.extent().slices), (2, 3, 2));
            assert!((spacing[0] - 0.7).abs() < 1e-6 && (spacing[1] - 0.5).abs() < 1e-6 && spacing[2] == 5.0);
            let slices: Vec<Vec<f32>> = slicer.map(Result::unwrap).collect();
            // numpy.rot90(array[:, :, 1]) = [[110, 111, 112], [100, 101, 102]].
            assert_eq!(slices[1], [110.0, 111.0, 112.0, 100.0, 101.0, 102.0]);
            assert_eq!(slices.len(), 2);
        }
    }

    #[test]
    fn what_is_no_volume_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nii");
        std::fs::write(&path, b"not a volume").unwrap();
        assert!(extent(&path).is_err());
        write(&path, [3, 5000, 2], [1.0; 3], &[]);
        assert!(extent(&path).unwrap_err().contains("at most"));
        write(&path, [3, 2, 2], [1.0, 0.0, 1.0], &[]);
        assert!(extent(&path).unwrap_err().contains("mm"));
        // Cut short: the header holds, the slices do not.
        write(&path, [3, 2, 2], [1.0; 3], &[0; 8]);
        let slices: Vec<_> = Slicer::open(&path).unwrap().collect();
        assert!(slices[0].is_ok() && slices[1].is_err());
    }
}
