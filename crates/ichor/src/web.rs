//! The DICOMweb service of a configuration: STOW-RS into the stage that receives, QIDO-RS and WADO-RS over the store.

mod archive;
mod frames;
mod json;
mod picture;
mod seen;
mod transcode;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ichor_dicomweb::server::{Archive, ClientRule, ReadingOptions, ServerOptions, StowServer, Token};
use ichor_dimse::scp::SopClassRule;
use ichor_pipeline::ingest::{Ingest, StowClientRule, StowIngest};
use ichor_store::Store;
use tracing::warn;

use crate::config::{Config, DicomWebClientConfig, DicomWebConfig, seconds};
use crate::{secrets, worklist};
use archive::Holdings;

/// Shortest token that is taken, in bytes: shorter ones can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Binds the service, if there is one. It takes what associations take (`sop_classes`), through the same stage.
pub(crate) async fn bind(
    config: &Config,
    ingest: Ingest,
    store: &Store,
    sop_classes: Vec<SopClassRule>,
) -> anyhow::Result<Option<StowServer<StowIngest>>> {
    let Some(section) = &config.dicomweb else { return Ok(None) };
    let mut options = options(section, config.listen.max_instance_mib)?;
    options.ups = worklist::service(config, store);
    if options.clients.is_empty() {
        warn!("no [[dicomweb.client]] is configured: nobody may send, search or retrieve by DICOMweb");
    }
    let has_tokens = options.clients.iter().any(|client| client.token.is_some());
    if has_tokens && options.tls.is_none() && !section.address.ip().is_loopback() {
        warn!("bearer tokens travel in the clear: [dicomweb] has no tls_certificate_file");
    }
    let archive: Option<Arc<dyn Archive>> = if section.shows_patients() {
        let decoder = config.decoder.options().context("finding the decoder")?;
        Some(Arc::new(Holdings::new(store.clone(), decoder, section.max_transcoded_mib.saturating_mul(1 << 20))))
    } else {
        None
    };
    let rule = |client: &DicomWebClientConfig| StowClientRule {
        name: client.name.clone(),
        quiet_period: seconds(client.quiet_period_s),
    };
    let handler = StowIngest::new(ingest, section.clients.iter().map(rule).collect(), sop_classes);
    let server = StowServer::bind_with(section.address, options, handler, archive).await;
    server.map(Some).with_context(|| format!("listening on {} (DICOMweb)", section.address))
}

/// Settings of the service, with every secret and certificate that they name.
///
/// # Errors
/// What cannot be read, with its key.
pub(crate) fn options(config: &DicomWebConfig, max_instance_mib: u64) -> anyhow::Result<ServerOptions> {
    let bytes = |mib: u64| mib.saturating_mul(1 << 20);
    let (certificate, key) = (config.tls_certificate_file.as_deref(), config.tls_key_file.as_deref());
    Ok(ServerOptions {
        prefix: config.prefix.clone(),
        clients: config.clients.iter().map(client).collect::<anyhow::Result<_>>()?,
        trusted_proxies: config.trusted_proxies().context("dicomweb.trusted_proxies")?,
        max_connections: config.max_connections,
        max_requests: config.max_requests,
        max_header_bytes: config.max_header_kib << 10,
        max_body_bytes: bytes(config.max_body_mib),
        max_part_bytes: bytes(config.max_part_mib.unwrap_or(max_instance_mib)),
        max_parts: config.max_parts,
        header_timeout: seconds(config.header_timeout_s),
        body_idle_timeout: seconds(config.body_idle_timeout_s),
        min_bytes_per_second: config.min_bytes_per_second,
        answer_timeout: seconds(config.answer_timeout_s),
        retry_after: seconds(config.retry_after_s),
        drain_timeout: seconds(config.drain_timeout_s),
        tls: crate::tls_files::load(certificate, key).context("[dicomweb]")?,
        reading: ReadingOptions {
            url: config.url.clone(),
            max_at_once: config.max_readings,
            max_results: config.max_results,
            max_examined: config.max_examined,
            max_instances: config.max_instances,
            max_frames: config.max_frames,
            max_parameters: config.max_parameters,
            cors_origins: config.cors_origins.clone(),
        },
        ups: None,
    })
}

fn client(config: &DicomWebClientConfig) -> anyhow::Result<ClientRule> {
    let networks = config.networks.iter().map(|network| network.parse()).collect::<Result<_, _>>();
    Ok(ClientRule {
        name: config.name.as_str().to_owned(),
        token: config.token_file.as_deref().map(token).transpose().context("dicomweb.client.token_file")?,
        networks: networks.context("dicomweb.client.networks")?,
        may: config.may.iter().map(|right| right.right()).collect(),
        subscribers: config.subscriber_ae_titles.clone(),
    })
}

/// Reads a client's bearer token.
///
/// # Errors
/// With the path: the file cannot be read, anybody may read it, or it holds no token.
pub(crate) fn token(path: &Path) -> anyhow::Result<Token> {
    let secret = secrets::read(path)?;
    let is_plain = secret.bytes().all(|byte| byte.is_ascii_graphic());
    if secret.len() < SHORTEST_TOKEN || !is_plain {
        let path = path.display();
        anyhow::bail!("{path}: a token is one line of at least {SHORTEST_TOKEN} printable characters without spaces");
    }
    Ok(Token::new(&secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_that_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, good) in
            [("", false), ("short\n", false), ("two words of enough length", false), ("0123456789abcdef\n", true)]
        {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(token(&path).is_ok(), good, "{text:?}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(token(&path).unwrap_err().to_string().contains("anybody may read it"));
        assert!(token(&folder.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }
}
