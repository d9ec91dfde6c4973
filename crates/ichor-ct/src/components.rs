//! Masks over a stack, connected in three dimensions, in millilitres.
//!
//! A mask is kept as runs of pixels: two thousand slices cost what their lesions cost, not what their matrix does.

mod measure;

pub use measure::LesionMeasures;

/// A run of mask pixels in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    row: u32,
    /// First column.
    start: u32,
    /// Behind the last column.
    end: u32,
    /// Place of its first pixel's value among the slice's.
    values: usize,
}

/// A run of mask pixels in one row of a slice, all of one lesion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LesionRun<'a> {
    /// Row.
    pub row: u32,
    /// First column.
    pub start: u32,
    /// Behind the last column.
    pub end: u32,
    /// Zero-based place of the lesion in [`MaskStack::lesions`].
    pub lesion: usize,
    /// The values of its pixels; empty if they were not given.
    pub values: &'a [u8],
    /// Its pixels in HU; empty if they were not given.
    pub hu: &'a [i16],
}

/// One connected lesion.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesion {
    /// Pixels in all slices.
    pub voxels: u64,
    /// Volume in mL, by pixel area and the extent each slice stands for.
    pub volume_ml: f64,
    /// First and last slice that it touches.
    pub slices: (usize, usize),
}

/// The masks of a stack of `rows × columns` slices.
#[derive(Clone, Debug)]
pub struct MaskStack {
    rows: u32,
    columns: u32,
    slices: Vec<Vec<Run>>,
    /// The values of each slice's mask pixels, those of dropped specks too; empty where none were given.
    values: Vec<Vec<u8>>,
    /// The same in HU.
    hu: Vec<Vec<i16>>,
}

impl MaskStack {
    /// An empty stack.
    #[must_use]
    pub fn new(rows: u32, columns: u32) -> Self {
        Self { rows, columns, slices: Vec::new(), values: Vec::new(), hu: Vec::new() }
    }

    /// Adds the next slice: `rows × columns` values, not 0 is in the mask.
    pub fn push(&mut self, mask: &[u8]) {
        self.push_with_pixels(mask, None, None);
    }

    /// The same with a value for each mask pixel, which `value` is asked for by its place in `mask`, and with the slice in
    /// HU, `rows × columns`.
    pub fn push_with_pixels(&mut self, mask: &[u8], value: Option<&dyn Fn(usize) -> u8>, hu: Option<&[i16]>) {
        let places = || (0..mask.len()).filter(|at| mask[*at] != 0);
        let values = value.map_or_else(Vec::new, |value| places().map(value).collect());
        let hu = hu.map_or_else(Vec::new, |hu| places().filter_map(|at| hu.get(at).copied()).collect());
        let (mut runs, mut pixels) = (Vec::new(), 0);
        for (row, line) in (0u32..).zip(mask.chunks_exact(self.columns.max(1) as usize)) {
            let mut column = 0usize;
            while let Some(start) = line[column..].iter().position(|value| *value != 0) {
                let start = column + start;
                let length = line[start..].iter().position(|value| *value == 0).unwrap_or(line.len() - start);
                column = start + length;
                runs.push(Run { row, start: start as u32, end: column as u32, values: pixels });
                pixels += length;
            }
        }
        self.slices.push(runs);
        self.values.push(values);
        self.hu.push(hu);
    }

    /// Adds a slice without mask.
    pub fn push_empty(&mut self) {
        self.slices.push(Vec::new());
        self.values.push(Vec::new());
        self.hu.push(Vec::new());
    }

    /// Slices so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// Whether there is no slice.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Mask pixels of a slice.
    #[must_use]
    pub fn pixels(&self, slice: usize) -> u64 {
        self.slices.get(slice).map_or(0, |runs| runs.iter().map(|run| u64::from(run.end - run.start)).sum())
    }

    /// The mask of a slice, `rows × columns` values of 0 or 1; `None` if it is empty.
    #[must_use]
    pub fn mask(&self, slice: usize) -> Option<Vec<u8>> {
        let runs = self.slices.get(slice).filter(|runs| !runs.is_empty())?;
        let mut mask = vec![0; self.rows as usize * self.columns as usize];
        for run in runs {
            let line = run.row as usize * self.columns as usize;
            mask[line + run.start as usize..line + run.end as usize].fill(1);
        }
        Some(mask)
    }

    /// The lesions, largest first: 26-connected pixels, `pixel_mm2` each, slices standing for `slab_mm[slice]`.
    #[must_use]
    pub fn lesions(&self, pixel_mm2: f64, slab_mm: &[f64]) -> Vec<Lesion> {
        let (_, mut lesions) = self.label(pixel_mm2, slab_mm);
        lesions.sort_by(|a, b| b.volume_ml.total_cmp(&a.volume_ml));
        lesions
    }

    /// The runs of each slice, in the order of rows and columns, each with the lesion that it belongs to.
    #[must_use]
    pub fn lesion_runs(&self, pixel_mm2: f64, slab_mm: &[f64]) -> Vec<Vec<LesionRun<'_>>> {
        let (labels, lesions) = self.label(pixel_mm2, slab_mm);
        let mut by_volume: Vec<usize> = (0..lesions.len()).collect();
        by_volume.sort_by(|a, b| lesions[*b].volume_ml.total_cmp(&lesions[*a].volume_ml));
        let mut place = vec![0; lesions.len()];
        for (rank, label) in by_volume.into_iter().enumerate() {
            place[label] = rank;
        }
        let slices = self.slices.iter().zip(labels).zip(self.values.iter().zip(&self.hu));
        slices
            .map(|((runs, labels), (values, hu))| {
                let of_lesion = |(run, label): (&Run, usize)| {
                    let pixels = run.values..run.values + (run.end - run.start) as usize;
                    LesionRun {
                        row: run.row,
                        start: run.start,
                        end: run.end,
                        lesion: place[label],
                        values: values.get(pixels.clone()).unwrap_or_default(),
                        hu: hu.get(pixels).unwrap_or_default(),
                    }
                };
                runs.iter().zip(labels).map(of_lesion).collect()
            })
            .collect()
    }

    /// Drops lesions below `min_ml`, but never the largest one: a study that was called positive keeps a mask.
    pub fn drop_specks(&mut self, pixel_mm2: f64, slab_mm: &[f64], min_ml: f64) {
        let (labels, lesions) = self.label(pixel_mm2, slab_mm);
        let largest = (0..lesions.len()).max_by(|a, b| lesions[*a].volume_ml.total_cmp(&lesions[*b].volume_ml));
        let keeps = |label: usize| Some(label) == largest || lesions[label].volume_ml >= min_ml;
        for (runs, labels) in self.slices.iter_mut().zip(labels) {
            let mut labels = labels.into_iter();
            runs.retain(|_| labels.next().is_some_and(keeps));
        }
    }

    /// A label for each run, and the lesion of each label.
    fn label(&self, pixel_mm2: f64, slab_mm: &[f64]) -> (Vec<Vec<usize>>, Vec<Lesion>) {
        let first: Vec<usize> = self
            .slices
            .iter()
            .scan(0, |total, runs| {
                let start = *total;
                *total += runs.len();
                Some(start)
            })
            .collect();
        let mut sets = Sets::new(self.slices.iter().map(Vec::len).sum());
        for slice in 0..self.slices.len() {
            join(&mut sets, (&self.slices[slice], first[slice]), (&self.slices[slice], first[slice]));
            if slice > 0 {
                join(&mut sets, (&self.slices[slice - 1], first[slice - 1]), (&self.slices[slice], first[slice]));
            }
        }
        let mut label_of = std::collections::HashMap::new();
        let mut lesions: Vec<Lesion> = Vec::new();
        let mut labels = Vec::with_capacity(self.slices.len());
        for (slice, runs) in self.slices.iter().enumerate() {
            let slab = slab_mm.get(slice).copied().unwrap_or(0.0);
            let mut slice_labels = Vec::with_capacity(runs.len());
            for (index, run) in runs.iter().enumerate() {
                let label = *label_of.entry(sets.find(first[slice] + index)).or_insert_with(|| {
                    lesions.push(Lesion { voxels: 0, volume_ml: 0.0, slices: (slice, slice) });
                    lesions.len() - 1
                });
                let (lesion, pixels) = (&mut lesions[label], u64::from(run.end - run.start));
                lesion.voxels += pixels;
                lesion.volume_ml += pixels as f64 * pixel_mm2 * slab / 1000.0;
                lesion.slices.1 = slice;
                slice_labels.push(label);
            }
            labels.push(slice_labels);
        }
        (labels, lesions)
    }
}

/// Joins runs of `a` with runs of `b` that touch them, diagonals included. Runs are ordered by row, then column.
fn join(sets: &mut Sets, (a, first_a): (&[Run], usize), (b, first_b): (&[Run], usize)) {
    let mut from = 0;
    for (index, run) in b.iter().enumerate() {
        while from < a.len() && a[from].row + 1 < run.row {
            from += 1;
        }
        for (other, candidate) in a.iter().enumerate().skip(from) {
            if candidate.row > run.row + 1 {
                break;
            }
            if candidate.start <= run.end && run.start <= candidate.end {
                sets.union(first_a + other, first_b + index);
            }
        }
    }
}

/// Disjoint sets with path halving.
struct Sets {
    parent: Vec<usize>,
}

impl Sets {
    fn new(count: usize) -> Self {
        Self { parent: (0..count).collect() }
    }

    fn find(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn union(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a.max(b)] = a.min(b);
    }
}
