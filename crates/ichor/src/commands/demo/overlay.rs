//! The overlay picture: slices in the brain window with the mask filled and the truth outlined.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Context;

/// One slice to draw; all of one picture have the same size.
pub(crate) struct Panel<'a> {
    /// Hounsfield units, row by row.
    pub(crate) hu: &'a [i16],
    /// Pixels of the result.
    pub(crate) mask: &'a [u8],
    /// Pixels of the truth.
    pub(crate) truth: &'a [u8],
}

/// Window that is shown, in HU: brain, width 80, centre 40.
const WINDOW: (f32, f32) = (0.0, 80.0);
const MASK: [f32; 3] = [226.0, 60.0, 52.0];
const TRUTH: [u8; 3] = [86, 204, 242];
/// Share of the mask's colour over the slice.
const OPACITY: f32 = 0.45;
const GAP: usize = 4;
const PANELS_A_ROW: usize = 4;

/// Writes panels side by side, four a row, as a PNG.
pub(crate) fn write(path: &Path, rows: usize, columns: usize, panels: &[Panel<'_>]) -> anyhow::Result<()> {
    anyhow::ensure!(!panels.is_empty(), "no slice to draw");
    let across = panels.len().min(PANELS_A_ROW);
    let down = panels.len().div_ceil(across);
    let (width, height) = (across * (columns + GAP) - GAP, down * (rows + GAP) - GAP);
    let mut pixels = vec![16u8; width * height * 3];
    for (index, panel) in panels.iter().enumerate() {
        let (top, left) = (index / across * (rows + GAP), index % across * (columns + GAP));
        for row in 0..rows {
            for column in 0..columns {
                let at = ((top + row) * width + left + column) * 3;
                pixels[at..at + 3].copy_from_slice(&colour(panel, rows, columns, row, column));
            }
        }
    }
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), u32::try_from(width)?, u32::try_from(height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

fn colour(panel: &Panel<'_>, rows: usize, columns: usize, row: usize, column: usize) -> [u8; 3] {
    let at = row * columns + column;
    if panel.truth[at] != 0 && is_edge(panel.truth, rows, columns, row, column) {
        return TRUTH;
    }
    let grey = ((f32::from(panel.hu[at]) - WINDOW.0) / (WINDOW.1 - WINDOW.0)).clamp(0.0, 1.0) * 255.0;
    let opacity = if panel.mask[at] != 0 { OPACITY } else { 0.0 };
    MASK.map(|channel| (grey * (1.0 - opacity) + channel * opacity).round() as u8)
}

/// Whether one of the four neighbours lies outside.
fn is_edge(mask: &[u8], rows: usize, columns: usize, row: usize, column: usize) -> bool {
    let outside = |r: Option<usize>, c: Option<usize>| match (r, c) {
        (Some(r), Some(c)) if r < rows && c < columns => mask[r * columns + c] == 0,
        _ => true,
    };
    outside(row.checked_sub(1), Some(column))
        || outside(Some(row + 1), Some(column))
        || outside(Some(row), column.checked_sub(1))
        || outside(Some(row), Some(column + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_and_truth_are_seen() {
        let hu = vec![40i16; 16];
        let (mut mask, mut truth) = (vec![0u8; 16], vec![0u8; 16]);
        mask[5] = 1;
        truth[10] = 1;
        let panel = Panel { hu: &hu, mask: &mask, truth: &truth };
        assert_eq!(colour(&panel, 4, 4, 0, 0), [128; 3]);
        assert_eq!(colour(&panel, 4, 4, 2, 2), TRUTH);
        let [red, green, _] = colour(&panel, 4, 4, 1, 1);
        assert!(red > green + 40, "{red} {green}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("o.png");
        write(&path, 4, 4, &[panel]).unwrap();
        assert!(std::fs::metadata(path).unwrap().len() > 60);
    }
}
