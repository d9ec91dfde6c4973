//! The mask of one slice as runs of pixels: a study costs what its lesions cost, not what its matrix does.

use std::cmp::Ordering;

/// A run of pixels in one row of a slice that belongs to one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskRun {
    /// Zero-based row.
    pub row: u32,
    /// Zero-based first column.
    pub start: u32,
    /// Behind the last column.
    pub end: u32,
    /// One-based number of the segment.
    pub segment: u16,
}

impl MaskRun {
    const fn length(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }
}

/// The mask of one slice. Runs lie in the order of rows, then columns, and do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceMask {
    runs: Vec<MaskRun>,
    values: Vec<u8>,
}

impl SliceMask {
    /// A mask of runs. `values` holds one value a pixel of the runs, in their order, from 1 to 255 for a probability
    /// above 0 up to 1; it is empty where no values are known, and then no FRACTIONAL object can be made.
    #[must_use]
    pub const fn new(runs: Vec<MaskRun>, values: Vec<u8>) -> Self {
        Self { runs, values }
    }

    /// A mask of pixels, row by row: 0 is background, anything else the number of a segment.
    #[must_use]
    pub fn from_labels(labels: &[u8], columns: u32) -> Self {
        let mut runs = Vec::new();
        for (row, line) in (0u32..).zip(labels.chunks(columns.max(1) as usize)) {
            let mut at = 0u32;
            for same in line.chunk_by(|a, b| a == b) {
                let end = at + same.len() as u32;
                if same[0] != 0 {
                    runs.push(MaskRun { row, start: at, end, segment: u16::from(same[0]) });
                }
                at = end;
            }
        }
        Self { runs, values: Vec::new() }
    }

    /// Whether no pixel belongs to a segment.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether each pixel has a value.
    #[must_use]
    pub const fn has_values(&self) -> bool {
        !self.values.is_empty() || self.runs.is_empty()
    }

    /// The runs, in order.
    pub(crate) fn runs(&self) -> &[MaskRun] {
        &self.runs
    }

    /// The segments that occur, each once, in order.
    pub(crate) fn segments(&self) -> Vec<u16> {
        let mut segments: Vec<u16> = self.runs.iter().map(|run| run.segment).collect();
        segments.sort_unstable();
        segments.dedup();
        segments
    }

    /// What makes the mask impossible for slices of `rows × columns` and so many segments, if anything does.
    pub(crate) fn fault(&self, rows: u32, columns: u32, segments: u16) -> Option<String> {
        let beyond = |run: &&MaskRun| {
            let is_inside = run.row < rows && run.start < run.end && run.end <= columns;
            !is_inside || run.segment == 0 || run.segment > segments
        };
        if let Some(run) = self.runs.iter().find(beyond) {
            return Some(format!("{run:?} is no part of {rows} rows x {columns} columns and {segments} segments"));
        }
        let disordered = |pair: &&[MaskRun]| match pair[0].row.cmp(&pair[1].row) {
            Ordering::Less => false,
            Ordering::Equal => pair[0].end > pair[1].start,
            Ordering::Greater => true,
        };
        if let Some(pair) = self.runs.windows(2).find(disordered) {
            return Some(format!("{:?} does not lie before {:?}", pair[0], pair[1]));
        }
        let pixels: usize = self.runs.iter().map(MaskRun::length).sum();
        if !self.values.is_empty() && self.values.len() != pixels {
            return Some(format!("{} values for {pixels} pixels", self.values.len()));
        }
        self.values.contains(&0).then(|| "a pixel of the mask has the value 0".to_owned())
    }

    /// Writes into `frame`, `rows × columns` values that are 0 so far: 1 where `segment` is.
    pub(crate) fn paint_segment(&self, segment: u16, columns: usize, frame: &mut [u8]) {
        for run in self.runs.iter().filter(|run| run.segment == segment) {
            frame[place(run, columns)].fill(1);
        }
    }

    /// The same with the values of the pixels.
    pub(crate) fn paint_values(&self, segment: u16, columns: usize, frame: &mut [u8]) {
        let mut values = self.values.as_slice();
        for run in &self.runs {
            let (these, rest) = values.split_at(run.length().min(values.len()));
            values = rest;
            if run.segment == segment && these.len() == run.length() {
                frame[place(run, columns)].copy_from_slice(these);
            }
        }
    }

    /// Writes the segments' numbers into `frame`, little endian, `bytes` (1 or 2) each.
    pub(crate) fn paint_labels(&self, columns: usize, bytes: usize, frame: &mut [u8]) {
        for run in &self.runs {
            let label = run.segment.to_le_bytes();
            let pixels = place(run, columns);
            for pixel in frame[pixels.start * bytes..pixels.end * bytes].chunks_exact_mut(bytes) {
                pixel.copy_from_slice(&label[..bytes]);
            }
        }
    }
}

/// The pixels of a run within its slice.
const fn place(run: &MaskRun, columns: usize) -> std::ops::Range<usize> {
    let line = run.row as usize * columns;
    line + run.start as usize..line + run.end as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_is_named() {
        let run = |row, start, end, segment| MaskRun { row, start, end, segment };
        let fault = |runs: &[MaskRun], values: &[u8]| SliceMask::new(runs.to_vec(), values.to_vec()).fault(4, 5, 2);
        assert_eq!(fault(&[run(0, 0, 2, 1), run(0, 2, 5, 2), run(3, 0, 1, 1)], &[]), None);
        for bad in [run(4, 0, 1, 1), run(0, 0, 6, 1), run(0, 3, 3, 1), run(0, 0, 1, 0), run(0, 0, 1, 3)] {
            assert!(fault(&[bad], &[]).unwrap().contains("no part of"), "{bad:?}");
        }
        assert!(fault(&[run(0, 0, 3, 1), run(0, 2, 5, 2)], &[]).unwrap().contains("before"));
        assert!(fault(&[run(1, 0, 3, 1), run(0, 2, 5, 2)], &[]).unwrap().contains("before"));
        assert!(fault(&[run(0, 0, 3, 1)], &[1, 2]).unwrap().contains("2 values for 3 pixels"));
        assert!(fault(&[run(0, 0, 2, 1)], &[1, 0]).unwrap().contains("value 0"));
    }

    proptest! {
        #[test]
        fn labels_come_back(columns in 1u32..9, labels in proptest::collection::vec(0u8..4, 1..80)) {
            let labels = &labels[..labels.len() - labels.len() % columns as usize];
            let rows = labels.len() as u32 / columns;
            let mask = SliceMask::from_labels(labels, columns);
            prop_assert_eq!(mask.fault(rows, columns, 3), None);
            let mut painted = vec![0; labels.len()];
            mask.paint_labels(columns as usize, 1, &mut painted);
            prop_assert_eq!(&painted, labels);
            let mut wide = vec![0; labels.len() * 2];
            mask.paint_labels(columns as usize, 2, &mut wide);
            let wide: Vec<u8> = wide.chunks_exact(2).map(|pixel| pixel[0]).collect();
            prop_assert_eq!(&wide, labels);
            for segment in 1..=3u16 {
                let mut painted = vec![0; labels.len()];
                mask.paint_segment(segment, columns as usize, &mut painted);
                let expected: Vec<u8> = labels.iter().map(|l| u8::from(u16::from(*l) == segment)).collect();
                prop_assert_eq!(painted, expected);
            }
        }
    }
}
