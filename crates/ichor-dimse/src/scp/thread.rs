//! A thread for each connection of a known address.
//!
//! What comes over an association is written, fsynced and committed before the next thing is read, so nothing is won by
//! handing that from thread to thread, and each hand-over costs more than most of the steps. On a thread of its own an
//! association may block. Their number is bounded by `max_handshakes` and `max_associations`.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// Time for what the connection has left to be done in the background, such as giving database connections back.
const REST: Duration = Duration::from_secs(5);
/// Pause between two looks at that.
const TICK: Duration = Duration::from_millis(1);

/// A connection that moves to another thread.
pub(super) struct Moving(std::net::TcpStream);

impl Moving {
    /// Takes the connection from the runtime that accepted it.
    pub(super) fn depart(stream: TcpStream) -> io::Result<Self> {
        stream.into_std().map(Self)
    }

    /// Gives it to the runtime of this thread.
    pub(super) fn arrive(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self.0)
    }
}

/// Starts a thread that runs the future `make` returns to its end. The returned future completes with it; dropping that
/// does not end the thread.
pub(super) fn spawn<F: Future<Output = ()>>(
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (ended, end) = oneshot::channel::<()>();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async {
            make().await;
            let begun = Instant::now();
            while Handle::current().metrics().num_alive_tasks() > 0 && begun.elapsed() < REST {
                sleep(TICK).await;
            }
        });
        drop(runtime);
        drop(ended);
    };
    std::thread::Builder::new().name("ichor-assoc".to_owned()).spawn(work)?;
    Ok(async {
        // A panic has been reported on the thread, and ends the channel as well.
        let _ = end.await;
    })
}
