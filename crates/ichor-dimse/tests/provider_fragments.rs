//! However a peer cuts a message into presentation data values and PDUs, the same bytes come out.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use dicom_ul::Pdu;
use dicom_ul::pdu::{PDataValue, PDataValueType};
use ichor_dimse::status::StoreStatus;
use proptest::prelude::*;
use support::peer::{Peer, pdv, store_request};
use support::{Provider, options};
use tokio::io::AsyncWriteExt;

const INSTANCE: &str = "1.2.826.0.1.3680043.10.543.9";

fn cut(kind: PDataValueType, bytes: &[u8], cuts: &[usize]) -> Vec<PDataValue> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let mut start = 0;
    let mut values = Vec::new();
    for end in cuts {
        values.push(pdv(1, kind.clone(), &bytes[start..end], false));
        start = end;
    }
    values.push(pdv(1, kind, &bytes[start..], true));
    values
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_bytes_come_out(
        data in proptest::collection::vec(any::<u8>(), 1..40_000),
        command_cuts in proptest::collection::vec(0usize..300, 0..6),
        data_cuts in proptest::collection::vec(0usize..40_000, 0..24),
        // How many values share a PDU, and how many bytes share a write.
        together in proptest::collection::vec(1usize..6, 1..8),
        writes in proptest::collection::vec(1usize..9_000, 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stored = runtime.block_on(async {
            let provider = Provider::start(options()).await;
            let mut peer = Peer::associate(provider.address).await;
            let mut values = cut(PDataValueType::Command, &store_request(1, INSTANCE).encode(), &command_cuts);
            values.extend(cut(PDataValueType::Data, &data, &data_cuts));
            let (mut bytes, mut together) = (Vec::new(), together.iter().cycle());
            while !values.is_empty() {
                let count = (*together.next().unwrap()).min(values.len());
                let data = values.drain(..count).collect();
                dicom_ul::pdu::write_pdu(&mut bytes, &Pdu::PData { data }).unwrap();
            }
            let mut writes = writes.iter().cycle();
            while !bytes.is_empty() {
                let rest = bytes.split_off((*writes.next().unwrap()).min(bytes.len()));
                peer.stream.write_all(&bytes).await.unwrap();
                tokio::task::yield_now().await;
                bytes = rest;
            }
            assert_eq!(peer.response().await.1, StoreStatus::Success);
            peer.release().await;
            provider.stop().await.read(|log| log.stored.clone())
        });
        prop_assert_eq!(stored.len(), 1);
        prop_assert_eq!(&stored[0].bytes, &data);
    }
}
