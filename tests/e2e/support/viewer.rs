//! cornerstone3D in a headless Chromium: what a user of a PACS sees of a study, as pictures.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::orthanc::Orthanc;
use super::tools::{CHROMIUM, viewer};

/// Red above green from which a pixel counts as coloured; the CT is grey, and the overlay gives 127.
const COLOURED: i32 = 40;

/// Part of an image pixel, at each of its edges, in which the page's pixels may show either neighbour.
const EDGE: f64 = 0.1;

/// A study as it was shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    /// How many segments the viewer found.
    pub(crate) segments: usize,
    pub(crate) slices: Vec<ShownSlice>,
}

/// One slice, or one frame, on the page.
#[derive(Debug, Deserialize)]
pub(crate) struct ShownSlice {
    pub(crate) uid: String,
    pub(crate) frame: u32,
    /// Where the viewer has the centres of the first pixel, the next in its row and the next in its column.
    points: [[f64; 2]; 3],
    pub(crate) window: Window,
    picture: PathBuf,
    #[serde(skip)]
    page: Page,
}

/// Hounsfield units from black to white.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Window {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

/// A screenshot, RGB.
#[derive(Default)]
struct Page {
    width: usize,
    rgb: Vec<u8>,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {} wide", self.rgb.len(), self.width)
    }
}

/// How a picture differs from a mask, in pixels of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// In the mask and not coloured.
    pub(crate) missing: usize,
    /// Coloured and not in the mask.
    pub(crate) extra: usize,
}

/// Where pictures stay for a person to look at.
pub(crate) fn artefacts(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-artefacts").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Shows every slice of a study's only CT series with its only Segmentation; the pictures go to a folder.
pub(crate) fn show(pacs: &Orthanc, study_uid: &str, folder: &Path) -> Shown {
    show_from(pacs.http_port, study_uid, folder)
}

/// The same from any server on loopback whose DICOMweb service is below `/dicom-web`.
pub(crate) fn show_from(port: u16, study_uid: &str, folder: &Path) -> Shown {
    let built = viewer().unwrap();
    let output = Command::new("node")
        .arg(built.join("judge.js"))
        .arg(built.join("page"))
        .arg(CHROMIUM)
        .arg(format!("http://127.0.0.1:{port}"))
        .arg(study_uid)
        .arg(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the viewer shows nothing: {said}");
    let mut shown: Shown = serde_json::from_slice(&output.stdout).unwrap();
    for slice in &mut shown.slices {
        slice.page = Page::read(&folder.join(&slice.picture));
    }
    shown
}

impl Page {
    fn read(path: &Path) -> Self {
        let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Self { width: info.width as usize, rgb }
    }
}

impl ShownSlice {
    /// The page's pixels that lie well inside a pixel of the image: index of that pixel, and colour.
    fn pixels(&self, rows: usize, columns: usize) -> Vec<(usize, [u8; 3])> {
        let [origin, next_column, next_row] = self.points;
        let across = [next_column[0] - origin[0], next_column[1] - origin[1]];
        let down = [next_row[0] - origin[0], next_row[1] - origin[1]];
        let determinant = across[0] * down[1] - across[1] * down[0];
        let inside = |place: f64, count: usize| {
            let nearest = place.round();
            ((place - nearest).abs() <= 0.5 - EDGE && nearest >= 0.0 && nearest < count as f64)
                .then_some(nearest as usize)
        };
        let of_image = |(index, colour): (usize, &[u8])| {
            let x = (index % self.page.width) as f64 + 0.5 - origin[0];
            let y = (index / self.page.width) as f64 + 0.5 - origin[1];
            let column = inside((x * down[1] - y * down[0]) / determinant, columns)?;
            let row = inside((y * across[0] - x * across[1]) / determinant, rows)?;
            Some((row * columns + column, [colour[0], colour[1], colour[2]]))
        };
        self.page.rgb.chunks_exact(3).enumerate().filter_map(of_image).collect()
    }

    /// Compares the overlay with a mask of rows × columns, not 0 where it should be seen.
    pub(crate) fn overlay_against(&self, mask: &[u8], rows: usize, columns: usize) -> Difference {
        let mut difference = Difference::default();
        for (index, colour) in self.pixels(rows, columns) {
            match (mask[index] != 0, is_coloured(colour)) {
                (true, false) => difference.missing += 1,
                (false, true) => difference.extra += 1,
                _ => {}
            }
        }
        difference
    }

    /// The largest distance, in levels of 255, of what is not coloured from a slice in Hounsfield units. Panics if less
    /// than half of the image's pixels are on the page.
    pub(crate) fn grey_against(&self, hu: &[f64], rows: usize, columns: usize) -> f64 {
        let Window { lower, upper } = self.window;
        let pixels = self.pixels(rows, columns);
        assert!(pixels.len() * 2 >= rows * columns, "{} pixels shown of {}", pixels.len(), rows * columns);
        let distance = |(index, colour): &(usize, [u8; 3])| {
            let wanted = ((hu[*index] - lower) / (upper - lower) * 255.0).clamp(0.0, 255.0);
            (f64::from(colour[1]) - wanted).abs()
        };
        pixels.iter().filter(|(_, colour)| !is_coloured(*colour)).map(distance).fold(0.0, f64::max)
    }
}

fn is_coloured([red, green, _]: [u8; 3]) -> bool {
    i32::from(red) - i32::from(green) >= COLOURED
}
