//! A server that takes what is a UID, and our own client before it.

use std::path::Path;

use ichor_core::Uid;
use ichor_dicomweb::server::{
    ClientRule, PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Right, Sender, ServerOptions,
    StowHandler, StowServer, Token,
};
use ichor_dicomweb::{Credentials, StowClient, StowError, StowOptions};
use tokio_util::sync::CancellationToken;

pub(crate) struct Taker;
pub(crate) struct Sink(Vec<u8>);

impl PartSink for Sink {
    async fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn refuse(self, failure: PartFailure) -> PartResult {
        PartResult { sop_class: None, sop_instance: None, outcome: PartOutcome::Failed(failure) }
    }

    async fn commit(self) -> PartResult {
        let sop_instance = Uid::parse(std::str::from_utf8(&self.0).unwrap()).ok();
        PartResult { sop_class: None, sop_instance, outcome: PartOutcome::Stored }
    }
}

impl StowHandler for Taker {
    type Request = ();
    type Sink = Sink;

    async fn request_opened(&self, _: &Sender, _: Option<&Uid>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn request_refused(&self, _: &Sender, _: &Refusal) {}

    async fn request_closed(&self, (): (), _: RequestEnd) {}

    fn begin(&self, (): &()) -> Sink {
        Sink(Vec::new())
    }
}

/// The client's token.
pub(crate) const SECRET: &str = "a secret of the tests";

/// Serves one client, until the token is cancelled.
pub(crate) async fn serve(mut options: ServerOptions) -> (u16, CancellationToken) {
    let client = ClientRule {
        name: "C".to_owned(),
        token: Some(Token::new(SECRET)),
        networks: Vec::new(),
        may: vec![Right::Store],
        subscribers: Vec::new(),
    };
    options.clients = vec![client];
    let server = StowServer::bind("127.0.0.1:0", options, Taker).await.unwrap();
    let (port, stop) = (server.local_addr().unwrap().port(), CancellationToken::new());
    tokio::spawn(server.run(stop.clone()));
    (port, stop)
}

/// Stores one file over HTTPS; `identity` is a certificate and its key, PEM.
pub(crate) async fn store(
    port: u16,
    roots: &[u8],
    token: &str,
    identity: Option<Vec<u8>>,
    file: &Path,
) -> Result<String, StowError> {
    let mut options = StowOptions::new(&format!("https://localhost:{port}/dicom-web"));
    options.use_system_proxy = false;
    options.root_certificates = Some(roots.to_vec());
    options.identity = identity;
    options.credentials = Some(Credentials::Bearer(token.to_owned()));
    StowClient::new(options)?.store_one(&Uid::parse("1.2.3").unwrap(), file).await
}
