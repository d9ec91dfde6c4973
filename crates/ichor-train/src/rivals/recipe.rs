//! What a recipe says of a rival.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::networks::{NetworkError, ResNetLstmSizes, SwinUnetrSizes, UNetSizes};
use crate::augment::AugmentOptions;
use crate::binarise::{Binarisation, BinariseError};
use crate::phantoms::PhantomMix;
use crate::seeds::SeedRange;

/// A rival that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RivalRecipeError {
    /// A value makes no sense.
    #[error("rival {0:?}: {1}")]
    Value(String, String),
    /// The network's sizes do not fit together, or not to the input.
    #[error("rival {0:?}: {1}")]
    Network(String, NetworkError),
    /// The binarisation makes no sense.
    #[error("rival {0:?}: {1}")]
    Binarisation(String, BinariseError),
    /// Two rivals have one name, and would share a folder and a row.
    #[error("two rivals are called {0:?}; give one of them another name")]
    Twice(String),
}

/// The rivals that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RivalKind {
    /// U-Net, trained on masks.
    Unet,
    /// Swin-UNETR, trained on masks.
    SwinUnetr,
    /// ResNet and LSTM with class-activation maps, trained on slice labels.
    ResnetLstm,
}

impl RivalKind {
    /// The name in recipes, also that of a rival without one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::SwinUnetr => "swin-unetr",
            Self::ResnetLstm => "resnet-lstm",
        }
    }
}

/// One `[[rival]]` of a recipe: a network, its training slices and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RivalRecipe {
    /// Which network.
    pub kind: RivalKind,
    /// Name of its folder and its row; absent = the kind. Small letters, digits and hyphens.
    #[serde(default)]
    pub name: Option<String>,
    /// Sizes of a U-Net; absent = 24-48-96-192.
    #[serde(default)]
    pub unet: Option<UNetSizes>,
    /// Sizes of a Swin-UNETR; absent = feature size 12, depths 2-2-2-2, heads 2-4-8-16, window 7.
    #[serde(default)]
    pub swin_unetr: Option<SwinUnetrSizes>,
    /// Sizes of a ResNet-LSTM; absent = width 64, last stride 2, hidden 128.
    #[serde(default)]
    pub resnet_lstm: Option<ResNetLstmSizes>,
    /// Training studies; a tenth of them (see `validation_share`) chooses the epoch.
    pub seeds: SeedRange,
    /// What phantoms they are.
    pub phantoms: PhantomMix,
    /// Share of the training studies that is kept apart to choose the epoch, at least one study.
    #[serde(default = "a_tenth")]
    pub validation_share: f64,
    /// Passes over the training slices.
    pub epochs: usize,
    /// Epochs without a lower validation loss after which the training stops; absent = all epochs.
    #[serde(default)]
    pub patience: Option<usize>,
    /// Learning rate of AdamW.
    #[serde(default = "a_thousandth")]
    pub learning_rate: f64,
    /// Share of the rate that is left at the end (half a cosine); 1 = a constant rate.
    #[serde(default = "one")]
    pub final_rate: f64,
    /// Decoupled weight decay of matrices and kernels.
    #[serde(default = "a_hundredth")]
    pub weight_decay: f64,
    /// Slices of a step, half of them positive; scans of a step for `resnet-lstm`.
    pub batch: usize,
    /// Most slices that an epoch shows (absent = 2 × the minority class); of no meaning for `resnet-lstm`.
    #[serde(default)]
    pub slices_per_epoch: Option<usize>,
    /// Consecutive slices of a scan that a step of `resnet-lstm` sees, drawn anew each time.
    #[serde(default = "twenty_four")]
    pub sequence: usize,
    /// Random changes to training slices, masks with them.
    #[serde(default)]
    pub augment: AugmentOptions,
    /// How the class-activation maps of `resnet-lstm` become masks; absent = grid search on the other folds of five.
    #[serde(default)]
    pub binarisation: Option<Binarisation>,
    /// A supervised rival calls a slice positive that has more foreground pixels than this, on the network's grid.
    #[serde(default = "ten")]
    pub min_pixels: usize,
}

const fn a_tenth() -> f64 {
    0.1
}

const fn a_hundredth() -> f64 {
    0.01
}

const fn a_thousandth() -> f64 {
    1e-3
}

const fn one() -> f64 {
    1.0
}

const fn twenty_four() -> usize {
    24
}

const fn ten() -> usize {
    10
}

impl RivalRecipe {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.name())
    }

    /// How its maps become masks.
    #[must_use]
    pub fn binarisation(&self) -> Binarisation {
        self.binarisation.unwrap_or(Binarisation::GridSearch { folds: 5 })
    }

    /// Says what is wrong with the values, if anything is; `size` is the side of the input.
    ///
    /// # Errors
    /// [`RivalRecipeError`].
    pub fn check(&self, size: i64) -> Result<(), RivalRecipeError> {
        let name = self.name();
        let fail = |why: String| Err(RivalRecipeError::Value(name.to_owned(), why));
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return fail("a name is 1 to 64 small letters, digits and hyphens".to_owned());
        }
        let given = [
            (RivalKind::Unet, self.unet.is_some()),
            (RivalKind::SwinUnetr, self.swin_unetr.is_some()),
            (RivalKind::ResnetLstm, self.resnet_lstm.is_some()),
        ];
        if let Some((other, _)) = given.iter().find(|(kind, given)| *given && *kind != self.kind) {
            return fail(format!("sizes of a {} have no place in a {}", other.name(), self.kind.name()));
        }
        if self.binarisation.is_some() && self.kind != RivalKind::ResnetLstm {
            return fail(format!("a {} has no maps to binarise: its mask is the arg-max", self.kind.name()));
        }
        let rates = [self.learning_rate, self.final_rate, self.weight_decay, self.validation_share];
        if rates.iter().any(|rate| !rate.is_finite()) || self.learning_rate <= 0.0 || self.weight_decay < 0.0 {
            return fail("learning_rate must be positive and weight_decay not negative".to_owned());
        }
        if !(0.0..=1.0).contains(&self.final_rate) || !(0.0..0.9).contains(&self.validation_share) {
            return fail("final_rate must lie within 0..=1 and validation_share within 0..0.9".to_owned());
        }
        if [Some(self.epochs), Some(self.batch), Some(self.sequence), self.patience].contains(&Some(0)) {
            return fail("epochs, patience, batch and sequence must be at least 1".to_owned());
        }
        if self.kind != RivalKind::ResnetLstm && !self.batch.is_multiple_of(2) {
            return fail(format!("batch {} is not even, so half of it cannot be positive", self.batch));
        }
        self.phantoms.check().map_err(|why| RivalRecipeError::Value(name.to_owned(), why))?;
        self.binarisation().check().map_err(|error| RivalRecipeError::Binarisation(name.to_owned(), error))?;
        match self.kind {
            RivalKind::Unet => self.unet.clone().unwrap_or_default().check(size),
            RivalKind::SwinUnetr => self.swin_unetr.clone().unwrap_or_default().check(size),
            RivalKind::ResnetLstm => self.resnet_lstm.clone().unwrap_or_default().check(size),
        }
        .map_err(|error| RivalRecipeError::Network(name.to_owned(), error))
    }
}

/// Checks all rivals of a recipe; `size` is the side of the input.
///
/// # Errors
/// [`RivalRecipeError`] naming the first offence.
pub fn check_rivals(rivals: &[RivalRecipe], size: i64) -> Result<(), RivalRecipeError> {
    for (index, rival) in rivals.iter().enumerate() {
        rival.check(size)?;
        if rivals[..index].iter().any(|other| other.name() == rival.name()) {
            return Err(RivalRecipeError::Twice(rival.name().to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"
        kind = "unet"
        seeds = { first = 1, studies = 4 }
        phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
        epochs = 2
        batch = 4
    "#;

    fn read(changes: &str) -> RivalRecipe {
        toml::from_str(&format!("{PLAIN}\n{changes}")).unwrap()
    }

    fn error(rival: &RivalRecipe) -> String {
        rival.check(192).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_the_papers() {
        let rival = read("");
        rival.check(192).unwrap();
        assert_eq!((rival.name(), rival.learning_rate, rival.min_pixels), ("unet", 1e-3, 10));
        assert_eq!(rival.binarisation(), Binarisation::GridSearch { folds: 5 });
        assert_eq!(UNetSizes::default().widths, [24, 48, 96, 192]);
        let swin = SwinUnetrSizes::default();
        assert_eq!((swin.feature_size, swin.window_size), (12, 7));
        assert_eq!((swin.depths, swin.num_heads), (vec![2; 4], vec![2, 4, 8, 16]));
    }

    #[test]
    fn the_documented_rivals_are_sound() {
        let demo = include_str!("../../../../models/demo/recipe.toml");
        let (_, rivals) = demo.split_once("# Rivals").unwrap();
        // What is commented out as TOML begins with "#|".
        let text: String =
            rivals.lines().filter_map(|line| line.strip_prefix("#|")).map(|l| format!("{l}\n")).collect();
        #[derive(Deserialize)]
        struct Rivals {
            rival: Vec<RivalRecipe>,
        }
        let rivals = toml::from_str::<Rivals>(&text).unwrap().rival;
        assert_eq!(rivals.iter().map(RivalRecipe::name).collect::<Vec<_>>(), ["unet", "swin-unetr", "resnet-lstm"]);
        check_rivals(&rivals, 192).unwrap();
        // Every key is there.
        for key in serde_json::to_value(&rivals[0]).unwrap().as_object().unwrap().keys() {
            assert!(text.contains(&format!("{key} = ")), "{key} is not documented");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(error(&read("swin_unetr = { feature_size = 24 }")).contains("swin-unetr have no place in a unet"));
        assert!(error(&read("unet = { widths = [4, 4, 4, 4, 4, 4, 4, 4] }")).contains("not a multiple of 128"));
        assert!(error(&read("binarisation = { rule = \"otsu\" }")).contains("no maps to binarise"));
        assert!(error(&read("learning_rate = -1.0")).contains("learning_rate"));
        assert!(error(&read("validation_share = 1.0")).contains("validation_share"));
        assert!(error(&read("name = \"../etc\"")).contains("small letters"));
        assert!(error(&RivalRecipe { batch: 3, ..read("") }).contains("batch 3 is not even"));
        assert!(error(&RivalRecipe { epochs: 0, ..read("") }).contains("at least 1"));
        assert!(error(&read("patience = 0")).contains("patience"));
        let otsu = Some(Binarisation::Otsu { kernel: 2 });
        let lstm = RivalRecipe { kind: RivalKind::ResnetLstm, binarisation: otsu, batch: 3, ..read("") };
        assert!(error(&lstm).contains("kernel 2"));
        let unknown = toml::from_str::<RivalRecipe>(&format!("{PLAIN}\nepoch = 3")).unwrap_err().to_string();
        assert!(unknown.contains("epoch"), "{unknown}");
        let kind = PLAIN.replace("unet", "resnet");
        assert!(toml::from_str::<RivalRecipe>(&kind).unwrap_err().to_string().contains("resnet"));
        let named = read("name = \"swin-unetr\"");
        let other = RivalRecipe { kind: RivalKind::SwinUnetr, ..read("") };
        let twice = check_rivals(&[named, other], 192).unwrap_err().to_string();
        assert!(twice.contains("two rivals are called \"swin-unetr\""), "{twice}");
    }
}
