//! Training and evaluation on slice labels alone.
