//! The job log and index, the blobs, and the outbox.
