//! `kill -9` in the middle of receiving: what was answered with success is there, whole, and nothing else is left.

use std::collections::BTreeSet;
use std::path::Path;

use ichor_store::{Recorded, Store};
use tempfile::TempDir;

use crate::child::{self, options};
use crate::support::*;

/// Set in the child: where its store is.
const STORE: &str = "ICHOR_STORE_KILL_TEST";

const ASSOCIATIONS: u32 = 4;

fn content(association: u32, number: u32) -> Vec<u8> {
    let seed = (association * 7 + number) as u8;
    (0..300_000u32).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// The child: receives on four associations until it is killed, and says which instances it has acknowledged.
#[test]
fn child() {
    child::work(STORE, at(0), |store| async move {
        let tasks: Vec<_> =
            (0..ASSOCIATIONS).map(|association| tokio::spawn(receive(store.clone(), association))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn receive(store: Store, association: u32) {
    for number in 0.. {
        let (study, content) = (association.to_string(), content(association, number));
        let slice = Slice { content: &content, ..Slice::of(&study, number) };
        match slice.record(&store, at(1)).await {
            Recorded::New { .. } | Recorded::Duplicate => println!("\nacknowledged {association} {number}"),
            Recorded::Conflict => panic!("same content"),
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    // On the disk itself; five rounds on one store, so that each start finds what the last kill left.
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..5usize {
        let before = acknowledged.len();
        let (mut child, mut lines) = child::start("kill::child", STORE, folder.path());
        // Beyond what earlier rounds have sent, then a few more, then the kill at no particular moment.
        while acknowledged.len() < before + 10 + 7 * round {
            let line = lines.next().expect("the child ended by itself").unwrap();
            acknowledged.extend(parse(&line));
        }
        child.kill().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
        child.wait().unwrap();
        check(folder.path(), &acknowledged);
    }
}

fn parse(line: &str) -> Option<(u32, u32)> {
    let mut words = line.strip_prefix("acknowledged ")?.split(' ').map(str::parse);
    Some((words.next()?.ok()?, words.next()?.ok()?))
}

fn check(folder: &Path, acknowledged: &BTreeSet<(u32, u32)>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&options(folder)).await.unwrap();
        let recovery = store.recover(at(2)).await.unwrap();
        assert!(recovery.missing_blobs.is_empty(), "{recovery:?}");
        let mut rows = 0;
        for association in 0..ASSOCIATIONS {
            rows += detail(&store, &association.to_string()).await.summary.instances as usize;
        }
        assert!(rows >= acknowledged.len(), "{rows} rows, {} acknowledged", acknowledged.len());
        assert!(rows <= acknowledged.len() + ASSOCIATIONS as usize, "rows for what never was sent");
        assert_eq!(files(&folder.join("blobs")).len(), rows, "a file for each row and none besides: {recovery:?}");
        // What was acknowledged comes again: the store knows it, and its bytes are those that were sent.
        for &(association, number) in acknowledged {
            let (study, content) = (association.to_string(), content(association, number));
            let slice = Slice { content: &content, ..Slice::of(&study, number) };
            assert_eq!(slice.record(&store, at(3)).await, Recorded::Duplicate, "{association} {number}");
        }
        store.close().await;
    });
}
