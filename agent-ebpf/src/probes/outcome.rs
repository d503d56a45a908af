//! What IPVS's entry and the clock say about a stale attempt.
//!
//! **Measures** refusals (the entry is closed) and silence (nothing within the timeout).
//! **Hook** none: the agent runs it (`BPF_PROG_TEST_RUN`, Linux 5.10) for each followed attempt at
//! every drain, with the attempt's tuple as the arguments. So replies carry no program at all.
//! **Cannot see** refusals where replies do not pass this node (direct routing, tunnel): those
//! time out. A refusal is timed to the drain that saw it.
//! **Cost** nothing while no attempt is followed; one system call per followed attempt and drain.

use agent_common::key::TupleKey;
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{call::finish, follow};

/// Words of 64 bits that hold a [`TupleKey`].
const KEY_WORDS: usize = size_of::<TupleKey>().div_ceil(size_of::<u64>());

/// The key and the rest of its last word.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Argument {
    tuple: TupleKey,
    rest: [u8; KEY_WORDS * size_of::<u64>() - size_of::<TupleKey>()],
}

// It is on no hook; this tracepoint, whose arguments it does not read, only gives it a type.
// match-proto 5.10: sys_enter(struct pt_regs *regs, long id)
// match-proto 7.2: sys_enter(struct pt_regs *regs, long id)
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn il_outcome(ctx: RawTracePointContext) -> i32 {
    let words: [u64; KEY_WORDS] = [
        ctx.arg(0),
        ctx.arg(1),
        ctx.arg(2),
        ctx.arg(3),
        ctx.arg(4),
        ctx.arg(5),
    ];
    // SAFETY: same size, and every bit pattern is a valid `Argument`.
    let argument: Argument = unsafe { core::mem::transmute(words) };
    finish(follow::look(&ctx, &argument.tuple))
}
