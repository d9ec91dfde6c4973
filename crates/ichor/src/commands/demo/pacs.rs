//! A small PACS on loopback for the demonstration: a Storage SCP that writes what it accepts into a folder.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ichor_core::AeTitle;
use ichor_dimse::part10::{self, Part10Meta};
use ichor_dimse::scp::{
    AssociationEnd, InstanceSink, PeerInfo, PeerRule, Rejection, ScpOptions, StorageHandler, StorageScp, StoreFailure,
    StoreOutcome, StoreRequest,
};
use ichor_dimse::status::StoreStatus;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// One instance that the PACS has accepted.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sop_class: ichor_core::Uid,
    pub(crate) path: PathBuf,
}

/// The running PACS.
pub(crate) struct FolderPacs {
    pub(crate) address: SocketAddr,
    pub(crate) ae_title: AeTitle,
    /// Each accepted instance, once.
    pub(crate) stored: mpsc::UnboundedReceiver<Stored>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl FolderPacs {
    /// Starts listening on a free port of the loopback interface.
    pub(crate) async fn start(folder: &Path, ae_title: AeTitle) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (sender, stored) = mpsc::unbounded_channel();
        let mut options = ScpOptions::new(ae_title.clone());
        options.peers = vec![PeerRule { ae_title: None, networks: vec!["127.0.0.0/8".parse()?], user: None }];
        let handler = Handler { folder: folder.to_owned(), sender };
        let scp = StorageScp::bind(SocketAddr::from(([127, 0, 0, 1], 0)), options, handler).await?;
        let (address, stop) = (scp.local_addr()?, CancellationToken::new());
        let task = tokio::spawn(scp.run(stop.clone()));
        Ok(Self { address, ae_title, stored, stop, task })
    }

    /// Stops listening.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the demonstration PACS failed");
        }
    }
}

struct Handler {
    folder: PathBuf,
    sender: mpsc::UnboundedSender<Stored>,
}

impl StorageHandler for Handler {
    type Association = ();
    type Sink = Sink;

    async fn association_opened(&self, _: &PeerInfo) -> Result<(), Rejection> {
        Ok(())
    }

    async fn association_refused(&self, peer: &PeerInfo, rejection: &Rejection) {
        tracing::warn!(peer = %peer.address, reason = %rejection, "the demonstration PACS refused an association");
    }

    async fn association_closed(&self, (): (), _: AssociationEnd) {}

    async fn begin(&self, (): &(), request: &StoreRequest) -> Result<Sink, StoreFailure> {
        let mut file = NamedTempFile::new_in(&self.folder).map_err(|error| failure(&error))?;
        let header = part10::write_header(&Part10Meta {
            sop_class: request.sop_class.clone(),
            sop_instance: request.sop_instance.clone(),
            transfer_syntax: request.transfer_syntax.clone(),
            source_ae: None,
        });
        file.write_all(&header).map_err(|error| failure(&error))?;
        Ok(Sink { file, folder: self.folder.clone(), request: request.clone(), sender: self.sender.clone() })
    }
}

struct Sink {
    file: NamedTempFile,
    folder: PathBuf,
    request: StoreRequest,
    sender: mpsc::UnboundedSender<Stored>,
}

impl InstanceSink for Sink {
    async fn write(&mut self, fragment: &[u8]) -> Result<(), StoreFailure> {
        self.file.write_all(fragment).map_err(|error| failure(&error))
    }

    async fn commit(self) -> Result<StoreOutcome, StoreFailure> {
        // A UID holds digits and full stops only, which its type guarantees.
        let path = self.folder.join(format!("{}.dcm", self.request.sop_instance));
        self.file.persist(&path).map_err(|error| failure(&error.error))?;
        // The demonstration may already have what it waits for.
        let _ = self.sender.send(Stored { sop_class: self.request.sop_class, path });
        Ok(StoreOutcome::Success)
    }
}

fn failure(error: &std::io::Error) -> StoreFailure {
    StoreFailure::new(StoreStatus::OutOfResources, error.to_string())
}
