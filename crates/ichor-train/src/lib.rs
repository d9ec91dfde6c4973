//! Training and evaluation on slice labels alone.
//!
//! A recipe (one TOML file) decides everything: phantoms, network, curriculum, seeds. Masks are never seen by the loss;
//! they serve the evaluation.

pub mod adamw;
pub mod anatomy;
pub mod augment;
pub mod binarise;
pub mod brightness;
pub mod calibrate;
pub mod checkpoint;
pub mod data;
pub mod evaluate;
pub mod held_out;
mod init;
pub mod labels;
pub mod loss;
pub mod maps;
pub mod measure;
pub mod metrics;
pub mod outcome;
pub mod phantoms;
pub mod prepared;
pub mod progress;
pub mod publish;
pub mod recipe;
pub mod report;
pub mod rivals;
pub mod sampler;
pub mod schedule;
pub mod seeds;
pub mod slices;
pub mod trainer;

/// For tests: libtorch's generator is shared by all threads, and a test that draws from it must do so alone.
#[cfg(test)]
pub(crate) fn draw_alone() -> std::sync::MutexGuard<'static, ()> {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
