//! A process of the tests' own that works on a store until it is killed: this very program, with one test of it and the
//! store's place in the environment.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use ichor_store::{Store, StoreOptions, Timestamp};

/// The store of a child and of those who look at what it left.
pub(crate) fn options(folder: &Path) -> StoreOptions {
    StoreOptions::new(&folder.join("ichor.db"), &folder.join("blobs"))
}

/// In the child: opens the store that `variable` names, takes it over and works on it; elsewhere: nothing.
pub(crate) fn work<W: Future<Output = ()>>(variable: &str, taken_over: Timestamp, work: impl FnOnce(Store) -> W) {
    let Some(folder) = std::env::var_os(variable) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&options(Path::new(&folder))).await.unwrap();
        store.recover(taken_over).await.unwrap();
        work(store).await;
    });
}

/// Starts the child, which is the test `test` with the store's place in `variable`; what it prints, line by line.
pub(crate) fn start(test: &str, variable: &str, folder: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(variable, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}
