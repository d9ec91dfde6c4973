//! In which order tokens lie. Everything but attention and merging treats tokens one by one, so the residual stream stays
//! in the window order of the block at hand, and one gather between two blocks stands for two rolls and two
//! partitions.

use tch::{Device, TchError, Tensor};

use crate::config::StagePlan;

/// A permutation of tokens, perhaps with some left out or put in between, and its way back for gradients.
#[derive(Debug)]
pub(super) struct Gather {
    forth: Tensor,
    back: Tensor,
    /// 0 where a source token was left out, `[1, sources, 1]`; absent if none was.
    back_mask: Option<Tensor>,
}

impl Gather {
    /// `forth[i]`: which of `sources` tokens lies at place i; -1 for padding, which takes the first one: it is masked
    /// where it could matter, and gives no gradient.
    fn new(forth: &[i64], sources: usize, device: Device) -> Self {
        let mut back = vec![-1i64; sources];
        for (place, &source) in (0i64..).zip(forth) {
            if let Some(slot) = usize::try_from(source).ok().and_then(|source| back.get_mut(source)) {
                *slot = place;
            }
        }
        let forth: Vec<i64> = forth.iter().map(|&source| source.max(0)).collect();
        let mask: Vec<f32> = back.iter().map(|&place| if place < 0 { 0.0 } else { 1.0 }).collect();
        let back: Vec<i64> = back.into_iter().map(|place| place.max(0)).collect();
        let back_mask = mask.contains(&0.0).then(|| Tensor::from_slice(&mask).view([1, -1, 1]).to_device(device));
        Self {
            forth: Tensor::from_slice(&forth).to_device(device),
            back: Tensor::from_slice(&back).to_device(device),
            back_mask,
        }
    }

    /// `[batch, sources, dim]` → `[batch, places, dim]`
    pub(super) fn forth(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_index_select(1, &self.forth)
    }

    /// Gradients: `[batch, places, dim]` → `[batch, sources, dim]`
    pub(super) fn back(&self, gradient: &Tensor) -> Result<Tensor, TchError> {
        let gradient = gradient.f_index_select(1, &self.back)?;
        match &self.back_mask {
            Some(mask) => gradient.f_mul(mask),
            None => Ok(gradient),
        }
    }
}

/// Where the tokens of a block lie: `places[i]` is the row-major place on the grid of the i-th token in window order, -1
/// for padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WindowOrder {
    places: Vec<i64>,
    grid: i64,
}

impl WindowOrder {
    pub(super) fn new(stage: &StagePlan, shift: i64) -> Self {
        let (grid, window) = (stage.grid, stage.window);
        let side = stage.padded() / window;
        let mut places = Vec::with_capacity((stage.padded() * stage.padded()) as usize);
        for (down, across) in (0..side).flat_map(|down| (0..side).map(move |across| (down, across))) {
            for (row, column) in (0..window).flat_map(|row| (0..window).map(move |column| (row, column))) {
                let (row, column) = (down * window + row, across * window + column);
                // Padding comes after the shift, as in timm.
                let inside = row < grid && column < grid;
                places.push(if inside { (row + shift) % grid * grid + (column + shift) % grid } else { -1 });
            }
        }
        Self { places, grid }
    }

    /// Tokens, padding included.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// 0 for padding, 1 for tokens, `[1, len, 1]`; absent if there is no padding.
    pub(super) fn mask(&self, device: Device) -> Option<Tensor> {
        let mask: Vec<f32> = self.places.iter().map(|&place| if place < 0 { 0.0 } else { 1.0 }).collect();
        mask.contains(&0.0).then(|| Tensor::from_slice(&mask).view([1, -1, 1]).to_device(device))
    }

    /// From the row-major grid into this order.
    pub(super) fn grid_gather(&self, device: Device) -> Gather {
        Gather::new(&self.places, (self.grid * self.grid) as usize, device)
    }

    /// From this order to the row-major grid.
    pub(super) fn to_grid(&self, device: Device) -> Gather {
        Gather::new(&self.at(), self.len(), device)
    }

    /// From this order into another one of the same grid.
    pub(super) fn to(&self, other: &Self, device: Device) -> Gather {
        let at = self.at();
        let found = |place: i64| usize::try_from(place).ok().and_then(|place| at.get(place)).copied();
        let forth: Vec<i64> = other.places.iter().map(|&place| found(place).unwrap_or(-1)).collect();
        Gather::new(&forth, self.len(), device)
    }

    /// From this order into that of the next stage, four tokens that are merged after each other: column parity before
    /// row parity, the checkpoints' order.
    pub(super) fn merged(&self, next: &Self, device: Device) -> Gather {
        let (at, grid) = (self.at(), self.grid);
        let four = |place: i64| {
            let (row, column) = (place / next.grid * 2, place % next.grid * 2);
            [(row, column), (row + 1, column), (row, column + 1), (row + 1, column + 1)]
                .map(|(row, column)| if place < 0 { -1 } else { at[(row * grid + column) as usize] })
        };
        let forth = next.places.iter().flat_map(|&place| four(place));
        Gather::new(&forth.collect::<Vec<i64>>(), self.len(), device)
    }

    /// Where each place of the grid lies in this order.
    fn at(&self) -> Vec<i64> {
        let mut at = vec![0; (self.grid * self.grid) as usize];
        for (index, &place) in (0i64..).zip(&self.places) {
            if let Some(slot) = usize::try_from(place).ok().and_then(|place| at.get_mut(place)) {
                *slot = index;
            }
        }
        at
    }
}
