//! How far two models agree on the same studies, and how far two distributions of scores do.

use serde::Serialize;

/// Half the width of a 95 % interval, in standard errors.
const WIDTH_95: f64 = 1.959_964;

/// What two models said of one study.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Verdicts of the active model and of the other.
    pub positive: [bool; 2],
    /// Study-level probabilities, 0 to 1.
    pub probability: [f64; 2],
    /// Volumes in mL.
    pub volume_ml: [f64; 2],
    /// Dice of the other's masks against the active one's; `None` where one of the two has none.
    pub dice: Option<f64>,
}

/// How far two models agree.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Agreement {
    /// Studies that both judged.
    pub studies: u64,
    /// Positive by both.
    pub both_positive: u64,
    /// Positive by the active model only.
    pub only_active: u64,
    /// Positive by the other only.
    pub only_other: u64,
    /// Negative by both.
    pub both_negative: u64,
    /// Cohen's kappa with its 95 % interval; none where both say the same of every study.
    pub kappa: Option<Estimate>,
    /// 2a / (2a + b + c): of the studies that either calls positive, how far the other does too.
    pub positive_agreement: Option<f64>,
    /// 2d / (2d + b + c).
    pub negative_agreement: Option<f64>,
    /// Mean absolute difference of the study-level probabilities.
    pub probability_difference: Option<f64>,
    /// Bland–Altman of the volumes of studies where either found any.
    pub volume: Option<BlandAltman>,
    /// Overlap of the masks, where both made some.
    pub dice: Option<Overlap>,
}

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Differences of volumes, the other's less the active one's, in mL (Bland and Altman 1986).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BlandAltman {
    /// Studies.
    pub studies: u64,
    /// Mean difference.
    pub mean_ml: f64,
    /// Lower limit of agreement: 1.96 standard deviations below the mean.
    pub low_ml: f64,
    /// Upper limit of agreement.
    pub high_ml: f64,
}

/// Dice over studies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Overlap {
    /// Studies.
    pub studies: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
}

impl Agreement {
    /// Sums pairs up.
    #[must_use]
    pub fn of(pairs: &[Pair]) -> Self {
        let count = |positive: [bool; 2]| pairs.iter().filter(|pair| pair.positive == positive).count() as u64;
        let (both_positive, both_negative) = (count([true, true]), count([false, false]));
        let (only_active, only_other) = (count([true, false]), count([false, true]));
        let apart = (only_active + only_other) as f64;
        let share = |same: u64| {
            let all = 2.0 * same as f64 + apart;
            (all > 0.0).then(|| 2.0 * same as f64 / all)
        };
        let differences: Vec<f64> =
            pairs.iter().map(|pair| (pair.probability[1] - pair.probability[0]).abs()).collect();
        Self {
            studies: pairs.len() as u64,
            both_positive,
            only_active,
            only_other,
            both_negative,
            kappa: kappa([both_positive, only_active, only_other, both_negative]),
            positive_agreement: share(both_positive),
            negative_agreement: share(both_negative),
            probability_difference: mean(&differences),
            volume: bland_altman(pairs),
            dice: overlap(pairs),
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Cohen's kappa of a 2×2 table (both, first only, second only, neither) with the large-sample variance of Fleiss, Cohen and
/// Everitt (1969). `None` where chance alone agrees on everything.
fn kappa(table: [u64; 4]) -> Option<Estimate> {
    let n: u64 = table.iter().sum();
    let p = table.map(|count| count as f64 / n.max(1) as f64);
    let cells = [[p[0], p[1]], [p[2], p[3]]];
    let rows = [p[0] + p[1], p[2] + p[3]];
    let columns = [p[0] + p[2], p[1] + p[3]];
    let observed = p[0] + p[3];
    let chance = rows[0] * columns[0] + rows[1] * columns[1];
    if n == 0 || 1.0 - chance < 1e-12 {
        return None;
    }
    let value = (observed - chance) / (1.0 - chance);
    let mut sum = -(observed * chance - 2.0 * chance + observed).powi(2);
    for i in 0..2 {
        sum += cells[i][i] * ((1.0 - chance) - (columns[i] + rows[i]) * (1.0 - observed)).powi(2);
        let j = 1 - i;
        sum += (1.0 - observed).powi(2) * cells[i][j] * (columns[i] + rows[j]).powi(2);
    }
    let half = WIDTH_95 * (sum.max(0.0) / n as f64).sqrt() / (1.0 - chance).powi(2);
    Some(Estimate { value, low: (value - half).max(-1.0), high: (value + half).min(1.0) })
}

fn bland_altman(pairs: &[Pair]) -> Option<BlandAltman> {
    let differences: Vec<f64> = (pairs.iter().filter(|pair| pair.volume_ml.iter().any(|ml| *ml > 0.0)))
        .map(|pair| pair.volume_ml[1] - pair.volume_ml[0])
        .collect();
    let mean_ml = mean(&differences)?;
    let freedom = differences.len().saturating_sub(1).max(1) as f64;
    let deviation = (differences.iter().map(|d| (d - mean_ml).powi(2)).sum::<f64>() / freedom).sqrt();
    let (low_ml, high_ml) = (mean_ml - WIDTH_95 * deviation, mean_ml + WIDTH_95 * deviation);
    Some(BlandAltman { studies: differences.len() as u64, mean_ml, low_ml, high_ml })
}

fn overlap(pairs: &[Pair]) -> Option<Overlap> {
    let mut values: Vec<f64> = pairs.iter().filter_map(|pair| pair.dice).collect();
    values.sort_by(f64::total_cmp);
    let (mean, lowest, middle) = (mean(&values)?, *values.first()?, values.len() / 2);
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some(Overlap { studies: values.len() as u64, mean, median, lowest })
}

/// Population stability index of two histograms over the same bins: Σ (p − q) ln (p / q), half a count being added to each bin so
/// that an empty one is finite. Customarily below 0.1 is stable and above 0.25 a shift. `None` if one of them is empty.
#[must_use]
pub fn stability_index(now: &[u64], before: &[u64]) -> Option<f64> {
    let share = |bins: &[u64]| {
        let sum: u64 = bins.iter().sum();
        let all = sum as f64 + 0.5 * bins.len() as f64;
        (sum > 0).then(|| bins.iter().map(|count| (*count as f64 + 0.5) / all).collect::<Vec<f64>>())
    };
    let (now, before) = (share(now)?, share(before)?);
    Some(now.iter().zip(&before).map(|(p, q)| (p - q) * (p / q).ln()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(table: [usize; 4]) -> Vec<Pair> {
        let cells = [[true, true], [true, false], [false, true], [false, false]];
        let pair = |positive: [bool; 2]| Pair {
            positive,
            probability: positive.map(|yes| if yes { 0.9 } else { 0.2 }),
            volume_ml: positive.map(|yes| if yes { 10.0 } else { 0.0 }),
            dice: (positive == [true, true]).then_some(0.8),
        };
        table.iter().zip(cells).flat_map(|(count, cell)| vec![pair(cell); *count]).collect()
    }

    #[test]
    fn kappa_of_a_table_worked_by_hand() {
        let agreement = Agreement::of(&pairs([20, 5, 10, 15]));
        let kappa = agreement.kappa.unwrap();
        // Standard error 0.1270 by the formula of 1969.
        assert!((kappa.value - 0.4).abs() < 1e-9 && (kappa.low - 0.1511).abs() < 1e-3, "{kappa:?}");
        assert!((kappa.high - 0.6489).abs() < 1e-3);
        assert_eq!((agreement.studies, agreement.only_active, agreement.only_other), (50, 5, 10));
        assert!((agreement.positive_agreement.unwrap() - 40.0 / 55.0).abs() < 1e-12);
        assert!((agreement.negative_agreement.unwrap() - 30.0 / 45.0).abs() < 1e-12);
        assert!((agreement.probability_difference.unwrap() - 0.7 * 15.0 / 50.0).abs() < 1e-12);
        let volume = agreement.volume.unwrap();
        assert_eq!(volume.studies, 35, "studies in which neither found any are left out");
        assert!((volume.mean_ml - (100.0 - 50.0) / 35.0).abs() < 1e-9 && volume.low_ml < volume.mean_ml);
        assert_eq!(agreement.dice.unwrap().studies, 20);
    }

    #[test]
    fn what_cannot_be_said_is_not_said() {
        assert_eq!(Agreement::of(&[]), Agreement::default());
        let same = Agreement::of(&pairs([0, 0, 0, 7]));
        assert_eq!((same.kappa, same.positive_agreement, same.negative_agreement), (None, None, Some(1.0)));
        assert_eq!((same.volume, same.dice), (None, None));
        let opposite = Agreement::of(&pairs([0, 3, 3, 0])).kappa.unwrap();
        assert!((opposite.value + 1.0).abs() < 1e-9 && opposite.low >= -1.0, "{opposite:?}");
        assert!((Agreement::of(&pairs([4, 0, 0, 4])).kappa.unwrap().value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn dice_has_a_median() {
        let with = |values: &[f64]| {
            let pair = |dice: &f64| Pair { dice: Some(*dice), ..pairs([1, 0, 0, 0])[0] };
            Agreement::of(&values.iter().map(pair).collect::<Vec<_>>()).dice.unwrap()
        };
        assert_eq!((with(&[0.9, 0.1, 0.5]).median, with(&[0.9, 0.1, 0.5]).lowest), (0.5, 0.1));
        assert!((with(&[0.9, 0.1, 0.5, 0.7]).median - 0.6).abs() < 1e-12);
    }

    #[test]
    fn stability_of_histograms() {
        assert_eq!(stability_index(&[0, 0], &[1, 1]), None);
        assert!(stability_index(&[10, 20, 30], &[10, 20, 30]).unwrap().abs() < 1e-12);
        let shifted = stability_index(&[10, 20, 70], &[70, 20, 10]).unwrap();
        assert!(shifted > 0.25, "{shifted}");
        assert!((shifted - stability_index(&[70, 20, 10], &[10, 20, 70]).unwrap()).abs() < 1e-12, "both ways the same");
    }
}
