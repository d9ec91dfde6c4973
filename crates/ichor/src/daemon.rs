//! The daemon: configuration → store, model, listener, and the four stages, until told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ichor_admin::ActiveModel;
use ichor_decode::Decoder;
use ichor_dimse::scp::{CommitmentLimits, PeerRule, Preference, ScpOptions, StorageScp, UserRule};
use ichor_pipeline::analyse::AnalyseOptions;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::commit::{CommitOptions, ReportAddress};
use ichor_pipeline::ingest::{CommitmentOptions, DatasetLimits, Ingest, IngestOptions, Source};
use ichor_pipeline::order::OrderOptions;
use ichor_pipeline::traffic::Traffic;
use ichor_pipeline::triage::{AlertOptions, TriageOptions};
use ichor_pipeline::{analyse, assemble, commit, forward, now, triage};
use ichor_store::{Store, StoreOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, DestinationConfig, Prefer, seconds};
use crate::engine::Engine;
use crate::performers::Performing;
use crate::reload::Controls;
use crate::stages::{REPLACED, Stages};
use crate::web;
use crate::{
    admin, audit, certificates, channels, destinations, lookups, models, performers, retention, secrets, supervisor,
    telemetry, worklist,
};

/// What a daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// All stages.
    Everything,
    /// Everything that needs no model: studies arrive and are queued, results that are waiting go out.
    ReceiveOnly,
}

/// A daemon that is listening and working.
pub(crate) struct Daemon {
    address: SocketAddr,
    store: Store,
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
    controls: Controls,
}

impl Daemon {
    /// Opens the store, takes up what the last run left, loads the model, and starts listening and working.
    ///
    /// The model is loaded and a decoder started before the port is opened: a daemon that cannot analyse does not accept
    /// studies, unless it is told to receive only.
    pub(crate) async fn start<E: Engine>(config: &Config, work: Work) -> anyhow::Result<Self> {
        let store = open_store(config).await?;
        let recovery = store.recover(now()).await.context("recovery of the store")?;
        info!(?recovery, "store opened");
        store.feed_audit(config.audit.is_some()).await.context("the audit repository")?;
        let workers = match work {
            Work::Everything => Some((models::open::<E>(config, &store).await?, open_decoder(config)?)),
            Work::ReceiveOnly => {
                warn!(
                    "receiving only: studies are kept and queued, and analysed by the next start without --receive-only"
                );
                None
            }
        };

        let ingest = Ingest::new(store.clone(), ingest_options(config)?);
        let sources = ingest.sources();
        let traffic = ingest.traffic();
        let options = scp_options(config)?;
        let web = web::bind(config, ingest.clone(), &store, options.sop_classes.clone()).await?;
        let (stage_ingest, sop_classes) = (ingest.clone(), options.sop_classes.clone());
        let performing =
            workers.is_some().then(|| Performing { ingest: stage_ingest, sop_classes, leaving: Vec::new() });
        let mut scp = StorageScp::bind(config.listen.address, options, ingest)
            .await
            .with_context(|| format!("listening on {}", config.listen.address))?;
        let address = scp.local_addr().context("local address")?;
        let site = watch::Sender::new(Arc::new(admin::site(config)?));
        let shown = workers.as_ref().map_or_else(ActiveModel::default, |(roster, _)| models::show(roster));
        let admin = admin::bind(config, &store, shown.clone(), site.subscribe()).await?;
        let mut controls = Controls {
            peers: scp.peers(),
            sources,
            commit: watch::Sender::new(Arc::new(commit_options(config)?)),
            forward: watch::Sender::new(Arc::new(destinations::forward_options(config)?)),
            analyse: None,
            site,
            performing,
            stages: Stages::default(),
            config: config.clone(),
        };

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some(settings) = &config.listen.tls {
            let (tls, certificate) = certificates::load(settings)?;
            scp = scp
                .with_tls(settings.address, tls.clone())
                .await
                .with_context(|| format!("listening on {} for TLS", settings.address))?;
            info!(address = ?scp.tls_addr().context("local address")?, "listening for TLS");
            let (interval, token) = (seconds(settings.reload_interval_s), stop.clone());
            tasks.spawn(async move {
                certificates::keep_fresh(tls, certificate, interval, token).await;
                "certificates"
            });
        }
        let (dated, token) = (certificates::of_services(config)?, stop.clone());
        tasks.spawn(async move {
            certificates::remind(dated, token).await;
            "certificates of services"
        });
        let token = stop.clone();
        tasks.spawn(async move {
            scp.run(token).await;
            "receive"
        });
        if let Some(web) = web {
            info!(address = %web.local_addr().context("local address")?, "listening for DICOMweb");
            let token = stop.clone();
            tasks.spawn(async move {
                web.run(token).await;
                "DICOMweb"
            });
        }
        if let Some(admin) = admin {
            let token = stop.clone();
            tasks.spawn(async move {
                admin.run(token).await;
                "administration"
            });
        }
        let (stage_store, token) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            assemble::run(stage_store, token).await;
            "assemble"
        });
        if let Some((roster, decoder)) = workers {
            if config.analysis.while_receiving {
                let options = triage_options(config, decoder.clone(), traffic);
                let (stage_store, roster, token) = (store.clone(), roster.clone(), stop.clone());
                tasks.spawn(async move {
                    triage::run(stage_store, roster, options, token).await;
                    "triage"
                });
            }
            models::start(config, &store, (&roster, shown), &stop, &mut tasks)?;
            let options = watch::Sender::new(Arc::new(analyse_options(config, decoder.clone())?));
            let (stage_store, token, present) = (store.clone(), stop.clone(), options.subscribe());
            controls.analyse = Some((options, decoder));
            tasks.spawn(async move {
                analyse::run(stage_store, roster, present, token).await;
                "analyse"
            });
        }
        let (stage_store, token, options) = (store.clone(), stop.clone(), controls.commit.subscribe());
        tasks.spawn(async move {
            commit::run(stage_store, options, token).await;
            "commit"
        });
        let (stage_store, token, options) = (store.clone(), stop.clone(), controls.forward.subscribe());
        tasks.spawn(async move {
            forward::run(stage_store, options, token).await;
            "forward"
        });
        let stages = &mut controls.stages;
        lookups::serve(lookups::open_all(config).await?, &store, &stop, (stages, &mut tasks));
        if let Some(performing) = &controls.performing {
            let (opened, _) = performers::open_all(config, Vec::new(), &store).await?;
            performers::serve(performing, opened, &store, &stop, (stages, &mut tasks));
        }
        destinations::serve(destinations::open_all(config).await?, &store, &stop, (stages, &mut tasks));
        channels::serve(channels::open_all(config)?, &store, &stop, (stages, &mut tasks));
        retention::serve(config, &store, &stop, (stages, &mut tasks));
        audit::serve(audit::open(config)?, &store, &stop, (stages, &mut tasks));
        telemetry::serve(telemetry::open(config)?, &store, &stop, (stages, &mut tasks));
        controls.warn_of_orphans(&store).await?;
        audit::started(&store, if work == Work::Everything { "everything" } else { "receive-only" }).await?;
        info!(%address, ae_title = %config.listen.ae_title, "listening");
        Ok(Self { address, store, tasks, stop, controls })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The store it works on.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Works until `stop` completes or a stage ends by itself. Then the listener drains within its grace period, and the
    /// stages drop what they have in hand: the store knows it, and the next start takes it up.
    ///
    /// # Errors
    /// If a stage ended without being told to; the supervisor restarts the process, and the store knows the rest.
    pub(crate) async fn run_until(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.run_reloading(stop, async || std::future::pending().await).await
    }

    /// [`Self::run_until`], and reads the configuration again from the file that `reload` comes back with.
    ///
    /// # Errors
    /// As [`Self::run_until`].
    pub(crate) async fn run_reloading(
        mut self,
        stop: impl Future<Output = ()>,
        mut reload: impl AsyncFnMut() -> PathBuf,
    ) -> anyhow::Result<()> {
        tokio::pin!(stop);
        let died = loop {
            tokio::select! {
                () = &mut stop => break None,
                ended = self.tasks.join_next() => match ended {
                    Some(Ok(REPLACED)) => {}
                    ended => break ended,
                },
                file = reload() => {
                    supervisor::reloading();
                    self.controls.reload(&file, &self.store, &self.stop, &mut self.tasks).await;
                    supervisor::ready();
                }
            }
        };
        info!("stopping");
        audit::stopped(&self.store).await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.store.close().await;
        match died {
            None => Ok(()),
            Some(Ok(stage)) => anyhow::bail!("stage {stage} ended by itself"),
            Some(Err(error)) => Err(anyhow::Error::new(error).context("a stage failed")),
        }
    }
}

/// Opens the store of a configuration, for the daemon or for a query.
pub(crate) async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let options = StoreOptions::new(&config.store.database, &config.store.blobs);
    Store::open(&options).await.with_context(|| format!("opening the store {}", config.store.database.display()))
}

/// Who may come.
///
/// # Errors
/// A secret that cannot be read.
pub(crate) fn peer_rules(config: &Config) -> anyhow::Result<Vec<PeerRule>> {
    let rule = |source: &crate::config::SourceConfig| {
        let networks = source.networks.iter().map(|network| network.parse()).collect::<Result<_, _>>();
        let user = match (&source.user, &source.passcode_file) {
            (Some(name), Some(file)) => Some(UserRule { name: name.clone(), passcode: secrets::read(file)? }),
            _ => None,
        };
        Ok(PeerRule { ae_title: source.ae_title.clone(), networks: networks.context("source.networks")?, user })
    };
    config.sources.iter().map(rule).collect()
}

fn scp_options(config: &Config) -> anyhow::Result<ScpOptions> {
    let listen = &config.listen;
    let mut options = ScpOptions::new(listen.ae_title.clone());
    options.check_called_ae = listen.check_called_ae;
    options.peers = peer_rules(config)?;
    options.max_associations = listen.max_associations;
    options.max_associations_per_peer = listen.max_associations_per_peer;
    options.max_handshakes = listen.max_handshakes;
    options.max_strangers = listen.max_strangers;
    options.min_bytes_per_second = listen.min_bytes_per_s;
    options.throughput_window = seconds(listen.throughput_window_s);
    let syntaxes =
        listen.chosen_syntaxes().map_err(|message| anyhow::anyhow!("listen.transfer_syntaxes: {message}"))?;
    options.set_storage_syntaxes(&syntaxes);
    options.prefer = match listen.prefer {
        Prefer::Peer => Preference::Peer,
        Prefer::Own => Preference::Own,
    };
    options.max_pdu = listen.max_pdu;
    options.max_instance_bytes = listen.max_instance_mib.saturating_mul(1 << 20);
    options.artim_timeout = seconds(listen.artim_timeout_s);
    options.idle_timeout = seconds(listen.idle_timeout_s);
    options.pdu_timeout = seconds(listen.pdu_timeout_s);
    options.instance_timeout = seconds(listen.instance_timeout_s);
    options.drain_timeout = seconds(listen.drain_timeout_s);
    Ok(options.with_commitment(CommitmentLimits {
        max_bytes: config.commitment.max_request_kib.saturating_mul(1 << 10),
        max_references: config.commitment.max_references,
    }))
}

/// How peers hear whether their instances are safe.
///
/// # Errors
/// As [`peer_rules`].
pub(crate) fn commit_options(config: &Config) -> anyhow::Result<CommitOptions> {
    let commitment = &config.commitment;
    let rule = |(peer, source): (PeerRule, &crate::config::SourceConfig)| ReportAddress {
        peer,
        address: source.report_address.clone(),
    };
    Ok(CommitOptions {
        ae_title: config.listen.ae_title.clone(),
        addresses: peer_rules(config)?.into_iter().zip(&config.sources).map(rule).collect(),
        backoff: report_backoff(config),
        timeout: seconds(commitment.timeout_s),
    })
}

fn report_backoff(config: &Config) -> Backoff {
    Backoff {
        first: seconds(config.commitment.first_backoff_s),
        longest: seconds(config.commitment.max_backoff_s),
        attempts: config.commitment.attempts,
    }
}

/// Who may send, and how long to wait for more.
///
/// # Errors
/// As [`peer_rules`].
pub(crate) fn sources(config: &Config) -> anyhow::Result<Vec<Source>> {
    let source = |(peer, source): (PeerRule, &crate::config::SourceConfig)| Source {
        peer,
        quiet_period: seconds(source.quiet_period_s),
    };
    Ok(peer_rules(config)?.into_iter().zip(&config.sources).map(source).collect())
}

fn ingest_options(config: &Config) -> anyhow::Result<IngestOptions> {
    let sources = sources(config)?;
    let min_free_bytes = config.store.min_free_mib.saturating_mul(1 << 20);
    let limits = DatasetLimits {
        nesting: config.limits.nesting,
        elements: config.limits.elements,
        inflated_bytes: config.limits.inflated_mib.saturating_mul(1 << 20),
    };
    let commitment = CommitmentOptions { wait: seconds(config.commitment.wait_s), backoff: report_backoff(config) };
    let max_study_instances = config.limits.study_instances;
    Ok(IngestOptions { sources, min_free_bytes, limits, max_study_instances, commitment })
}

/// A decoder one of whose children has started, so that a missing program shows before a study waits for it.
pub(crate) fn open_decoder(config: &Config) -> anyhow::Result<Decoder> {
    let mut options = config.decoder.options().context("finding the decoder")?;
    options.nice = config.analysis.nice;
    let decoder = Decoder::new(options).context("starting the decoder")?;
    decoder.check()?;
    Ok(decoder)
}

fn triage_options(config: &Config, decoder: Decoder, traffic: Traffic) -> TriageOptions {
    let alert = AlertOptions {
        slices: config.alert.slices,
        threshold: config.alert.threshold,
        max_gap_mm: config.alert.max_gap_mm,
    };
    let share = config.analysis.share_while_receiving;
    TriageOptions { gate: config.gate.options(), decoder, alert, traffic, share }
}

/// How studies are analysed.
///
/// # Errors
/// A destination or rule that cannot be.
pub(crate) fn analyse_options(config: &Config, decoder: Decoder) -> anyhow::Result<AnalyseOptions> {
    let objects = |destination: &DestinationConfig| {
        destination.objects().map_err(|message| anyhow::anyhow!("destination {:?}: {message}", destination.name))
    };
    Ok(AnalyseOptions {
        gate: config.gate.options(),
        decoder,
        backoff: Backoff {
            first: seconds(config.analysis.first_backoff_s),
            longest: Duration::from_secs(600),
            attempts: config.analysis.attempts,
        },
        min_lesion_ml: config.analysis.min_lesion_ml,
        keep_maps: config.analysis.keep_maps,
        destinations: config.destinations.iter().map(objects).collect::<Result<_, _>>()?,
        rules: (config.rules.iter().map(|rule| rule.rule(&config.time_zone)).collect::<Result<_, _>>())
            .map_err(|(key, message)| anyhow::anyhow!("{key}: {message}"))?,
        reading: worklist::reading(config),
        order: order_options(config)?,
    })
}

fn order_options(config: &Config) -> anyhow::Result<OrderOptions> {
    let rules = config.urgent.iter().map(|rule| rule.rule(&config.time_zone)).collect::<Result<_, _>>();
    Ok(OrderOptions {
        rules: rules.map_err(|(key, message)| anyhow::anyhow!("{key}: {message}"))?,
        longest_overtaken: seconds(config.analysis.longest_overtaken_s),
    })
}
