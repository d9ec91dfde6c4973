//! Makes the crate's executables and tests find libtorch without environment variables: the folder that
//! `torch-sys` linked against goes into the run path, and so does `../lib` beside a shipped executable.

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let folder = std::fs::canonicalize(&folder).unwrap_or_else(|_| folder.into());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
