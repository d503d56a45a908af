//! A local client found no free source port.
//!
//! **Measures** connects that fail with `EADDRNOTAVAIL` before a packet leaves, by destination.
//! **Hook** `__inet_hash_connect` at return: it looks for the port, for IPv4 and IPv6.
//! **Cannot see** a client that binds to any port first: its `bind` fails, with `EADDRINUSE`. A
//! client that chose its port itself is not counted: others may be free.
//! **Cost** once per connect of a local socket: one comparison unless it failed.

use agent_common::{node::NodeEvent, stat::Stat};
use aya_ebpf::{EbpfContext, macros::fexit, programs::FExitContext};
use core::arch::asm;

use crate::{
    attempt,
    call::finish,
    maps, node,
    read::{field, offset},
    socket,
};

/// `-EADDRNOTAVAIL` (include/uapi/asm-generic/errno.h).
const EADDRNOTAVAIL: i32 = -99;

// match-proto 5.10: int __inet_hash_connect(struct inet_timewait_death_row *death_row, struct sock *sk, u64 port_offset, int (*check_established)(struct inet_timewait_death_row *, struct sock *, __u16, struct inet_timewait_sock **))
// match-proto 7.2: int __inet_hash_connect(struct inet_timewait_death_row *death_row, struct sock *sk, u64 port_offset, u32 hash_port0, int (*check_established)(struct inet_timewait_death_row *, struct sock *, __u16, struct inet_timewait_sock **, bool, u32))
#[fexit(function = "__inet_hash_connect")]
pub fn il_connect(ctx: FExitContext) -> i32 {
    finish(tried(&ctx))
}

/// What the function returned: it stands behind the arguments, and kernels differ in their number.
///
/// The loads are written out: the compiler would make one of a computed address of them, which no
/// verifier allows in a context.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the result is an `int`")]
fn result(ctx: &FExitContext) -> Option<i32> {
    let context = ctx.as_ptr();
    let result: u64;
    match maps::config().connect_args {
        // SAFETY: the verifier proves that the context has a word there.
        4 => unsafe {
            asm!("{0} = *(u64 *)({1} + 32)", out(reg) result, in(reg) context, options(nostack));
        },
        // SAFETY: as above.
        5 => unsafe {
            asm!("{0} = *(u64 *)({1} + 40)", out(reg) result, in(reg) context, options(nostack));
        },
        _ => return None,
    }
    Some(result as i32)
}

#[inline(always)]
fn tried(ctx: &FExitContext) -> Result<(), Stat> {
    if result(ctx) != Some(EADDRNOTAVAIL) || !attempt::is_armed() {
        return Ok(());
    }
    let sk: u64 = ctx.arg(1);
    let chosen_port: u16 = field(sk, offset!(sock_num))?;
    if chosen_port == 0 {
        node::one(&socket::remote(sk, NodeEvent::SourcePortsExhausted)?);
    }
    Ok(())
}
