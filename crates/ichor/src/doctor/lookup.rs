//! Those who are asked about studies: each is asked about one that nobody has.

use ichor_core::Uid;
use ichor_dimse::scu::{QueryModel, ScuError, ScuOptions, StorageScu};
use ichor_pipeline::lookup::Inquiry;

use super::Outcome;
use crate::config::Config;
use crate::lookups::open;

/// Asks every peer.
pub(super) async fn examine(config: &Config) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (rank, section) in (0..).zip(&config.lookups) {
        let subject = format!("look-up {:?}", section.name);
        outcomes.push(match open(config, section, rank).await {
            Err(error) => Outcome::failure(subject, format!("{error:#}"), "mend the section"),
            Ok(options) => match tokio::time::timeout(options.timeout, ask(&options.inquiry)).await {
                Ok(Ok(found)) => Outcome::good(subject, found),
                Ok(Err((found, mend))) => Outcome::failure(subject, found, mend),
                Err(_) => Outcome::failure(
                    subject,
                    format!("no answer within {:?}", options.timeout),
                    "check address, port and firewall; studies close by their quiet period meanwhile",
                ),
            },
        });
    }
    outcomes
}

/// What the peer said, or what is wrong and how to mend it.
async fn ask(inquiry: &Inquiry) -> Result<String, (String, &'static str)> {
    match inquiry {
        Inquiry::Worklist(options, _) => negotiate(options, QueryModel::Worklist, "the worklist").await,
        Inquiry::Find(options, _) => negotiate(options, QueryModel::StudyRoot, "queries of studies").await,
        Inquiry::Web(client, _) => match client.find_study(&Uid::derive(["ichor", "doctor"])).await {
            Ok(_) => Ok("the DICOMweb service answers a search".to_owned()),
            Err(error) => {
                Err((format!("{:#}", anyhow::Error::new(error)), "check the url, the credentials and the certificate"))
            }
        },
    }
}

/// Whether the presentation context is accepted; a query that any patient could match is not sent.
async fn negotiate(options: &ScuOptions, model: QueryModel, what: &str) -> Result<String, (String, &'static str)> {
    let named = format!("{}@{}, called by {}", options.called_ae, options.address, options.calling_ae);
    let connected = match StorageScu::connect_to_query(options, model).await {
        Ok(scu) => scu.release().await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(()) => Ok(format!("{named} takes {what}")),
        Err(error) => {
            let mend = match &error {
                ScuError::Rejected { .. } => {
                    "enter ichor's AE title and address at the peer, and check the called AE title"
                }
                ScuError::NoAcceptedContext => "the peer must accept this SOP class from ichor's AE title",
                _ => "check address, port and firewall; studies close by their quiet period meanwhile",
            };
            Err((format!("{named}: {:#}", anyhow::Error::new(error)), mend))
        }
    }
}
