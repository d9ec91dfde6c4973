//! However a peer cuts a message into presentation data values and PDUs, the same bytes come out; whatever it sends,
//! the association ends and the handler hears of it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use dicom_ul::Pdu;
use dicom_ul::pdu::{PDataValue, PDataValueType};
use ichor_dimse::command::CommandSet;
use ichor_dimse::scp::serve_stream;
use ichor_dimse::status::StoreStatus;
use proptest::prelude::*;
use support::peer::{Peer, encode, pdv, request, store_request};
use support::{CT, EXPLICIT, Provider, Recorder, options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// A PDU of a peer that is confused, or hostile.
fn any_pdu() -> impl Strategy<Value = Vec<u8>> {
    let command = prop_oneof![
        Just(store_request(1, INSTANCE).encode()),
        Just(store_request(1, INSTANCE).with_u16(0x0800, 0x0101).encode()),
        Just(CommandSet::c_echo_request(2).encode()),
        any::<u16>().prop_map(|field| store_request(3, INSTANCE).with_u16(0x0100, field).encode()),
        proptest::collection::vec(any::<u8>(), 0..60),
    ];
    let value = (
        prop_oneof![9 => Just(1u8), 1 => any::<u8>()],
        any::<bool>(),
        prop_oneof![4 => Just(true), 1 => Just(false)],
        command,
    )
        .prop_map(|(context, is_command, is_last, bytes)| {
            pdv(context, if is_command { PDataValueType::Command } else { PDataValueType::Data }, &bytes, is_last)
        });
    let data = proptest::collection::vec(value, 0..4).prop_map(|data| encode(&Pdu::PData { data }));
    let noise = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..80), any::<bool>()).prop_map(
        |(kind, bytes, honest)| {
            let length = if honest { u32::try_from(bytes.len()).unwrap() } else { 1 << 17 };
            [&[kind, 0][..], &length.to_be_bytes(), &bytes].concat()
        },
    );
    prop_oneof![12 => data, 1 => noise, 1 => Just(encode(&Pdu::ReleaseRQ))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_ends_in_order(
        is_associated in prop_oneof![15 => Just(true), 1 => Just(false)],
        pdus in proptest::collection::vec(any_pdu(), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let recorder = Recorder::default();
        let handler = recorder.clone();
        let heard = runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            let served = tokio::spawn(serve_stream(options(), handler, ours, "127.0.0.1:1".parse().unwrap()));
            if is_associated {
                theirs.write_all(&encode(&request("PEER", &[(1, CT, &[EXPLICIT])]).into())).await.unwrap();
            }
            // The provider may hang up before it has read everything.
            let _ = theirs.write_all(&pdus.concat()).await;
            let _ = theirs.shutdown().await;
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).await.unwrap();
            drop(theirs);
            served.await.unwrap();
            heard
        });
        recorder.read(|log| {
            prop_assert_eq!(log.opened.len(), log.closed.len());
            prop_assert_eq!(usize::from(is_associated), log.opened.len());
            prop_assert_eq!(log.begun, log.stored.len() + log.discarded);
            let told: u64 = log.closed.iter().map(|end| end.instances).sum();
            prop_assert_eq!(told, log.stored.len() as u64);
            Ok(())
        })?;
        // A-ASSOCIATE-AC, or A-ABORT to whatever was no request.
        prop_assert!(matches!(heard.first(), None | Some(2 | 7)), "{:x?}", heard);
        prop_assert!(heard.first() == Some(&2) || !is_associated);
    }
}
