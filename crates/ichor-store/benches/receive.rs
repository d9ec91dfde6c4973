//! How many CT slices a second become durable, by the number of associations that send at once.
//!
//! Runs in the folder for temporary files; `TMPDIR` chooses the disk that is measured.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use divan::{Bencher, counter::ItemsCount};
use ichor_core::Uid;
use ichor_store::{NewInstance, Recorded, SeriesAttributes, Store, StoreOptions, StudyAttributes, Timestamp};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Slices of one measurement, all associations together.
const SLICES: usize = 128;

/// Bytes of a 512 × 512 CT slice with its header.
const SLICE_BYTES: usize = 525_000;

/// What a PDU of 128 KiB carries at most.
const FRAGMENT: usize = 131_060;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 4, 16], sample_count = 5, sample_size = 1)]
fn record_slices(bencher: Bencher<'_, '_>, associations: usize) {
    let runtime = Runtime::new().unwrap();
    let folder = TempDir::new().unwrap();
    let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
    let store = runtime.block_on(Store::open(&options)).unwrap();
    let pixels: &'static [u8] = vec![7u8; SLICE_BYTES].leak();
    let mut round = 0;
    bencher
        .with_inputs(|| {
            round += 1;
            round
        })
        .input_counter(|_| ItemsCount::new(SLICES))
        .bench_local_values(|round: u32| {
            runtime.block_on(async {
                let senders: Vec<_> = (0..associations)
                    .map(|association| {
                        let store = store.clone();
                        tokio::spawn(async move {
                            for number in 0..SLICES / associations {
                                let name = format!("{round}.{association}.{number}");
                                let study = format!("{round}.{association}");
                                receive(&store, &study, &name, pixels).await;
                            }
                        })
                    })
                    .collect();
                for sender in senders {
                    sender.await.unwrap();
                }
            });
        });
}

async fn receive(store: &Store, study: &str, name: &str, pixels: &[u8]) {
    let mut blob = store.blobs().begin_with_header(&[0; 350]).await.unwrap();
    for fragment in pixels.chunks(FRAGMENT) {
        blob.write(fragment).await.unwrap();
    }
    let instance = NewInstance {
        sop_instance: Uid::derive(["instance", name]),
        sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
        study: StudyAttributes {
            study_instance: Uid::derive(["study", study]),
            patient_id: Some("1".to_owned()),
            patient_name: None,
            accession_number: None,
            study_date: None,
            description: None,
        },
        series: SeriesAttributes {
            series_instance: Uid::derive(["series", study]),
            modality: Some("CT".to_owned()),
            description: None,
            number: None,
        },
        transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
        association: None,
        source_ae: None,
        arrived: store.blobs().finish_in_place(blob).await.unwrap(),
        quiet_period_ms: 10_000,
        own: false,
        max_study_instances: 100_000,
    };
    let recorded = store.record_instance(instance, Timestamp::from_millis(0)).await.unwrap();
    assert!(matches!(recorded, Recorded::New { .. }));
}
