//! WADO-RS: what is sent, in which form, and what is not sent as if it were complete.

use std::time::{Duration, Instant};

use ichor_dicomweb::server::{ReadingOptions, ServerOptions};
use tokio::io::AsyncWriteExt;

use crate::archive::{EXPLICIT, JPEG_LS, Shelf, serve};
use crate::support::*;

const ONE: &str = "/studies/1.1/series/1.1.1/instances/1.1.1.1";
const COMPRESSED: &str = "/studies/1.1/series/1.1.2/instances/1.1.2.1";

#[tokio::test]
async fn studies_series_and_instances() {
    let (server, looks) = serve(open_to_all(), Shelf::default()).await;
    let study = server.get("/studies/1.1", "").await;
    assert_eq!(study.status, 200, "{}", study.words());
    let parts = study.parts();
    assert_eq!(parts.len(), 5);
    assert_eq!(parts[0].0, format!("application/dicom; transfer-syntax={EXPLICIT}"));
    assert_eq!(parts[3].0, format!("application/dicom; transfer-syntax={JPEG_LS}"));
    assert!(parts[4].1.starts_with(b"file 1.1.3.1"));
    assert_eq!(server.get("/studies/1.1/series/1.1.1", "").await.parts().len(), 3);
    let accept = format!("Accept: multipart/related; type=\"application/dicom\"; transfer-syntax={EXPLICIT}\r\n");
    let parts = server.get("/studies/1.1", &accept).await.parts();
    assert_eq!(parts[3], (format!("application/dicom; transfer-syntax={EXPLICIT}"), b"transcoded 1.1.2.1".to_vec()));
    let single = server.get(COMPRESSED, "Accept: application/dicom\r\n").await;
    assert_eq!(field(&single.head, "content-type"), Some(&*format!("application/dicom; transfer-syntax={JPEG_LS}")));
    assert!(single.body.starts_with(b"file 1.1.2.1"));
    for (path, headers, status, word) in [
        ("/studies/1.1", "Accept: application/dicom\r\n", 406, "multipart"),
        ("/studies/1.1", "Accept: application/zip\r\n", 406, "multipart"),
        (COMPRESSED, "Accept: application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90\r\n", 406, "1.2.4.80"),
        ("/studies/9.9", "", 404, "no such study"),
        ("/studies/1.2/series/1.1.1", "", 404, "no such series"),
        ("/studies/1.1?window=1,2,linear", "", 400, "no parameter"),
        ("/studies/1.2", "", 500, "1.2.1.2"),
    ] {
        let answer = server.get(path, headers).await;
        assert!(
            answer.status == status && answer.words().contains(word),
            "{path}: {} {}",
            answer.status,
            answer.words()
        );
    }
    let deep = format!("Accept: {}\r\n", "application/dicom;q=0.1,".repeat(1000));
    assert_eq!(server.get(ONE, &deep).await.status, 406);
    assert!(looks.lock().unwrap().iter().all(|(_, action, study)| action == "study-retrieved" && study.is_some()));
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let (server, looks) = serve(open_to_all(), Shelf::default()).await;
    let first = server.get(ONE, "").await;
    let tag = field(&first.head, "etag").unwrap().to_owned();
    let again = server.get(ONE, &format!("If-None-Match: \"other\", {tag}\r\n")).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(server.get(ONE, "If-None-Match: \"other\"\r\n").await.status, 200);
    let other_form = server.get(ONE, &format!("Accept: application/dicom\r\nIf-None-Match: {tag}\r\n")).await;
    assert_eq!(other_form.status, 200, "another form is another thing");
    assert_eq!(looks.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn metadata_frames_pictures_and_bulk_data() {
    let (server, _) = serve(open_to_all(), Shelf::default()).await;
    let metadata = server.get("/studies/1.1/metadata", "Accept: application/dicom+json\r\n").await;
    let metadata = metadata.json();
    assert_eq!(metadata.as_array().unwrap().len(), 5);
    let uri = metadata[0]["7FE00010"]["BulkDataURI"].as_str().unwrap();
    assert_eq!(uri, format!("http://x/dicom-web{ONE}/bulkdata/7FE00010"));
    let bulk = server.get(&format!("{ONE}/bulkdata/7FE00010"), "").await.parts();
    assert_eq!(bulk, [("application/octet-stream".to_owned(), b"pixels of 1.1.1.1".to_vec())]);
    assert_eq!(server.get(&format!("{ONE}/bulkdata/00091001"), "").await.status, 404);
    let frames = server.get(&format!("{COMPRESSED}/frames/2,1"), "").await.parts();
    let native = format!("application/octet-stream; transfer-syntax={EXPLICIT}");
    assert_eq!(frames, [(native.clone(), b"frame 2 of 1.1.2.1".to_vec()), (native, b"frame 1 of 1.1.2.1".to_vec())]);
    let accept = "Accept: multipart/related; type=application/octet-stream; transfer-syntax=*\r\n";
    let stored = server.get(&format!("{COMPRESSED}/frames/1"), accept).await.parts();
    assert_eq!(stored[0].0, format!("image/jls; transfer-syntax={JPEG_LS}"));
    let single = server.get(&format!("{ONE}/frames/1"), "Accept: application/octet-stream\r\n").await;
    assert_eq!(single.words(), "frame 1 of 1.1.1.1");
    let thumbnail = server.get("/studies/1.1/thumbnail", "Accept: image/png\r\n").await;
    assert_eq!(thumbnail.words(), "picture 1 of 1.1.1.2 Some((128, 128))");
    let report = "/studies/1.1/series/1.1.3/instances/1.1.3.1";
    for (path, headers, status) in [
        (format!("{ONE}/frames/3"), "", 404),
        (format!("{ONE}/frames/1,3"), "", 404),
        (format!("{ONE}/frames/0"), "", 400),
        (format!("{ONE}/frames/99999999999"), "", 400),
        (format!("{ONE}/rendered?window=40,80,cubic"), "", 400),
        (format!("{ONE}/rendered"), "Accept: image/gif\r\n", 406),
        (format!("{ONE}/frames/1"), "Accept: image/jp2\r\n", 406),
        (format!("{report}/rendered"), "", 406),
        (format!("{report}/frames/1"), "", 406),
        ("/studies/1.1/rendered".to_owned(), "", 404),
        (format!("{ONE}/metadata"), "Accept: application/dicom+xml\r\n", 406),
    ] {
        let answer = server.get(&path, headers).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.words());
    }
}

#[tokio::test]
async fn what_breaks_off_does_not_look_complete() {
    let shelf = Shelf { file_bytes: 300_000, ..Shelf::default() };
    let (server, _) = serve(open_to_all(), shelf).await;
    // Its file breaks while it is read.
    let (head, body, is_complete) = server.get_to_the_end("/studies/1.3").await;
    assert!(head.starts_with("HTTP/1.1 200") && body.len() > 100_000, "{head} {}", body.len());
    assert!(!is_complete, "a torn answer ended as if it were whole");
    // The second of two is lost: the first is whole.
    let (_, _, is_complete) = server.get_to_the_end("/studies/1.2/metadata").await;
    assert!(!is_complete, "metadata without an instance ended as if they were whole");
    let (_, _, is_complete) = server.get_to_the_end("/studies/1.1").await;
    assert!(is_complete);
}

#[tokio::test]
async fn a_reader_that_stops_is_ended_and_costs_nobody_else() {
    let shelf = Shelf { file_bytes: 64 << 20, ..Shelf::default() };
    let reading = ReadingOptions { max_at_once: 1, ..ReadingOptions::default() };
    let options = ServerOptions { answer_timeout: Duration::from_millis(500), reading, ..open_to_all() };
    let (server, _) = serve(ServerOptions { retry_after: Duration::from_millis(100), ..options.clone() }, shelf).await;
    let mut stuck = server.connect().await;
    stuck.write_all(format!("GET /dicom-web{ONE} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let busy = server.get("/studies", "").await;
    assert_eq!((busy.status, field(&busy.head, "retry-after").is_some()), (503, true));
    let begun = Instant::now();
    while server.get("/studies", "").await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10), "a reader that stopped holds its place");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stuck);
}

#[tokio::test]
async fn too_much_at_once_is_refused() {
    let reading = ReadingOptions { max_instances: 2, max_frames: 1, ..ReadingOptions::default() };
    let (server, _) = serve(ServerOptions { reading, ..open_to_all() }, Shelf::default()).await;
    assert_eq!(server.get("/studies/1.1", "").await.status, 413);
    assert_eq!(server.get("/studies/1.1/metadata", "").await.status, 413);
    assert_eq!(server.get(&format!("{ONE}/frames/1,2"), "").await.status, 400);
    assert_eq!(server.get("/studies/1.1/series/1.1.2", "").await.status, 200);
}

#[tokio::test]
async fn what_was_stored_can_be_had_where_the_answer_says() {
    let reading = ReadingOptions { url: Some("https://pacs.example".to_owned()), ..ReadingOptions::default() };
    let (server, _) = serve(ServerOptions { reading, ..open_to_all() }, Shelf::default()).await;
    let answer = server.post(&format!("{STUDIES}/1.1"), RELATED, &multipart(&[b"1.1.2.1", b"9.2"])).await;
    let json = answer.json();
    assert_eq!(json["00081190"]["Value"][0], "https://pacs.example/dicom-web/studies/1.1");
    let item = &json["00081199"]["Value"][0];
    assert_eq!(item["00081190"]["Value"][0], format!("https://pacs.example/dicom-web{COMPRESSED}"));
    assert!(json["00081198"]["Value"][0].get("00081190").is_none(), "{json}");
    // Without an archive there is nowhere.
    let server = Server::start(open_to_all()).await;
    let answer = server.post(STUDIES, RELATED, &multipart(&[b"1.1.2.1"])).await;
    assert!(!answer.words().contains("00081190"));
}

#[tokio::test]
async fn a_file_that_is_cut_does_not_look_complete() {
    let shelf = Shelf { file_bytes: 300_000, short: Some("1.1.1.2"), ..Shelf::default() };
    let (server, _) = serve(open_to_all(), shelf).await;
    for path in ["/studies/1.1", "/studies/1.1/series/1.1.1/instances/1.1.1.2"] {
        let (_, _, is_complete) = server.get_to_the_end(path).await;
        assert!(!is_complete, "{path} ended as if every file were whole");
    }
    let (_, _, is_complete) = server.get_to_the_end(ONE).await;
    assert!(is_complete);
}

#[tokio::test]
async fn an_answer_about_a_study_says_what_is_no_longer_kept() {
    let (server, _) = serve(open_to_all(), Shelf { given_up: 2, ..Shelf::default() }).await;
    let stored = "Accept: multipart/related; type=\"application/dicom\"; transfer-syntax=*\r\n";
    for (path, headers, warned) in [
        ("/studies/1.1", stored, Some("2 instances of this study")),
        ("/studies/1.1/metadata", "", Some("2 instances of this study")),
        ("/studies/1.1/series/1.1.1", stored, Some("2 instances of this series")),
        ("/studies/1.1/series/1.1.1/metadata", "", Some("2 instances of this series")),
        ("/studies/1.1/series/1.1.2/metadata", "", None),
        (ONE, "", None),
    ] {
        let answer = server.get(path, headers).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.words());
        let warning = field(&answer.head, "warning").map(str::to_owned);
        match warned {
            None => assert_eq!(warning, None, "{path}"),
            Some(words) => {
                let warning = warning.unwrap_or_else(|| panic!("{path} warns of nothing"));
                assert!(warning.starts_with("299 ichor \"") && warning.contains(words), "{path}: {warning}");
            }
        }
    }
}
