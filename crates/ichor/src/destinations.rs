//! Destinations, from their configuration: one task each that sends, and one that asks for proof.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ichor_core::{AeTitle, DeliveryStatus, Proof, Zone};
use ichor_dicomweb::{Credentials, StowClient, StowOptions};
use ichor_dimse::scu::ScuOptions;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::deliver::{Destination, Transport};
use ichor_pipeline::forward::ForwardOptions;
use ichor_pipeline::peer::end_of;
use ichor_pipeline::{deliver, prove};
use ichor_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Config, CredentialFiles, DestinationConfig, Endpoint, WebEndpoint, seconds};
use crate::performers::may_come;
use crate::secrets;
use crate::stages::{Stages, made_of};
use crate::telemetry;

/// What the names of destinations' stages begin with.
const STAGE: &str = "destination ";

/// A destination that is set up and not served yet.
pub(crate) struct Opened {
    /// Name of its stage.
    stage: String,
    /// What it is made of.
    of: String,
    destination: Destination,
}

/// Sets every destination up; nothing is sent yet.
///
/// # Errors
/// With the destination's name: a secret or certificate that cannot be used, or an address that is ours.
pub(crate) async fn open_all(config: &Config) -> anyhow::Result<Vec<Opened>> {
    let (mut opened, traced) = (Vec::new(), telemetry::tracing(config));
    for section in &config.destinations {
        refuse_ourselves(config, &endpoint(section)?).await.with_context(|| named(section))?;
        let opening = open(section, &config.listen.ae_title, &config.time_zone)?;
        let destination = Destination { traced, ..opening };
        warn_of_unheard_reports(config, section);
        let zone = section.hours.as_ref().map(|_| &config.time_zone);
        let of = made_of(&(section, &config.listen.ae_title, zone, traced.map(|tracing| tracing.ratio)))?;
        opened.push(Opened { stage: format!("{STAGE}{}", section.name), of, destination });
    }
    Ok(opened)
}

/// Serves these destinations and no others. One that is served as it is goes on; one that is made otherwise finishes what it
/// has in hand first. What changed, in words.
pub(crate) fn serve(
    opened: Vec<Opened>,
    store: &Store,
    stop: &CancellationToken,
    (stages, tasks): (&mut Stages, &mut JoinSet<&'static str>),
) -> Vec<String> {
    let wanted: Vec<String> = opened.iter().map(|opened| opened.stage.clone()).collect();
    let mut changed: Vec<String> =
        stages.retire_others(STAGE, &wanted).into_iter().map(|name| format!("{name} is served no more")).collect();
    for Opened { stage, of, destination } in opened {
        if !stages.needs(&stage, &of) {
            continue;
        }
        changed.push(format!("{stage} is served anew"));
        let (destination, own_store, stop) = (Arc::new(destination), store.clone(), stop.clone());
        stages.start(tasks, ("deliver", stage, of), |retired| async move {
            let proving = async {
                tokio::select! {
                    () = prove::run(own_store.clone(), Arc::clone(&destination), stop.clone()) => {}
                    // A question in flight is asked again by whoever takes over.
                    () = retired.cancelled() => {}
                }
            };
            let delivering =
                deliver::run_until_retired(own_store.clone(), Arc::clone(&destination), retired.clone(), stop.clone());
            tokio::join!(proving, delivering);
        });
    }
    changed
}

/// Says what waits for a destination that nobody serves.
///
/// # Errors
/// The store's.
pub(crate) async fn warn_of_orphans(config: &Config, store: &Store) -> anyhow::Result<()> {
    for queue in store.queue_depths().await.context("outbox")? {
        let is_served = config.destinations.iter().any(|destination| destination.name == queue.destination);
        if !is_served && matches!(queue.status, DeliveryStatus::Queued | DeliveryStatus::Sending) {
            let (destination, waiting) = (&queue.destination, queue.count);
            warn!(destination, waiting, "deliveries wait for a destination that is not configured any more");
        }
    }
    if config.destinations.is_empty() {
        warn!("no [[destination]] is configured: results stay here");
    }
    Ok(())
}

/// What is forwarded where.
///
/// # Errors
/// A rule that cannot be; a network that is none.
pub(crate) fn forward_options(config: &Config) -> anyhow::Result<ForwardOptions> {
    let rules = config.forwards.iter().map(|rule| rule.rule(&config.time_zone)).collect::<Result<_, _>>();
    let system = |section: &DestinationConfig| {
        section.system().map_err(|message| anyhow::anyhow!("destination {:?}: {message}", section.name))
    };
    Ok(ForwardOptions {
        rules: rules.map_err(|(key, message)| anyhow::anyhow!("{key}: {message}"))?,
        systems: config.destinations.iter().map(system).collect::<Result<_, _>>()?,
    })
}

fn named(section: &DestinationConfig) -> String {
    format!("destination {:?}", section.name)
}

fn endpoint(section: &DestinationConfig) -> anyhow::Result<Endpoint> {
    section.endpoint().map_err(|message| anyhow::anyhow!("{}: {message}", named(section)))
}

/// Refuses a place at which we listen ourselves: results would come back for ever. A name that cannot be resolved is nobody's.
pub(crate) async fn refuse_ourselves(config: &Config, endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut own = vec![config.listen.address];
    own.extend(config.listen.tls.as_ref().map(|tls| tls.address));
    own.extend(config.dicomweb.as_ref().map(|dicomweb| dicomweb.address));
    let address = match endpoint {
        Endpoint::CStore { address, .. } => Some(address.clone()),
        Endpoint::StowRs(web) => host_of(&web.url),
        Endpoint::Folder(_) => None,
    };
    let Some(address) = address else { return Ok(()) };
    let Ok(peers) = tokio::net::lookup_host(&address).await else { return Ok(()) };
    for peer in peers {
        let is_ours = own.iter().any(|listen| is_own(*listen, peer));
        anyhow::ensure!(!is_ours, "{address} is where this daemon listens itself");
    }
    Ok(())
}

/// `host:port` of an HTTP URL.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let (host, port) = end_of(url)?;
    let port = port?;
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn is_own(listen: SocketAddr, peer: SocketAddr) -> bool {
    // Only an address of this machine can be bound.
    let is_local = |ip: IpAddr| ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok();
    let same = listen.ip() == peer.ip();
    listen.port() == peer.port() && (same || (listen.ip().is_unspecified() && is_local(peer.ip())))
}

/// The AE title of a destination that is asked for commitment and may not come to report it: a peer that reports on an
/// association of its own must be let in.
pub(crate) fn unheard_reporter<'a>(config: &Config, section: &'a DestinationConfig) -> Option<&'a AeTitle> {
    let title = section.ae_title.as_ref()?;
    (section.proof.ask.contains(&Proof::Commitment) && !may_come(config, title)).then_some(title)
}

fn warn_of_unheard_reports(config: &Config, section: &DestinationConfig) {
    if let Some(title) = unheard_reporter(config, section) {
        let (destination, ae_title) = (&section.name, title.as_str());
        warn!(
            destination,
            ae_title, "no [[source]] has its AE title: commitment reports on associations of its own are refused"
        );
    }
}

/// How a place is reached.
///
/// # Errors
/// A secret or certificate that cannot be used.
pub(crate) fn transport(endpoint: Endpoint, timeout: Duration, own_title: &AeTitle) -> anyhow::Result<Transport> {
    Ok(match endpoint {
        Endpoint::CStore { address, ae_title, calling_ae_title, tls } => {
            let mut options = ScuOptions::new(calling_ae_title.unwrap_or_else(|| own_title.clone()), ae_title, address);
            options.connect_timeout = timeout;
            options.response_timeout = timeout;
            if let Some(tls) = &tls {
                tls.check()?;
            }
            options.tls = tls;
            Transport::CStore(options)
        }
        Endpoint::StowRs(endpoint) => {
            let mut options = web_options(endpoint)?;
            options.timeout = timeout;
            Transport::StowRs(StowClient::new(options)?)
        }
        Endpoint::Folder(path) => Transport::Folder(path),
    })
}

fn open(config: &DestinationConfig, own_title: &AeTitle, zone: &Zone) -> anyhow::Result<Destination> {
    let transport =
        transport(endpoint(config)?, seconds(config.timeout_s), own_title).with_context(|| named(config))?;
    let flow = config.flow(zone).map_err(|message| anyhow::anyhow!("{}: {message}", named(config)))?;
    let backoff = Backoff {
        first: seconds(config.first_backoff_s),
        longest: seconds(config.max_backoff_s),
        attempts: config.attempts,
    };
    Ok(Destination { name: config.name.clone(), transport, backoff, proof: config.proof.options(), flow, traced: None })
}

/// Settings of a client for a DICOMweb service, with every secret and certificate that they name.
///
/// # Errors
/// What cannot be read; a secret or private key that anybody may read.
pub(crate) fn web_options(endpoint: WebEndpoint) -> anyhow::Result<StowOptions> {
    let WebEndpoint { url, credentials, tls } = endpoint;
    let mut options = StowOptions::new(&url);
    options.credentials = credentials.map(read_credentials).transpose()?;
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("reading {}", file.display()));
    options.root_certificates = tls.ca_file.as_deref().map(read).transpose()?;
    if let Some((certificate, key)) = tls.identity {
        let key = secrets::read(&key)?.into_bytes();
        options.identity = Some([read(&certificate)?, b"\n".to_vec(), key, b"\n".to_vec()].concat());
    }
    Ok(options)
}

fn read_credentials(files: CredentialFiles) -> anyhow::Result<Credentials> {
    Ok(match files {
        CredentialFiles::Bearer(file) => Credentials::Bearer(secrets::read(&file)?),
        CredentialFiles::Basic(user, file) => Credentials::Basic { user, password: secrets::read(&file)? },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::HttpTls;

    #[test]
    fn a_client_key_that_anybody_may_read_is_refused() {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("own.crt"), folder.path().join("own.key"));
        let made = rcgen::generate_simple_self_signed(vec!["ichor".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let open_with = |mode: u32| {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            web_options(WebEndpoint {
                url: "https://pacs.example.org/dicom-web".to_owned(),
                credentials: None,
                tls: HttpTls { ca_file: Some(certificate.clone()), identity: Some((certificate.clone(), key.clone())) },
            })
        };
        for mode in [0o644, 0o604, 0o602] {
            let error = format!("{:#}", open_with(mode).map(drop).unwrap_err());
            assert!(error.contains("anybody may read it") && error.contains("own.key"), "{error}");
            assert!(!error.contains("PRIVATE KEY"), "{error}");
        }
        for mode in [0o600, 0o640] {
            assert!(StowClient::new(open_with(mode).unwrap()).is_ok(), "certificate and key are read whole");
        }
    }

    #[test]
    fn own_addresses_are_known() {
        let is = |listen: &str, peer: &str| is_own(listen.parse().unwrap(), peer.parse().unwrap());
        assert!(is("0.0.0.0:11112", "127.0.0.1:11112"));
        assert!(is("127.0.0.1:11112", "127.0.0.1:11112"));
        assert!(!is("0.0.0.0:11112", "127.0.0.1:104"), "another port");
        assert!(!is("127.0.0.1:11112", "127.0.0.2:11112"), "another address");
        assert!(!is("0.0.0.0:11112", "192.0.2.1:11112"), "another machine");
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host) in [
            ("http://pacs/dicom-web", Some("pacs:80")),
            ("https://pacs.example.org", Some("pacs.example.org:443")),
            ("http://127.0.0.1:8042/dicom-web", Some("127.0.0.1:8042")),
            ("http://[::1]/dicom-web", Some("[::1]:80")),
            ("pacs", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }
}
