//! The only reader of kernel memory.
//!
//! Two ways: [`field`] through a helper for any pointer, and [`trusted`] by a plain load for a
//! structure the verifier knows by type (an argument of a traced function).

use core::ptr;

use agent_common::{
    layout::{ABSENT, KernelLayout},
    stat::Stat,
};
use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};

/// Offsets of kernel fields; set by the agent before loading, constant for the verifier.
#[unsafe(no_mangle)]
pub static LAYOUT: Global<KernelLayout> =
    Global::new(KernelLayout::from_offsets([ABSENT; KernelLayout::LEN]));

/// A step of a kernel program: a value, or the loss to count.
pub type Probe<T> = Result<T, Stat>;

/// Offset of a field, from the table the agent filled in (constant for the verifier).
macro_rules! offset {
    ($field:ident) => {{
        let layout = (&raw const $crate::read::LAYOUT).cast::<agent_common::layout::KernelLayout>();
        // SAFETY: `Global<T>` is transparent over an initialised `T`; the read is volatile
        // because the agent replaces the value before the program is loaded.
        unsafe { core::ptr::read_volatile(&raw const (*layout).$field) }
    }};
}
pub(crate) use offset;

/// How a program may read what its arguments point to.
pub trait Load {
    /// Reads a field of a structure an argument points to.
    fn load<T: Copy>(&self, base: u64, offset: u16) -> Probe<T>;
}

/// Reads a field of any kernel object.
///
/// # Errors
/// [`Stat::ReadFailed`] when the address cannot be read.
#[inline(always)]
pub fn field<T>(base: u64, offset: u16) -> Probe<T> {
    let address = base.wrapping_add(u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address and copies; it never faults.
    unsafe { bpf_probe_read_kernel(address) }.map_err(|_| Stat::ReadFailed)
}

/// Reads a field of an argument whose type the verifier knows, with a plain load.
///
/// The verifier refuses the program when `offset` is no field of that size in that structure.
#[inline(always)]
pub fn trusted<T: Copy>(base: u64, offset: u16) -> T {
    let address = base.wrapping_add(u64::from(offset)) as *const T;
    // SAFETY: the verifier proves base and offset, and a load through a stale pointer reads 0.
    unsafe { ptr::read_volatile(address) }
}
