//! A FHIR server on loopback that keeps resources, honours conditional create and update, and answers as it is told to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// How a server takes one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, and said so.
    Done,
    /// This status with an `OperationOutcome`, and nothing done.
    Refused(u16),
    /// This status without a body, and nothing done.
    Status(u16),
    /// 200 and a page, and nothing done.
    Page,
    /// Done, and never said.
    DoneInSilence,
    /// Done, and said after so long.
    DoneLate(Duration),
}

/// What a server has and has heard.
#[derive(Default)]
struct State {
    resources: Vec<Value>,
    transactions: Vec<Value>,
    tokens: Vec<String>,
    traceparents: Vec<String>,
}

/// The server; it goes with the test's process.
pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Answers like this, and [`Answer::Done`] once the answers are used up.
    pub(crate) fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, mut answers) = (Arc::clone(&state), answers.iter().copied().collect::<VecDeque<_>>());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, answer) = (Arc::clone(&shared), answers.pop_front().unwrap_or(Answer::Done));
                std::thread::spawn(move || serve(stream, &shared, answer));
            }
        });
        Self { port, state }
    }

    /// The resources of a kind.
    pub(crate) fn resources(&self, kind: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.resources.iter().filter(|resource| resource["resourceType"] == kind).cloned().collect()
    }

    /// The transactions that came, in order.
    pub(crate) fn transactions(&self) -> Vec<Value> {
        self.state.lock().unwrap().transactions.clone()
    }

    /// The fields `Authorization` that came, in order.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.state.lock().unwrap().tokens.clone()
    }

    /// The fields `traceparent` that came, in order; empty where there was none.
    pub(crate) fn traceparents(&self) -> Vec<String> {
        self.state.lock().unwrap().traceparents.clone()
    }

    /// Puts a resource there that is somebody else's.
    pub(crate) fn keep(&self, resource: Value) {
        self.state.lock().unwrap().resources.push(resource);
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, answer: Answer) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut token, mut media, mut traceparent) = (0, String::new(), String::new(), String::new());
    let mut first = String::new();
    if reader.read_line(&mut first).is_err() {
        return;
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() {
            return;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => value.trim().clone_into(&mut token),
            "traceparent" => value.trim().clone_into(&mut traceparent),
            "content-type" => value.trim().clone_into(&mut media),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    if first.starts_with("GET /fhir/metadata HTTP/1.1") {
        state.lock().unwrap().tokens.push(token);
        let (status, said) = match answer {
            Answer::Refused(status) | Answer::Status(status) => (status, outcome()),
            Answer::Page => (200, "<html>Please log in, Mr Doe</html>".to_owned()),
            _ => (200, json!({ "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1" }).to_string()),
        };
        return say(&mut reader, status, &said);
    }
    assert!(first.starts_with("POST /fhir HTTP/1.1") && media == "application/fhir+json", "{first} {media}");
    let bundle: Value = serde_json::from_slice(&body).unwrap();
    let mut state = state.lock().unwrap();
    state.tokens.push(token);
    state.traceparents.push(traceparent);
    state.transactions.push(bundle.clone());
    let (status, said) = match answer {
        Answer::Done | Answer::DoneInSilence | Answer::DoneLate(_) => match transact(&mut state.resources, &bundle) {
            Ok(answer) => (200, answer.to_string()),
            Err(status) => (status, outcome()),
        },
        Answer::Refused(status) => (status, outcome()),
        Answer::Status(status) => (status, String::new()),
        Answer::Page => (200, "<html>Please log in, Mr Doe</html>".to_owned()),
    };
    drop(state);
    match answer {
        Answer::DoneInSilence => {
            let _ = reader.read(&mut [0; 16]);
            return;
        }
        Answer::DoneLate(delay) => std::thread::sleep(delay),
        _ => {}
    }
    say(&mut reader, status, &said);
}

fn say(reader: &mut BufReader<TcpStream>, status: u16, said: &str) {
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", said.len());
    let _ = reader.get_mut().write_all([head.as_bytes(), said.as_bytes()].concat().as_slice());
}

fn outcome() -> String {
    let diagnostics = "Doe^John is not known here";
    let issue = json!({ "severity": "error", "code": "invalid", "diagnostics": diagnostics, "expression": ["Bundle.entry[0]"] });
    json!({ "resourceType": "OperationOutcome", "issue": [issue] }).to_string()
}

/// All of it or nothing, by the rules of conditional interactions.
fn transact(resources: &mut Vec<Value>, bundle: &Value) -> Result<Value, u16> {
    let mut after = resources.clone();
    let mut entries = Vec::new();
    for entry in bundle["entry"].as_array().unwrap() {
        let (request, resource) = (&entry["request"], &entry["resource"]);
        let is_update = request["method"] == "PUT";
        let search = match is_update {
            true => request["url"].as_str().unwrap().split_once('?').unwrap().1,
            false => request["ifNoneExist"].as_str().unwrap(),
        };
        let (system, value) = search.strip_prefix("identifier=").unwrap().split_once("%7C").unwrap();
        let has = |one: &Value| {
            let identifiers = one["identifier"].as_array().into_iter().flatten();
            let mut identifiers = identifiers.map(|own| (own["system"].as_str(), own["value"].as_str()));
            one["resourceType"] == resource["resourceType"] && identifiers.any(|own| own == (Some(system), Some(value)))
        };
        let found: Vec<usize> = (0..after.len()).filter(|place| has(&after[*place])).collect();
        let status = match found[..] {
            [] => {
                after.push(resource.clone());
                "201 Created"
            }
            [place] => {
                if is_update {
                    after[place] = resource.clone();
                }
                "200 OK"
            }
            _ => return Err(412),
        };
        entries.push(json!({ "response": { "status": status } }));
    }
    *resources = after;
    Ok(json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": entries }))
}
