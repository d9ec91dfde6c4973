//! One child as its parent sees it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ichor_core::Uid;
use tracing::debug;

use crate::decoder::Unavailable;
use crate::end::End;
use crate::options::DecoderOptions;
use crate::protocol::{Answer, ProtocolError, Request, printable, read_answer, read_hello, write_request};

/// How much of what a child prints is looked at.
const MOST_SAID: u64 = 4096;
/// How long a child that closed its socket may take to end.
const PARTING: Duration = Duration::from_secs(2);
const CHUNK: usize = 64 * 1024;

/// A child, and the only way to it. Dropping it kills the child and waits for its end.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    child: Child,
    socket: UnixStream,
    printed: UnixStream,
    /// Slices that it has decoded or refused.
    served: u32,
    /// The series that they are of.
    series: Option<Uid>,
}

/// What is to be decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) series: &'a Uid,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    /// Bytes of a stored value, if those are wanted.
    pub(crate) cell: Option<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The slice's file; the child is not to be used again.
    File(io::Error),
    /// The child is gone.
    Ended(End),
}

impl WorkerProcess {
    /// Starts a child. It dies with the thread that calls this.
    pub(crate) fn start(options: &DecoderOptions) -> io::Result<Self> {
        let (socket, its_end) = UnixStream::pair()?;
        let (printed, its_error) = UnixStream::pair()?;
        printed.set_nonblocking(true)?;
        let its_input = its_end.try_clone()?;
        let child = Command::new(&options.program)
            .args(
                [options.memory_bytes, options.cpu_seconds, u64::try_from(options.nice).unwrap_or(0)]
                    .map(|n| n.to_string()),
            )
            .env_clear()
            .current_dir("/")
            // A Ctrl-C at the terminal is for the daemon, which ends its slices first.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(its_input)))
            .stdout(Stdio::from(OwnedFd::from(its_end)))
            .stderr(Stdio::from(OwnedFd::from(its_error)))
            .spawn()?;
        Ok(Self { child, socket, printed, served: 0, series: None })
    }

    /// Waits for the child's first words.
    pub(crate) fn greet(&mut self, options: &DecoderOptions) -> Result<(), Unavailable> {
        let mut socket = Timed { socket: &self.socket, deadline: Instant::now() + options.timeout };
        let Err(error) = read_hello(&mut socket) else { return Ok(()) };
        let why = match error {
            ProtocolError::Nonsense(what) => what,
            ProtocolError::Io(error) if is_timeout(&error) => format!("it did not start within {:?}", options.timeout),
            ProtocolError::Io(_) => {
                let status = self.parting();
                let said = self.said();
                let status =
                    status.map_or_else(|| "closed its socket".to_owned(), |status| format!("ended with {status}"));
                format!("it {status}, saying {said:?}")
            }
        };
        Err(Unavailable::new(&options.program, why))
    }

    pub(crate) fn served(&self) -> u32 {
        self.served
    }

    /// Whether it may decode slices of a series: it has had none of another.
    pub(crate) fn may_decode(&self, series: &Uid) -> bool {
        self.series.as_ref().is_none_or(|own| own == series)
    }

    /// Has one slice decoded. After a failure the child must not be used again.
    pub(crate) fn decode(
        &mut self,
        job: &Job<'_>,
        image: Image<'_>,
        options: &DecoderOptions,
    ) -> Result<Answer, Failure> {
        let Job { rows, columns, cell, .. } = *job;
        self.series = Some(job.series.clone());
        let (mut file, length) = image.open().map_err(Failure::File)?;
        let request = Request { number: u64::from(self.served) + 1, rows, columns, cell, length };
        let mut socket = Timed { socket: &self.socket, deadline: Instant::now() + options.timeout };
        let answered = write_request(&mut socket, &request)
            .map_err(Sending::from)
            .and_then(|()| send(&mut *file, length, &mut socket))
            .map_err(|error| match error {
                Sending::File(error) => Err(error),
                Sending::Socket(error) => Ok(ProtocolError::Io(error)),
            })
            .and_then(|()| read_answer(&mut socket, &request).map_err(Ok));
        match answered {
            Ok(Answer::Panicked(text)) => Err(Failure::Ended(End::Died(format!("panicked: {text}")))),
            Ok(answer) => {
                self.served += 1;
                Ok(answer)
            }
            Err(Err(error)) => Err(Failure::File(error)),
            Err(Ok(error)) => Err(Failure::Ended(self.end(error, options))),
        }
    }

    fn end(&mut self, error: ProtocolError, options: &DecoderOptions) -> End {
        match error {
            ProtocolError::Nonsense(what) => End::Nonsense(format!("is out of order: {what}")),
            ProtocolError::Io(error) if is_timeout(&error) => {
                End::TooSlow(format!("did not answer within {:?}", options.timeout))
            }
            ProtocolError::Io(_) => {
                let status = self.parting();
                let said = self.said();
                debug!(said, ?status, "a decoder ended");
                match status {
                    Some(status) => End::of(status, &said, options.cpu_seconds),
                    None => End::Nonsense("closed its socket and went on".to_owned()),
                }
            }
        }
    }

    /// The status of a child that has closed its socket.
    fn parting(&mut self) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < PARTING {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            sleep(Duration::from_millis(1));
        }
        None
    }

    /// What the child printed, as one line.
    fn said(&self) -> String {
        let mut bytes = Vec::new();
        // Whatever came before the socket had no more to give.
        let _ = (&self.printed).take(MOST_SAID).read_to_end(&mut bytes);
        printable(&bytes)
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It may be gone already, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Sending {
    File(io::Error),
    Socket(io::Error),
}

impl From<io::Error> for Sending {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

/// What is sent to be decoded: a single-frame Part 10 file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Image<'a> {
    /// On disk.
    File(&'a Path),
    /// In memory: one frame of a multi-frame file.
    Bytes(&'a [u8]),
}

impl<'a> Image<'a> {
    fn open(self) -> io::Result<(Box<dyn Read + 'a>, u64)> {
        match self {
            Self::File(path) => {
                let file = File::open(path)?;
                let length = file.metadata()?.len();
                Ok((Box::new(file), length))
            }
            Self::Bytes(bytes) => Ok((Box::new(bytes), bytes.len() as u64)),
        }
    }
}

/// Sends exactly `length` bytes of a file.
fn send(file: &mut dyn Read, length: u64, socket: &mut Timed<'_>) -> Result<(), Sending> {
    let mut buffer = [0; CHUNK];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let count = file.read(&mut buffer[..most]).map_err(Sending::File)?;
        if count == 0 {
            return Err(Sending::File(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter")));
        }
        socket.write_all(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A socket with one deadline for all that goes through it.
struct Timed<'a> {
    socket: &'a UnixStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
