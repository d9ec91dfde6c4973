//! An HL7 receiver on loopback that answers as it is told to.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a receiver takes one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// MSA-1, at once.
    Code(&'static str),
    /// Nothing, and the connection stays open.
    Nothing,
    /// AA, after so long.
    Late(Duration),
    /// AA, for another message.
    OfAnother,
    /// Closes the connection.
    Close,
    /// Something that is no HL7.
    Garbage,
}

/// A message that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) text: String,
    pub(crate) at: Instant,
}

impl Received {
    /// The fields of the first segment of that name, by their numbers.
    pub(crate) fn fields(&self, name: &str) -> Vec<String> {
        let segment = self.text.split('\r').find(|segment| segment.split('|').next() == Some(name));
        let segment = segment.unwrap_or_else(|| panic!("no {name} in {}", self.text));
        let mut fields: Vec<String> = segment.split('|').map(str::to_owned).collect();
        if name == "MSH" {
            fields.insert(1, "|".to_owned());
        }
        fields
    }

    /// MSH-10.
    pub(crate) fn id(&self) -> String {
        self.fields("MSH")[10].clone()
    }
}

/// The receiver; it goes with the test's process.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Takes messages with these answers, and with AA once they are used up.
    pub(crate) fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (log, answers) =
            (Arc::clone(&received), Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<_>>())));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                std::thread::spawn(move || serve(stream, &log, &answers));
            }
        });
        Self { port, received }
    }

    /// What has come, in order.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Received>>, answers: &Mutex<VecDeque<Answer>>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while !bytes.ends_with(b"\x1c\r") {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let text = String::from_utf8(bytes[1..bytes.len() - 2].to_vec()).expect("UTF-8");
    let message = Received { text, at: Instant::now() };
    let id = message.id();
    log.lock().unwrap().push(message);
    let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Code("AA"));
    let ack = |code: &str, id: &str| {
        format!(
            "\x0bMSH|^~\\&|RIS|H|ICHOR||20260101||ACK^R01^ACK|1|P|2.5.1\rMSA|{code}|{id}|Doe^John is unknown\r\x1c\r"
        )
    };
    let said = match answer {
        Answer::Code(code) => ack(code, &id),
        Answer::Nothing => {
            // Until the sender gives up.
            let _ = stream.read(&mut buffer);
            return;
        }
        Answer::Late(delay) => {
            std::thread::sleep(delay);
            ack("AA", &id)
        }
        Answer::OfAnother => ack("AA", "ANOTHER"),
        Answer::Close => return,
        Answer::Garbage => "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
    };
    let _ = stream.write_all(said.as_bytes());
}
