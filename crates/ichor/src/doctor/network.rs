//! Own ports, and those of everybody whom ichor talks to.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use ichor_core::{AeTitle, chain};
use ichor_dimse::scu::{ProposedContext, ScuError, ScuOptions, StorageScu};
use ichor_dimse::tls::ClientTls;
use ichor_pipeline::deliver::Transport;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::holder::{Holder, holder};
use super::{Level, Outcome};
use crate::config::{ChannelEnd, Config, DestinationConfig, Endpoint, seconds};
use crate::destinations::{host_of, refuse_ourselves, transport, unheard_reporter};
use crate::performers::may_come;

/// Time for a peer on this machine.
const NEAR: Duration = Duration::from_secs(5);

/// Time for a receiver to object to our certificate.
const OBJECTION: Duration = Duration::from_millis(300);

/// Every port that the daemon opens: free, or held by the daemon itself.
pub(super) async fn listeners(config: &Config) -> Vec<Outcome> {
    let own = &config.listen;
    let mut outcomes = vec![port("DICOM port", own.address, true, &own.ae_title).await];
    let others = [
        ("TLS port", own.tls.as_ref().map(|tls| tls.address)),
        ("STOW-RS port", config.dicomweb.as_ref().map(|dicomweb| dicomweb.address)),
        ("port of health and metrics", config.admin.as_ref().map(|admin| admin.address)),
    ];
    for (subject, address) in others {
        if let Some(address) = address {
            outcomes.push(port(subject, address, false, &own.ae_title).await);
        }
    }
    outcomes
}

async fn port(subject: &str, address: SocketAddr, is_dicom: bool, own_title: &AeTitle) -> Outcome {
    let subject = format!("{subject} {address}");
    match TcpListener::bind(address) {
        Ok(_given_back) => Outcome::good(subject, "is free"),
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_dicom => in_use(subject, address, own_title).await,
        Err(error) if error.kind() == ErrorKind::AddrInUse => held(subject, address),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Outcome::failure(
            subject,
            "may not be opened by this user",
            "ports below 1024 need CAP_NET_BIND_SERVICE (see the service unit), or choose another",
        ),
        Err(error) => Outcome::failure(subject, error.to_string(), "an address of this machine, or 0.0.0.0 for all"),
    }
}

/// Whether a daemon of ours has the port.
fn held(subject: String, address: SocketAddr) -> Outcome {
    match holder(address) {
        Some(found) if found.is_ichor() => {
            Outcome::good(subject, format!("is in use by {} itself (process {})", found.program, found.pid))
        }
        Some(Holder { program, pid }) => Outcome::failure(
            subject,
            format!("is in use by {program} (process {pid})"),
            "end it, or choose another port for ichor",
        ),
        None => Outcome::warning(
            subject,
            "is in use; by whom cannot be told",
            "right if ichor is running; else find who has it: ss -ltnp. Run as root or as ichor's user, doctor tells",
        ),
    }
}

/// Whether a DICOM peer has the port: a rejected association proves that too.
async fn in_use(subject: String, address: SocketAddr, own_title: &AeTitle) -> Outcome {
    let at = if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() };
    let mut options = ScuOptions::new(own_title.clone(), own_title.clone(), at);
    (options.connect_timeout, options.response_timeout) = (NEAR, NEAR);
    match StorageScu::connect(&options, &[ProposedContext::verification()]).await {
        Ok(scu) => {
            scu.abort().await;
            Outcome::good(subject, "is in use by a DICOM peer, as it is when ichor runs")
        }
        Err(ScuError::Rejected { .. }) => Outcome::good(subject, "is in use by a DICOM peer, as it is when ichor runs"),
        Err(error) => Outcome::failure(
            subject,
            format!("is in use by something that is no DICOM peer: {error}"),
            "find who has it: ss -ltnp; or choose another port in listen.address",
        ),
    }
}

/// Whether anybody may send.
pub(super) fn sources(config: &Config) -> Option<Outcome> {
    let by_web = config.dicomweb.as_ref().is_some_and(|dicomweb| !dicomweb.clients.is_empty());
    (config.sources.is_empty() && !by_web)
        .then(|| Outcome::failure("sources", "nobody may send", "name who may in [[source]] or [[dicomweb.client]]"))
}

/// An echo to each C-STORE destination, a search at each that speaks STOW-RS, a look at each folder.
pub(super) async fn destinations(config: &Config) -> Vec<Outcome> {
    if config.destinations.is_empty() {
        let mend = "name where results go in [[destination]]";
        return vec![Outcome::warning("destinations", "none: results stay here", mend)];
    }
    let mut outcomes = Vec::new();
    for destination in &config.destinations {
        let subject = format!("destination {:?}", destination.name);
        let own = match destination.endpoint() {
            Ok(endpoint) => refuse_ourselves(config, &endpoint).await,
            // Said below.
            Err(_) => Ok(()),
        };
        if let Err(error) = own {
            outcomes.push(Outcome::failure(
                subject,
                error.to_string(),
                "name the PACS: results would come back for ever",
            ));
            continue;
        }
        outcomes.push(self::destination(destination, &config.listen.ae_title).await);
        if let Some(title) = unheard_reporter(config, destination) {
            let found = format!("commitment is asked of {title}, and no [[source]] has that AE title");
            let mend = "add a [[source]] for it: a report on an association of its own is refused";
            outcomes.push(Outcome::warning(format!("{subject}, proof"), found, mend));
        }
    }
    outcomes
}

async fn destination(config: &DestinationConfig, own_title: &AeTitle) -> Outcome {
    let subject = format!("destination {:?}", config.name);
    let timeout = seconds(config.timeout_s);
    match config.endpoint() {
        Err(error) => Outcome::failure(subject, error, "mend the section"),
        Ok(Endpoint::CStore { address, ae_title, calling_ae_title, tls }) => {
            let calling = calling_ae_title.unwrap_or_else(|| own_title.clone());
            let named = format!("{ae_title}@{address}, called by {calling}");
            let mut options = ScuOptions::new(calling, ae_title, address);
            (options.connect_timeout, options.response_timeout, options.tls) = (timeout, timeout, tls);
            match echo(&options).await {
                Ok(()) => Outcome::good(subject, format!("{named} answers C-ECHO")),
                Err(error) => {
                    let mend = if matches!(error, ScuError::Rejected { .. }) {
                        "enter ichor's AE title and address at the peer, and check the called AE title"
                    } else {
                        "check address, port and firewall; results wait in the queue meanwhile"
                    };
                    Outcome::failure(subject, format!("{named}: {}", chain(&error)), mend)
                }
            }
        }
        Ok(Endpoint::StowRs(endpoint)) => super::services::stow(config, endpoint).await,
        Ok(Endpoint::Folder(folder)) if folder.is_dir() => super::machine::writable(&subject, &folder),
        Ok(Endpoint::Folder(folder)) => Outcome::failure(
            subject,
            format!("{} is no folder, or not mounted", folder.display()),
            "make or mount it: ichor does not, lest results end up below a mount point",
        ),
    }
}

async fn echo(options: &ScuOptions) -> Result<(), ScuError> {
    let mut scu = StorageScu::connect(options, &[ProposedContext::verification()]).await?;
    let _any_answer_is_one = scu.echo().await?;
    scu.release().await
}

/// TLS or a connection with whoever is told, and of a FHIR server what it can do.
pub(super) async fn channels(config: &Config) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for channel in &config.channels {
        let subject = format!("channel {:?}", channel.name);
        let timeout = seconds(channel.timeout_s);
        outcomes.push(match channel.end() {
            Err(error) => Outcome::failure(subject, error, "mend the section"),
            Ok(ChannelEnd::Hl7 { address, tls: Some(tls), .. }) => {
                let tried = tokio::time::timeout(timeout, believed(&tls, &address)).await;
                let tried = tried.unwrap_or_else(|_| Err("TLS: does not answer in time".to_owned()));
                let mend = "check tls_ca_file and tls_server_name, the receiver's certificate, and which of ours it wants to see";
                proven(subject, &address, mend, tried)
            }
            Ok(ChannelEnd::Hl7 { address, .. }) => connected(subject, &address, timeout).await,
            Ok(ChannelEnd::Webhook { url, tls, .. }) => super::services::webhook(channel, &url, tls).await,
            Ok(ChannelEnd::Fhir { .. }) => super::services::fhir(channel).await,
        });
    }
    outcomes
}

/// A connection to the collector of traces.
pub(super) async fn telemetry(config: &Config) -> Option<Outcome> {
    let section = config.telemetry.as_ref()?;
    let subject = "collector of traces";
    if let Err(error) = crate::telemetry::open(config) {
        return Some(Outcome::failure(subject, format!("{error:#}"), "mend what [telemetry] names"));
    }
    let mut outcome = reached(subject.to_owned(), &section.endpoint, seconds(section.timeout_s)).await;
    // No study waits for it.
    outcome.level = outcome.level.min(Level::Warning);
    Some(outcome)
}

/// Whether the OpenID provider says of itself what the configuration says.
pub(super) async fn provider(config: &Config) -> Option<Outcome> {
    let admin = config.admin.as_ref()?;
    let section = admin.oidc.as_ref()?;
    let subject = "OpenID provider";
    let options = match crate::admin::oidc(section) {
        Ok(options) => options,
        Err(error) => return Some(Outcome::failure(subject, format!("{error:#}"), "mend what [admin.oidc] names")),
    };
    let callback = format!("register {}/oidc/callback there", crate::admin::own_url(admin));
    Some(match ichor_admin::check_provider(options, &crate::admin::own_url(admin)).await {
        Ok(()) => Outcome::good(subject, format!("{} answers; {callback}", section.issuer)),
        // Local passwords work without it.
        Err(error) => Outcome::warning(
            subject,
            format!("{}: {error}", section.issuer),
            "check issuer, certificate and firewall; local passwords work meanwhile",
        ),
    })
}

/// Speaks TLS with a receiver as the channel does; nothing is sent to it.
pub(super) async fn believed(tls: &ClientTls, address: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut stream = tls.connect(address, stream).await.map_err(|error| chain(&error))?;
    // Since TLS 1.3 a receiver says after the handshake only that it does not like our certificate.
    match tokio::time::timeout(OBJECTION, stream.read(&mut [0])).await {
        Ok(Err(error)) => Err(format!("TLS: {error}")),
        Ok(Ok(0)) => Err("TLS: it hangs up after the handshake".to_owned()),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// What came of it; `mend` says which keys may be wrong.
pub(super) fn proven(subject: String, address: &str, mend: &str, tried: Result<(), String>) -> Outcome {
    match tried {
        Ok(()) => Outcome::good(subject, format!("{address} takes connections, and its certificate is believed")),
        Err(error) if error.starts_with("TLS") => Outcome::failure(subject, format!("{address}: {error}"), mend),
        Err(error) => Outcome::failure(
            subject,
            format!("{address}: {error}"),
            "check address, port and firewall; what is to be sent waits in the queue meanwhile",
        ),
    }
}

/// A connection to each task list, and to what inputs may be fetched from.
pub(super) async fn task_lists(config: &Config) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for list in &config.task_lists {
        let (subject, timeout) = (format!("task list {:?}", list.name.as_str()), seconds(list.timeout_s));
        outcomes.push(reached(subject.clone(), &list.url, timeout).await);
        for source in &list.sources {
            let subject = format!("{subject}, source");
            outcomes.push(match source.endpoint() {
                Ok(Endpoint::StowRs(web)) => reached(subject, &web.url, timeout).await,
                Ok(endpoint) => mover(config, subject, endpoint, timeout).await,
                Err(error) => Outcome::failure(subject, error, "mend the section"),
            });
        }
    }
    outcomes
}

/// Whether a peer would send inputs here: it takes C-MOVE from us, and may come. Nothing is asked for.
async fn mover(config: &Config, subject: String, endpoint: Endpoint, timeout: Duration) -> Outcome {
    let peer = match transport(endpoint, timeout, &config.listen.ae_title) {
        Ok(Transport::CStore(peer)) => peer,
        Ok(_) => return Outcome::failure(subject, "is no DICOM peer", "mend the section"),
        Err(error) => return Outcome::failure(subject, format!("{error:#}"), "mend the section"),
    };
    let named = format!("{}@{}, called by {}", peer.called_ae, peer.address, peer.calling_ae);
    if !may_come(config, &peer.called_ae) {
        let found = format!("{named}: no [[source]] has its AE title");
        return Outcome::failure(subject, found, "add a [[source]] for it: what it is asked to send here is refused");
    }
    let connected = match StorageScu::connect_to_move(&peer).await {
        Ok(scu) => scu.release().await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(()) => Outcome::good(subject, format!("{named} takes C-MOVE; it must know {} too", config.listen.ae_title)),
        Err(error) => Outcome::failure(
            subject,
            format!("{named}: {}", chain(&error)),
            "enter ichor's AE title, address and port at the peer, and allow it C-MOVE",
        ),
    }
}

/// Whether somebody listens where a URL points to.
pub(super) async fn reached(subject: String, url: &str, timeout: Duration) -> Outcome {
    match host_of(url) {
        Some(place) => connected(subject, &place, timeout).await,
        None => Outcome::failure(subject, format!("{url:?} has no host"), "give a whole URL"),
    }
}

async fn connected(subject: String, place: &str, timeout: Duration) -> Outcome {
    let mend = "check address, port and firewall; what is to be sent waits in the queue meanwhile";
    match tokio::time::timeout(timeout, TcpStream::connect(place)).await {
        Ok(Ok(_closed_again)) => Outcome::good(subject, format!("{place} takes connections")),
        Ok(Err(error)) => Outcome::failure(subject, format!("{place}: {error}"), mend),
        Err(_) => Outcome::failure(subject, format!("{place} does not answer in {} s", timeout.as_secs_f64()), mend),
    }
}
