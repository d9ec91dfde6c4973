//! Both sides behind TLS: against DCMTK, against openssl, against each other, and against peers that took the wrong port.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use ichor_core::AeTitle;
use ichor_dimse::scp::{AssociationOutcome, Rejection};
use ichor_dimse::scu::{ProposedContext, ScuError, ScuOptions, StorageScu, StoreItem};
use ichor_dimse::status::StoreStatus;
use ichor_dimse::tls::{ClientAuth, ClientTls, ServerTls, TlsError};
use support::certificates::{Authority, client, server, set_mode, text};
use support::dcmtk::{Listener, available, received, run, succeed, write_file};
use support::peer::{Peer, aborted, encode, request};
use support::{CT, EXPLICIT, Provider, ct_data_set, options, uid};

const INSTANCE: &str = "1.2.826.0.1.3680043.10.543.12";

fn scu_options(address: impl ToString, tls: ClientTls) -> ScuOptions {
    let title = |title| AeTitle::parse(title).unwrap();
    let mut options = ScuOptions::new(title("SCANNER"), title("ICHOR"), address.to_string());
    options.connect_timeout = Duration::from_secs(5);
    options.response_timeout = Duration::from_secs(5);
    options.tls = Some(tls);
    options
}

async fn connect(address: impl ToString, tls: ClientTls) -> Result<StorageScu, ScuError> {
    let contexts = [ProposedContext::new(uid(CT), [uid(EXPLICIT)]), ProposedContext::verification()];
    StorageScu::connect(&scu_options(address, tls), &contexts).await
}

async fn store(scu: &mut StorageScu, instance: &str, bytes: &[u8]) {
    let item = StoreItem { sop_class: uid(CT), sop_instance: uid(instance), transfer_syntax: uid(EXPLICIT) };
    let response = scu.store(&item, Cursor::new(bytes.to_vec())).await.unwrap();
    assert_eq!(response.status, StoreStatus::Success);
}

fn load(options: ichor_dimse::tls::ServerTlsOptions) -> ServerTls {
    ServerTls::load(options).unwrap().0
}

/// The provider still takes an instance over each of its ports.
async fn still_works(provider: &Provider, tls: ClientTls) {
    let mut peer = Peer::associate(provider.address).await;
    assert_eq!(peer.store(1, INSTANCE, &ct_data_set(INSTANCE, 8, 8)).await.1, StoreStatus::Success);
    peer.release().await;
    let mut scu = connect(provider.tls_address, tls).await.unwrap();
    store(&mut scu, INSTANCE, &ct_data_set(INSTANCE, 8, 8)).await;
    scu.release().await.unwrap();
}

#[track_caller]
fn failed_because(rejection: &Rejection, words: &[&str]) {
    let Rejection::TlsFailed(why) = rejection else { panic!("{rejection:?}") };
    assert!(words.iter().any(|word| why.contains(word)), "none of {words:?} in {why:?}");
}

#[tokio::test]
async fn dcmtk_sends_with_a_certificate_and_not_without() {
    if !available(&["echoscu", "storescu"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let other = Authority::new(folder.path(), "elsewhere");
    let [ours, scanner, stranger] = ["ichor", "scanner", "stranger"]
        .map(|name| if name == "stranger" { &other } else { &authority }.issue(folder.path(), name));
    let late = authority.issue_until(folder.path(), "late", &["localhost"], time::Duration::days(-1));
    let tls = load(server(&ours, ClientAuth::Required(authority.file.clone())));
    let provider = Provider::start_tls(options(), tls).await;
    let port = provider.tls_address.port().to_string();
    let file = write_file(folder.path(), INSTANCE, &ct_data_set(INSTANCE, 512, 512));

    let with = ["+tls", text(&scanner.key_file), text(&scanner.certificate_file), "+cf", text(&authority.file)];
    for (tool, last) in [("echoscu", None), ("storescu", Some(text(&file)))] {
        let arguments: Vec<&str> = with.iter().copied().chain(["127.0.0.1", &port]).chain(last).collect();
        succeed(tool, &arguments).await;
    }
    provider.recorder.closed(2).await;
    provider.recorder.read(|log| {
        assert_eq!(log.stored[0].bytes, ct_data_set(INSTANCE, 512, 512));
        let shown = log.opened[1].tls.as_ref().unwrap();
        let certificate = shown.certificate.as_ref().unwrap();
        assert!(certificate.subject.contains("CN=scanner"), "{certificate}");
        assert_eq!(certificate.fingerprint.len(), 64);
        assert!(shown.protocol.starts_with("TLSv1_"), "{shown}");
    });

    // Without a certificate, with another authority's, and with one that has expired.
    let refused: [(&[&str], &[&str]); 3] = [
        (&["+tla", "+cf", text(&authority.file)], &["no certificates"]),
        (
            &["+tls", text(&stranger.key_file), text(&stranger.certificate_file), "+cf", text(&authority.file)],
            &["UnknownIssuer", "BadSignature"],
        ),
        (&["+tls", text(&late.key_file), text(&late.certificate_file), "+cf", text(&authority.file)], &["xpired"]),
    ];
    for (count, (arguments, words)) in refused.into_iter().enumerate() {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["127.0.0.1", &port]).collect();
        assert!(!run("echoscu", &arguments).await.status.success(), "{arguments:?}");
        failed_because(&provider.recorder.refused(count + 1).await.1, words);
    }
    still_works(&provider, client(&authority, Some(&scanner))).await;
    assert_eq!(provider.stop().await.read(|log| log.refused.len()), 3);
}

#[tokio::test]
async fn only_versions_and_suites_of_the_profile() {
    if !available_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let ours = authority.issue(folder.path(), "ichor");
    let provider = Provider::start_tls(options(), load(server(&ours, ClientAuth::None))).await;
    let address = provider.tls_address.to_string();
    let all = "ALL:@SECLEVEL=0";
    let mut refused = 0;
    for (arguments, is_spoken) in [
        (&["-tls1_3"][..], true),
        (&["-tls1_2"], true),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], true),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"], false),
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"], false),
        (&["-tls1_1", "-cipher", all], false),
        (&["-tls1", "-cipher", all], false),
    ] {
        let fixed = ["s_client", "-connect", &address, "-CAfile", text(&authority.file), "-verify_return_error"];
        let arguments: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        let output = openssl(&arguments).await;
        let is_agreed = output.contains("Verify return code: 0 (ok)") && !output.contains("Cipher is (NONE)");
        assert_eq!(is_agreed, is_spoken, "{arguments:?}: {output}");
        if !is_spoken {
            refused += 1;
            let (_, rejection) = provider.recorder.refused(refused).await;
            failed_because(&rejection, &["peer is incompatible", "no cipher suites", "version"]);
        }
    }
    still_works(&provider, client(&authority, None)).await;
    provider.stop().await;
}

fn available_openssl() -> bool {
    let found = std::process::Command::new("openssl").arg("version").output();
    assert!(found.is_ok() || std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none(), "openssl is required");
    found.is_ok()
}

/// Runs openssl without anything on its standard input.
async fn openssl(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let run = move || {
        let mut command = std::process::Command::new("openssl");
        command.args(arguments).stdin(std::process::Stdio::null()).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn peers_at_the_wrong_port() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let ours = authority.issue(folder.path(), "ichor");
    let provider = Provider::start_tls(options(), load(server(&ours, ClientAuth::None))).await;
    let start = Instant::now();

    // DICOM without TLS where TLS is spoken, and noise.
    let plain = encode(&request("LOST", &[(1, CT, &[EXPLICIT])]).into());
    let record = [0x16, 3, 1, 0, 4, 1, 2, 3, 4];
    let cases: [(&[u8], &str); 4] = [
        (&plain, "an association request without TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "first byte 0x47"),
        (&record, ""),
        (&[0x16, 0xff, 0xff, 0xff, 0xff, 0, 0], ""),
    ];
    let total = cases.len();
    for (count, (bytes, words)) in cases.into_iter().enumerate() {
        let mut peer = Peer::connect(provider.tls_address).await;
        peer.send_raw(bytes).await;
        failed_because(&provider.recorder.refused(count + 1).await.1, &[words]);
        while peer.receive().await.is_some() {}
    }
    // A port check is no refusal.
    drop(Peer::connect(provider.tls_address).await);

    // TLS where it is not spoken: by one of our own, and byte by byte.
    let error = connect(provider.address, client(&authority, None)).await.unwrap_err();
    assert!(matches!(error, ScuError::Tls { .. }), "{error:?}");
    let (_, rejection) = provider.recorder.refused(total + 1).await;
    assert_eq!(rejection, Rejection::NotAnAssociation("a TLS handshake where TLS is not spoken".to_owned()));
    let mut peer = Peer::connect(provider.address).await;
    peer.send_raw(&[0x16, 3, 1, 2, 0, 1]).await;
    aborted(peer.receive().await);
    provider.recorder.refused(total + 2).await;

    assert!(start.elapsed() < Duration::from_secs(4), "nobody waited for the ARTIM time: {:?}", start.elapsed());
    still_works(&provider, client(&authority, None)).await;
    assert_eq!(provider.stop().await.read(|log| log.refused.len()), total + 2);
}

#[tokio::test]
async fn a_handshake_takes_no_longer_than_artim() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let ours = authority.issue(folder.path(), "ichor");
    let mut options = options();
    options.artim_timeout = Duration::from_millis(400);
    options.max_handshakes = 4;
    let provider = Provider::start_tls(options, load(server(&ours, ClientAuth::None))).await;
    // Half a record each; the fifth finds no room.
    let mut silent = Vec::new();
    for _ in 0..5 {
        let mut peer = Peer::connect(provider.tls_address).await;
        peer.send_raw(&[0x16, 3, 1, 0, 200, 1]).await;
        silent.push(peer);
    }
    provider.recorder.wait("five refusals", |log| log.refused.len() == 5).await;
    provider.recorder.read(|log| {
        assert_eq!(log.refused[0].1, Rejection::LocalLimitExceeded);
        for (_, rejection) in &log.refused[1..] {
            failed_because(rejection, &["no whole handshake within 400ms"]);
        }
    });
    // The handshake done, the request still belongs to the same time.
    let mut options = scu_options(provider.tls_address, client(&authority, None));
    options.response_timeout = Duration::from_secs(5);
    assert!(StorageScu::connect(&options, &[ProposedContext::verification()]).await.is_ok());
    provider.stop().await;
}

#[tokio::test]
async fn certificates_change_while_an_association_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| Authority::new(folder.path(), name));
    let ours = old.issue(folder.path(), "ichor");
    let tls = load(server(&ours, ClientAuth::None));
    let provider = Provider::start_tls(options(), tls.clone()).await;
    let mut open = connect(provider.tls_address, client(&old, None)).await.unwrap();
    let bytes = ct_data_set(INSTANCE, 64, 64);
    store(&mut open, INSTANCE, &bytes).await;
    assert!(tls.reload_if_changed().is_none(), "nothing has changed");

    // A file that is no certificate keeps the old one in force, and is tried again until it is one.
    let good = std::fs::read(&ours.certificate_file).unwrap();
    std::fs::write(&ours.certificate_file, "half a certif").unwrap();
    for _ in 0..2 {
        let error = tls.reload_if_changed().unwrap().unwrap_err();
        assert!(error.to_string().contains("ichor.crt holds no certificate"), "{error}");
    }
    connect(provider.tls_address, client(&old, None)).await.unwrap().release().await.unwrap();
    std::fs::write(&ours.certificate_file, good).unwrap();
    tls.reload_if_changed().unwrap().unwrap();
    assert!(tls.reload_if_changed().is_none());

    // Another certificate, with its key a moment later.
    let other = tempfile::tempdir().unwrap();
    let renewed = new.issue(other.path(), "ichor");
    std::fs::copy(&renewed.certificate_file, &ours.certificate_file).unwrap();
    let error = tls.reload_if_changed().unwrap().unwrap_err();
    assert!(matches!(error, TlsError::Identity { .. }), "{error}");
    std::fs::copy(&renewed.key_file, &ours.key_file).unwrap();
    let summary = tls.reload_if_changed().unwrap().unwrap();
    assert!(summary.subject.contains("CN=ichor"), "{summary}");
    assert!(summary.expires_in(std::time::SystemTime::now()).unwrap() > Duration::from_secs(300 * 86_400));

    let error = connect(provider.tls_address, client(&old, None)).await.unwrap_err();
    assert!(matches!(error, ScuError::Tls { .. }), "the old certificate is still shown: {error:?}");
    connect(provider.tls_address, client(&new, None)).await.unwrap().release().await.unwrap();
    // Who came before goes on.
    store(&mut open, INSTANCE, &bytes).await;
    open.release().await.unwrap();
    let recorder = provider.stop().await;
    recorder.read(|log| {
        assert_eq!(log.stored.len(), 2);
        assert!(log.closed.iter().all(|end| end.outcome == AssociationOutcome::Released), "{:?}", log.closed);
    });
}

#[test]
fn files_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let ours = authority.issue(folder.path(), "ichor");
    let other = authority.issue(folder.path(), "other");
    let error = |identity: &ichor_dimse::tls::IdentityFiles, auth| -> String {
        ServerTls::load(server(identity, auth)).unwrap_err().to_string()
    };
    for mode in [0o644, 0o604, 0o602] {
        set_mode(&ours.key_file, mode);
        let words = error(&ours, ClientAuth::None);
        assert!(words.contains("everybody may read or change this private key"), "{words}");
        let tls = ClientTls { identity: Some(ours.clone()), ..client(&authority, None) };
        assert!(matches!(tls.check(), Err(TlsError::Exposed { .. })));
    }
    for mode in [0o640, 0o600, 0o400] {
        set_mode(&ours.key_file, mode);
        ServerTls::load(server(&ours, ClientAuth::None)).unwrap();
    }
    set_mode(&ours.key_file, 0o600);

    let mut mixed = ours.clone();
    mixed.key_file.clone_from(&other.key_file);
    assert!(error(&mixed, ClientAuth::None).contains("do not go together"), "{}", error(&mixed, ClientAuth::None));
    let mut absent = ours.clone();
    absent.certificate_file = folder.path().join("absent.pem");
    assert!(error(&absent, ClientAuth::None).starts_with("cannot read "));
    let swapped = ichor_dimse::tls::IdentityFiles {
        certificate_file: ours.key_file.clone(),
        key_file: ours.certificate_file.clone(),
    };
    assert!(error(&swapped, ClientAuth::None).contains("holds no certificate"));
    std::fs::write(
        folder.path().join("locked.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let mut locked = ours.clone();
    locked.key_file = folder.path().join("locked.key");
    set_mode(&locked.key_file, 0o600);
    assert!(error(&locked, ClientAuth::None).contains("holds no private key without a password"));
    assert!(error(&ours, ClientAuth::Required(Path::new("/nowhere/ca.pem").into())).contains("/nowhere/ca.pem"));
}

#[tokio::test]
async fn whom_the_user_believes() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let other = Authority::new(folder.path(), "elsewhere");
    let day = time::Duration::days(1);
    let good = authority.issue(folder.path(), "pacs");
    let late = authority.issue_until(folder.path(), "late", &["127.0.0.1"], -day);
    let named = authority.issue_until(folder.path(), "named", &["pacs.example.org"], 100 * day);
    let believes = |server_files: &ichor_dimse::tls::IdentityFiles, tls: ClientTls| {
        let server_options = server(server_files, ClientAuth::None);
        async move {
            let provider = Provider::start_tls(options(), load(server_options)).await;
            let result = match connect(provider.tls_address, tls).await {
                Ok(scu) => {
                    scu.release().await.unwrap();
                    Ok(())
                }
                Err(ScuError::Tls { reason, .. }) => Err(reason),
                Err(other) => panic!("{other:?}"),
            };
            provider.stop().await;
            result
        }
    };
    let tls = client(&authority, None);
    assert_eq!(believes(&good, tls.clone()).await, Ok(()));
    assert!(believes(&late, tls.clone()).await.unwrap_err().contains("xpired"));
    assert!(believes(&late, ClientTls { check_name: false, ..tls.clone() }).await.unwrap_err().contains("xpired"));
    assert!(believes(&good, client(&other, None)).await.unwrap_err().contains("UnknownIssuer"));
    assert!(believes(&good, ClientTls { check_name: false, ..client(&other, None) }).await.is_err());
    let wrong_name = believes(&named, tls.clone()).await.unwrap_err();
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    assert_eq!(believes(&named, ClientTls { check_name: false, ..tls.clone() }).await, Ok(()));
    let by_name = ClientTls { server_name: Some("pacs.example.org".to_owned()), ..tls.clone() };
    assert_eq!(believes(&named, by_name.clone()).await, Ok(()));
    assert!(believes(&good, by_name).await.is_err());
    // Without a file, the system's authorities decide; ours is none of them.
    match (ClientTls { ca_file: None, ..tls.clone() }).check() {
        Ok(()) => assert!(believes(&good, ClientTls { ca_file: None, ..tls }).await.is_err()),
        Err(error) => assert!(matches!(error, TlsError::Authorities { .. }), "{error}"),
    }
}

#[tokio::test]
async fn storescp_takes_what_comes_with_a_certificate() {
    if !available(&["storescp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let [pacs, ichor] = ["pacs", "ichor"].map(|name| authority.issue(folder.path(), name));
    let files = tempfile::tempdir().unwrap();
    let listener = Listener::storescp(
        files.path(),
        &["--bit-preserving", "+tls", text(&pacs.key_file), text(&pacs.certificate_file), "+cf", text(&authority.file)],
    );
    let bytes = ct_data_set(INSTANCE, 512, 512);
    let mut scu = connect(listener.address(), client(&authority, Some(&ichor))).await.unwrap();
    assert!(scu.echo().await.unwrap().is_success());
    store(&mut scu, INSTANCE, &bytes).await;
    scu.release().await.unwrap();
    let [file] = &received(files.path(), &uid(INSTANCE))[..] else { panic!("not one file") };
    let stored = std::fs::read(file).unwrap();
    assert!(stored.ends_with(&bytes));
    // It asks for a certificate, and hears of none.
    let error = connect(listener.address(), client(&authority, None)).await.unwrap_err();
    assert!(!error.is_permanent(), "{error:?}");
}
