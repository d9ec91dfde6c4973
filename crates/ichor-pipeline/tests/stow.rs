//! Ingest of parts of STOW-RS requests over a real store: the same instance as by C-STORE, however its bytes are cut.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

use std::time::Duration;

use ichor_core::{AeTitle, Uid};
use ichor_dicomweb::server::{
    PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Sender, StowHandler,
};
use ichor_dimse::part10::read_header;
use ichor_dimse::scp::{InstanceSink, PeerInfo, PeerRule, ScpOptions, StorageHandler, StoreRequest};
use ichor_phantom::{PhantomOptions, WrittenStudy, write_study};
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::ingest::{
    CommitmentOptions, DatasetLimits, Ingest, IngestOptions, Source, StowClientRule, StowIngest, StowRequest,
};
use ichor_pipeline::now;
use ichor_store::{Store, StoreOptions, StudyDetail, StudyKey};
use tempfile::TempDir;

struct House {
    folder: TempDir,
    store: Store,
    study: WrittenStudy,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = PhantomOptions::default().with_matrix(64).with_slices(6);
        let study = write_study(5, &options, &folder.path().join("study")).unwrap();
        let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
        let store = Store::open(&options).await.unwrap();
        store.recover(now()).await.unwrap();
        Self { folder, store, study }
    }

    fn ingest(&self, min_free_bytes: u64) -> Ingest {
        let peer = PeerRule { ae_title: None, networks: Vec::new(), user: None };
        let sources = vec![Source { peer, quiet_period: Duration::from_secs(60) }];
        Ingest::new(
            self.store.clone(),
            IngestOptions {
                sources,
                min_free_bytes,
                limits: DatasetLimits::default(),
                max_study_instances: 1_000,
                commitment: CommitmentOptions {
                    wait: Duration::ZERO,
                    backoff: Backoff { first: Duration::ZERO, longest: Duration::ZERO, attempts: 3 },
                },
            },
        )
    }

    fn stow(&self, min_free_bytes: u64) -> StowIngest {
        let web = StowClientRule { name: AeTitle::parse("WEB").unwrap(), quiet_period: Duration::from_secs(60) };
        let accepted = ScpOptions::new(AeTitle::parse("ICHOR").unwrap()).sop_classes;
        StowIngest::new(self.ingest(min_free_bytes), vec![web], accepted)
    }

    fn file(&self, index: usize) -> Vec<u8> {
        std::fs::read(&self.study.files[index]).unwrap()
    }

    fn incoming(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("blobs/incoming")).unwrap().count()
    }

    async fn study(&self) -> StudyDetail {
        self.store.study(&StudyKey::Uid(self.study.study_instance.clone())).await.unwrap()
    }
}

fn sender(client: &str) -> Sender {
    Sender { address: "127.0.0.1:4242".parse().unwrap(), client: client.to_owned() }
}

/// Hands a file over in chunks of a size.
async fn put(stow: &StowIngest, request: &StowRequest, file: &[u8], size: usize) -> PartResult {
    let mut sink = stow.begin(request);
    for chunk in file.chunks(size) {
        sink.write(chunk).await;
    }
    sink.commit().await
}

#[track_caller]
fn failed(result: &PartResult, reason: u16, words: &str) {
    let PartOutcome::Failed(failure) = &result.outcome else { panic!("{result:?}") };
    assert_eq!(failure.reason, reason, "{failure:?}");
    assert!(failure.text.contains(words), "{failure:?}");
}

#[tokio::test]
async fn an_instance_is_the_same_by_either_way_and_in_every_cut() {
    let house = House::new().await;
    let stow = house.stow(0);
    let request = stow.request_opened(&sender("WEB"), None).await.unwrap();
    let header = read_header(&house.study.files[0]).unwrap();
    let file = house.file(0);
    let at = usize::try_from(header.dataset_offset).unwrap();
    for size in [1, 7, 131, 133, at - 1, at, at + 1, file.len()] {
        let result = put(&stow, &request, &file, size).await;
        assert_eq!(result.outcome, PartOutcome::Stored, "chunks of {size}");
        assert_eq!(result.sop_instance.as_ref(), Some(&header.sop_instance));
    }
    // A wrong group length: only the end of the file tells where the header ends.
    let mut wrong = file.clone();
    wrong[140..144].copy_from_slice(&7u32.to_le_bytes());
    assert_eq!(put(&stow, &request, &wrong, 1000).await.outcome, PartOutcome::Stored);

    let ingest = house.ingest(0);
    let peer = PeerInfo {
        calling_ae: "SCANNER".to_owned(),
        called_ae: "ICHOR".to_owned(),
        ..PeerInfo::stranger("127.0.0.1:4000".parse().unwrap())
    };
    let association = ingest.association_opened(&peer).await.unwrap();
    let announced = StoreRequest {
        sop_class: header.sop_class,
        sop_instance: header.sop_instance,
        transfer_syntax: header.transfer_syntax,
        message_id: 1,
    };
    let mut sink = ingest.begin(&association, &announced).await.unwrap();
    sink.write(&file[at..]).await.unwrap();
    sink.commit().await.unwrap();
    let detail = house.study().await;
    assert_eq!(detail.summary.instances, 1);
    let events = format!("{:?}", house.store.timeline(&house.study.study_instance).await.unwrap());
    assert!(!events.contains("conflict"), "{events}");
    // The timeline tells the same thing over one association once, with its count.
    assert!(events.contains("8 times, first: "), "{events}");
    assert_eq!(events.matches("with the same content").count(), 2, "{events}");
    assert_eq!(house.incoming(), 0);
}

#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    let house = House::new().await;
    let stow = house.stow(0);
    let other = Uid::parse("1.2.3").unwrap();
    let request = stow.request_opened(&sender("WEB"), Some(&other)).await.unwrap();
    failed(&put(&stow, &request, &house.file(0), 1000).await, 0xA900, "the URL said 1.2.3");
    let study = house.study.study_instance.clone();
    let request = stow.request_opened(&sender("WEB"), Some(&study)).await.unwrap();
    let file = house.file(0);
    failed(&put(&stow, &request, &file[..file.len() - 10], 1000).await, 0xC000, "data set ends");
    failed(&put(&stow, &request, b"", 1).await, 0xC000, "not a DICOM file");
    failed(&put(&stow, &request, &[0; 200_000], 1000).await, 0xC000, "not a DICOM file");
    failed(&put(&stow, &request, &file[..300], 7).await, 0xC000, "");
    let swap = |from: &[u8], to: &[u8]| {
        let mut file = file.clone();
        let at = file.windows(from.len()).position(|window| window == from).unwrap();
        file[at..at + to.len()].copy_from_slice(to);
        file
    };
    let mr = swap(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.4");
    failed(&put(&stow, &request, &mr, 1000).await, 0x0122, "SOP class 1.2.840.10008.5.1.4.1.1.4 is not accepted");
    let video = swap(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7");
    failed(&put(&stow, &request, &video, 1000).await, 0xC122, "transfer syntax");
    let mut sink = stow.begin(&request);
    sink.write(&file).await;
    let too_long = PartFailure { reason: 0xA700, text: "too long".to_owned(), is_temporary: false };
    let refused = sink.refuse(too_long);
    failed(&refused, 0xA700, "too long");
    assert!(refused.sop_instance.is_some());
    // A part that is cut: the sink is dropped, and so is its file once the block under way is written.
    let mut sink = stow.begin(&request);
    sink.write(&file).await;
    drop(sink);
    let end = RequestEnd { status: None, outcome: "cut".to_owned(), instances: 0, failures: 0, bytes: 0 };
    stow.request_closed(request, end).await;
    assert_eq!(house.incoming(), 0);
    let blobs = house.folder.path().join("blobs");
    let stored = std::fs::read_dir(blobs).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().len() == 2);
    assert_eq!(stored.count(), 0, "a blob was published");
}

#[tokio::test]
async fn who_and_how_full() {
    let house = House::new().await;
    assert_eq!(house.stow(0).request_opened(&sender("NOBODY"), None).await.err(), Some(Refusal::Unauthorized));
    let full = house.stow(u64::MAX).request_opened(&sender("WEB"), None).await.err();
    assert_eq!(full, Some(Refusal::NoRoom("disk is almost full".to_owned())));
}
