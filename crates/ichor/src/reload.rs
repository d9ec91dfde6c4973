//! The configuration, read again while the daemon works. A file with a fault changes nothing; what cannot change without a
//! restart is named, and stays as it is.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ichor_admin::Site;
use ichor_decode::Decoder;
use ichor_dimse::scp::PeerRule;
use ichor_pipeline::analyse::AnalyseOptions;
use ichor_pipeline::commit::CommitOptions;
use ichor_pipeline::forward::ForwardOptions;
use ichor_pipeline::ingest::Source;
use ichor_store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Difference, TaskListConfig, diff};
use crate::performers::Performing;
use crate::stages::Stages;
use crate::{
    admin, audit, certificates, channels, daemon, destinations, logging, lookups, performers, retention, telemetry,
    tls_files, web,
};

/// A value that stages look at before each piece of work.
pub(crate) type Shared<T> = watch::Sender<Arc<T>>;

/// Everything that a configuration makes and that can be replaced; made as a whole before any of it comes in force.
struct Prepared {
    config: Config,
    peers: Vec<PeerRule>,
    sources: Vec<Source>,
    commit: CommitOptions,
    forward: ForwardOptions,
    analyse: Option<AnalyseOptions>,
    site: Site,
    filter: EnvFilter,
    destinations: Vec<destinations::Opened>,
    channels: Vec<channels::Opened>,
    lookups: Vec<lookups::Opened>,
    /// Lists, and those among them that are being left; empty for a daemon that receives only.
    task_lists: (Vec<performers::Opened>, Vec<TaskListConfig>),
    audit: audit::Opened,
    telemetry: Option<telemetry::Opened>,
}

/// What puts another configuration in force.
pub(crate) struct Controls {
    /// In force.
    pub(crate) config: Config,
    pub(crate) peers: Shared<Vec<PeerRule>>,
    pub(crate) sources: Shared<Vec<Source>>,
    pub(crate) commit: Shared<CommitOptions>,
    pub(crate) forward: Shared<ForwardOptions>,
    /// With what reads the slices; `None` for a daemon that receives only.
    pub(crate) analyse: Option<(Shared<AnalyseOptions>, Decoder)>,
    pub(crate) site: Shared<Site>,
    /// What performs workitems of others; `None` for a daemon that receives only.
    pub(crate) performing: Option<Performing>,
    pub(crate) stages: Stages,
}

impl Controls {
    /// Reads the file and puts in force what can be; says what changed, key by key. A fault is said, and nothing changes.
    pub(crate) async fn reload(
        &mut self,
        file: &Path,
        store: &Store,
        stop: &CancellationToken,
        tasks: &mut JoinSet<&'static str>,
    ) {
        let prepared = match self.prepare(file, store).await {
            Ok(prepared) => prepared,
            Err(fault) => {
                error!(file = %file.display(), "the configuration was not read again, nothing changes: {fault:#}");
                return;
            }
        };
        let (prepared, differences) = prepared;
        for Difference { key, was, is, live } in &differences {
            let (was, is) = (was.as_deref().unwrap_or("absent"), is.as_deref().unwrap_or("absent"));
            if *live {
                info!(key, was, is, "configuration changed");
            } else {
                warn!(key, was, is, "configuration: this change needs a restart; what was stays in force");
            }
        }
        let served = self.put_in_force(prepared, store, stop, tasks);
        if let Err(error) = self.warn_of_orphans(store).await {
            warn!("what waits for nobody cannot be told: {error:#}");
        }
        if let Err(error) = store.feed_audit(self.config.audit.is_some()).await {
            warn!(%error, "it is not noted whether an audit repository is told");
        }
        let waiting = differences.iter().filter(|difference| !difference.live).count();
        let live = differences.len() - waiting;
        info!(file = %file.display(), changed = live, need_restart = waiting, ?served, "configuration read again");
    }

    /// Says what waits for somebody who is not configured.
    pub(crate) async fn warn_of_orphans(&self, store: &Store) -> anyhow::Result<()> {
        destinations::warn_of_orphans(&self.config, store).await?;
        channels::warn_of_orphans(store, &self.config.channels).await?;
        let leaving = self.performing.as_ref().map_or(&[][..], |performing| &performing.leaving);
        performers::warn_of_orphans(&self.config, leaving, store).await
    }

    /// Task lists of a new configuration, with those that go.
    async fn open_task_lists(
        &self,
        config: &Config,
        store: &Store,
    ) -> anyhow::Result<(Vec<performers::Opened>, Vec<TaskListConfig>)> {
        let Some(performing) = &self.performing else { return Ok((Vec::new(), Vec::new())) };
        let leaving = performers::leaving((&self.config, config), &performing.leaving, store).await?;
        performers::open_all(config, leaving, store).await
    }

    /// Makes everything that the file asks for.
    async fn prepare(&self, file: &Path, store: &Store) -> anyhow::Result<(Prepared, Vec<Difference>)> {
        let new = Config::load(file)?;
        try_what_waits(&new)?;
        let differences = diff(&self.config, &new)?;
        let config = (self.config.with_live_parts_of(&new))
            .map_err(|(key, message)| anyhow::anyhow!("{key}: {message} (with what needs a restart)"))?;
        let analyse = self.analyse.as_ref().map(|(_, decoder)| daemon::analyse_options(&config, decoder.clone()));
        let task_lists = self.open_task_lists(&config, store).await?;
        let mut site = admin::site(&config)?;
        site.task_lists.extend(task_lists.1.iter().map(|list| list.name.to_string()));
        let prepared = Prepared {
            peers: daemon::peer_rules(&config)?,
            sources: daemon::sources(&config)?,
            commit: daemon::commit_options(&config)?,
            forward: destinations::forward_options(&config)?,
            analyse: analyse.transpose()?,
            site,
            filter: logging::filter(&config.log)?,
            destinations: destinations::open_all(&config).await?,
            channels: channels::open_all(&config)?,
            lookups: lookups::open_all(&config).await?,
            task_lists,
            audit: audit::open(&config)?,
            telemetry: telemetry::open(&config)?,
            config,
        };
        Ok((prepared, differences))
    }

    /// Replaces what is in force. Whoever is let in must have a source, so these come first.
    fn put_in_force(
        &mut self,
        prepared: Prepared,
        store: &Store,
        stop: &CancellationToken,
        tasks: &mut JoinSet<&'static str>,
    ) -> Vec<String> {
        self.sources.send_replace(Arc::new(prepared.sources));
        self.peers.send_replace(Arc::new(prepared.peers));
        self.commit.send_replace(Arc::new(prepared.commit));
        self.forward.send_replace(Arc::new(prepared.forward));
        if let (Some((options, _)), Some(new)) = (&self.analyse, prepared.analyse) {
            options.send_replace(Arc::new(new));
        }
        self.site.send_replace(Arc::new(prepared.site));
        match logging::replace(prepared.filter) {
            Ok(true) => {}
            Ok(false) if prepared.config.log.level == self.config.log.level => {}
            Ok(false) => warn!("RUST_LOG says what is logged: log.level does not"),
            Err(error) => warn!("log.level stays as it was: {error:#}"),
        }
        self.config = prepared.config;
        let stages = &mut self.stages;
        let mut served = destinations::serve(prepared.destinations, store, stop, (stages, tasks));
        served.extend(channels::serve(prepared.channels, store, stop, (stages, tasks)));
        served.extend(lookups::serve(prepared.lookups, store, stop, (stages, tasks)));
        if let Some(performing) = &mut self.performing {
            let (opened, leaving) = prepared.task_lists;
            performing.leaving = leaving;
            served.extend(performers::serve(performing, opened, store, stop, (stages, tasks)));
        }
        served.extend(retention::serve(&self.config, store, stop, (stages, tasks)));
        served.extend(audit::serve(prepared.audit, store, stop, (stages, tasks)));
        served.extend(telemetry::serve(prepared.telemetry, store, stop, (stages, tasks)));
        served
    }
}

/// Opens what only a restart puts in force: a fault of it is told now, and not by a start that fails.
fn try_what_waits(new: &Config) -> anyhow::Result<()> {
    if let Some(section) = &new.dicomweb {
        web::options(section, new.listen.max_instance_mib)?;
    }
    if let Some(section) = &new.admin {
        tls_files::load(section.tls_certificate_file.as_deref(), section.tls_key_file.as_deref()).context("[admin]")?;
        section.oidc.as_ref().map(admin::oidc).transpose().context("[admin.oidc]")?;
    }
    if let Some(settings) = &new.listen.tls {
        certificates::load(settings)?;
    }
    Ok(())
}
