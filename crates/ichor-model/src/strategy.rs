//! Learning strategies: how many logits a head has, which one says "hemorrhage", and how it becomes a probability.

use ichor_core::HemorrhageSubtype;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// What the head was trained to say (arXiv 2304.04902v2, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Two logits, cross-entropy, softmax: the paper's choice.
    Categorical,
    /// One logit, sigmoid.
    Binary,
    /// The five subtypes in [`HemorrhageSubtype::ALL`]'s order and `any`, each a sigmoid.
    Multilabel,
}

impl Strategy {
    /// The strategy of a head with so many logits.
    #[must_use]
    pub fn of_classes(classes: i64) -> Option<Self> {
        [Self::Categorical, Self::Binary, Self::Multilabel].into_iter().find(|s| s.classes() == classes)
    }

    /// Logits of the head.
    #[must_use]
    pub const fn classes(self) -> i64 {
        match self {
            Self::Categorical => 2,
            Self::Binary => 1,
            Self::Multilabel => HemorrhageSubtype::ALL.len() as i64 + 1,
        }
    }

    /// Index of the logit that says "hemorrhage": the last one in all of them.
    #[must_use]
    pub const fn positive_logit(self) -> i64 {
        self.classes() - 1
    }

    /// Probability of hemorrhage: logits `[batch, classes]` → `[batch]`.
    pub fn probability(self, logits: &Tensor) -> Tensor {
        match self {
            Self::Categorical => logits.softmax(-1, logits.kind()).select(1, self.positive_logit()),
            Self::Binary | Self::Multilabel => logits.select(1, self.positive_logit()).sigmoid(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_outs() {
        let logits = Tensor::from_slice(&[0.0f32, 0.0, 1.0, 3.0]).view([2, 2]);
        let p: Vec<f32> = Strategy::Categorical.probability(&logits).try_into().unwrap();
        assert!((p[0] - 0.5).abs() < 1e-6 && (p[1] - 0.880_797).abs() < 1e-6);
        let p: Vec<f32> = Strategy::Binary.probability(&Tensor::from_slice(&[2.0f32]).view([1, 1])).try_into().unwrap();
        assert!((p[0] - 0.880_797).abs() < 1e-6);
        let six = Tensor::from_slice(&[9.0f32, 9.0, 9.0, 9.0, 9.0, 0.0]).view([1, 6]);
        let p: Vec<f32> = Strategy::Multilabel.probability(&six).try_into().unwrap();
        assert!((p[0] - 0.5).abs() < 1e-6, "only the logit of any counts");
    }

    #[test]
    fn classes_name_the_strategy() {
        for strategy in [Strategy::Categorical, Strategy::Binary, Strategy::Multilabel] {
            assert_eq!(Strategy::of_classes(strategy.classes()), Some(strategy));
        }
        assert_eq!(Strategy::of_classes(3), None);
    }
}
