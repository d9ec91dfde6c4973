//! Where the model runs.

use std::path::PathBuf;
use std::sync::OnceLock;

use ichor_core::DeviceChoice;
use tch::{Cuda, Device};
use thiserror::Error;
use tracing::{info, warn};

/// A device that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// No CUDA at all.
    #[error("device cuda:{index}: {why}")]
    NoCuda {
        /// The GPU that was asked for.
        index: usize,
        /// Why there is none.
        why: String,
    },
    /// Fewer GPUs.
    #[error("device cuda:{index}: there are {count} GPUs, counted from 0")]
    NoSuch {
        /// The GPU that was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
}

/// Settles on a device, and says in the log which. Call it before the process makes its first tensor: libtorch looks for
/// CUDA once.
///
/// # Errors
/// [`DeviceError`] if a particular GPU was asked for and is not there.
pub fn resolve(choice: DeviceChoice) -> Result<Device, DeviceError> {
    let device = match (choice, usable_gpus(choice)) {
        (DeviceChoice::Cpu, _) => Device::Cpu,
        (DeviceChoice::Auto, Ok(_)) => Device::Cuda(0),
        (DeviceChoice::Auto, Err(why)) => {
            info!("the model runs on the CPU: {why}");
            return Ok(Device::Cpu);
        }
        (DeviceChoice::Cuda(index), Ok(count)) if index < count => Device::Cuda(index),
        (DeviceChoice::Cuda(index), Ok(count)) => return Err(DeviceError::NoSuch { index, count }),
        (DeviceChoice::Cuda(index), Err(why)) => return Err(DeviceError::NoCuda { index, why }),
    };
    info!("the model runs on {}", device_name(device));
    Ok(device)
}

/// How many GPUs there are, at least one, or why there is none.
fn usable_gpus(choice: DeviceChoice) -> Result<usize, String> {
    if choice == DeviceChoice::Cpu {
        return Err("the CPU was asked for".to_owned());
    }
    open_cuda()?;
    if !Cuda::is_available() {
        return Err("libtorch finds no usable GPU or driver".to_owned());
    }
    usize::try_from(Cuda::device_count()).ok().filter(|&count| count > 0).ok_or_else(|| "no GPU".to_owned())
}

/// `cpu` or `cuda:N`.
#[must_use]
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

/// Opens libtorch's CUDA part if it lies beside the rest: its kernels register themselves when it is opened, and
/// nothing refers to it, so linking drops it. Done once a process.
fn open_cuda() -> Result<(), String> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED
        .get_or_init(|| {
            let Some(library) = libtorch_folder().map(|folder| folder.join("libtorch_cuda.so")) else {
                return Err("the folder of libtorch cannot be found".to_owned());
            };
            if !library.is_file() {
                return Err("this libtorch was built without CUDA".to_owned());
            }
            open_for_good(&library).inspect_err(|error| warn!("{} does not open: {error}", library.display()))
        })
        .clone()
}

/// The folder from which this process loaded libtorch.
fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library = maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        path.ends_with("/libtorch_cpu.so").then(|| PathBuf::from(path))
    })?;
    library.parent().map(PathBuf::from)
}

#[cfg(unix)]
fn open_for_good(library: &std::path::Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[expect(unsafe_code, reason = "opening a library runs its initialisers; there is no safe way")]
    // SAFETY: the library is the CUDA part of the libtorch that this process already runs. Its initialisers register
    // kernels; they are run once, before the first tensor, and the library is never closed.
    let opened = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
    opened.map(std::mem::forget).map_err(|error| error.to_string())
}

#[cfg(not(unix))]
fn open_for_good(_library: &std::path::Path) -> Result<(), String> {
    Err("CUDA is only opened on Unix".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_is_found_where_it_was_loaded_from() {
        assert!(libtorch_folder().unwrap().join("libtorch_cpu.so").is_file());
    }

    #[test]
    fn auto_always_finds_something_and_a_missing_gpu_is_named() {
        assert_eq!(resolve(DeviceChoice::Cpu), Ok(Device::Cpu));
        resolve(DeviceChoice::Auto).unwrap();
        let error = resolve(DeviceChoice::Cuda(200)).unwrap_err().to_string();
        assert!(error.starts_with("device cuda:200: "), "{error}");
    }
}
