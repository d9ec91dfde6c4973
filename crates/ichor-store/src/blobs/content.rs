//! What is in a file, held against what the index says of it: a medium that forgets a bit says nothing of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use blake3::Hasher;

/// Bytes read at once; the first piece holds every header.
const PIECE: u64 = 128 << 10;

/// Says of the first bytes of a file how many of them come before what its digest is of; `None` if it has no header that can
/// be understood. What a header is, this crate does not know.
pub type HeaderLength = fn(&[u8]) -> Option<u64>;

/// Why a file was not read to its end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It cannot be read.
    Read(io::Error),
    /// Whoever takes its bytes has failed.
    Take(io::Error),
}

/// A file that was read to its end.
#[derive(Debug)]
pub(crate) struct Content {
    size: u64,
    whole: [u8; 32],
    /// Of what follows the header, if there is one.
    data_set: Option<[u8; 32]>,
}

impl Content {
    /// Reads a file to its end and hands every byte on.
    pub(crate) fn read(
        path: &Path,
        header: HeaderLength,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Self, Halt> {
        let mut file = File::open(path).map_err(Halt::Read)?;
        let (mut whole, mut data_set) = (Hasher::new(), Hasher::new());
        let (mut size, mut header_length) = (0, None);
        let mut piece = Vec::new();
        loop {
            piece.clear();
            (&mut file).take(PIECE).read_to_end(&mut piece).map_err(Halt::Read)?;
            if size == 0 {
                header_length = header(&piece).filter(|length| (1..=piece.len() as u64).contains(length));
            }
            if piece.is_empty() {
                break;
            }
            whole.update(&piece);
            if let Some(length) = header_length {
                let skipped = if size == 0 { usize::try_from(length).unwrap_or(piece.len()) } else { 0 };
                data_set.update(&piece[skipped..]);
            }
            take(&piece).map_err(Halt::Take)?;
            size += piece.len() as u64;
        }
        let data_set = header_length.map(|_| data_set.finalize().into());
        Ok(Self { size, whole: whole.finalize().into(), data_set })
    }

    /// Holds the file against its row: the digest is that of the data set of what was received, and of the whole file of
    /// what was made here.
    pub(crate) fn check(&self, size: u64, digest: &[u8; 32]) -> Result<(), String> {
        if self.size != size {
            return Err(format!("has {} bytes, the database says {size}", self.size));
        }
        if self.whole == *digest || self.data_set.as_ref() == Some(digest) {
            return Ok(());
        }
        Err("is damaged: its content is not what was written (BLAKE3)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five(_: &[u8]) -> Option<u64> {
        Some(5)
    }

    fn none(_: &[u8]) -> Option<u64> {
        None
    }

    fn beyond(_: &[u8]) -> Option<u64> {
        Some(u64::MAX)
    }

    #[test]
    fn digests_are_of_the_file_or_of_what_follows_its_header() {
        let folder = crate::folder();
        let path = folder.path().join("blob");
        for length in [5, 6, 1000, PIECE as usize, PIECE as usize + 1, 3 * PIECE as usize + 77] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let mut copy = Vec::new();
            let content = Content::read(&path, five, |piece| {
                copy.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
            assert_eq!(copy, bytes);
            let (whole, data_set): ([u8; 32], [u8; 32]) =
                (blake3::hash(&bytes).into(), blake3::hash(&bytes[5..]).into());
            let size = length as u64;
            assert_eq!(content.check(size, &whole), Ok(()), "{length}");
            assert_eq!(content.check(size, &data_set), Ok(()), "{length}");
            assert!(content.check(size + 1, &whole).unwrap_err().starts_with(&format!("has {length} bytes")));
            for header in [none as HeaderLength, beyond] {
                let content = Content::read(&path, header, |_| Ok(())).unwrap();
                assert_eq!(content.check(size, &whole), Ok(()));
                assert!(content.check(size, &data_set).unwrap_err().starts_with("is damaged"), "{length}");
            }
            let mut flipped = bytes.clone();
            flipped[length - 1] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let content = Content::read(&path, five, |_| Ok(())).unwrap();
            assert!(content.check(size, &whole).is_err() && content.check(size, &data_set).is_err() || length == 5);
        }
    }

    #[test]
    fn who_fails_is_told_apart() {
        let folder = crate::folder();
        let path = folder.path().join("blob");
        assert!(matches!(Content::read(&path, none, |_| Ok(())), Err(Halt::Read(_))));
        std::fs::write(&path, b"x").unwrap();
        let full = |_: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(Content::read(&path, none, full), Err(Halt::Take(_))));
        std::fs::write(&path, b"").unwrap();
        assert_eq!(Content::read(&path, five, full).unwrap().check(0, blake3::hash(b"").as_bytes()), Ok(()));
    }
}
