//! The provider against DCMTK's echoscu and storescu.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::time::Instant;

use ichor_core::AeTitle;
use ichor_dimse::part10::{Part10Meta, read_header};
use ichor_dimse::scp::{AssociationOutcome, PeerRule, StoreFailure};
use ichor_dimse::status::StoreStatus;
use support::dcmtk::{available, dump, pixels, run, succeed, write_file, write_part10};
use support::{Plan, Provider, Stored, ct_data_set, options};

const ROOT: &str = "1.2.826.0.1.3680043.10.543.2";

fn port(provider: &Provider) -> String {
    provider.address.port().to_string()
}

fn save(folder: &Path, stored: &Stored) -> std::path::PathBuf {
    let meta = Part10Meta {
        sop_class: stored.request.sop_class.clone(),
        sop_instance: stored.request.sop_instance.clone(),
        transfer_syntax: stored.request.transfer_syntax.clone(),
        source_ae: None,
    };
    write_part10(&folder.join("received.dcm"), &meta, &stored.bytes)
}

#[tokio::test]
async fn echoscu_is_answered() {
    if !available(&["echoscu"]) {
        return;
    }
    let provider = Provider::start(options()).await;
    let told = succeed("echoscu", &["-v", "-aet", "MONITOR", "127.0.0.1", &port(&provider)]).await;
    assert!(told.contains("Received Echo Response (Success)"), "{told}");
    let end = provider.recorder.closed(1).await;
    assert_eq!(end.outcome, AssociationOutcome::Released);
    let peer = provider.stop().await.read(|log| log.opened[0].clone());
    assert_eq!(peer.calling_ae, "MONITOR");
    assert!(peer.implementation_version.unwrap().starts_with("OFFIS_DCMTK"));
}

#[tokio::test]
async fn storescu_in_each_transfer_syntax_that_it_writes() {
    if !available(&["storescu", "dcmconv", "dcmcjpeg", "dcmcjpls", "dcmcrle", "dcmdump"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let instance = format!("{ROOT}.1");
    let plain = write_file(folder.path(), &instance, &ct_data_set(&instance, 96, 80));
    let original = pixels(&plain, folder.path()).await;
    let provider = Provider::start(options()).await;
    let mut cases: Vec<(&str, &[&str], &str, &str)> = vec![
        ("dcmconv", &["+te"], "-xe", "1.2.840.10008.1.2.1"),
        ("dcmconv", &["+ti"], "-xi", "1.2.840.10008.1.2"),
        ("dcmconv", &["+tb"], "-xb", "1.2.840.10008.1.2.2"),
        ("dcmconv", &["+td"], "-xd", "1.2.840.10008.1.2.1.99"),
        ("dcmcjpeg", &["+e1"], "-xs", "1.2.840.10008.1.2.4.70"),
        ("dcmcjpls", &[], "-xt", "1.2.840.10008.1.2.4.80"),
        ("dcmcrle", &[], "-xr", "1.2.840.10008.1.2.5"),
    ];
    if available(&["gdcmconv"]) {
        cases.push(("gdcmconv", &["--j2k"], "-xv", "1.2.840.10008.1.2.4.90"));
    }
    for (count, (tool, arguments, propose, syntax)) in cases.iter().enumerate() {
        let file = folder.path().join(format!("{count}.dcm"));
        let (from, to) = (plain.to_str().unwrap(), file.to_str().unwrap());
        succeed(tool, &[arguments, &[from, to][..]].concat()).await;
        // Compressing may make a new instance; what the file says now is what must arrive.
        let header = read_header(&file).unwrap();
        assert_eq!(header.transfer_syntax.as_str(), *syntax);
        succeed("storescu", &[propose, "127.0.0.1", &port(&provider), to]).await;
        provider.recorder.closed(count + 1).await;
        let stored = provider.recorder.read(|log| log.stored.last().unwrap().clone());
        assert_eq!(provider.recorder.read(|log| log.stored.len()), count + 1);
        assert_eq!(stored.request.transfer_syntax.as_str(), *syntax);
        assert_eq!(stored.request.sop_instance, header.sop_instance);
        let received = save(folder.path(), &stored);
        assert_eq!(dump(&received).await, dump(&file).await, "{syntax}");
        if *tool != "gdcmconv" {
            assert_eq!(pixels(&received, folder.path()).await, original, "{syntax}");
        }
    }
    provider.stop().await;
}

#[tokio::test]
async fn storescu_sends_a_series_on_one_association() {
    if !available(&["storescu"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for slice in 0..32 {
        let instance = format!("{ROOT}.2.{slice}");
        let bytes = ct_data_set(&instance, 512, 512);
        write_file(folder.path(), &instance, &bytes);
        sent.push((instance, bytes));
    }
    let provider = Provider::start(options()).await;
    for arguments in [&[][..], &["--max-send-pdu", "4096"]] {
        let start = Instant::now();
        let fixed = ["-xe", "+sd", "127.0.0.1", &port(&provider), folder.path().to_str().unwrap()];
        succeed("storescu", &[arguments, &fixed[..]].concat()).await;
        let rate = 32.0 / start.elapsed().as_secs_f64();
        eprintln!("storescu {arguments:?}: {rate:.0} instances of 512 KiB a second, process start included");
        let stored = provider.recorder.read(|log| log.stored.clone());
        assert_eq!(stored.len(), 32);
        for (instance, bytes) in &sent {
            let found = stored.iter().find(|stored| stored.request.sop_instance.as_str() == instance).unwrap();
            assert!(found.bytes == *bytes, "{instance} differs");
        }
        provider.recorder.log.lock().unwrap().stored.clear();
    }
    let end = provider.recorder.closed(2).await;
    assert_eq!((end.outcome, end.instances), (AssociationOutcome::Released, 32));
    assert_eq!(end.bytes, sent.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    provider.stop().await;
}

#[tokio::test]
async fn storescu_sends_small_objects() {
    if !available(&["storescu"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for slice in 0..20 {
        let instance = format!("{ROOT}.3.{slice}");
        let bytes = ct_data_set(&instance, 2, 1 + slice);
        write_file(folder.path(), &instance, &bytes);
        sent.push(bytes);
    }
    let provider = Provider::start(options()).await;
    succeed("storescu", &["-xe", "+sd", "127.0.0.1", &port(&provider), folder.path().to_str().unwrap()]).await;
    let stored = provider.stop().await.read(|log| log.stored.clone());
    assert_eq!(stored.len(), sent.len());
    assert!(sent.iter().all(|bytes| stored.iter().any(|stored| stored.bytes == *bytes)));
}

#[tokio::test]
async fn storescu_hears_of_a_failure_and_goes_on() {
    if !available(&["storescu"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for slice in 0..3 {
        let instance = format!("{ROOT}.4.{slice}");
        write_file(folder.path(), &instance, &ct_data_set(&instance, 256, 256));
    }
    let provider = Provider::start(options()).await;
    let full = StoreFailure::new(StoreStatus::OutOfResources, "disk is almost full");
    provider.recorder.plan([Plan::Take, Plan::FailWriteAfter(50_000, full)]);
    let told =
        run("storescu", &["-d", "-nh", "-xe", "+sd", "127.0.0.1", &port(&provider), folder.path().to_str().unwrap()])
            .await;
    let told = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    assert!(told.to_lowercase().contains("0xa700"), "{told}");
    assert_eq!(told.matches("Received Store Response").count(), 3, "{told}");
    let end = provider.recorder.closed(1).await;
    assert_eq!((end.outcome, end.instances, end.failures), (AssociationOutcome::Released, 2, 1));
    provider.stop().await;
}

#[tokio::test]
async fn storescu_is_refused() {
    if !available(&["storescu"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let instance = format!("{ROOT}.5");
    let file = write_file(folder.path(), &instance, &ct_data_set(&instance, 8, 8));
    let mut allowed = options();
    let ae_title = Some(AeTitle::parse("CT1").unwrap());
    allowed.peers = vec![PeerRule { ae_title, networks: Vec::new(), user: None }];
    let provider = Provider::start(allowed).await;
    let refused = run("storescu", &["-v", "127.0.0.1", &port(&provider), file.to_str().unwrap()]).await;
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(told.contains("Rejected Permanent"), "{told}");
    assert!(told.contains("Calling AE Title Not Recognized"), "{told}");
    succeed("storescu", &["-aet", "CT1", "127.0.0.1", &port(&provider), file.to_str().unwrap()]).await;
    assert_eq!(provider.stop().await.read(|log| (log.refused.len(), log.stored.len())), (1, 1));
}
