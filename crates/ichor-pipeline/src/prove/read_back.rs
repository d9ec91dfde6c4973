//! Read-back: is the object there for others? Asked by C-FIND, QIDO-RS or WADO-RS.

use ichor_core::{Reason, chain};
use ichor_dicomweb::StowClient;
use ichor_dimse::scu::{Found, InstanceKey, ScuError, ScuOptions, StorageScu};
use ichor_store::{Consequence, StoreError, Unproven};
use tracing::{info, warn};

use super::{Prover, Round};
use crate::deliver::Transport;
use crate::now;

/// Questions before what else is due gets its turn.
const AT_ONCE: u32 = 100;

/// The answer to one question.
enum Answer {
    Found(String),
    NotFound(Reason),
    /// The peer is there, and does not answer this question.
    Refused(Reason),
    Unreachable(Reason),
}

impl Prover {
    pub(super) async fn read_back(&self) -> Result<Round, StoreError> {
        let due = self.store.due_read_backs(&self.destination.name, AT_ONCE, now()).await?;
        if due.is_empty() {
            return Ok(Round::Answered);
        }
        let Some(mut asker) = Asker::new(&self.destination.transport) else { return Ok(Round::Answered) };
        for item in &due {
            let answer = asker.ask(item, self.destination.proof.lookup).await;
            if let Answer::Unreachable(reason) = answer {
                let consequence = Consequence::AskAgain { at: now(), counts: false };
                self.store.read_back_came_to_nothing(&[item.delivery], &reason, consequence, now()).await?;
                return Ok(Round::Unreachable(reason));
            }
            self.record(item, answer).await?;
        }
        asker.hang_up().await;
        Ok(Round::Answered)
    }

    async fn record(&self, item: &Unproven, answer: Answer) -> Result<(), StoreError> {
        let (destination, sop_instance) = (&self.destination.name, &item.sop_instance);
        let (reason, at_the_end) = match answer {
            Answer::Found(words) => {
                info!(destination, %sop_instance, words, "found at the destination");
                return match self.store.read_back_found(item.delivery, &words, now()).await {
                    // Somebody asked for a retry in between.
                    Err(StoreError::StaleClaim { .. }) => Ok(()),
                    recorded => recorded,
                };
            }
            Answer::NotFound(reason) => (reason, Consequence::Lost),
            Answer::Refused(reason) | Answer::Unreachable(reason) => (reason, Consequence::GiveUp),
        };
        let consequence = self.destination.proof.asked_in_vain(item.attempts, at_the_end);
        let again = matches!(consequence, Consequence::AskAgain { .. });
        warn!(destination, %sop_instance, again, %reason, "accepted, and not visible");
        self.store.read_back_came_to_nothing(&[item.delivery], &reason, consequence, now()).await
    }
}

/// Asks one question after the other, over one association where there is such a thing.
enum Asker<'a> {
    Find { options: &'a ScuOptions, open: Option<Box<StorageScu>> },
    Web(&'a StowClient),
}

impl<'a> Asker<'a> {
    /// Nobody can be asked about a folder.
    fn new(transport: &'a Transport) -> Option<Self> {
        match transport {
            Transport::CStore(options) => Some(Self::Find { options, open: None }),
            Transport::StowRs(client) => Some(Self::Web(client)),
            Transport::Folder(_) => None,
        }
    }

    async fn ask(&mut self, item: &Unproven, lookup: ichor_dicomweb::Lookup) -> Answer {
        match self {
            Self::Find { options, open } => find(options, open, item).await,
            Self::Web(client) => {
                let key = ichor_dicomweb::InstanceKey {
                    study: item.study_instance.clone(),
                    series: item.series_instance.clone(),
                    sop_instance: item.sop_instance.clone(),
                };
                match client.find(&key, lookup).await {
                    Ok(true) => Answer::Found("the DICOMweb service answers with it".to_owned()),
                    Ok(false) => Answer::NotFound(Reason::new("not-found", "the DICOMweb service does not find it")),
                    Err(error) if error.is_of_peer() => Answer::Unreachable(Reason::new("unreachable", chain(&error))),
                    Err(error) => Answer::Refused(Reason::new("query-refused", chain(&error))),
                }
            }
        }
    }

    async fn hang_up(self) {
        if let Self::Find { open: Some(scu), options } = self
            && let Err(error) = scu.release().await
        {
            warn!(address = options.address, %error, "release after C-FIND failed");
        }
    }
}

async fn find(options: &ScuOptions, open: &mut Option<Box<StorageScu>>, item: &Unproven) -> Answer {
    if open.is_none() {
        match StorageScu::connect_to_find(options).await {
            Ok(scu) => *open = Some(Box::new(scu)),
            Err(error @ (ScuError::NoAcceptedContext | ScuError::ContextNotAccepted { .. })) => {
                return Answer::Refused(Reason::new("query-refused", chain(&error)));
            }
            Err(error) => return Answer::Unreachable(Reason::new("unreachable", chain(&error))),
        }
    }
    let Some(scu) = open else { return Answer::Refused(Reason::new("query-refused", "no association")) };
    let key = InstanceKey {
        study: item.study_instance.clone(),
        series: item.series_instance.clone(),
        sop_instance: item.sop_instance.clone(),
    };
    match scu.find(&key).await {
        Ok(Found::Yes) => Answer::Found("C-FIND finds it".to_owned()),
        Ok(Found::No) => Answer::NotFound(Reason::new("not-found", "C-FIND does not find it")),
        Ok(Found::Refused(response)) => {
            let words = crate::commit::event_words(response.status, response.comment.as_deref());
            Answer::Refused(Reason::new("query-refused", words))
        }
        Err(error) => {
            *open = None;
            Answer::Refused(Reason::new("query-refused", chain(&error)))
        }
    }
}
