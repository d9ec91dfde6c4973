//! A thousand bad connections: memory stays flat, every one is accounted for, and a good peer is served meanwhile. A
//! binary of its own, because the memory that is measured is the process's.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ichor_core::AeTitle;
use ichor_dimse::scp::{AssociationOutcome, ScpOptions};
use ichor_dimse::status::StoreStatus;
use ichor_dimse::tls::{ClientAuth, ServerTls};
use support::certificates::{Authority, server};
use support::peer::{Peer, encode, request, store_request};
use support::{CT, EXPLICIT, Provider, ct_data_set, options, uid};

const INSTANCE: &str = "1.2.826.0.1.3680043.10.543.13";
/// Bad connections of one flood.
const FLOOD: usize = 1_000;
/// Bad connections at once.
const AT_ONCE: usize = 100;
/// Most that a flood may add to the resident memory, in KiB: what the test's own records of it take, and some slack.
const MAX_GROWTH_KIB: u64 = 8 * 1024;

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One bad connection, of a kind by its number. It leaves when the provider ends it, or by itself.
async fn misbehave(number: usize, plain: SocketAddr, tls: SocketAddr) {
    // Addresses that a rule covers, and a stranger's.
    let source = ["127.0.0.2", "127.0.0.3", "127.0.0.9"][number % 3];
    let is_tls = number % 8 == 7;
    let mut peer = Peer::connect_from(source, if is_tls { tls } else { plain }).await;
    let hello = encode(&request("PEER", &[(1, CT, &[EXPLICIT])]).into());
    let bytes: Vec<u8> = match number % 8 {
        // Half open: not a byte.
        0 => Vec::new(),
        // Garbage; half a PDU; a PDU of 4 GiB; half a TLS handshake.
        1 => vec![0xa5; 2_000],
        2 => hello[..hello.len() / 2].to_vec(),
        3 => [&[4, 0, 0xff, 0xff, 0xff, 0xff][..], &[0; 4_000]].concat(),
        7 => vec![0x16, 3, 1, 0, 250, 1, 0],
        // Titles that no rule allows, of control characters as well.
        4 => encode(&request("\u{1b}]0;x\u{7}\r\n", &[(1, CT, &[EXPLICIT])]).into()),
        // An association, and then nonsense on it; or half an instance.
        _ => hello,
    };
    // The provider may have hung up already.
    use tokio::io::AsyncWriteExt;
    let _ = peer.stream.write_all(&bytes).await;
    if number % 8 == 5 {
        let _ = peer.stream.write_all(&[4, 0, 0, 0, 0, 8, 0, 0, 0xff, 0xff, 1, 3, 0, 0]).await;
    } else if number % 8 == 6 && peer.receive().await.is_some() {
        peer.send_command(1, &store_request(1, INSTANCE)).await;
        peer.send_data(1, &[0; 8_000], false).await;
        return;
    }
    while peer.receive().await.is_some() {}
}

async fn flood(plain: SocketAddr, tls: SocketAddr) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..FLOOD {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(misbehave(number, plain, tls));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

fn provider_options() -> ScpOptions {
    let mut options = options();
    options.artim_timeout = Duration::from_millis(300);
    options.max_associations_per_peer = 16;
    options.peers[0].ae_title = Some(AeTitle::parse("PEER").unwrap());
    options.peers[0].networks = vec!["127.0.0.0/30".parse().unwrap()];
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_bad_connections() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "hospital").issue(folder.path(), "ichor");
    let (tls, _) = ServerTls::load(server(&ours, ClientAuth::None)).unwrap();
    let provider = Provider::start_tls(provider_options(), tls).await;
    let (plain, secure) = (provider.address, provider.tls_address);
    // What the allocator and the runtime take once is no growth.
    flood(plain, secure).await;
    let before = resident();

    let bad = tokio::spawn(flood(plain, secure));
    let bytes = ct_data_set(INSTANCE, 64, 64);
    let (mut sent, mut longest) = (0_u16, Duration::ZERO);
    let mut good = Peer::associate(plain).await;
    while !bad.is_finished() || sent < 20 {
        let start = Instant::now();
        sent += 1;
        assert_eq!(good.store(sent, INSTANCE, &bytes).await.1, StoreStatus::Success);
        longest = longest.max(start.elapsed());
        if sent % 10 == 0 {
            good.release().await;
            good = Peer::associate(plain).await;
        }
        // Not so many that what the test keeps of them counts.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    good.release().await;
    bad.await.unwrap();
    let kept = u64::from(sent) * bytes.len() as u64 / 1024;
    let grown = resident().saturating_sub(before).saturating_sub(kept);
    eprintln!("{sent} good instances, the slowest in {longest:?}; {before} KiB before, {grown} KiB more after");
    assert!(grown < MAX_GROWTH_KIB, "{grown} KiB more than the {before} KiB before");
    assert!(longest < Duration::from_secs(5), "a good peer waited {longest:?}");

    let recorder = provider.stop().await;
    recorder.read(|log| {
        let stored = log.stored.iter().filter(|stored| stored.request.sop_instance == uid(INSTANCE)).count();
        assert_eq!(stored, usize::from(sent), "a bad peer's instance was taken");
        assert_eq!(log.opened.len(), log.closed.len(), "every association has an end");
        let released = log.closed.iter().filter(|end| end.outcome == AssociationOutcome::Released).count();
        assert_eq!(released, usize::from(sent) / 10 + 1, "only the good peer released");
        assert!(
            log.refused.len() + log.opened.len() >= FLOOD,
            "{} refused, {} opened",
            log.refused.len(),
            log.opened.len()
        );
    });
}
