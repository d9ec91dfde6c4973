//! A child for the tests that does anything but decode. What it does is the end of the name it is called by, so that a
//! link is all a test needs; with every other name it says nothing and ends.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ichor_decode::protocol::{Answer, Pixels, Request, read_request, write_answer, write_hello};
use nix::sys::signal::{Signal, raise};

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    let act = name.rsplit('-').next().unwrap_or_default();
    match misbehave(act) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn misbehave(act: &str) -> std::io::Result<ExitCode> {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    match act {
        "mute" => forever(),
        "foreign" => socket.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")?,
        "older" => socket.write_all(b"ICHD\0\0\0\0")?,
        "broken" => {
            eprintln!("error while loading shared libraries: libcharls.so.2");
            return Ok(ExitCode::from(127));
        }
        _ => write_hello(&mut socket)?,
    }
    let Ok(Some(request)) = read_request(&mut socket) else { return Ok(ExitCode::SUCCESS) };
    if act == "deaf" {
        forever();
    }
    std::io::copy(&mut (&mut socket).take(request.length), &mut std::io::sink())?;
    let pixels = (request.rows * request.columns) as usize;
    let slice = |count| Answer::Slice(Pixels { hu: vec![0; count], window: None });
    match act {
        "abort" => std::process::abort(),
        // The first one only ends the handler that looks for stack overflows.
        "segv" => loop {
            raise(Signal::SIGSEGV)?;
        },
        "xcpu" => raise(Signal::SIGXCPU)?,
        "exit" => return Ok(ExitCode::from(3)),
        "memory" => {
            eprintln!("memory allocation of 4294967296 bytes failed");
            std::process::abort();
        }
        "hang" => forever(),
        "trickle" => {
            for byte in b"ICHA" {
                socket.write_all(&[*byte])?;
                sleep(Duration::from_millis(300));
            }
            forever();
        }
        "close" => {
            socket.shutdown(std::net::Shutdown::Both)?;
            forever();
        }
        "garbage" => socket.write_all(&[0xAB; 100])?,
        "huge" => write_answer(&mut socket, &Request { rows: 60_000, columns: 60_000, ..request }, &slice(0))?,
        "other" => write_answer(&mut socket, &Request { number: request.number + 1, ..request }, &slice(pixels))?,
        "short" => write_answer(&mut socket, &request, &slice(pixels - 1))?,
        // More than was asked for: it shows with the next slice.
        "long" => {
            write_answer(&mut socket, &request, &slice(pixels + 1))?;
            forever();
        }
        "flood" => {
            write_answer(&mut socket, &request, &slice(pixels - 1))?;
            loop {
                std::io::stderr().write_all(&[b'x'; 4096])?;
            }
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn forever() -> ! {
    loop {
        sleep(Duration::from_secs(3600));
    }
}
