//! What a child does: gives up what it does not need, then decodes one instance after the other.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use ichor_core::Reason;
use ichor_ct::volume::{read_cells_from, read_slice_from};
use nix::sys::prctl;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::Signal;

use crate::protocol::{Answer, Pixels, ProtocolError, Request, read_request, write_answer, write_hello};

/// Standard input, output and error; nothing else is open, and nothing else can be opened.
const DESCRIPTORS: u64 = 3;

/// Place and text of the last panic.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// The whole of the child's program: its arguments are memory in bytes, processor time a slice in seconds, and its nice
/// value; its standard input is a socket to the parent.
#[must_use]
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ichor-decode: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), ProtocolError> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = || arguments.next().and_then(Result::ok);
    let (Some(memory), Some(cpu_seconds), Some(nice)) = (next(), next(), next()) else {
        return Err(
            io::Error::other("this program decodes for ichor, which starts it; it does nothing by itself").into()
        );
    };
    // Through standard input alone: its copy on standard output would have buffers of its own.
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    close_all_but(&socket)?;
    renounce(memory)?;
    stand_back(i32::try_from(nice).unwrap_or(0))?;
    remember_panics();
    write_hello(&mut socket)?;
    while let Some(request) = read_request(&mut socket)? {
        let bytes = read_file(&mut socket, request.length)?;
        allow_seconds(cpu_seconds)?;
        let answer = decode(&request, bytes);
        write_answer(&mut socket, &request, &answer)?;
        if matches!(answer, Answer::Panicked(_)) {
            // What a panic left behind is not for the next patient.
            return Err(io::Error::other("ends after a panic").into());
        }
    }
    Ok(())
}

/// Closes whatever the parent left open by mistake.
fn close_all_but(socket: &UnixStream) -> io::Result<()> {
    let kept = std::os::fd::AsRawFd::as_raw_fd(socket);
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2 && *descriptor != kept)
        .collect();
    for descriptor in open {
        // The folder's own is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// Lowers every limit that a decoder can live with, for good.
fn renounce(memory: u64) -> io::Result<()> {
    // When memory is short the kernel should take this process before the daemon. Not every system lets it choose.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    for (resource, most) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_DATA, memory),
    ] {
        let (_, hard) = getrlimit(resource)?;
        let most = most.min(hard);
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

/// Raises the nice value; one that the daemon was started with stays if it is higher.
fn stand_back(nice: i32) -> io::Result<()> {
    if rustix::process::getpriority_process(None)? < nice {
        rustix::process::setpriority_process(None, nice)?;
    }
    Ok(())
}

/// Gives the next slice its processor time, on top of what was used up to now.
fn allow_seconds(seconds: u64) -> io::Result<()> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time() + usage.system_time();
    let used = u64::try_from(used.tv_sec()).unwrap_or(0) + 1;
    let (_, hard) = getrlimit(Resource::RLIMIT_CPU)?;
    setrlimit(Resource::RLIMIT_CPU, used.saturating_add(seconds).min(hard), hard)?;
    Ok(())
}

fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("no text");
        let place = info.location().map(|place| {
            let file = place.file().rsplit(['/', '\\']).next().unwrap_or_default();
            format!(" at {file}:{}", place.line())
        });
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{text}{}", place.unwrap_or_default());
    }));
}

fn read_file(socket: &mut UnixStream, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = usize::try_from(length).map_err(io::Error::other)?;
    bytes.try_reserve_exact(length).map_err(|_| io::Error::other(format!("no memory for {length} bytes")))?;
    socket.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn decode(request: &Request, bytes: Vec<u8>) -> Answer {
    if let Some(width) = request.cell {
        return decode_cells(request, width, bytes);
    }
    match catch_unwind(AssertUnwindSafe(|| read_slice_from(io::Cursor::new(bytes)))) {
        Ok(Ok(slice)) if (slice.plane.rows, slice.plane.columns) == (request.rows, request.columns) => {
            Answer::Slice(Pixels { hu: slice.hu, window: slice.window })
        }
        Ok(Ok(slice)) => Answer::Refused(Reason::new(
            "attribute-invalid",
            format!(
                "the image is of {} rows × {} columns, {} × {} were asked for",
                slice.plane.rows, slice.plane.columns, request.rows, request.columns
            ),
        )),
        Ok(Err(error)) => Answer::Refused(error.reason()),
        Err(_) => Answer::Panicked(PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
}

/// Stored values, without a word on what they mean.
fn decode_cells(request: &Request, width: u8, bytes: Vec<u8>) -> Answer {
    let wanted = u64::from(request.rows) * u64::from(request.columns) * u64::from(width);
    match catch_unwind(AssertUnwindSafe(|| read_cells_from(io::Cursor::new(bytes)))) {
        Ok(Ok(cells))
            if (cells.rows, cells.columns) == (request.rows, request.columns) && cells.bytes.len() as u64 == wanted =>
        {
            Answer::Cells(cells.bytes)
        }
        Ok(Ok(cells)) => Answer::Refused(Reason::new(
            "attribute-invalid",
            format!(
                "the image is of {} rows × {} columns in {} bytes, {} × {} of {width} each were asked for",
                cells.rows,
                cells.columns,
                cells.bytes.len(),
                request.rows,
                request.columns
            ),
        )),
        Ok(Err(error)) => Answer::Refused(error.reason()),
        Err(_) => Answer::Panicked(PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
}
