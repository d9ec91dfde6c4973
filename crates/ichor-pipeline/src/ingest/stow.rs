//! Ingest behind a STOW-RS service (PS3.18 10.5): each part is a DICOM file, whose data set goes the way of a C-STORE.
//!
//! The header of the file says what a C-STORE's command and presentation context say, and is not kept: the data set
//! gets the header that every received instance gets, so that the same data set is the same instance whichever way it
//! came.

use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, Uid};
use ichor_dicomweb::server::{
    PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Sender, StowHandler,
};
use ichor_dimse::part10::{self, HeaderError, MAX_HEADER_BYTES, Part10};
use ichor_dimse::scp::{InstanceSink, SopClassRule, StoreFailure, StoreOutcome, StoreRequest};
use ichor_dimse::status::StoreStatus;
use ichor_store::NewAssociation;
use tracing::warn;

use super::{Ingest, IngestSink, OpenAssociation, Thread};

/// What stands where an association has a called AE title.
const CALLED: &str = "STOW-RS";

/// The same for what we retrieve ourselves.
const RETRIEVED: &str = "WADO-RS";

/// What announces an instance that comes by STOW-RS.
const ANNOUNCED_BY_FILE: &str = "the file meta information";

/// Failure reason: transfer syntax not supported (PS3.18 table I.2-2).
const TRANSFER_SYNTAX_NOT_SUPPORTED: StoreStatus = StoreStatus::Other(0xC122);

/// How long to wait for more of a study from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StowClientRule {
    /// Name of the client, which stands where an association has a calling AE title.
    pub name: AeTitle,
    /// Quiet period after which a study of this client closes.
    pub quiet_period: Duration,
}

/// The stage, as the handler of a STOW-RS service.
#[derive(Clone)]
pub struct StowIngest {
    ingest: Ingest,
    rules: Arc<Rules>,
}

struct Rules {
    clients: Vec<StowClientRule>,
    sop_classes: Vec<SopClassRule>,
}

impl StowIngest {
    /// Makes the stage on that of C-STORE. `sop_classes` is what is accepted, as for associations.
    #[must_use]
    pub fn new(ingest: Ingest, clients: Vec<StowClientRule>, sop_classes: Vec<SopClassRule>) -> Self {
        Self { ingest, rules: Arc::new(Rules { clients, sop_classes }) }
    }
}

/// An open request, as the stage knows it.
pub struct StowRequest {
    association: Arc<OpenAssociation>,
    study: Option<Uid>,
}

fn described(sender: &Sender) -> NewAssociation {
    NewAssociation {
        peer_address: sender.address.to_string(),
        calling_ae: sender.client.clone(),
        called_ae: CALLED.to_owned(),
    }
}

impl StowIngest {
    /// Opens a retrieval (WADO-RS) on behalf of a client, as if that had sent what comes: `from` is whom it comes from, and
    /// every instance must be of `study`.
    ///
    /// # Errors
    /// As [`StowHandler::request_opened`].
    pub async fn retrieval_opened(&self, client: &AeTitle, from: &str, study: &Uid) -> Result<StowRequest, Refusal> {
        let rule = self.rules.clients.iter().find(|rule| rule.name == *client).ok_or(Refusal::Unauthorized)?;
        self.ingest.check_room().map_err(|words| Refusal::NoRoom(words.to_owned()))?;
        let described = NewAssociation {
            peer_address: from.to_owned(),
            calling_ae: client.as_str().to_owned(),
            called_ae: RETRIEVED.to_owned(),
        };
        let opened = self.ingest.open(&described, Some(client.clone()), rule.quiet_period).await;
        let association =
            opened.map_err(|_| Refusal::Unavailable("the job log cannot record the retrieval".to_owned()))?;
        Ok(StowRequest { association: Arc::new(association), study: Some(study.clone()) })
    }
}

impl StowHandler for StowIngest {
    type Request = StowRequest;
    type Sink = StowSink;

    async fn request_opened(&self, sender: &Sender, study: Option<&Uid>) -> Result<StowRequest, Refusal> {
        let client = self.rules.clients.iter().find(|client| client.name.as_str() == sender.client);
        let Some(client) = client else { return Err(Refusal::Unauthorized) };
        self.ingest.check_room().map_err(|words| Refusal::NoRoom(words.to_owned()))?;
        let opened = self.ingest.open(&described(sender), Some(client.name.clone()), client.quiet_period).await;
        let association =
            opened.map_err(|_| Refusal::Unavailable("the job log cannot record the request".to_owned()))?;
        Ok(StowRequest { association: Arc::new(association), study: study.cloned() })
    }

    async fn request_refused(&self, sender: &Sender, refusal: &Refusal) {
        self.ingest.refused(&described(sender), &refusal.to_string()).await;
    }

    async fn request_closed(&self, request: StowRequest, end: RequestEnd) {
        let end = ichor_store::AssociationEnd { outcome: end.outcome, instances: end.instances, bytes: end.bytes };
        self.ingest.close(&request.association, &end).await;
    }

    fn begin(&self, request: &StowRequest) -> StowSink {
        StowSink {
            stage: self.clone(),
            association: Arc::clone(&request.association),
            study: request.study.clone(),
            file: None,
            state: State::Header(Vec::new()),
        }
    }
}

/// One part on its way in. Dropped before [`PartSink::commit`] it leaves nothing behind.
pub struct StowSink {
    stage: StowIngest,
    association: Arc<OpenAssociation>,
    study: Option<Uid>,
    /// What the file's header says, once it was read.
    file: Option<Part10>,
    state: State,
}

enum State {
    /// The header is not complete.
    Header(Vec<u8>),
    /// The data set is being written.
    DataSet(Box<IngestSink>),
    /// The part will not be stored, for this reason.
    Failed(PartFailure),
}

impl PartSink for StowSink {
    async fn write(&mut self, bytes: &[u8]) {
        let written = match &mut self.state {
            State::Failed(_) => return,
            State::DataSet(sink) => sink.write(bytes).await,
            State::Header(head) => {
                let room = MAX_HEADER_BYTES.saturating_sub(head.len()).min(bytes.len());
                let (taken, rest) = bytes.split_at(room);
                head.extend_from_slice(taken);
                let header = match part10::decode_arriving_header(head) {
                    Some(header) => Ok(header),
                    None if head.len() < MAX_HEADER_BYTES => return,
                    None => part10::decode_header(head),
                };
                let head = std::mem::take(head);
                self.begin(header, &head, rest).await
            }
        };
        if let Err(failure) = written {
            self.state = State::Failed(part_failure(failure));
        }
    }

    fn refuse(self, failure: PartFailure) -> PartResult {
        let (request, reason) = (self.file.as_ref(), &failure.text);
        warn!(sop_instance = request.map(|r| tracing::field::display(&r.sop_instance)), %reason, "instance refused");
        result(self.file, PartOutcome::Failed(failure))
    }

    async fn commit(mut self) -> PartResult {
        if let State::Header(head) = &mut self.state {
            // The whole part is there: what is no header now will be none.
            let head = std::mem::take(head);
            if let Err(failure) = self.begin(part10::decode_header(&head), &head, &[]).await {
                self.state = State::Failed(part_failure(failure));
            }
        }
        let outcome = match self.state {
            State::DataSet(sink) => match sink.commit().await {
                Ok(StoreOutcome::Success) => PartOutcome::Stored,
                Ok(StoreOutcome::Warning { status, comment }) => {
                    PartOutcome::Warning { reason: status.code(), text: comment }
                }
                Err(failure) => PartOutcome::Failed(part_failure(failure)),
            },
            State::Failed(failure) => PartOutcome::Failed(failure),
            State::Header(_) => PartOutcome::Failed(part_failure(StoreFailure::new(
                StoreStatus::CannotUnderstand,
                "the file has no header",
            ))),
        };
        result(self.file, outcome)
    }
}

impl StowSink {
    /// Begins the data set behind a header: `head` holds the header and perhaps more, `rest` follows it.
    async fn begin(
        &mut self,
        header: Result<Part10, HeaderError>,
        head: &[u8],
        rest: &[u8],
    ) -> Result<(), StoreFailure> {
        let header = header.map_err(|error| {
            warn!(reason = %error, "part refused");
            StoreFailure::new(StoreStatus::CannotUnderstand, error.to_string())
        })?;
        let file = self.file.insert(header);
        let request = StoreRequest {
            sop_class: file.sop_class.clone(),
            sop_instance: file.sop_instance.clone(),
            transfer_syntax: file.transfer_syntax.clone(),
            message_id: 0,
        };
        let at = usize::try_from(file.dataset_offset).unwrap_or(usize::MAX);
        check_accepted(&self.stage.rules.sop_classes, &request)?;
        let ingest = &self.stage.ingest;
        ingest.check_room().map_err(|words| StoreFailure::new(StoreStatus::OutOfResources, words))?;
        let mut sink = ingest.begin_instance(&self.association, &request, ANNOUNCED_BY_FILE, Thread::Shared).await?;
        sink.to_record.study.clone_from(&self.study);
        for bytes in [head.get(at..).unwrap_or_default(), rest] {
            if !bytes.is_empty() {
                sink.write(bytes).await?;
            }
        }
        self.state = State::DataSet(Box::new(sink));
        Ok(())
    }
}

/// What negotiation says of a C-STORE: is the class accepted, and in this transfer syntax?
fn check_accepted(rules: &[SopClassRule], request: &StoreRequest) -> Result<(), StoreFailure> {
    let refuse = |status, what, uid: &Uid| super::refuse(request, status, format!("{what} {uid} is not accepted"));
    let rule = rules.iter().find(|rule| rule.is_storage() && rule.sop_class == request.sop_class.as_str());
    let Some(rule) = rule else {
        return Err(refuse(StoreStatus::SopClassNotSupported, "SOP class", &request.sop_class));
    };
    if rule.transfer_syntaxes.contains(&request.transfer_syntax.as_str()) {
        return Ok(());
    }
    Err(refuse(TRANSFER_SYNTAX_NOT_SUPPORTED, "transfer syntax", &request.transfer_syntax))
}

fn part_failure(failure: StoreFailure) -> PartFailure {
    let StoreFailure { status, comment, .. } = failure;
    PartFailure { reason: status.code(), text: comment, is_temporary: !status.is_permanent_failure() }
}

fn result(file: Option<Part10>, outcome: PartOutcome) -> PartResult {
    let (sop_class, sop_instance) = file.map(|file| (file.sop_class, file.sop_instance)).unzip();
    PartResult { sop_class, sop_instance, outcome }
}
