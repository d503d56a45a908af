//! Runs the kernel program that looks at stale attempts on their way.
//!
//! It hangs on no hook: the agent runs it for one attempt at a time (`BPF_PROG_TEST_RUN` of a raw
//! tracepoint program, Linux 5.10). So an attempt that is not followed costs nothing, and neither
//! does any reply.

use std::io;
use std::os::fd::AsFd;

use agent_common::follow::{FOLLOWED_MAX, Followed};
use agent_common::key::TupleKey;
use aya::maps::{HashMap, MapData};
use aya::programs::ProgramFd;
use aya_obj::generated::{bpf_attr, bpf_cmd};
use zerocopy::IntoBytes;

use super::fexit::{bpf, fd_number};

/// Attempts looked at per drain: a bound on the time a drain may take, about 1 ms. With more on
/// their way a refusal is seen some drains later.
const LOOKS_PER_DRAIN: usize = 256;

/// Attempts of one round: a full table, however the iteration goes.
const ROUND_MAX: usize = FOLLOWED_MAX as usize;

/// Words the program takes the tuple in.
const ARGUMENT_WORDS: usize = size_of::<TupleKey>().div_ceil(size_of::<u64>());

/// The attempts on their way and the program that looks at one.
pub struct Outcomes {
    followed: HashMap<MapData, TupleKey, Followed>,
    program: Option<ProgramFd>,
    /// Attempts of this round not looked at yet.
    round: Vec<TupleKey>,
}

impl Outcomes {
    /// Nothing is looked at before [`Self::run_by`].
    pub const fn new(followed: HashMap<MapData, TupleKey, Followed>) -> Self {
        Self {
            followed,
            program: None,
            round: Vec::new(),
        }
    }

    /// Looks with this program from now on.
    pub fn run_by(&mut self, program: ProgramFd) {
        self.program = Some(program);
    }

    /// Lets go of the program.
    pub fn stop(&mut self) {
        self.program = None;
        self.round.clear();
    }

    /// Looks at the next attempts; what they became is counted and recorded by the program. Returns
    /// whether there are attempts whose outcome is open.
    pub fn look(&mut self) -> bool {
        let Some(program) = &self.program else {
            return false;
        };
        if self.round.is_empty() {
            // A key removed meanwhile ends or restarts the iteration: the next drain goes on.
            let keys = self.followed.keys().filter_map(Result::ok);
            self.round = keys.take(ROUND_MAX).collect();
        }
        let open = !self.round.is_empty();
        let keep = self.round.len().saturating_sub(LOOKS_PER_DRAIN);
        for tuple in self.round.drain(keep..) {
            if let Err(error) = run(program, &tuple) {
                log::warn!(
                    "BPF_PROG_TEST_RUN is not supported ({error}; needs Linux 5.10): outcomes \
                     `refused` and `timed_out` are not reported"
                );
                self.program = None;
                return false;
            }
        }
        open
    }
}

fn run(program: &ProgramFd, tuple: &TupleKey) -> io::Result<()> {
    let mut argument = [0_u64; ARGUMENT_WORDS];
    let bytes = argument.as_mut_bytes();
    bytes[..size_of::<TupleKey>()].copy_from_slice(tuple.as_bytes());
    // SAFETY: an all-zero `bpf_attr` is valid: integers and null pointers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.test.prog_fd = fd_number(program.as_fd())?;
    attr.test.ctx_in = argument.as_ptr() as u64;
    attr.test.ctx_size_in = u32::try_from(size_of_val(&argument)).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map(drop)
}
