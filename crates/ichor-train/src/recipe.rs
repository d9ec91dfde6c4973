//! The recipe: everything that decides what weights come out, in one TOML file. Unknown keys are refused.

use std::path::{Path, PathBuf};

use ichor_ct::input::InputPreset;
use ichor_model::{Strategy, SwinConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::augment::AugmentOptions;
use crate::loss::LossOptions;
use crate::phantoms::PhantomMix;
use crate::rivals::{RivalRecipe, RivalRecipeError, check_rivals};
use crate::seeds::{SeedRange, SplitError, check_disjoint};

/// A recipe cannot be used.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("recipe {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The text is not a recipe: a key is unknown, missing or of the wrong type.
    #[error("recipe {path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        source: Box<toml::de::Error>,
    },
    /// Two parts of the data share a study.
    #[error("recipe: {0}")]
    Split(#[from] SplitError),
    /// A value makes no sense.
    #[error("recipe: {0}")]
    Value(String),
    /// A rival cannot be.
    #[error("recipe: {0}")]
    Rival(#[from] RivalRecipeError),
}

/// A training run, from the phantoms to the manifest. `models/demo/recipe.toml` documents every key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the weights.
    pub name: String,
    /// Version of the weights.
    pub version: String,
    /// Seed of everything drawn during training.
    pub seed: u64,
    /// Learning strategy.
    pub strategy: Strategy,
    /// Input preset, stored with the weights.
    pub input_preset: InputPreset,
    /// Sizes of the network.
    pub model: SwinConfig,
    /// The optimizer.
    pub optimizer: OptimizerRecipe,
    /// The loss.
    #[serde(default)]
    pub loss: LossOptions,
    /// Random changes to training slices.
    #[serde(default)]
    pub augment: AugmentOptions,
    /// The curriculum, in order.
    pub phases: Vec<Phase>,
    /// Studies that choose thresholds and the best epoch.
    pub validation: HeldOut,
    /// Studies that nothing was chosen on.
    pub test: HeldOut,
    /// What the method is measured against besides the brightness rule. It has no part in the weights.
    #[serde(default, rename = "rival", skip_serializing_if = "Vec::is_empty")]
    pub rivals: Vec<RivalRecipe>,
}

/// Constants of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Slices in a batch, half of them positive.
    pub batch: usize,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Largest norm of the gradient; 0 = no limit.
    pub max_gradient_norm: f64,
    /// Decay of the running average of the weights, which is what is validated and shipped; 0 = the weights themselves.
    pub average_decay: f64,
}

/// One phase of the curriculum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What it is called in logs.
    pub name: String,
    /// Training studies.
    pub seeds: SeedRange,
    /// What phantoms they are.
    pub phantoms: PhantomMix,
    /// Passes over a balanced draw of the slices.
    pub epochs: usize,
    /// Most slices an epoch shows; absent = 2 × the minority class.
    #[serde(default)]
    pub slices_per_epoch: Option<usize>,
    /// Share of the negatives that are drawn from the levels of the head where the positives lie.
    #[serde(default)]
    pub matched_share: f64,
    /// Share of the pairs whose negative is the positive's twin, the same slice of the same head without the bleed.
    #[serde(default)]
    pub twin_share: f64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of the highest rate that is left at the phase's end.
    pub final_rate: f64,
    /// Steps over which the rate rises.
    pub warm_up_steps: u64,
}

/// Studies that training never sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// The studies.
    pub seeds: SeedRange,
    /// What phantoms they are.
    pub phantoms: PhantomMix,
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`RecipeError`] naming the file, and the line where the text is at fault.
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Parses and checks the text of a recipe; `path` is for messages.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, RecipeError> {
        let syntax = |source| RecipeError::Syntax { path: path.to_owned(), source: Box::new(source) };
        let recipe: Self = toml::from_str(text).map_err(syntax)?;
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), RecipeError> {
        let mut ranges: Vec<(String, SeedRange)> = Vec::new();
        for phase in &self.phases {
            // A later phase may show an earlier phase's heads again; the held-out ones stay apart from all.
            if !ranges.iter().any(|(_, range)| *range == phase.seeds) {
                ranges.push((format!("phase {:?}", phase.name), phase.seeds));
            }
        }
        ranges.push(("validation".to_owned(), self.validation.seeds));
        ranges.push(("test".to_owned(), self.test.seeds));
        check_disjoint(&ranges)?;
        for rival in &self.rivals {
            // Rivals may learn from the same heads as the method and as each other, but not from held-out ones.
            let held_out = ranges[ranges.len() - 2..].iter().cloned();
            check_disjoint(&held_out.chain([(format!("rival {:?}", rival.name()), rival.seeds)]).collect::<Vec<_>>())?;
        }
        check_rivals(&self.rivals, self.model.img_size)?;
        let fail = |why: String| Err(RecipeError::Value(why));
        if self.phases.is_empty() {
            return fail("at least one phase is needed".to_owned());
        }
        if self.optimizer.batch < 2 || !self.optimizer.batch.is_multiple_of(2) {
            return fail(format!("batch {} is not an even number of at least 2", self.optimizer.batch));
        }
        if self.model.num_classes != self.strategy.classes() {
            let (found, wanted) = (self.model.num_classes, self.strategy.classes());
            return fail(format!("{:?} needs {wanted} classes, the model has {found}", self.strategy));
        }
        for phase in &self.phases {
            let learns = phase.learning_rate.is_finite() && phase.learning_rate > 0.0;
            if phase.epochs == 0 || !learns || !(0.0..=1.0).contains(&phase.final_rate) {
                return fail(format!(
                    "phase {:?} needs an epoch, a positive rate and a final share of 0..1",
                    phase.name
                ));
            }
            if !(0.0..=1.0).contains(&phase.twin_share) {
                return fail(format!("phase {:?}: twin_share {} is not within 0..1", phase.name, phase.twin_share));
            }
            if !(0.0..=1.0).contains(&phase.matched_share) {
                return fail(format!(
                    "phase {:?}: matched_share {} is not within 0..1",
                    phase.name, phase.matched_share
                ));
            }
            phase.phantoms.check().map_err(|why| RecipeError::Value(format!("phase {:?}: {why}", phase.name)))?;
        }
        for (name, held_out) in [("validation", &self.validation), ("test", &self.test)] {
            held_out.phantoms.check().map_err(|why| RecipeError::Value(format!("{name}: {why}")))?;
        }
        Ok(())
    }

    /// SHA-256 of the recipe's content (not of its text: comments and spacing do not count), in hexadecimal. Rivals do not
    /// count: a run goes on when one is added.
    #[must_use]
    pub fn digest(&self) -> String {
        let learning = Self { rivals: Vec::new(), ..self.clone() };
        hex::encode(Sha256::digest(serde_json::to_vec(&learning).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = include_str!("../../../models/demo/recipe.toml");

    fn error(text: &str) -> String {
        Recipe::parse(text, Path::new("recipe.toml")).unwrap_err().to_string()
    }

    fn changed(from: &str, to: &str) -> String {
        assert!(DEMO.contains(from), "{from:?} is not in the recipe");
        DEMO.replacen(from, to, 1)
    }

    #[test]
    fn the_demonstration_recipe_is_sound() {
        let recipe = Recipe::parse(DEMO, Path::new("recipe.toml")).unwrap();
        assert_eq!(recipe.name, "ichor-demo");
        assert_eq!(recipe.test.seeds.studies, 60);
        assert_ne!(recipe.digest(), Recipe { seed: recipe.seed + 1, ..recipe.clone() }.digest());
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = error(&changed("batch = ", "batches = 3\nbatch = "));
        assert!(unknown.contains("batches") && unknown.contains("recipe.toml"), "{unknown}");
        let nested = error(&changed("min_spacing_mm = ", "min_spacing = 1.0, min_spacing_mm = "));
        assert!(nested.contains("min_spacing"), "{nested}");
        assert!(error(&changed("batch = 8", "batch = 7")).contains("even"));
        assert!(error(&changed("strategy = \"categorical\"", "strategy = \"binary\"")).contains("needs 1 classes"));
        assert!(error(&changed("strategy = \"categorical\"", "strategy = \"guess\"")).contains("guess"));
        assert!(error("").contains("missing field"));
    }

    #[test]
    fn held_out_studies_stay_out() {
        let recipe = Recipe::parse(DEMO, Path::new("recipe.toml")).unwrap();
        for phase in 0..recipe.phases.len() {
            let mut leaking = recipe.clone();
            leaking.test.seeds.first = leaking.phases[phase].seeds.first;
            assert!(matches!(leaking.check(), Err(RecipeError::Split(SplitError::Overlap(..)))), "phase {phase}");
        }
        let digest = recipe.digest();
        for (held_out, what) in [(recipe.validation.seeds, "validation"), (recipe.test.seeds, "test")] {
            let text = format!(
                "{DEMO}\n[[rival]]\nkind = \"unet\"\nseeds = {{ first = {}, studies = 1 }}\nepochs = 1\nbatch = 2\n\
                 phantoms = {{ positive_share = 1.0, matrices = [64], min_spacing_mm = 5.0 }}\n",
                held_out.first
            );
            assert!(error(&text).contains(&format!("{what} and rival \"unet\" overlap")), "{}", error(&text));
            let apart = text.replace(&format!("first = {}, studies = 1 ", held_out.first), "first = 1, studies = 1 ");
            let apart = Recipe::parse(&apart, Path::new("recipe.toml")).unwrap();
            assert_eq!((apart.rivals.len(), apart.digest()), (1, digest.clone()), "rivals have no part in the weights");
        }
        let mut leaking = recipe.clone();
        leaking.validation.seeds = leaking.test.seeds;
        assert!(matches!(leaking.check(), Err(RecipeError::Split(SplitError::Overlap(..)))));
    }
}
