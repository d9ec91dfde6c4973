//! The audit repository.

use super::Outcome;
use crate::audit;
use crate::config::Config;

/// A connection to the repository, with its certificate; nothing is sent.
pub(super) async fn examine(config: &Config) -> Vec<Outcome> {
    let Some(section) = &config.audit else { return Vec::new() };
    let subject = format!("audit repository {}", section.address);
    let mut outcomes = Vec::new();
    if section.is_exposed() {
        let found = "names of patients travel in the clear, and messages may be lost: transport = \"udp\"";
        let mend = "use transport = \"tls\", or a relay on this machine";
        outcomes.push(Outcome::warning(subject.clone(), found, mend));
    }
    let mut client = match audit::client(section) {
        Ok(client) => client,
        Err(error) => {
            outcomes.push(Outcome::failure(subject, format!("{error:#}"), "mend the certificates that [audit] names"));
            return outcomes;
        }
    };
    outcomes.push(match client.try_connection().await {
        Ok(()) if section.tls().is_some() => Outcome::good(subject, "speaks TLS"),
        Ok(()) => Outcome::good(subject, "is an address; whether anybody hears cannot be known of UDP"),
        Err(error) => Outcome::failure(
            subject,
            error.to_string(),
            "check address, port, firewall and certificates; what is to be told waits in the job log meanwhile",
        ),
    });
    outcomes
}
