//! The service for administrators and those who read, from its configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use ichor_admin::{AccessOptions, ActiveModel, Admin, AdminOptions, AdminServer, Facts, ModelFacts, OidcOptions, Site};
use ichor_pipeline::analyse::ModelTraits;
use ichor_store::{Role, Store};
use tokio::sync::watch::{Receiver, channel};
use tracing::{info, warn};

use crate::config::{AdminConfig, Config, OidcConfig, seconds};
use crate::http::{Trust, client};
use crate::pictures::Easel;
use crate::secrets;

/// Binds the service, if there is one. `active`: the model that is, now and later.
pub(crate) async fn bind(
    config: &Config,
    store: &Store,
    active: ActiveModel,
    site: Receiver<Arc<Site>>,
) -> anyhow::Result<Option<AdminServer>> {
    let Some(section) = &config.admin else { return Ok(None) };
    let (certificate, key) = (section.tls_certificate_file.as_deref(), section.tls_key_file.as_deref());
    let tls = crate::tls_files::load(certificate, key).context("[admin]")?;
    let admin = Admin::new(facts(config, section, store, active, site)?).context("[admin.oidc]")?;
    let options = AdminOptions {
        max_connections: section.max_connections,
        timeout: seconds(section.timeout_s),
        longest_connection: seconds(section.stream_s) + seconds(section.timeout_s),
        trusted_proxies: section.trusted_proxies().context("admin.trusted_proxies")?,
        tls,
    };
    let server = AdminServer::bind(section.address, admin.routes(), options)
        .await
        .with_context(|| format!("listening on {} (administration)", section.address))?;
    info!(address = %server.local_addr().context("local address")?, "listening for administrators");
    if !section.serves_patients() {
        warn!(
            "[admin] is beyond loopback without TLS: health and metrics only; tls_certificate_file and tls_key_file open \
             the rest, or allow_clear_text where a proxy encrypts"
        );
    }
    if let Some(link) = admin.first_link().await.context("looking for an admin")? {
        let hours = section.invitation_s / 3600.0;
        warn!(link, "there is no admin yet: this link makes the first one, once, within {hours:.0} h");
    }
    Ok(Some(server))
}

/// A one-time link for a user's new password.
pub(crate) async fn link_for(config: &Config, store: &Store, name: &str) -> anyhow::Result<String> {
    let section = config.admin.as_ref().context("the configuration has no [admin]")?;
    let facts = facts(config, section, store, ActiveModel::default(), channel(Arc::new(site(config)?)).1)?;
    let admin = Admin::new(Facts { oidc: None, ..facts })?;
    Ok(admin.link_for(name).await?)
}

/// What is configured, as the service shows it.
///
/// # Errors
/// If the configuration cannot be written as JSON.
pub(crate) fn site(config: &Config) -> anyhow::Result<Site> {
    Ok(Site {
        zone: config.time_zone.clone(),
        longest_overtaken: seconds(config.analysis.longest_overtaken_s),
        destinations: config.destinations.iter().map(|destination| destination.name.clone()).collect(),
        channels: config.channels.iter().map(|channel| channel.name.clone()).collect(),
        task_lists: config.task_lists.iter().map(|list| list.name.to_string()).collect(),
        configuration: serde_json::to_value(config).context("writing the configuration as JSON")?,
    })
}

fn facts(
    config: &Config,
    section: &AdminConfig,
    store: &Store,
    active: ActiveModel,
    site: Receiver<Arc<Site>>,
) -> anyhow::Result<Facts> {
    let url = own_url(section);
    Ok(Facts {
        store: store.clone(),
        database: config.store.database.clone(),
        min_free_bytes: config.store.min_free_mib.saturating_mul(1 << 20),
        active,
        site,
        pictures: Arc::new(Easel::new(config.decoder.options().context("finding the decoder")?)),
        access: AccessOptions {
            serves_patients: section.serves_patients(),
            // What a browser sees: a proxy may encrypt.
            is_tls: url.starts_with("https://"),
            session: seconds(section.session_s),
            invitation: seconds(section.invitation_s),
            login_attempts: section.login_attempts,
            login_window: seconds(section.login_window_s),
            stream: seconds(section.stream_s),
            max_pictures: section.max_pictures,
        },
        oidc: section.oidc.as_ref().map(oidc).transpose().context("[admin.oidc]")?,
        url,
        version: env!("CARGO_PKG_VERSION"),
        now: ichor_pipeline::now,
    })
}

/// Where people reach the service.
pub(crate) fn own_url(section: &AdminConfig) -> String {
    let scheme = if section.tls_certificate_file.is_some() { "https" } else { "http" };
    section.url.clone().unwrap_or_else(|| format!("{scheme}://{}", place(section.address)))
}

/// The provider; it is not asked yet.
///
/// # Errors
/// A secret or certificate that cannot be used.
pub(crate) fn oidc(section: &OidcConfig) -> anyhow::Result<OidcOptions> {
    let trust = Trust { ca_file: section.tls_ca_file.as_deref(), identity: None };
    let given =
        [(&section.viewers, Role::Viewer), (&section.operators, Role::Operator), (&section.admins, Role::Admin)];
    let roles = given.into_iter().flat_map(|(words, role)| words.iter().map(move |word| (word.clone(), role)));
    Ok(OidcOptions {
        issuer: section.issuer.clone(),
        client_id: section.client_id.clone(),
        client_secret: section.client_secret_file.as_deref().map(secrets::read).transpose()?,
        scopes: section.scopes.iter().filter(|scope| *scope != "openid").cloned().collect(),
        name_claim: section.name_claim.clone(),
        role_claim: section.role_claim.clone(),
        roles: roles.collect(),
        label: section.label.clone(),
        hide_local_login: section.hide_local_login,
        discovery_age: seconds(section.discovery_s),
        keys_pause: seconds(section.keys_pause_s),
        logs_out: section.logs_out,
        http: client(section.issuer.starts_with("https://"), seconds(section.timeout_s), trust)?,
    })
}

/// An address that a browser on this machine can open: one that stands for all of them is none.
fn place(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

/// What the pages show of a model.
pub(crate) fn model_facts(traits: &ModelTraits) -> ModelFacts {
    ModelFacts {
        id: traits.id.to_string(),
        notice: traits.notice.clone(),
        slice_threshold: traits.slice_threshold,
        study_rule: traits.study_rule.to_string(),
        map: traits.map.clone(),
        is_refined: traits.refine.is_some(),
        precision: traits.precision.to_string(),
    }
}
