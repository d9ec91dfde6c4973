//! Windows: cutting the token grid, and the constants that depend on sizes alone.

use tch::{Kind, Tensor};

/// `[batch, g, g, dim]` → `[batch × windows, N, dim]`
pub(super) fn window_partition(x: &Tensor, window: i64) -> Tensor {
    let (b, g, dim) = (x.size()[0], x.size()[1], x.size()[3]);
    let side = g / window;
    x.view([b, side, window, side, window, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([-1, window * window, dim])
}

/// The inverse of [`window_partition`].
pub(super) fn window_reverse(x: &Tensor, window: i64, grid: i64) -> Tensor {
    let (side, dim) = (grid / window, x.size()[2]);
    x.view([-1, side, side, window, window, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([-1, grid, grid, dim])
}

/// One value a token, windows apart → token grid: `[batch × windows, N]` → `[batch, g, g]`.
pub(crate) fn tokens_to_grid(x: &Tensor, window: i64, grid: i64) -> Tensor {
    window_reverse(&x.unsqueeze(-1), window, grid).squeeze_dim(-1)
}

/// Row of the bias table that belongs to each pair of tokens (query-major), `[N × N]`.
pub(super) fn relative_position_index(window: i64) -> Tensor {
    let tokens = window * window;
    let pairs = (0..tokens).flat_map(|query| (0..tokens).map(move |key| (query, key)));
    let index: Vec<i64> = pairs
        .map(|(query, key)| {
            let rows = query / window - key / window + window - 1;
            let columns = query % window - key % window + window - 1;
            rows * (2 * window - 1) + columns
        })
        .collect();
    Tensor::from_slice(&index)
}

/// −100 between tokens that only the cyclic shift brought together, else 0: `[windows, N, N]`.
pub(super) fn shift_mask(grid: i64, window: i64, shift: i64) -> Tensor {
    let band = |at: i64| i64::from(at >= grid - window) + i64::from(at >= grid - shift);
    let cells = (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column)));
    let regions: Vec<f32> = cells.map(|(row, column)| (band(row) * 3 + band(column)) as f32).collect();
    let regions = Tensor::from_slice(&regions).view([1, grid, grid, 1]);
    let regions = window_partition(&regions, window).squeeze_dim(-1); // [windows, N]
    let apart = regions.unsqueeze(1).ne_tensor(&regions.unsqueeze(2)); // [windows, N, N]
    apart.to_kind(Kind::Float) * -100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(grid: i64) -> Tensor {
        Tensor::arange(2 * grid * grid * 3, (Kind::Float, tch::Device::Cpu)).view([2, grid, grid, 3])
    }

    #[test]
    fn partition_and_reverse_are_inverse() {
        let x = numbered(6);
        let windows = window_partition(&x, 3);
        assert_eq!(windows.size(), [8, 9, 3]);
        assert_eq!(window_reverse(&windows, 3, 6), x);
        let first = x.select(-1, 0);
        assert_eq!(tokens_to_grid(&windows.select(-1, 0), 3, 6), first);
    }

    #[test]
    fn position_index_is_symmetric_about_its_centre() {
        let index: Vec<i64> = relative_position_index(3).try_into().unwrap();
        let last = 5 * 5 - 1;
        for query in 0..9 {
            assert_eq!(index[query * 9 + query], last / 2);
            for key in 0..9 {
                assert_eq!(index[query * 9 + key] + index[key * 9 + query], last);
            }
        }
        assert_eq!(index[8], 0, "first token looking at the last: offsets −2, −2");
    }

    #[test]
    fn shift_mask_parts_only_the_windows_at_the_seam() {
        let mask = shift_mask(4, 2, 1);
        assert_eq!(mask.size(), [4, 4, 4]);
        assert_eq!(mask.get(0).abs().sum(Kind::Float).double_value(&[]), 0.0);
        // The last window holds four regions: nothing may see anything but itself.
        let corner: Vec<f32> = mask.get(3).flatten(0, -1).try_into().unwrap();
        for (at, value) in corner.iter().enumerate() {
            assert_eq!(*value, if at / 4 == at % 4 { 0.0 } else { -100.0 });
        }
    }
}
