//! The two ways in: a probe is written once against [`Call`] and hangs on either.
//!
//! [`Fexit`] sees arguments and result at once and may load from them directly.
//! [`Kretprobe`] sees only the result; [`enter`] keeps the arguments of calls worth it until then.

use agent_common::stat::Stat;
use aya_ebpf::{
    EbpfContext,
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use core::ffi::c_void;

use crate::{
    count,
    maps::{CALLS, CALLS_OPEN},
    read::{self, Load, Probe},
    types::ARGS_KEPT,
};

/// Bytes the stack pointer moves between a function's first instruction and the place in its
/// caller where a return probe fires: the return address, popped.
const RETURN_ADDRESS_BYTES: u64 = 8;

#[cfg(not(bpf_target_arch = "x86_64"))]
compile_error!("the kprobe way in knows the registers of x86_64 only");

/// One call of a traced function that has just returned.
pub trait Call: Load + EbpfContext {
    /// The `n`th argument, from 0.
    fn arg(&self, n: usize) -> u64;
    /// What the function returned.
    fn ret(&self) -> u64;
}

/// A call seen by fexit; `ARGS` is the number of the function's arguments.
pub struct Fexit<const ARGS: usize>(pub FExitContext);

impl<const ARGS: usize> Load for Fexit<ARGS> {
    #[inline(always)]
    fn load<T: Copy>(&self, base: u64, offset: u16) -> Probe<T> {
        Ok(read::trusted(base, offset))
    }
}

impl<const ARGS: usize> EbpfContext for Fexit<ARGS> {
    fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

impl<const ARGS: usize> Call for Fexit<ARGS> {
    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        self.0.arg(n)
    }

    #[inline(always)]
    fn ret(&self) -> u64 {
        // The result stands behind the arguments; the helper that reads it is younger (5.17).
        self.0.arg(ARGS)
    }
}

/// The context of any program, for functions that are not inlined: passed in one register, and one
/// copy of such a function serves the programs of every kind.
#[derive(Clone, Copy)]
pub struct BareContext(*mut c_void);

impl BareContext {
    /// The context alone.
    #[inline(always)]
    pub fn of(context: &impl EbpfContext) -> Self {
        Self(context.as_ptr())
    }
}

impl EbpfContext for BareContext {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}

/// A call seen by a kprobe at its entry.
pub struct Entry<'a>(pub &'a ProbeContext);

impl EbpfContext for Entry<'_> {
    fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

impl Load for Entry<'_> {
    #[inline(always)]
    fn load<T: Copy>(&self, base: u64, offset: u16) -> Probe<T> {
        read::field(base, offset)
    }
}

impl Entry<'_> {
    /// The `n`th argument, from 0.
    #[inline(always)]
    pub fn arg(&self, n: usize) -> u64 {
        self.0.arg(n).unwrap_or(0)
    }

    /// Keeps the arguments until the call returns.
    #[inline(always)]
    pub fn keep(&self) -> Result<(), Stat> {
        self.keep_with(self.arg(4))
    }

    /// Keeps the first four arguments and one value more, in the place of the fifth.
    #[inline(always)]
    pub fn keep_with(&self, value: u64) -> Result<(), Stat> {
        let args = [self.arg(0), self.arg(1), self.arg(2), self.arg(3), value];
        // SAFETY: the kernel hands a valid register set to the program.
        let stack_pointer = unsafe { (*self.0.regs).rsp };
        CALLS
            .insert(&stack_pointer, &args, 0)
            .map_err(|_| Stat::CallsFull)?;
        CALLS_OPEN.add(1);
        Ok(())
    }
}

/// A call seen by a kretprobe, with the arguments its entry kept.
pub struct Kretprobe {
    context: RetProbeContext,
    args: [u64; ARGS_KEPT],
}

impl Kretprobe {
    /// The call that returns here, if its entry kept the arguments.
    #[inline(always)]
    pub fn returned(context: RetProbeContext) -> Option<Self> {
        if CALLS_OPEN.get() == 0 {
            return None;
        }
        // SAFETY: the kernel hands a valid register set to the program.
        let stack_pointer = unsafe { (*context.regs).rsp } - RETURN_ADDRESS_BYTES;
        // SAFETY: only the return of the same call removes the entry.
        let args = *unsafe { CALLS.get(&stack_pointer) }?;
        if CALLS.remove(&stack_pointer).is_ok() {
            CALLS_OPEN.add(-1);
        }
        Some(Self { context, args })
    }
}

impl Load for Kretprobe {
    #[inline(always)]
    fn load<T: Copy>(&self, base: u64, offset: u16) -> Probe<T> {
        read::field(base, offset)
    }
}

impl EbpfContext for Kretprobe {
    fn as_ptr(&self) -> *mut c_void {
        self.context.as_ptr()
    }
}

impl Call for Kretprobe {
    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        self.args.get(n).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn ret(&self) -> u64 {
        self.context.ret()
    }
}

/// Ends a program: a loss on the way is counted, and the kernel goes on either way.
#[inline(always)]
pub fn finish(result: Result<(), Stat>) -> i32 {
    if let Err(loss) = result {
        count::stat(loss);
    }
    0
}
