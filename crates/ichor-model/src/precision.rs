//! What the operator's choice of a precision means to libtorch, and whether the processor has it.

use ichor_core::Precision;
use tch::{Device, Kind};
use tracing::warn;

/// The kind of a factor of a matrix product.
pub(crate) const fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}

/// What `device` computes natively: bfloat16 on a processor without it would be slower and coarser, so that it stays
/// float32 there, and the log says so.
#[must_use]
pub fn available(wanted: Precision, device: Device) -> Precision {
    if wanted == Precision::Bf16 && device == Device::Cpu && !cpu_has_bf16() {
        warn!("the processor has no native bf16 (AVX512_BF16): the model stays at f32");
        return Precision::F32;
    }
    wanted
}

/// [`available`] on the CPU, for those who know no devices.
#[must_use]
pub fn available_on_cpu(wanted: Precision) -> Precision {
    available(wanted, Device::Cpu)
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bf16() -> bool {
    std::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_has_bf16() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_is_had_everywhere_and_bf16_where_the_processor_has_it() {
        assert_eq!(available(Precision::F32, Device::Cpu), Precision::F32);
        assert_eq!(available(Precision::Bf16, Device::Cpu) == Precision::Bf16, cpu_has_bf16());
        assert_eq!(available(Precision::Bf16, Device::Cuda(0)), Precision::Bf16);
    }
}
