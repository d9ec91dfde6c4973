//! Services that speak HTTP: each is spoken to with the credentials and certificates that it will be used with, and is given
//! nothing to keep.

use std::time::Duration;

use ichor_core::{Proof, Uid, chain};
use ichor_dicomweb::{StowClient, StowError};
use ichor_dimse::tls::{ClientTls, IdentityFiles};
use ichor_pipeline::tell::{Channel, Transport};
use ichor_worklist::TellError;
use tokio::time::timeout;

use super::network::{believed, proven, reached};
use super::{Level, Outcome};
use crate::channels;
use crate::config::{ChannelConfig, DestinationConfig, HttpTls, WebEndpoint, seconds};
use crate::destinations::{host_of, web_options};

/// How to mend what cannot be reached.
const UNREACHED: &str = "check address, port and firewall; what is to be sent waits in the queue meanwhile";
/// How to mend a certificate that is not believed, by either side.
const CERTIFICATE: &str =
    "check tls_ca_file, name and dates of the service's certificate, and which of ours it wants to see";

/// Searches a STOW-RS destination for a study that cannot be there.
pub(super) async fn stow(config: &DestinationConfig, endpoint: WebEndpoint) -> Outcome {
    let (subject, url) = (format!("destination {:?}", config.name), endpoint.url.clone());
    let client = web_options(endpoint).and_then(|mut options| {
        (options.timeout, options.connect_timeout) = (seconds(config.timeout_s), seconds(config.timeout_s));
        Ok(StowClient::new(options)?)
    });
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            return Outcome::failure(subject, format!("{error:#}"), "mend the files that the destination names");
        }
    };
    let error = match client.find_study(&Uid::derive(["ichor", "doctor"])).await {
        Ok(_) => return Outcome::good(subject, format!("{url} answers a search")),
        Err(error) => error,
    };
    let (mut level, mend) = meaning(&error);
    if config.proof.ask.contains(&Proof::ReadBack) {
        // Whoever is to prove what it has must answer.
        level = Level::Failure;
    }
    Outcome { subject, level, found: format!("{url}: {}", chain(&error)), mend: Some(mend.to_owned()) }
}

/// What it means that a search is not answered: the resource that is searched is the one that is stored to (PS3.18
/// 10.5 and 10.6: `/studies`), so that a path that is not there is a wrong one, and a search that may not be made says nothing of storing.
fn meaning(error: &StowError) -> (Level, &'static str) {
    match error {
        StowError::Status { status: 401, .. } => (Level::Failure, "check bearer_token_file, or user and password_file"),
        StowError::Status { status: 403, .. } => (
            Level::Warning,
            "these credentials may not search, and perhaps not store either: check them, or grant a search",
        ),
        StowError::Status { status: 404 | 410, .. } => {
            (Level::Failure, "check the path of the url: /studies must lie right below it")
        }
        StowError::Status { status: 405 | 501, .. } => {
            (Level::Warning, "it does not search; whether it stores will be seen with the first result")
        }
        StowError::Status { status: 300..=399, .. } => {
            (Level::Failure, "give the url that it points to: redirections are not followed")
        }
        StowError::Status { status: 200..=299, .. } => {
            (Level::Failure, "this is no DICOMweb service, or a page before it: check the url")
        }
        StowError::Connect(words) | StowError::Connection(words) if is_of_tls(words) => (Level::Failure, CERTIFICATE),
        StowError::Connect(_) | StowError::Timeout(_) => (Level::Failure, UNREACHED),
        _ => (Level::Failure, "see what the service's own log says of it; results wait in the queue meanwhile"),
    }
}

fn is_of_tls(words: &str) -> bool {
    ["certificate", "Certificate", "TLS", "handshake", "alert", "corrupt message"]
        .iter()
        .any(|word| words.contains(word))
}

/// Asks a FHIR server what it can do.
pub(super) async fn fhir(channel: &ChannelConfig) -> Outcome {
    let subject = format!("channel {:?}", channel.name);
    let client = match channels::open(channel, None) {
        Ok(Channel { transport: Transport::Fhir(client), .. }) => client,
        Ok(_) => return Outcome::failure(subject, "is no FHIR server", "mend the section"),
        Err(error) => return Outcome::failure(subject, format!("{error:#}"), "mend what the channel names"),
    };
    let error = match client.capabilities().await {
        Ok(version) => return Outcome::good(subject, format!("answers as FHIR {version}")),
        Err(error) => error,
    };
    let mend = match &error {
        TellError::Refused(words) | TellError::RefusedForGood(words)
            if words.starts_with("HTTP 401") || words.starts_with("HTTP 403") =>
        {
            "check bearer_token_file"
        }
        TellError::Refused(_) | TellError::RefusedForGood(_) | TellError::Answer(_) => {
            "check the url: the base of a FHIR server, below which there is /metadata"
        }
        TellError::Connection { why, .. } if is_of_tls(why) => CERTIFICATE,
        _ => UNREACHED,
    };
    Outcome::failure(subject, chain(&error), mend)
}

/// Speaks TLS with the receiver of a webhook, or connects to it; any request would be a message.
pub(super) async fn webhook(channel: &ChannelConfig, url: &str, tls: HttpTls) -> Outcome {
    let (subject, limit) = (format!("channel {:?}", channel.name), seconds(channel.timeout_s));
    match host_of(url).filter(|_| url.starts_with("https://")) {
        Some(place) => handshake(subject, &place, tls, limit).await,
        None => reached(subject, url, limit).await,
    }
}

async fn handshake(subject: String, place: &str, tls: HttpTls, limit: Duration) -> Outcome {
    let files = |(certificate_file, key_file)| IdentityFiles { certificate_file, key_file };
    let tls = ClientTls { ca_file: tls.ca_file, identity: tls.identity.map(files), ..ClientTls::default() };
    let tried = timeout(limit, believed(&tls, place)).await;
    proven(subject, place, CERTIFICATE, tried.unwrap_or_else(|_| Err("TLS: does not answer in time".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_to_a_search_means_something_else() {
        for (status, level, words) in [
            (200, Level::Failure, "no DICOMweb service"),
            (302, Level::Failure, "redirections"),
            (401, Level::Failure, "bearer_token_file"),
            (403, Level::Warning, "grant a search"),
            (404, Level::Failure, "path of the url"),
            (405, Level::Warning, "does not search"),
            (501, Level::Warning, "does not search"),
            (500, Level::Failure, "service's own log"),
            (503, Level::Failure, "service's own log"),
        ] {
            let error = StowError::Status { status, words: String::new(), retry_after: None };
            let (is, mend) = meaning(&error);
            assert!(is == level && mend.contains(words), "{status}: {is:?}, {mend}");
        }
        for (words, mend) in [
            ("invalid peer certificate: UnknownIssuer", CERTIFICATE),
            ("received fatal alert: CertificateRequired", CERTIFICATE),
            ("Connection refused (os error 111)", UNREACHED),
        ] {
            assert_eq!(meaning(&StowError::Connect(words.to_owned())), (Level::Failure, mend), "{words}");
        }
        let broken = StowError::Connection("received fatal alert: CertificateRequired".to_owned());
        assert_eq!(meaning(&broken), (Level::Failure, CERTIFICATE));
        assert_eq!(meaning(&StowError::Timeout(Duration::from_secs(1))), (Level::Failure, UNREACHED));
    }
}
