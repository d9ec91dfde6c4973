//! How many may be inside at once: in total, and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::handler::Rejection;

/// Counts open associations, or connections on the way to one.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    per_peer: usize,
    /// Addresses that have a place, so it has no more entries than there are places.
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Admission {
    pub(super) fn new(total: usize, per_peer: usize) -> Self {
        let places = Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS)));
        Self { places, per_peer, peers: Arc::default() }
    }

    /// Takes a place.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Place, Rejection> {
        let address = address.to_canonical();
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Rejection::LocalLimitExceeded)?;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let open = peers.get(&address).copied().unwrap_or(0);
        if open >= self.per_peer {
            return Err(Rejection::PeerLimitExceeded);
        }
        peers.insert(address, open + 1);
        Ok(Place { address, peers: Arc::clone(&self.peers), _permit: permit })
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get_mut(&self.address) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                peers.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_total_and_by_address() {
        let admission = Admission::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = admission.enter(a).unwrap();
        let second = admission.enter("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(admission.enter(a).unwrap_err(), Rejection::PeerLimitExceeded);
        let third = admission.enter(b).unwrap();
        assert_eq!(admission.enter(b).unwrap_err(), Rejection::LocalLimitExceeded);
        drop(first);
        let fourth = admission.enter(a).unwrap();
        assert_eq!(admission.enter(a).unwrap_err(), Rejection::LocalLimitExceeded);
        drop((second, third, fourth));
        assert!(admission.peers.lock().unwrap().is_empty(), "nothing is kept of peers that have gone");
    }
}
