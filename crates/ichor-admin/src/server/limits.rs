//! What one peer may take: connections, time to send a request, time to read its answer.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Fewest connections of one address, however few there are in all.
const FEWEST: usize = 4;

/// Connections, counted by address: one address leaves room for others. Loopback is not counted: a proxy's connections
/// come from there.
pub(super) struct Places {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    /// For so many connections of all addresses.
    pub(super) fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self { most: (max_connections / 4).max(FEWEST), taken: Mutex::new(HashMap::new()) })
    }

    /// A place for one more connection; `None`: the address has as many as may be.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let Some(key) = key(address) else { return Some(Place { of: None }) };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { of: Some((Arc::clone(self), key)) })
    }
}

/// Whose connections are counted together: an IPv6 network is one, since whoever has one address of it has all.
fn key(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(IpAddr::V4(address)),
        IpAddr::V6(address) => Some(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))),
    }
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    of: Option<(Arc<Places>, IpAddr)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, key)) = &self.of else { return };
        let mut taken = places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(key);
            }
        }
    }
}

/// The body of a request, all of which has to come within the time.
pub(super) fn in_time(body: Incoming, timeout: Duration) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    let until = Instant::now() + timeout;
    let parts = stream::try_unfold(Body::new(body).into_data_stream(), move |mut rest| async move {
        match tokio::time::timeout_at(until, rest.next()).await {
            Ok(Some(part)) => part.map(|bytes| Some((bytes, rest))),
            Ok(None) => Ok(None),
            Err(_) => Err(axum::Error::new(too_slow("the request's body did not come in time"))),
        }
    });
    Body::from_stream(parts)
}

fn too_slow(what: &str) -> Error {
    Error::new(ErrorKind::TimedOut, what)
}

/// A stream that breaks when nothing can be written for too long: whoever does not read holds no connection.
pub(super) struct Impatient<S> {
    stream: S,
    timeout: Duration,
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, waits: None }
    }

    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        if written.is_ready() {
            self.waits = None;
            return written;
        }
        let timeout = self.timeout;
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        waits.as_mut().poll(cx).map(|()| Err(too_slow("the answer is not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bounded(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn an_address_leaves_room_for_others() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (all, most) in [(64, 16), (8, 4), (1, 4)] {
            let places = Places::new(all);
            let mut held: Vec<_> = (0..most).map(|_| places.take(address("10.0.0.1")).unwrap()).collect();
            assert!(places.take(address("10.0.0.1")).is_none(), "{all}");
            assert!(places.take(address("::ffff:10.0.0.1")).is_none(), "{all}: the same address");
            assert!(places.take(address("10.0.0.2")).is_some(), "{all}");
            held.pop();
            assert!(places.take(address("10.0.0.1")).is_some(), "{all}: one has ended");
            held.clear();
            assert!(places.taken.lock().unwrap().is_empty(), "{all}: nothing is left behind");
        }
        let places = Places::new(16);
        let _network: Vec<_> =
            (0..4).map(|number| places.take(address(&format!("2001:db8::{number}"))).unwrap()).collect();
        assert!(places.take(address("2001:db8::9")).is_none() && places.take(address("2001:db8:0:1::9")).is_some());
        let local: Vec<_> = (0..100).map(|_| places.take(address("127.0.0.1"))).collect();
        assert!(local.iter().all(Option::is_some), "a proxy");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_ends() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Impatient::new(ours, Duration::from_secs(15));
        let mut buffer = [0; 16];
        for _ in 0..3 {
            ours.write_all(&[1; 16]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            theirs.read_exact(&mut buffer).await.unwrap();
        }
        let start = Instant::now();
        let error = ours.write_all(&[1; 17]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (ErrorKind::TimedOut, 15));
    }
}
