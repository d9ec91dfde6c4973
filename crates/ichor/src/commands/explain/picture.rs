//! The pictures of one slice: each by itself, and all side by side with who says so.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ichor_picture::{Color, Contour, Font, Image, Window, map_color, wrapped};
use ichor_pipeline::analyse::Explanation;
use serde::Serialize;

/// What is said of every slice.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) model: String,
    pub(super) notice: Option<String>,
    pub(super) slice_threshold: f32,
    pub(super) mask_threshold: f32,
}

/// Where the pictures of a slice lie.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pictures {
    /// All of them side by side.
    pub(super) all: PathBuf,
    /// The slice in the brain window, pixel by pixel.
    pub(super) slice: PathBuf,
    /// The map in colours, with its legend.
    pub(super) map: PathBuf,
    /// The mask, white on black, pixel by pixel.
    pub(super) mask: PathBuf,
    /// The slice with the mask's contour.
    pub(super) contour: PathBuf,
}

/// Slices are enlarged by whole numbers as long as their longer side stays within so many pixels.
const LARGE: usize = 640;
const BACKGROUND: Color = [18, 20, 24];
const WORDS: Color = [232, 236, 240];
const SOFT: Color = [168, 178, 188];
const WARNING: Color = [255, 214, 110];
const RED: Color = [255, 72, 64];
const GAP: usize = 12;
/// Width of a map's legend, and of the bar in it.
const LEGEND: usize = 72;
const BAR: usize = 16;

/// Draws and writes the pictures of a slice of so many rows and columns.
pub(super) fn draw(
    out: &Path,
    name: &str,
    facts: &Facts,
    explanation: &Explanation,
    (rows, columns): (usize, usize),
) -> anyhow::Result<Pictures> {
    let scale = (LARGE / rows.max(columns).max(1)).clamp(1, 4);
    let slice = |scale| Image::slice(&explanation.hu, rows, columns, Window::BRAIN, scale);
    let mask = |scale| Image::mask(&explanation.mask, rows, columns, scale);
    let mut contour = slice(scale)?;
    contour.contour(&Contour { mask: &explanation.mask, color: RED, thickness: scale })?;
    let map = with_legend(&Image::map(&explanation.map, rows, columns, scale)?, facts.mask_threshold);
    let tiles = [
        ("Slice, window 40/80 HU", slice(scale)?),
        ("Attribution map", map.clone()),
        ("Mask", mask(scale)?),
        ("Contour of the mask", contour.clone()),
    ];
    let lines = words(facts, explanation);
    let all = sheet(&tiles, facts.notice.as_deref(), &lines);
    let said = lines.join("; ");
    let disclaimer = facts.notice.clone().unwrap_or_default();
    let write = |suffix: &str, what: &str, image: &Image| -> anyhow::Result<PathBuf> {
        let path = out.join(format!("{name}{suffix}.png"));
        let software = format!("ichor {}", env!("CARGO_PKG_VERSION"));
        let mut texts = vec![("Title", what), ("Description", said.as_str()), ("Software", software.as_str())];
        texts.extend((!disclaimer.is_empty()).then_some(("Disclaimer", disclaimer.as_str())));
        std::fs::write(&path, image.png(&texts)?).with_context(|| path.display().to_string())?;
        Ok(path)
    };
    Ok(Pictures {
        all: write("", "Slice, attribution map, mask and contour", &all)?,
        slice: write("-slice", tiles[0].0, &slice(1)?)?,
        map: write("-map", tiles[1].0, &map)?,
        mask: write("-mask", tiles[2].0, &mask(1)?)?,
        contour: write("-contour", tiles[3].0, &contour)?,
    })
}

/// What is said under the pictures. Nothing in it names the patient.
fn words(facts: &Facts, explanation: &Explanation) -> Vec<String> {
    let file = explanation.header.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let frame = explanation.header.frame.map_or_else(String::new, |frame| format!(" frame {frame}"));
    let is_positive = explanation.probability >= facts.slice_threshold;
    let verdict = if is_positive { "positive" } else { "negative: the daemon makes no mask of it" };
    let mut lines = vec![
        format!("{file}{frame}"),
        format!(
            "Probability of hemorrhage {:.3}, positive from {:.2}: {verdict}",
            explanation.probability, facts.slice_threshold
        ),
    ];
    if (explanation.probability - explanation.own_probability).abs() > 0.0005 {
        lines.push(format!("By itself {:.3}; neighbours made consistent", explanation.own_probability));
    }
    lines.push(format!("Model {}", facts.model));
    lines.push(
        "Result of an algorithm, not a diagnosis. The map shows where the model looks, not what is there.".to_owned(),
    );
    lines
}

/// A map with the bar of its colours, from 0 to 1, and where the mask begins.
fn with_legend(map: &Image, threshold: f32) -> Image {
    let height = map.height();
    let mut image = Image::new(map.width() + LEGEND, height, BACKGROUND);
    image.paste(map, 0, 0);
    let (left, top) = (map.width() + 8, Font::Small.height());
    let long = height.saturating_sub(2 * top).max(1);
    let place = |value: f32| top + ((1.0 - value.clamp(0.0, 1.0)) * (long - 1) as f32).round() as usize;
    for row in 0..long {
        let value = 1.0 - row as f32 / long.saturating_sub(1).max(1) as f32;
        image.fill(left, top + row, BAR, 1, map_color(value));
    }
    let mut said: Vec<usize> = Vec::new();
    let mut mark = |value: f32, words: &str, color: Color| {
        let row = place(value);
        // Words that would lie on others are left out; the mark itself is drawn.
        image.fill(left + BAR, row, 4, 1, color);
        if said.iter().all(|other| other.abs_diff(row) >= Font::Small.height()) {
            image.write(words, left + BAR + 6, row.saturating_sub(Font::Small.height() / 2), Font::Small, color);
            said.push(row);
        }
    };
    mark(threshold, &format!("{threshold:.3}"), RED);
    for tenth in [0u8, 2, 4, 6, 8, 10] {
        let value = f32::from(tenth) / 10.0;
        mark(value, &format!("{value:.1}"), SOFT);
    }
    image
}

/// Four pictures, two a row, the notice above and the words below.
fn sheet(tiles: &[(&str, Image)], notice: Option<&str>, lines: &[String]) -> Image {
    let line = Font::Large.height() + 4;
    let width_of =
        |side: usize| tiles.iter().skip(side).step_by(2).map(|tile| tile.1.width()).max().unwrap_or_default();
    let height = tiles.iter().map(|tile| tile.1.height()).max().unwrap_or_default();
    let (left_width, right_width) = (width_of(0), width_of(1));
    let width = (left_width + right_width + 3 * GAP).max(420);
    let most = (width - 2 * GAP) / Font::Large.width();
    let lines: Vec<String> = lines.iter().flat_map(|words| wrapped(words, most)).collect();
    let warning = notice.map_or_else(Vec::new, |notice| wrapped(notice, most));
    let first = GAP + warning.len() * line;
    let each = height + line + GAP;
    let rows = tiles.len().div_ceil(2);
    let mut image = Image::new(width, first + rows * each + lines.len() * line + GAP, BACKGROUND);
    for (index, words) in warning.iter().enumerate() {
        image.write(words, GAP, GAP / 2 + index * line, Font::Large, WARNING);
    }
    for (index, (title, tile)) in tiles.iter().enumerate() {
        let left = if index % 2 == 0 { GAP } else { 2 * GAP + left_width };
        let top = first + index / 2 * each;
        image.write(title, left, top, Font::Large, SOFT);
        image.paste(tile, left, top + line);
    }
    for (index, words) in lines.iter().enumerate() {
        image.write(words, GAP, first + rows * each + index * line, Font::Large, WORDS);
    }
    image
}
