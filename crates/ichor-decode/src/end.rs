//! How a child ended, and what is said of the slice that it had in hand.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use ichor_core::Reason;
use nix::sys::signal::Signal;

/// Why a child gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It died.
    Died(String),
    /// Somebody else killed it: the kernel when memory is short, or a person.
    Killed(String),
    /// It was too slow.
    TooSlow(String),
    /// It needed more memory than it may have.
    OutOfMemory(String),
    /// It answered with something else.
    Nonsense(String),
}

/// What a process of Rust prints before it aborts for want of memory.
const OUT_OF_MEMORY: &str = "memory allocation of";

impl End {
    /// The end of a process that went by itself; `said` is what it printed.
    pub(crate) fn of(status: ExitStatus, said: &str, cpu_seconds: u64) -> Self {
        let Some(number) = status.signal() else {
            return Self::Died(format!("ended with {status}"));
        };
        let signal = Signal::try_from(number);
        let name = signal.map_or("unknown", Signal::as_str);
        match signal {
            Ok(Signal::SIGXCPU) => Self::TooSlow(format!("used more than {cpu_seconds} s of processor time ({name})")),
            Ok(Signal::SIGABRT) if said.contains(OUT_OF_MEMORY) => {
                Self::OutOfMemory(format!("ran out of the memory it may have ({name})"))
            }
            Ok(Signal::SIGKILL | Signal::SIGTERM) => Self::Killed(format!("was killed by signal {number} ({name})")),
            _ => Self::Died(format!("died by signal {number} ({name})")),
        }
    }

    /// Whether the slice had no part in it.
    pub(crate) fn is_from_outside(&self) -> bool {
        matches!(self, Self::Killed(_))
    }

    /// The reason that is recorded for the slice.
    pub(crate) fn reason(&self, codec: &str) -> Reason {
        let (code, how) = match self {
            Self::Died(how) | Self::Killed(how) => ("decoder-crashed", how),
            Self::Nonsense(how) => ("decoder-crashed", how),
            Self::TooSlow(how) => ("decoder-timeout", how),
            Self::OutOfMemory(how) => ("decoder-memory", how),
        };
        Reason::new(code, format!("{codec} decoder {how}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_reason() {
        let check = |raw: i32, said: &str, code: &str, text: &str| {
            let reason = End::of(ExitStatus::from_raw(raw), said, 20).reason("RLE");
            assert_eq!((reason.code.as_str(), reason.text.as_str()), (code, text));
        };
        check(11, "", "decoder-crashed", "RLE decoder died by signal 11 (SIGSEGV)");
        check(6, "free(): invalid pointer", "decoder-crashed", "RLE decoder died by signal 6 (SIGABRT)");
        let memory = "memory allocation of 4294967296 bytes failed";
        check(6, memory, "decoder-memory", "RLE decoder ran out of the memory it may have (SIGABRT)");
        check(24, "", "decoder-timeout", "RLE decoder used more than 20 s of processor time (SIGXCPU)");
        check(9, "", "decoder-crashed", "RLE decoder was killed by signal 9 (SIGKILL)");
        check(3 << 8, "", "decoder-crashed", "RLE decoder ended with exit status: 3");
        check(64, "", "decoder-crashed", "RLE decoder died by signal 64 (unknown)");
    }
}
