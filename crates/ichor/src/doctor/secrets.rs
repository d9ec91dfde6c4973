//! Certificates, and files that only ichor may read.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ichor_dimse::tls::ServerTls;

use super::Outcome;
use crate::config::{ChannelEnd, Config, Endpoint};

/// A certificate that ends within this time is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);

/// How to renew a certificate of the TLS port, and one of a service over HTTP.
const RENEW: &str = "renew it; ichor takes the new one without a restart";
const RENEW_AND_RESTART: &str = "renew it and restart ichor, which reads this one at its start";

/// The certificates of all listeners, and those that are shown to destinations.
pub(super) fn certificates(config: &Config) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if let Some(settings) = &config.listen.tls {
        let subject = "certificate of the TLS port";
        let mend = "give certificate and key that belong together, in PEM, not expired (listen.tls)";
        let loaded = settings.options().and_then(|options| ServerTls::load(options).map_err(|error| error.to_string()));
        outcomes.push(match loaded {
            Ok((_, summary)) => lifetime(subject, &summary.subject, summary.not_after, SystemTime::now(), RENEW),
            Err(error) => Outcome::failure(subject, error, mend),
        });
    }
    for (section, loaded) in crate::tls_files::of_services(config) {
        let subject = format!("certificate of {section}");
        outcomes.push(match loaded {
            Ok(summary) => {
                lifetime(&subject, &summary.subject, summary.not_after, SystemTime::now(), RENEW_AND_RESTART)
            }
            Err(error) => {
                let mend = "give certificate and key that belong together, in PEM, the key closed to others";
                Outcome::failure(subject, format!("{error:#}"), mend)
            }
        });
    }
    for destination in &config.destinations {
        if let Ok(Endpoint::CStore { tls: Some(tls), .. }) = destination.endpoint() {
            let subject = format!("TLS of destination {:?}", destination.name);
            outcomes.push(match tls.check() {
                Ok(()) => Outcome::good(subject, "its files can be used"),
                Err(error) => Outcome::failure(subject, error.to_string(), "mend the files that the destination names"),
            });
        }
    }
    for channel in &config.channels {
        if let Ok(ChannelEnd::Hl7 { tls: Some(tls), .. }) = channel.end() {
            let subject = format!("TLS of channel {:?}", channel.name);
            outcomes.push(match tls.check() {
                Ok(()) => Outcome::good(subject, "its files can be used"),
                Err(error) => Outcome::failure(subject, error.to_string(), "mend the files that the channel names"),
            });
        }
    }
    outcomes
}

fn lifetime(subject: &str, name: &str, not_after: Option<SystemTime>, now: SystemTime, renew: &str) -> Outcome {
    let Some(end) = not_after else {
        return Outcome::warning(
            subject,
            format!("{name}: when it ends cannot be told"),
            "look at it with openssl x509",
        );
    };
    match end.duration_since(now) {
        Err(_) => Outcome::failure(subject, format!("{name} has expired"), renew),
        Ok(left) => {
            let found = format!("{name}, {} days left", left.as_secs() / 86_400);
            if left < EXPIRES_SOON { Outcome::warning(subject, found, renew) } else { Outcome::good(subject, found) }
        }
    }
}

/// Tokens, passwords, passcodes and signing secrets.
pub(super) fn files(config: &Config) -> Vec<Outcome> {
    let mut named: Vec<(String, &PathBuf)> = Vec::new();
    for source in &config.sources {
        let name = source.ae_title.as_ref().map_or_else(|| "of any title".to_owned(), ToString::to_string);
        named.extend(source.passcode_file.iter().map(|file| (format!("passcode of source {name}"), file)));
    }
    for destination in &config.destinations {
        let secrets = destination.bearer_token_file.iter().chain(&destination.password_file);
        named.extend(secrets.map(|file| (format!("secret of destination {:?}", destination.name), file)));
    }
    for lookup in &config.lookups {
        let secrets = lookup.bearer_token_file.iter().chain(&lookup.password_file);
        named.extend(secrets.map(|file| (format!("secret of look-up {:?}", lookup.name), file)));
    }
    for channel in &config.channels {
        let secrets = channel.secret_file.iter().chain(&channel.bearer_token_file);
        named.extend(secrets.map(|file| (format!("secret of channel {:?}", channel.name), file)));
    }
    let headers = config.telemetry.iter().filter_map(|section| section.headers_file.as_ref());
    named.extend(headers.map(|file| ("headers of the collector of traces".to_owned(), file)));
    let provider = config.admin.iter().filter_map(|admin| admin.oidc.as_ref()?.client_secret_file.as_ref());
    named.extend(provider.map(|file| ("secret for the OpenID provider".to_owned(), file)));
    for list in &config.task_lists {
        let of_sources =
            list.sources.iter().flat_map(|source| source.bearer_token_file.iter().chain(&source.password_file));
        let secrets = list.bearer_token_file.iter().chain(&list.password_file).chain(of_sources);
        named.extend(secrets.map(|file| (format!("secret of task list {:?}", list.name.as_str()), file)));
    }
    let clients = config.dicomweb.iter().flat_map(|dicomweb| &dicomweb.clients);
    let tokens = clients.filter_map(|client| Some((client, client.token_file.as_deref()?))).map(|(client, file)| {
        let subject = format!("token of client {}", client.name);
        match crate::web::token(file) {
            Ok(_secret) => Outcome::good(subject, format!("{} is closed to others", file.display())),
            Err(error) => Outcome::failure(
                subject,
                format!("{error:#}"),
                "one line of at least 16 characters, such as openssl rand -hex 24 makes, readable by ichor's user alone",
            ),
        }
    });
    let looked_at = named.into_iter().map(|(subject, file)| match crate::secrets::read(file) {
        Ok(_secret) => Outcome::good(subject, format!("{} is closed to others", file.display())),
        Err(error) => Outcome::failure(subject, format!("{error:#}"), "one line, readable by ichor's user alone"),
    });
    looked_at.chain(tokens).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn certificates_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let level = |days: i64| {
            let seconds = Duration::from_secs(days.unsigned_abs() * 86_400);
            lifetime("c", "CN=x", Some(if days < 0 { now - seconds } else { now + seconds }), now, RENEW)
        };
        assert_eq!(level(-1).level, Level::Failure);
        assert_eq!(level(29).level, Level::Warning);
        assert_eq!((level(90).level, level(90).found.as_str()), (Level::Good, "CN=x, 90 days left"));
        assert_eq!(lifetime("c", "CN=x", None, now, RENEW).level, Level::Warning);
    }
}
