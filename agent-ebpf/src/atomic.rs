//! One atomic add, the only one the oldest instruction set has.
//!
//! `core` offers no read-modify-write on this target (it declares no compare-and-swap), so the
//! instruction is written out: `BPF_STX | BPF_ATOMIC | BPF_ADD`, in every kernel with eBPF.

use core::{arch::asm, cell::UnsafeCell, ptr};

/// Adds to a counter that other CPUs, or an interrupt on this one, may add to as well.
///
/// # Safety
/// `counter` must be an aligned `u64` in a map (the verifier checks it again).
#[inline(always)]
pub unsafe fn add(counter: *mut u64, addend: i64) {
    // SAFETY: by contract of this function.
    unsafe {
        asm!(
            "lock *(u64 *)({counter} + 0) += {addend}",
            counter = in(reg) counter,
            addend = in(reg) addend,
            options(nostack),
        );
    }
}

/// A number all programs share on all CPUs, in the map of zeroed statics.
#[repr(transparent)]
pub struct Shared(UnsafeCell<u64>);

// SAFETY: written only by the atomic instruction above, read only by one aligned load.
unsafe impl Sync for Shared {}

impl Shared {
    /// Starts at zero.
    pub const fn zero() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// Adds atomically.
    #[inline(always)]
    pub fn add(&self, addend: i64) {
        // SAFETY: the static is an aligned `u64` in a map.
        unsafe { add(self.0.get(), addend) };
    }

    /// The number now; one load.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: as in `add`; volatile, because other programs write it.
        unsafe { ptr::read_volatile(self.0.get()) }
    }
}
