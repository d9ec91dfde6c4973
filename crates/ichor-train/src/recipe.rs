//! The recipe: everything that decides what weights come out, in one TOML file. Unknown keys are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ichor_ct::input::InputPreset;
use ichor_model::{Strategy, SwinConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::augment::AugmentOptions;
use crate::data::{DataRecipe, Part};
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

/// A training run, from the data to the manifest. `models/demo/recipe.toml` documents every key of training on phantoms,
/// `models/recipes` those of training on data that somebody brings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Folder of the recipe's file: relative paths in it start there.
    #[serde(skip)]
    pub folder: PathBuf,
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
    /// Weights to start from, safetensors or a PyTorch state dict; absent = from nothing. A head of other size starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// Data that somebody brings, by the name that phases and held-out parts call it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, DataRecipe>,
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
    /// Further studies that nothing was chosen on, each set reported by itself.
    #[serde(default, rename = "also_test", skip_serializing_if = "Vec::is_empty")]
    pub also_tests: Vec<AlsoTest>,
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
    /// Training studies, where they are phantoms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<SeedRange>,
    /// What phantoms they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phantoms: Option<PhantomMix>,
    /// The name in `[data]` whose training part is shown instead of phantoms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
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
    /// Epochs before those of the phase, in which the head alone learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_first: Option<HeadFirst>,
    /// Ends the phase after so many epochs without a lower validation loss; it then leaves its best epoch's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<usize>,
}

/// Training of the head alone, before everything learns (section 4.2 of the paper).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadFirst {
    /// Epochs, before those of the phase.
    pub epochs: usize,
    /// The rate, which stays the same.
    pub learning_rate: f64,
}

/// Studies that training never sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// The studies, where they are phantoms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<SeedRange>,
    /// What phantoms they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phantoms: Option<PhantomMix>,
    /// The name in `[data]` that is held out instead of phantoms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Which part of that data; absent = the one named like the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// A further set of test studies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlsoTest {
    /// What reports call it.
    pub name: String,
    /// The studies.
    pub seeds: SeedRange,
    /// What phantoms they are.
    pub phantoms: PhantomMix,
}

/// Where slices come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source<'a> {
    /// Synthetic studies.
    Phantoms {
        /// Their seeds.
        seeds: SeedRange,
        /// What they are.
        mix: &'a PhantomMix,
    },
    /// A part of what somebody brought.
    Data {
        /// What the recipe calls it.
        name: &'a str,
        /// What it is.
        data: &'a DataRecipe,
        /// The part.
        part: Part,
    },
}

impl Phase {
    /// Epochs in all, those of the head alone included.
    #[must_use]
    pub fn all_epochs(&self) -> usize {
        self.epochs + self.head_epochs()
    }

    /// Epochs in which the head alone learns.
    #[must_use]
    pub fn head_epochs(&self) -> usize {
        self.head_first.map_or(0, |head| head.epochs)
    }
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
        let mut recipe: Self = toml::from_str(text).map_err(syntax)?;
        recipe.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        recipe.check()?;
        Ok(recipe)
    }

    /// Where a phase's slices come from.
    ///
    /// # Errors
    /// [`RecipeError::Value`] if the phase names both kinds of source or none, or data that the recipe has not.
    pub fn phase_source<'a>(&'a self, phase: &'a Phase) -> Result<Source<'a>, RecipeError> {
        let named = phase.data.as_deref().map(|name| (name, Part::Training));
        self.source(&format!("phase {:?}", phase.name), phase.seeds, phase.phantoms.as_ref(), named)
    }

    /// Where the validation studies come from.
    ///
    /// # Errors
    /// As [`Recipe::phase_source`].
    pub fn validation_source(&self) -> Result<Source<'_>, RecipeError> {
        self.held_out_source("validation", &self.validation, Part::Validation)
    }

    /// Where the test studies come from.
    ///
    /// # Errors
    /// As [`Recipe::phase_source`].
    pub fn test_source(&self) -> Result<Source<'_>, RecipeError> {
        self.held_out_source("test", &self.test, Part::Test)
    }

    fn held_out_source<'a>(&'a self, what: &str, held: &'a HeldOut, usual: Part) -> Result<Source<'a>, RecipeError> {
        let named = held.data.as_deref().map(|name| (name, held.part.unwrap_or(usual)));
        self.source(what, held.seeds, held.phantoms.as_ref(), named)
    }

    fn source<'a>(
        &'a self,
        what: &str,
        seeds: Option<SeedRange>,
        phantoms: Option<&'a PhantomMix>,
        named: Option<(&'a str, Part)>,
    ) -> Result<Source<'a>, RecipeError> {
        match (seeds, phantoms, named) {
            (Some(seeds), Some(mix), None) => Ok(Source::Phantoms { seeds, mix }),
            (None, None, Some((name, part))) => match self.data.get(name) {
                Some(data) => Ok(Source::Data { name, data, part }),
                None => Err(RecipeError::Value(format!("{what}: there is no [data.{name}]"))),
            },
            _ => Err(RecipeError::Value(format!("{what} needs either seeds and phantoms, or data"))),
        }
    }

    fn check(&self) -> Result<(), RecipeError> {
        let fail = |why: String| Err(RecipeError::Value(why));
        if self.phases.is_empty() {
            return fail("at least one phase is needed".to_owned());
        }
        self.check_sources()?;
        if self.optimizer.batch < 2 || !self.optimizer.batch.is_multiple_of(2) {
            return fail(format!("batch {} is not an even number of at least 2", self.optimizer.batch));
        }
        if self.model.num_classes != self.strategy.classes() {
            let (found, wanted) = (self.model.num_classes, self.strategy.classes());
            return fail(format!("{:?} needs {wanted} classes, the model has {found}", self.strategy));
        }
        self.phases.iter().try_for_each(check_phase)?;
        for (name, data) in &self.data {
            data.check().map_err(|why| RecipeError::Value(format!("[data.{name}]: {why}")))?;
        }
        Ok(())
    }

    /// No study may stand on two sides: seed ranges apart, parts of one data set apart.
    fn check_sources(&self) -> Result<(), RecipeError> {
        let mut ranges: Vec<(String, SeedRange)> = Vec::new();
        let mut parts: Vec<(String, &str, Part)> = Vec::new();
        let phases = self.phases.iter().map(|phase| (format!("phase {:?}", phase.name), self.phase_source(phase)));
        let held_out = [("validation".to_owned(), self.validation_source()), ("test".to_owned(), self.test_source())];
        for (index, (what, source)) in phases.chain(held_out).enumerate() {
            match source? {
                Source::Phantoms { seeds, mix } => {
                    mix.check().map_err(|why| RecipeError::Value(format!("{what}: {why}")))?;
                    // A later phase may show an earlier phase's heads again; the held-out ones stay apart from all.
                    if index >= self.phases.len() || !ranges.iter().any(|(_, range)| *range == seeds) {
                        ranges.push((what, seeds));
                    }
                }
                Source::Data { name, part, .. } => {
                    let shares = |theirs: &&(String, &str, Part)| theirs.1 == name && part.shares_with(theirs.2);
                    if index >= self.phases.len()
                        && let Some((other, ..)) = parts.iter().find(shares)
                    {
                        return Err(RecipeError::Value(format!("{other} and {what} share patients of {name:?}")));
                    }
                    parts.push((what, name, part));
                }
            }
        }
        check_disjoint(&ranges)?;
        let held_out = [("validation", self.validation.seeds), ("test", self.test.seeds)];
        for rival in &self.rivals {
            // Rivals may learn from the same heads as the method and as each other, but not from held-out ones.
            let held_out = held_out.iter().filter_map(|(name, seeds)| Some(((*name).to_owned(), (*seeds)?)));
            check_disjoint(&held_out.chain([(format!("rival {:?}", rival.name()), rival.seeds)]).collect::<Vec<_>>())?;
        }
        for also in &self.also_tests {
            also.phantoms.check().map_err(|why| RecipeError::Value(format!("also_test {:?}: {why}", also.name)))?;
            let itself = (format!("also_test {:?}", also.name), also.seeds);
            ranges.iter().try_for_each(|range| check_disjoint(&[range.clone(), itself.clone()]))?;
        }
        Ok(check_rivals(&self.rivals, self.model.img_size)?)
    }

    /// SHA-256 of the recipe's content (not of its text: comments and spacing do not count), in hexadecimal. Rivals and
    /// further tests do not count: a run goes on when one is added.
    #[must_use]
    pub fn digest(&self) -> String {
        let learning = Self { rivals: Vec::new(), also_tests: Vec::new(), ..self.clone() };
        hex::encode(Sha256::digest(serde_json::to_vec(&learning).unwrap_or_default()))
    }
}

fn check_phase(phase: &Phase) -> Result<(), RecipeError> {
    let fail = |why: String| Err(RecipeError::Value(format!("phase {:?}{why}", phase.name)));
    let learns = |rate: f64| rate.is_finite() && rate > 0.0;
    if phase.epochs == 0 || !learns(phase.learning_rate) || !(0.0..=1.0).contains(&phase.final_rate) {
        return fail(" needs an epoch, a positive rate and a final share of 0..1".to_owned());
    }
    if !(0.0..=1.0).contains(&phase.twin_share) {
        return fail(format!(": twin_share {} is not within 0..1", phase.twin_share));
    }
    if phase.twin_share > 0.0 && phase.data.is_some() {
        return fail(": only phantoms have twins; twin_share must be 0".to_owned());
    }
    if !(0.0..=1.0).contains(&phase.matched_share) {
        return fail(format!(": matched_share {} is not within 0..1", phase.matched_share));
    }
    if phase.head_first.is_some_and(|head| head.epochs == 0 || !learns(head.learning_rate)) {
        return fail(": head_first needs an epoch and a positive rate".to_owned());
    }
    if phase.early_stop == Some(0) {
        return fail(": early_stop needs at least one epoch".to_owned());
    }
    Ok(())
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
        assert_eq!(recipe.test.seeds.unwrap().studies, 200);
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
            leaking.test.seeds.as_mut().unwrap().first = leaking.phases[phase].seeds.unwrap().first;
            assert!(matches!(leaking.check(), Err(RecipeError::Split(SplitError::Overlap(..)))), "phase {phase}");
        }
        let digest = recipe.digest();
        for (held_out, what) in [(recipe.validation.seeds, "validation"), (recipe.test.seeds, "test")] {
            let held_out = held_out.unwrap();
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

    #[test]
    fn the_recipes_for_data_are_sound() {
        let recipes = [
            ("rsna", include_str!("../../../models/recipes/rsna.toml")),
            ("physionet", include_str!("../../../models/recipes/physionet.toml")),
            ("archive", include_str!("../../../models/recipes/folder.toml")),
        ];
        for (name, text) in recipes {
            let recipe = Recipe::parse(text, Path::new(name)).unwrap();
            let source = recipe.phase_source(&recipe.phases[0]).unwrap();
            assert!(matches!(source, Source::Data { name: n, part: Part::Training, .. } if n == name));
            assert!(matches!(recipe.test_source().unwrap(), Source::Data { part: Part::Test, .. }));
            assert_eq!((recipe.optimizer.batch, recipe.phases[0].early_stop), (12, Some(3)));
            let back: Recipe = serde_json::from_str(&serde_json::to_string(&recipe).unwrap()).unwrap();
            assert_eq!(back, recipe);
        }
    }

    #[test]
    fn mistakes_about_data_are_named() {
        const ICH: &str = include_str!("../../../models/recipes/physionet.toml");
        let changed = |from: &str, to: &str| {
            assert!(ICH.contains(from), "{from:?} is not in the recipe");
            error(&ICH.replacen(from, to, 1))
        };
        assert!(changed("\ndata = \"physionet\"\nepochs", "\ndata = \"other\"\nepochs").contains("[data.other]"));
        assert!(changed("\ndata = \"physionet\"\nepochs", "\nepochs").contains("needs either"));
        assert!(changed("part = \"test\"", "part = \"all\"").contains("share patients"));
        assert!(changed("part = \"test\"", "part = \"training\"").contains("share patients"));
        assert!(changed("part = \"test\"", "part = \"tests\"").contains("tests"));
        assert!(changed("form = \"physionet\"", "form = \"nifti\"").contains("nifti"));
        assert!(changed("form = \"physionet\"", "form = \"folder\"").contains("labels"));
        assert!(changed("folder = ", "mask = 1\nfolder = ").contains("mask"));
        assert!(changed("fold = 0,", "fold = 5,").contains("fold 5 of 5"));
        assert!(changed("validation_share = 0.1", "validation_share = 0.9").contains("validation_share"));
        assert!(changed("warm_up_steps = 0", "warm_up_steps = 0\ntwin_share = 0.5").contains("twin_share"));
        assert!(changed("early_stop = 3", "early_stop = 0").contains("early_stop"));
        assert!(changed("head_first = { epochs = 5", "head_first = { epochs = 0").contains("head_first"));
    }
}
