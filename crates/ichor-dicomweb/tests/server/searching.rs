//! QIDO-RS: which of what is held is found, and what is said of it.

use ichor_dicomweb::server::{ClientRule, ReadingOptions, Refusal, Right, ServerOptions, Token};
use serde_json::Value;

use crate::archive::{Shelf, serve};
use crate::support::*;

async fn found(server: &Server, path: &str) -> Vec<Value> {
    let answer = server.get(path, "").await;
    if answer.status == 204 {
        assert!(answer.body.is_empty());
        return Vec::new();
    }
    assert_eq!(answer.status, 200, "{path}: {}", answer.words());
    answer.json().as_array().unwrap().clone()
}

/// The values of an attribute of each result.
async fn each(server: &Server, path: &str, tag: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    found(server, path).await.iter().map(|item| text(&item[tag]["Value"][0])).collect()
}

#[tokio::test]
async fn what_fits_is_found() {
    let (server, looks) = serve(open_to_all(), Shelf::default()).await;
    for (query, wanted) in [
        ("", vec!["1.1", "1.2", "1.3"]),
        ("?PatientName=smith*", vec!["1.2", "1.3"]),
        ("?PatientName=m%C3%BCller%5Eanna", vec!["1.1"]),
        ("?StudyDate=20260102-20260202", vec!["1.2"]),
        ("?0020000D=1.3,1.1", vec!["1.1", "1.3"]),
        ("?ModalitiesInStudy=SR", vec!["1.1"]),
        ("?ModalitiesInStudy=SR,CT&StudyDate=20260303", vec!["1.3"]),
        ("?AccessionNumber=none", vec![]),
        ("?limit=1&offset=1", vec!["1.2"]),
        ("?limit=0", vec![]),
    ] {
        assert_eq!(each(&server, &format!("/studies{query}"), "0020000D").await, wanted, "{query}");
    }
    assert_eq!(each(&server, "/studies/1.1/series", "0020000E").await, ["1.1.1", "1.1.2", "1.1.3"]);
    assert_eq!(each(&server, "/studies/1.1/series?Modality=SR", "0020000E").await, ["1.1.3"]);
    assert_eq!(each(&server, "/series?SeriesInstanceUID=1.3.1", "0020000D").await, ["1.3"]);
    assert_eq!(each(&server, "/studies/1.1/series/1.1.1/instances?InstanceNumber=2", "00080018").await, ["1.1.1.2"]);
    assert_eq!(each(&server, "/studies/1.1/instances", "00200013").await, ["1", "2", "3", "1", "1"]);
    assert_eq!(each(&server, "/instances?SOPInstanceUID=1.1.2.1", "0020000E").await, ["1.1.2"]);
    assert!(found(&server, "/studies/9.9/series").await.is_empty());
    let looks = looks.lock().unwrap();
    assert!(looks.contains(&("ANYONE".to_owned(), "studies-searched".to_owned(), None)), "{looks:?}");
    assert!(looks.contains(&("ANYONE".to_owned(), "series-searched".to_owned(), Some("1.1".to_owned()))), "{looks:?}");
}

#[tokio::test]
async fn results_hold_what_the_tables_say() {
    let (server, _) = serve(open_to_all(), Shelf::default()).await;
    let study = &found(&server, "/studies?StudyInstanceUID=1.1").await[0];
    let value = |item: &Value, tag: &str| item[tag]["Value"].clone();
    assert_eq!(value(study, "00201206"), serde_json::json!([3]));
    assert_eq!(value(study, "00201208"), serde_json::json!([5]));
    assert_eq!(value(study, "00080061"), serde_json::json!(["CT", "SR"]));
    assert_eq!(value(study, "00080056"), serde_json::json!(["ONLINE"]));
    assert_eq!(value(study, "00081190"), serde_json::json!(["http://x/dicom-web/studies/1.1"]));
    assert!(study.get("00181210").is_none() && study.get("7FE00010").is_none());
    let series = &found(&server, "/studies/1.1/series").await[0];
    assert_eq!(value(series, "00201209"), serde_json::json!([3]));
    assert!(series.get("00100010").is_none(), "the study stands in the URL: {series}");
    let series = &found(&server, "/series?SeriesInstanceUID=1.1.1").await[0];
    assert_eq!(value(series, "00100010")[0]["Alphabetic"], "MÜLLER^ANNA");
    let instance = &found(&server, "/instances?SOPInstanceUID=1.1.1.1&includefield=ConvolutionKernel").await[0];
    assert_eq!(value(instance, "00181210"), serde_json::json!(["H30s"]));
    assert_eq!(
        value(instance, "00081190"),
        serde_json::json!(["http://x/dicom-web/studies/1.1/series/1.1.1/instances/1.1.1.1"])
    );
    // A file that is lost costs its header, not its place.
    let lost = &found(&server, "/instances?SOPInstanceUID=1.2.1.2").await[0];
    assert_eq!(value(lost, "00080056"), serde_json::json!(["UNAVAILABLE"]));
}

#[tokio::test]
async fn limits_are_told() {
    let reading = ReadingOptions { max_results: 2, max_examined: 6, max_parameters: 3, ..ReadingOptions::default() };
    let (server, _) = serve(ServerOptions { reading, ..open_to_all() }, Shelf::default()).await;
    let answer = server.get("/studies?fuzzymatching=true&limit=9", "").await;
    assert_eq!((answer.status, answer.json().as_array().unwrap().len()), (200, 2));
    assert!(answer.head.contains("additional results") && answer.head.contains("fuzzymatching"), "{}", answer.head);
    assert!(!server.get("/studies?StudyDate=20260101", "").await.head.contains("additional"));
    let broad = server.get("/instances?InstanceNumber=77", "").await;
    assert_eq!(broad.status, 413, "{}", broad.words());
    let many = server.get(&format!("/studies?{}", "a=b&".repeat(2000)), "").await;
    assert!(many.status == 400 && many.words().contains("more than 3"), "{}", many.words());
}

#[tokio::test]
async fn questions_that_are_none() {
    let (server, looks) = serve(open_to_all(), Shelf::default()).await;
    for (path, headers, status) in [
        ("/studies?StudyDate=yesterday", "", 400),
        ("/studies?Colour=red", "", 400),
        ("/studies?StudyInstanceUID=..%2F..%2Fetc", "", 400),
        ("/studies?PatientID=%0d%0aX-Evil:%201", "", 400),
        ("/studies/..%2f../series", "", 400),
        ("/studies/1.1/series?Modality=CT&limit=x", "", 400),
        ("/patients", "", 404),
        ("/studies", "Accept: application/dicom+xml\r\n", 406),
        ("/studies", "Accept: text/html\r\n", 406),
    ] {
        let answer = server.get(path, headers).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.words());
        assert!(!answer.head.contains("X-Evil"), "{}", answer.head);
    }
    assert!(looks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nobody_is_answered_who_cannot_be_written_down() {
    let shelf = Shelf { is_audit_broken: true, ..Shelf::default() };
    let (server, _) = serve(open_to_all(), shelf).await;
    for path in
        ["/studies", "/studies/1.1", "/studies/1.1/metadata", "/studies/1.1/series/1.1.1/instances/1.1.1.1/frames/1"]
    {
        let answer = server.get(path, "").await;
        assert!(answer.status == 503 && answer.words().contains("audit"), "{path}: {}", answer.words());
    }
}

#[tokio::test]
async fn rights_and_origins() {
    let rule = |name: &str, token: &str, may: Vec<Right>| ClientRule {
        name: name.to_owned(),
        token: Some(Token::new(token)),
        networks: Vec::new(),
        may,
        subscribers: Vec::new(),
    };
    let reading =
        ReadingOptions { cors_origins: vec!["https://viewer.example".to_owned()], ..ReadingOptions::default() };
    let clients = vec![
        rule("SENDER", "the sender's token", vec![Right::Store]),
        rule("FINDER", "the finder's token", vec![Right::Search]),
        rule("VIEWER", "the viewer's token", vec![Right::Search, Right::Retrieve]),
    ];
    let options = ServerOptions { clients, reading, ..ServerOptions::default() };
    let (server, _) = serve(options, Shelf::default()).await;
    let bearer = |who: &str| format!("Authorization: Bearer the {who}'s token\r\n");
    for (who, search, retrieve, store) in
        [("sender", 403, 403, 200), ("finder", 200, 403, 403), ("viewer", 200, 200, 403), ("stranger", 401, 401, 401)]
    {
        assert_eq!(server.get("/studies", &bearer(who)).await.status, search, "{who}");
        assert_eq!(server.get("/studies/1.1/metadata", &bearer(who)).await.status, retrieve, "{who}");
        let posted = server.post(STUDIES, &format!("{RELATED}{}", bearer(who)), &multipart(&[b"1.1"])).await;
        assert_eq!(posted.status, store, "{who}: {}", posted.words());
    }
    assert!(
        server
            .heard
            .lock()
            .unwrap()
            .refused
            .iter()
            .any(|(sender, refusal)| { sender.client == "SENDER" && *refusal == Refusal::NotAllowed(Right::Search) })
    );
    for (origin, is_allowed) in
        [("https://viewer.example", true), ("https://viewer.example.evil", false), ("null", false)]
    {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\n");
        let bytes = format!("OPTIONS /dicom-web/studies HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let asked = server.say([bytes]).await;
        assert_eq!(asked.status, if is_allowed { 204 } else { 403 });
        let answer = server.get("/studies", &format!("{}{headers}", bearer("viewer"))).await;
        assert_eq!(answer.status, 200);
        for head in [&asked.head, &answer.head] {
            assert_eq!(head.contains(&format!("access-control-allow-origin: {origin}")), is_allowed, "{head}");
            assert!(head.contains("vary: Origin"), "{head}");
        }
    }
}
