//! The label of a slice: which subtypes it shows, and whether any.

use ichor_core::HemorrhageSubtype;
use serde::{Deserialize, Serialize};

/// Six bits in the order of the multi-label head: epidural, intraparenchymal, intraventricular, subarachnoid, subdural,
/// any. It is all that training sees of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SliceLabel(u8);

const ANY: u8 = 1 << 5;

impl SliceLabel {
    /// No hemorrhage.
    pub const NONE: Self = Self(0);

    /// The label of a slice that shows these subtypes.
    #[must_use]
    pub fn of(subtypes: impl IntoIterator<Item = HemorrhageSubtype>) -> Self {
        let bits = subtypes.into_iter().fold(0, |bits, subtype| bits | 1 << position(subtype));
        Self(if bits == 0 { 0 } else { bits | ANY })
    }

    /// Some hemorrhage of which the subtype is not known.
    pub const UNSPECIFIED: Self = Self(ANY);

    /// Reads the bits back; `None` if they contradict themselves: a subtype without `any`. `any` alone is
    /// [`SliceLabel::UNSPECIFIED`].
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        let subtypes = bits & (ANY - 1);
        ((bits & !(ANY | (ANY - 1))) == 0 && (subtypes == 0 || bits & ANY != 0)).then_some(Self(bits))
    }

    /// The six bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether the slice shows any hemorrhage.
    #[must_use]
    pub fn any(self) -> bool {
        self.0 & ANY != 0
    }

    /// Whether the slice shows this subtype.
    #[must_use]
    pub fn shows(self, subtype: HemorrhageSubtype) -> bool {
        self.0 & (1 << position(subtype)) != 0
    }
}

fn position(subtype: HemorrhageSubtype) -> usize {
    HemorrhageSubtype::ALL.iter().position(|&s| s == subtype).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_follow_the_head() {
        assert_eq!(SliceLabel::of([]).bits(), 0);
        assert!(SliceLabel::UNSPECIFIED.any() && SliceLabel::from_bits(32) == Some(SliceLabel::UNSPECIFIED));
        assert_eq!(SliceLabel::of([HemorrhageSubtype::ALL[0]]).bits(), 0b10_0001);
        assert_eq!(SliceLabel::of([HemorrhageSubtype::ALL[4], HemorrhageSubtype::ALL[1]]).bits(), 0b11_0010);
        for bits in 0..=255u8 {
            let consistent = bits < 64 && (bits & 31 == 0 || bits & 32 != 0);
            assert_eq!(SliceLabel::from_bits(bits).is_some(), consistent, "{bits:b}");
        }
    }
}
