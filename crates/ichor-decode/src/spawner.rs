//! The thread that starts children.
//!
//! A child asks the kernel to be killed with its parent (`PR_SET_PDEATHSIG`), and to the kernel the parent is the
//! thread that started it. The threads that want slices come and go; this one lives as long as the decoder.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use crate::options::DecoderOptions;
use crate::worker_process::WorkerProcess;

type Reply = SyncSender<io::Result<WorkerProcess>>;

/// Starts children on a thread of its own.
#[derive(Debug)]
pub(crate) struct Spawner(Sender<Reply>);

impl Spawner {
    pub(crate) fn start(options: Arc<DecoderOptions>) -> io::Result<Self> {
        let (sender, wanted) = channel::<Reply>();
        std::thread::Builder::new().name("decode-spawner".to_owned()).spawn(move || {
            for reply in wanted {
                // Whoever asked may have gone; then the child is dropped, and killed.
                let _ = reply.send(WorkerProcess::start(&options));
            }
        })?;
        Ok(Self(sender))
    }

    /// Starts a child.
    pub(crate) fn spawn(&self) -> io::Result<WorkerProcess> {
        let (reply, started) = sync_channel(1);
        let gone = || io::Error::other("the thread that starts decoders is gone");
        self.0.send(reply).map_err(|_| gone())?;
        started.recv().map_err(|_| gone())?
    }
}
