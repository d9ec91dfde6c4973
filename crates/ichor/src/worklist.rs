//! The worklist of a configuration.

use ichor_dicomweb::server::ups::UpsOptions;
use ichor_pipeline::worklist::StoreShelf;
use ichor_pipeline::worklist::reading::ReadingOptions;
use ichor_store::Store;

use crate::config::Config;

/// The service of workitems, if there is one.
pub(crate) fn service(config: &Config, store: &Store) -> Option<UpsOptions> {
    let section = config.worklist.as_ref()?;
    Some(UpsOptions {
        shelf: StoreShelf::new(store.clone()),
        max_body_bytes: section.max_workitem_kib << 10,
        max_results: section.max_results,
    })
}

/// What stands in the workitems of finished studies, if they make any.
pub(crate) fn reading(config: &Config) -> Option<ReadingOptions> {
    let section = config.worklist.as_ref().filter(|section| section.reading)?;
    let title = section.retrieve_ae_title.clone().unwrap_or_else(|| config.listen.ae_title.clone());
    Some(ReadingOptions { retrieve_ae_title: title })
}
