//! Who listens on a port of this machine, as `/proc` has it (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// Name of its program's file.
    pub(super) program: String,
}

impl Holder {
    /// Whether it is a daemon of ours.
    pub(super) fn is_ichor(&self) -> bool {
        ["ichor", "ichor-torch"].contains(&self.program.as_str())
    }
}

/// Who listens on an address; `None` where that cannot be told, as of the processes of another user.
pub(super) fn holder(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let sockets: Vec<String> = tables.iter().flat_map(|table| listening(table, address)).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut holders = processes.filter_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let open = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let mut targets = open.filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.to_str()?.to_owned()));
        targets.any(|target| sockets.contains(&target)).then_some(())?;
        Some(Holder { pid, program: program(&process.path())? })
    });
    holders.next()
}

/// The file of a program; one that was replaced while it runs keeps its name.
fn program(process: &Path) -> Option<String> {
    let file = std::fs::read_link(process.join("exe")).ok()?;
    let name = file.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

/// Sockets of a table that listen where an address would be, as links to open files name them.
fn listening(table: &str, address: SocketAddr) -> Vec<String> {
    const LISTEN: &str = "0A";
    let socket = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = columns.get(1)?.split_once(':')?;
        let (ip, port) = (self::ip(ip)?, u16::from_str_radix(port, 16).ok()?);
        let meets = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
        let is_it = port == address.port() && meets && columns.get(3) == Some(&LISTEN);
        is_it.then(|| columns.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// An address as these tables write it: words of 32 bits in the machine's order.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(8 * at)?);
            }
            // An IPv4 address in the other table is the same place.
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn our_own_listener_is_found() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(any) else { continue };
            let address = listener.local_addr().unwrap();
            let found = holder(address).unwrap();
            assert_eq!(found.pid, std::process::id(), "{any}");
            assert!(!found.is_ichor(), "{found:?} is this test");
            drop(listener);
            assert_eq!(holder(address), None, "{any}");
        }
        assert!(Holder { pid: 1, program: "ichor-torch".to_owned() }.is_ichor());
    }

    #[test]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0\n\
             1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0\n\
             2: nonsense\n";
        if cfg!(target_endian = "little") {
            assert_eq!(listening(table, "127.0.0.1:8080".parse().unwrap()), ["socket:[4711]"]);
            assert_eq!(listening(table, "0.0.0.0:8080".parse().unwrap()), ["socket:[4711]"]);
            assert!(listening(table, "127.0.0.2:8080".parse().unwrap()).is_empty());
            assert!(listening(table, "127.0.0.1:8081".parse().unwrap()).is_empty());
        }
    }
}
