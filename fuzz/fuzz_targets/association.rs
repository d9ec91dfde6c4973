//! Whole associations: whatever a peer sends, the provider ends it in order, tells the handler, and tells the peer of
//! success only what it has committed.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ichor_core::AeTitle;
use ichor_dimse::scp::{
    AssociationEnd, InstanceSink, PeerInfo, PeerRule, Preference, Rejection, ScpOptions, StorageHandler, StoreFailure,
    StoreOutcome, StoreRequest, UserRule, serve_stream,
};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Clone, Default)]
struct Counter(Arc<Counts>);

#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    closed: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    committed: AtomicU64,
    told: AtomicU64,
}

struct Sink(Arc<Counts>);

impl StorageHandler for Counter {
    type Association = ();
    type Sink = Sink;

    async fn association_opened(&self, peer: &PeerInfo) -> Result<(), Rejection> {
        // What a peer says of itself may stand in a log; a user is verified only with a name.
        let is_printable = |text: &String| text.len() <= 64 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(peer.user.iter().all(is_printable));
        assert!(!peer.is_user_verified || peer.user.as_deref() == Some("u"));
        self.0.opened.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn association_refused(&self, _: &PeerInfo, _: &Rejection) {}

    async fn association_closed(&self, (): (), end: AssociationEnd) {
        self.0.closed.fetch_add(1, Relaxed);
        self.0.told.fetch_add(end.instances, Relaxed);
    }

    async fn begin(&self, (): &(), _: &StoreRequest) -> Result<Sink, StoreFailure> {
        self.0.begun.fetch_add(1, Relaxed);
        Ok(Sink(self.0.clone()))
    }
}

impl InstanceSink for Sink {
    async fn write(&mut self, fragment: &[u8]) -> Result<(), StoreFailure> {
        assert!(!fragment.is_empty());
        Ok(())
    }

    async fn commit(self) -> Result<StoreOutcome, StoreFailure> {
        self.0.committed.fetch_add(1, Relaxed);
        Ok(StoreOutcome::Success)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// A-ASSOCIATE-RQ: CT Image Storage on context 1 and Verification on 3, both in Implicit VR Little Endian; further items of
/// user information as the input has them.
fn request(user_items: &[u8]) -> Vec<u8> {
    fn item(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 0][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    }
    let syntax = item(0x40, b"1.2.840.10008.1.2");
    let context = |id: u8, class: &[u8]| item(0x20, &[&[id, 0, 0, 0][..], &item(0x30, class), &syntax].concat());
    let mut body = vec![0, 1, 0, 0];
    body.extend_from_slice(b"ICHOR           FUZZER          ");
    body.extend_from_slice(&[0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    body.extend(context(1, b"1.2.840.10008.5.1.4.1.1.2"));
    body.extend(context(3, b"1.2.840.10008.1.1"));
    body.extend(item(0x50, &[&item(0x51, &16_384u32.to_be_bytes()), user_items].concat()));
    [&[1, 0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
}

fuzz_target!(|bytes: &[u8]| {
    // The first byte says whether an association stands already: most of what there is to find lies behind it.
    let Some((how, bytes)) = bytes.split_first() else { return };
    let is_associated = how % 8 != 0;
    // The second bit of the rest says whether the request brings user information of the input's making: roles, windows,
    // extensions, identities, of any length and form.
    let (user_items, bytes) = match bytes.split_first() {
        Some((length, rest)) if is_associated && how & 8 != 0 => rest.split_at(usize::from(*length).min(rest.len())),
        _ => (&[][..], bytes),
    };
    let mut options = ScpOptions::new(AeTitle::parse("ICHOR").unwrap());
    let passcode = UserRule { name: "u".to_owned(), passcode: "p".to_owned() };
    // With one bit more, only who proves a user may come.
    options.peers = vec![PeerRule { ae_title: None, networks: Vec::new(), user: (how & 16 != 0).then_some(passcode) }];
    options.prefer = if how & 32 != 0 { Preference::Own } else { Preference::Peer };
    options.max_instance_bytes = 1 << 16;
    let handler = Counter::default();
    let counts = handler.0.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 21);
        let served = tokio::spawn(serve_stream(options, handler, ours, "127.0.0.1:104".parse().unwrap()));
        if is_associated {
            theirs.write_all(&request(user_items)).await.unwrap();
        }
        // The provider may hang up before it has read everything.
        let _ = theirs.write_all(bytes).await;
        let _ = theirs.shutdown().await;
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        served.await.unwrap();
    });
    let read = |count: &AtomicU64| count.load(Relaxed);
    assert_eq!(read(&counts.opened), read(&counts.closed));
    assert_eq!(read(&counts.begun), read(&counts.ended));
    assert_eq!(read(&counts.committed), read(&counts.told));
});
