//! The transfer syntax out of a Part 10 file's meta group (PS3.10 7.1), without believing a length: dicom-rs allocates
//! whatever a meta element declares, up to 4 GiB.

use std::io::{Read, Seek, SeekFrom};

use crate::source::SourceError;

/// Longest meta value, in bytes, and most meta elements.
const MAX_VALUE: usize = 64 * 1024;
const MAX_ELEMENTS: usize = 64;

/// Reads preamble, `DICM` and meta group, leaves `file` at the first byte of the data set and returns Transfer Syntax
/// UID (0002,0010).
///
/// The group ends where its number ends; Group Length, which is wrong in some files, does not count.
pub(crate) fn transfer_syntax(file: &mut (impl Read + Seek)) -> Result<String, SourceError> {
    let broken = |what: &str| SourceError::Parse(what.to_owned());
    let mut start = [0u8; 132];
    file.read_exact(&mut start)?;
    if !start.ends_with(b"DICM") {
        return Err(broken("no DICM after the preamble"));
    }
    let mut syntax = None;
    for _ in 0..MAX_ELEMENTS {
        let mut head = [0u8; 8];
        file.read_exact(&mut head)?;
        let [g0, g1, e0, e1, v0, v1, l0, l1] = head;
        if [g0, g1] != [0x02, 0x00] {
            file.seek(SeekFrom::Current(-8))?;
            return syntax.ok_or_else(|| broken("no transfer syntax UID in the meta group"));
        }
        let length = if matches!(&[v0, v1], b"OB" | b"UN" | b"OW" | b"UT") {
            let mut long = [0u8; 4];
            file.read_exact(&mut long)?;
            u32::from_le_bytes(long) as usize
        } else {
            usize::from(u16::from_le_bytes([l0, l1]))
        };
        if length > MAX_VALUE {
            return Err(broken("a meta element is too long"));
        }
        let mut value = vec![0u8; length];
        file.read_exact(&mut value)?;
        if [e0, e1] == [0x10, 0x00] {
            syntax = Some(String::from_utf8_lossy(&value).trim_matches(['\0', ' ']).to_owned());
        }
    }
    Err(broken("too many meta elements"))
}
