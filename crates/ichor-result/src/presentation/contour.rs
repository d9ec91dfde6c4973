//! The outline of a mask, along the edges of its pixels.

use std::collections::HashMap;

use crate::mask::MaskRun;

/// A corner of pixels: column and row, 0 at the upper left corner of the upper left pixel (PS3.3 C.10.5, PIXEL).
pub(super) type Corner = (u32, u32);

/// The closed outlines of a mask whose runs lie in the order of rows, then columns: the first corner comes again at the
/// end, the mask lies to the right of the way, and holes have outlines of their own. Pixels that meet at a corner only have
/// separate outlines. By the even-odd rule the outlines are the mask, pixel by pixel.
pub(super) fn outlines(runs: &[&MaskRun]) -> Vec<Vec<Corner>> {
    let mut edges = Edges::default();
    let mut rows: HashMap<u32, Vec<(u32, u32)>> = HashMap::new();
    for run in runs {
        rows.entry(run.row).or_default().push((run.start, run.end));
    }
    let in_row = |row: Option<u32>| row.and_then(|row| rows.get(&row)).map_or(&[][..], Vec::as_slice);
    for run in runs {
        let row = run.row;
        let touches = |column: u32| in_row(Some(row)).iter().any(|(start, end)| (*start..*end).contains(&column));
        for (start, end) in uncovered((run.start, run.end), in_row(row.checked_sub(1))) {
            edges.add((start..end).map(|column| ((column, row), (column + 1, row))));
        }
        for (start, end) in uncovered((run.start, run.end), in_row(row.checked_add(1))) {
            edges.add((start..end).map(|column| ((column + 1, row + 1), (column, row + 1))));
        }
        if run.start == 0 || !touches(run.start - 1) {
            edges.add([((run.start, row + 1), (run.start, row))]);
        }
        if !touches(run.end) {
            edges.add([((run.end, row), (run.end, row + 1))]);
        }
    }
    edges.into_outlines()
}

/// What of a run is not covered by others, which lie in order.
fn uncovered((start, end): (u32, u32), others: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let (mut left, mut open) = (start, Vec::new());
    for (from, to) in others {
        if *to <= left || *from >= end {
            continue;
        }
        if *from > left {
            open.push((left, *from));
        }
        left = (*to).max(left);
    }
    if left < end {
        open.push((left, end));
    }
    open
}

/// Edges between a pixel of the mask and one that is not, each of length 1, by where they begin.
#[derive(Default)]
struct Edges {
    from: HashMap<Corner, Vec<Corner>>,
    /// Where edges begin, in the order in which they came: outlines come out in the same order always.
    order: Vec<Corner>,
}

impl Edges {
    fn add(&mut self, edges: impl IntoIterator<Item = (Corner, Corner)>) {
        for (from, to) in edges {
            self.from.entry(from).or_default().push(to);
            self.order.push(from);
        }
    }

    fn into_outlines(mut self) -> Vec<Vec<Corner>> {
        let mut outlines = Vec::new();
        for start in std::mem::take(&mut self.order) {
            let Some(mut next) = self.take(start, None) else { continue };
            let (mut outline, mut before) = (vec![start], start);
            while next != start {
                let Some(after) = self.take(next, Some(before)) else { break };
                if !is_straight(before, next, after) {
                    outline.push(next);
                }
                (before, next) = (next, after);
            }
            // The way may begin in the middle of a straight line.
            if outline.len() > 2 && is_straight(before, start, outline[1]) {
                outline.remove(0);
            }
            outline.push(outline[0]);
            outlines.push(outline);
        }
        outlines
    }

    /// Takes an edge that begins at `at`; where two do, the one that turns right, which stays with its pixel.
    fn take(&mut self, at: Corner, before: Option<Corner>) -> Option<Corner> {
        let ends = self.from.get_mut(&at)?;
        let right = before.and_then(|before| ends.iter().position(|end| turn(before, at, *end) > 0));
        (!ends.is_empty()).then(|| ends.swap_remove(right.unwrap_or(0)))
    }
}

/// Positive where the way from `a` over `b` to `c` turns right; rows grow downwards.
fn turn(a: Corner, b: Corner, c: Corner) -> i64 {
    let way = |from: Corner, to: Corner| (i64::from(to.0) - i64::from(from.0), i64::from(to.1) - i64::from(from.1));
    let ((x, y), (u, v)) = (way(a, b), way(b, c));
    x * v - y * u
}

fn is_straight(a: Corner, b: Corner, c: Corner) -> bool {
    turn(a, b, c) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs_of(mask: &[u8], columns: u32) -> Vec<MaskRun> {
        let mut runs = Vec::new();
        for (row, line) in (0u32..).zip(mask.chunks(columns as usize)) {
            let mut at = 0;
            for same in line.chunk_by(|a, b| a == b) {
                let end = at + same.len() as u32;
                if same[0] != 0 {
                    runs.push(MaskRun { row, start: at, end, segment: 1 });
                }
                at = end;
            }
        }
        runs
    }

    /// Even-odd: a pixel is inside if a way from its centre to the left crosses outlines an odd number of times.
    fn filled(outlines: &[Vec<Corner>], rows: u32, columns: u32) -> Vec<u8> {
        let crosses = |row: u32, column: u32, a: Corner, b: Corner| {
            let (top, bottom) = (a.1.min(b.1), a.1.max(b.1));
            a.0 == b.0 && a.0 <= column && (top..bottom).contains(&row)
        };
        let inside = |row: u32, column: u32| {
            let lines = outlines.iter().flat_map(|outline| outline.windows(2));
            lines.filter(|line| crosses(row, column, line[0], line[1])).count() % 2 == 1
        };
        (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(r, c)| u8::from(inside(r, c)))
            .collect()
    }

    #[test]
    fn a_square_has_four_corners_and_a_hole_an_outline_of_its_own() {
        let square = runs_of(&[0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0], 4);
        let outline = outlines(&square.iter().collect::<Vec<_>>());
        assert_eq!(outline, [vec![(1, 1), (3, 1), (3, 3), (1, 3), (1, 1)]]);
        let ring = runs_of(&[1, 1, 1, 1, 0, 1, 1, 1, 1], 3);
        assert_eq!(outlines(&ring.iter().collect::<Vec<_>>()).len(), 2);
        let diagonal = runs_of(&[1, 0, 0, 1], 2);
        assert_eq!(outlines(&diagonal.iter().collect::<Vec<_>>()).len(), 2, "pixels that meet at a corner");
        assert!(outlines(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn outlines_filled_are_the_mask(columns in 1u32..12, mask in prop::collection::vec(0u8..2, 1..144)) {
            let mask = &mask[..mask.len() - mask.len() % columns as usize];
            let rows = mask.len() as u32 / columns;
            let runs = runs_of(mask, columns);
            let outlines = outlines(&runs.iter().collect::<Vec<_>>());
            prop_assert_eq!(&filled(&outlines, rows, columns), mask);
            for outline in &outlines {
                prop_assert!(outline.len() >= 5 && outline.first() == outline.last());
                let straight = outline.windows(3).any(|way| is_straight(way[0], way[1], way[2]));
                prop_assert!(!straight, "a corner too many in {:?}", outline);
            }
        }
    }
}
