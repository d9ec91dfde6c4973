//! The body of a STOW-RS request: multipart/related with one part an instance (PS3.18 8.7.3, RFC 2387), streamed.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::error::StowError;

/// Bytes that are read from a file at once.
const CHUNK: usize = 64 * 1024;

/// A body that is ready to be sent: what its length is, where its parts end, which files go in.
pub(crate) struct Multipart {
    boundary: String,
    parts: Vec<(PathBuf, u64)>,
}

impl Multipart {
    /// Measures the files and finds a boundary that occurs in none: the digest of all their bytes, which no file can
    /// hold on purpose.
    ///
    /// # Errors
    /// [`StowError::File`] for a file that cannot be read.
    pub(crate) async fn measure(paths: impl IntoIterator<Item = &Path>) -> Result<Self, StowError> {
        let mut hash = Sha256::new();
        let mut parts = Vec::new();
        let mut buffer = vec![0u8; CHUNK];
        for path in paths {
            let unreadable = |source| StowError::File { path: path.to_owned(), source };
            let mut file = File::open(path).await.map_err(unreadable)?;
            let mut length = 0u64;
            loop {
                let n = file.read(&mut buffer).await.map_err(unreadable)?;
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
                length += n as u64;
            }
            hash.update(length.to_be_bytes());
            parts.push((path.to_owned(), length));
        }
        let digest = hex::encode(hash.finalize());
        Ok(Self { boundary: format!("ichor-{}", &digest[..48]), parts })
    }

    /// The Content-Type header. The quotes around the type are required by RFC 2387 for its slash.
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/related; type=\"application/dicom\"; boundary={}", self.boundary)
    }

    /// What stands before the part of this index.
    fn head(&self, index: usize) -> String {
        let line_end = if index == 0 { "" } else { "\r\n" };
        format!("{line_end}--{}\r\nContent-Type: application/dicom\r\n\r\n", self.boundary)
    }

    /// What ends the body.
    fn tail(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    /// Length of the whole body in bytes: peers that do not read chunked bodies want it.
    pub(crate) fn content_length(&self) -> u64 {
        let parts = self.parts.iter().enumerate().map(|(i, (_, length))| self.head(i).len() as u64 + length);
        parts.sum::<u64>() + self.tail().len() as u64
    }

    /// The body. A file is opened when its turn comes; one that has become shorter meanwhile is an error, one that
    /// has grown is cut, so that the announced length holds.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let tail = self.tail();
        let parts: Vec<(String, PathBuf, u64)> =
            self.parts.iter().enumerate().map(|(i, (path, length))| (self.head(i), path.clone(), *length)).collect();
        let parts = stream::iter(parts).map(|(head, path, length)| {
            let head = stream::once(async move { Ok(Bytes::from(head)) });
            let file = stream::once(async move {
                let file = File::open(path).await?;
                Ok::<_, io::Error>(ReaderStream::with_capacity(file.take(length), CHUNK))
            })
            .try_flatten();
            head.chain(file)
        });
        parts.flatten().chain(stream::once(async move { Ok(Bytes::from(tail)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_boundary_and_length() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let big: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        let (a, b) = (write("a", b"\r\n--ichor-"), write("b", &big));
        let multipart = Multipart::measure([a.as_path(), b.as_path()]).await.unwrap();
        let boundary = multipart.boundary.clone();
        assert!(boundary.len() <= 70 && multipart.content_type().ends_with(&format!("boundary={boundary}")));
        let length = multipart.content_length();
        let body: Vec<Bytes> = multipart.into_stream().try_collect().await.unwrap();
        let body = body.concat();
        assert_eq!(body.len() as u64, length);
        let mut expected = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n\r\n--ichor-").into_bytes();
        expected.extend(format!("\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").as_bytes());
        expected.extend(&big);
        expected.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(body == expected);
        let other = Multipart::measure([b.as_path()]).await.unwrap();
        assert_ne!(other.boundary, boundary, "the boundary is of the content");
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let missing = Path::new("no-such-file.dcm");
        let error = Multipart::measure([missing]).await.err().unwrap();
        assert!(error.is_permanent() && error.to_string().contains("no-such-file.dcm"), "{error}");
    }
}
