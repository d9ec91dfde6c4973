//! Bodies and their parts: what is stored, what is not, and what is said of it.

use ichor_dicomweb::server::ServerOptions;
use tokio::io::AsyncWriteExt;

use crate::support::*;

#[tokio::test]
async fn stored_some_and_none() {
    let server = Server::start(open_to_all()).await;
    let all = server.post(STUDIES, RELATED, &multipart(&[b"1.1 a", b"1.2 b"])).await;
    assert_eq!((all.status, all.stored()), (200, vec!["1.1".to_owned(), "1.2".to_owned()]));
    assert!(all.json().get("00081198").is_none());

    let some = server.post(&format!("{STUDIES}/1.2.3"), RELATED, &multipart(&[b"9.2.1 x", b"1.3 b", b"junk"])).await;
    assert_eq!((some.status, some.stored()), (202, vec!["1.3".to_owned()]));
    assert_eq!(some.items("00081198"), [("9.2.1".to_owned(), Some(0xA900))]);
    assert_eq!(some.items("0008119A"), [(String::new(), Some(0xC000))]);
    assert!(
        some.head.to_lowercase().contains("warning: 299 ichor \"9.2.1: 0xa900 as the test wants\""),
        "{}",
        some.head
    );

    let none = server.post(STUDIES, RELATED, &multipart(&[b"9.2.1 x", b"9.1.1 x"])).await;
    assert_eq!((none.status, none.stored()), (409, vec![]));

    let full = server.post(STUDIES, RELATED, &multipart(&[b"9.1.1 x", b"9.1.2 x"])).await;
    assert_eq!((full.status, field(&full.head, "retry-after")), (503, Some("10")));
    assert_eq!(full.items("00081198").len(), 2);

    let heard = server.heard.lock().unwrap();
    assert_eq!(heard.opened[0].0.client, "ANYONE");
    assert_eq!(heard.opened[1].1.as_ref().unwrap().as_str(), "1.2.3");
    let counts: Vec<_> = heard.closed.iter().map(|end| (end.status, end.instances, end.failures)).collect();
    assert_eq!(counts, [(Some(200), 2, 0), (Some(202), 1, 2), (Some(409), 0, 2), (Some(503), 0, 2)]);
    assert!(heard.closed[1].outcome.starts_with("answered 202: 2 not stored, the first: "), "{:?}", heard.closed[1]);
    assert_eq!(heard.begun, heard.dropped);
}

#[tokio::test]
async fn xml_for_who_asks_for_it() {
    let server = Server::start(open_to_all()).await;
    let headers = format!("{RELATED}Accept: application/dicom+xml\r\n");
    let answer = server.post(STUDIES, &headers, &multipart(&[b"1.1 a"])).await;
    assert_eq!((answer.status, field(&answer.head, "content-type")), (200, Some("application/dicom+xml")));
    assert!(answer.words().contains("<Value number=\"1\">1.1</Value>"), "{}", answer.words());
}

#[tokio::test]
async fn a_panic_costs_one_part() {
    let server = Server::start(open_to_all()).await;
    let answer = server.post(STUDIES, RELATED, &multipart(&[b"9.4 x", b"1.1 a"])).await;
    assert_eq!((answer.status, answer.stored()), (202, vec!["1.1".to_owned()]));
    assert_eq!(answer.items("0008119A"), [(String::new(), Some(0x0110))]);
}

#[tokio::test]
async fn chunked_single_part_and_byte_by_byte() {
    let server = Server::start(open_to_all()).await;
    let body = multipart(&[b"1.1 one", b"1.2 two\r\n--b-"]);
    let head = format!("POST {STUDIES}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{RELATED}\r\n");
    let mut chunked = vec![head.into_bytes()];
    chunked.extend(body.chunks(3).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()));
    chunked.push(b"0\r\n\r\n".to_vec());
    let answer = server.say(chunked).await;
    assert_eq!((answer.status, answer.stored().len()), (200, 2));

    let single = server.post(STUDIES, "Content-Type: application/dicom\r\n", b"1.3 alone").await;
    assert_eq!((single.status, single.stored()), (200, vec!["1.3".to_owned()]));

    let bytes = request(STUDIES, RELATED, &body);
    let answer = server.say(bytes.chunks(1)).await;
    assert_eq!((answer.status, answer.stored().len()), (200, 2));
    let committed = &server.heard.lock().unwrap().committed;
    let mut lengths: Vec<_> = committed.iter().map(|(_, length)| *length).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [7, 7, 9, 13, 13]);
}

#[tokio::test]
async fn a_connection_takes_one_request_after_the_other() {
    let server = Server::start(open_to_all()).await;
    let mut stream = server.connect().await;
    for name in ["1.1", "1.2", "1.3"] {
        stream.write_all(&request(STUDIES, RELATED, &multipart(&[name.as_bytes()]))).await.unwrap();
        assert_eq!(Answer::read(&mut stream).await.unwrap().stored(), [name]);
    }
}

#[tokio::test]
async fn requests_that_are_not_taken() {
    let options = ServerOptions { max_body_bytes: 1000, ..open_to_all() };
    let server = Server::start(options).await;
    let body = multipart(&[b"1.1 a"]);
    let related_of = |kind: &str| format!("Content-Type: multipart/related; type=\"{kind}\"; boundary=b-1\r\n");
    for (path, headers, status, words) in [
        ("/", RELATED.to_owned(), 404, "nowhere else"),
        ("/dicom-web/studiesx", RELATED.to_owned(), 404, "nowhere else"),
        ("/dicom-web/studies/1.2/series", RELATED.to_owned(), 404, "nowhere else"),
        ("/dicom-web/studies/..%2f", RELATED.to_owned(), 400, "study in the URL"),
        (STUDIES, format!("{RELATED}Accept: text/html\r\n"), 406, "dicom+json"),
        (STUDIES, String::new(), 415, "no Content-Type"),
        (STUDIES, "Content-Type: application/zip\r\n".to_owned(), 415, "application/zip"),
        (STUDIES, format!("{RELATED}Content-Encoding: gzip\r\n"), 415, "Content-Encoding"),
        (STUDIES, related_of("application/dicom+json"), 415, "application/dicom+json"),
        (STUDIES, related_of("application/dicom+xml"), 415, "application/dicom+xml"),
        (STUDIES, "Content-Type: multipart/related; type=\"application/dicom\"\r\n".to_owned(), 400, "no boundary"),
        ("/dicom-web/studies/9.9", RELATED.to_owned(), 503, "disk is almost full"),
    ] {
        let answer = server.post(path, &headers, &body).await;
        assert_eq!(answer.status, status, "{path} {headers}");
        assert!(answer.words().contains(words), "{}", answer.words());
        assert_eq!(server.last_refusal().status(), status);
    }
    let long = server.post(STUDIES, RELATED, &multipart(&[&[b'1'; 2000]])).await;
    assert_eq!(long.status, 413);
    let get = server.say(["GET /dicom-web/studies HTTP/1.1\r\nHost: x\r\n\r\n"]).await;
    assert_eq!((get.status, field(&get.head, "allow")), (405, Some("POST")));
    assert!(server.heard.lock().unwrap().opened.is_empty());
}

#[tokio::test]
async fn bodies_that_are_malformed() {
    let server = Server::start(open_to_all()).await;
    let good = multipart(&[b"1.1 a"]);
    let cut = &good[..good.len() - 4];
    let cases: [(&[u8], &str); 5] = [
        (b"", "boundary"),
        (b"--b-1--\r\n", "no part"),
        (b"--b-1\n\n1.1 a\n--b-1--\n", "end of its line"),
        (b"--b-1\r\nnonsense\r\n\r\n1.1 a\r\n--b-1--\r\n", "header of a part"),
        (b"--other\r\n\r\n1.1 a\r\n--other--\r\n", "boundary"),
    ];
    for (body, words) in cases {
        let answer = server.post(STUDIES, RELATED, body).await;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(body));
        assert!(answer.words().contains(words), "{}", answer.words());
    }
    assert!(server.heard.lock().unwrap().committed.is_empty());

    // A whole part stays, and the answer says so; what is cut is not taken.
    let two = [&multipart(&[b"1.7 whole"])[..], b""].concat();
    let body = [&two[..two.len() - b"--b-1--\r\n".len()], cut].concat();
    let answer = server.post(STUDIES, RELATED, &body).await;
    assert_eq!((answer.status, answer.stored()), (400, vec!["1.7".to_owned()]));
    assert!(answer.head.contains("closing boundary"), "{}", answer.head);
    let metadata = b"--b-1\r\n\r\n1.8 whole\r\n--b-1\r\nContent-Type: application/dicom+json\r\n\r\n[]\r\n--b-1--";
    let answer = server.post(STUDIES, RELATED, metadata).await;
    assert_eq!((answer.status, answer.stored()), (415, vec!["1.8".to_owned()]));
    let encoded =
        b"--b-1\r\nContent-Type: application/dicom\r\nContent-Transfer-Encoding: base64\r\n\r\nMS4x\r\n--b-1--";
    assert_eq!(server.post(STUDIES, RELATED, encoded).await.status, 415);
}

#[tokio::test]
async fn limits_of_parts_and_bodies() {
    let options = ServerOptions { max_part_bytes: 100, max_parts: 3, max_body_bytes: 5000, ..open_to_all() };
    let server = Server::start(options).await;
    let long = [b"1.1 ".as_slice(), &[b'x'; 97]].concat();
    let fits = [b"1.2 ".as_slice(), &[b'x'; 96]].concat();
    let answer = server.post(STUDIES, RELATED, &multipart(&[&long, &fits])).await;
    assert_eq!((answer.status, answer.stored()), (202, vec!["1.2".to_owned()]));
    assert_eq!(answer.items("00081198"), [("1.1".to_owned(), Some(0xA700))]);
    let answer = server.post(STUDIES, RELATED, &multipart(&[b"1.1", b"1.2", b"1.3", b"1.4"])).await;
    assert_eq!((answer.status, answer.stored().len()), (413, 3));

    // Without a length there is nothing to refuse by: it ends at the cap, and what was whole is told.
    let head = format!("POST {STUDIES} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{RELATED}\r\n");
    let body = [&multipart(&[b"1.5 whole"])[..], &vec![b'x'; 6000]].concat();
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let answer = server.say([head.into_bytes(), chunk]).await;
    assert_eq!((answer.status, answer.stored()), (413, vec!["1.5".to_owned()]));
}

#[tokio::test]
async fn a_peer_that_hangs_up_keeps_what_was_whole() {
    let server = Server::start(open_to_all()).await;
    let body = multipart(&[b"1.1 whole", b"9.3 slow", b"1.2 cut"]);
    let bytes = request(STUDIES, RELATED, &body);
    let mut stream = server.connect().await;
    stream.write_all(&bytes[..bytes.len() - 14]).await.unwrap();
    drop(stream);
    let end = server.closed(1).await;
    assert_eq!((end.status, end.instances, end.failures), (None, 2, 0), "{end:?}");
    assert!(end.outcome.contains("cut"), "{end:?}");
    let heard = server.heard.lock().unwrap();
    let names: Vec<&str> = heard.committed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["1.1", "9.3"]);
    assert_eq!((heard.begun, heard.dropped), (3, 3));
}

#[tokio::test]
async fn a_peer_that_closes_its_half_hears_its_answer() {
    let server = Server::start(open_to_all()).await;
    let mut stream = server.connect().await;
    stream.write_all(&request(STUDIES, RELATED, &multipart(&[b"9.3 slow"]))).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
}
