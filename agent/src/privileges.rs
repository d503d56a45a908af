//! What this process may do: capabilities that observing does not need are given up before any
//! thread starts, and all of them afterwards if the user says so.
//!
//! A thread inherits the capabilities of the thread that starts it, so [`limit`] comes first in
//! `main`. `docs/security.md` says what each capability that stays is for.

use rustix::io::{self, Errno};
use rustix::thread::{
    self, CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::cli::RunArgs;
use crate::error::Failure;

/// Ports below belong to `CAP_NET_BIND_SERVICE`.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Kept while the agent runs: loading and attaching programs (again, when ip_vs is loaded again),
/// the module's types, addresses of its functions, the IPVS table, other network namespaces.
const OBSERVING: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYSLOG)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_PTRACE);

/// Gives up what `run` with these options does not need, and the way to get more by `execve`.
///
/// # Errors
/// When the kernel refuses, which it does not for giving up.
pub fn limit(args: &RunArgs) -> Result<(), Failure> {
    let mut kept = OBSERVING;
    if args.http.listen.port() < UNPRIVILEGED_PORT {
        kept |= CapabilitySet::NET_BIND_SERVICE;
    }
    // Files that may be another user's: read again when they change or after SIGHUP, the types when
    // ip_vs is loaded again.
    let files = [
        &args.web_config,
        &args.observe.kernel.btf,
        &args.common.config,
    ];
    if files.into_iter().any(Option::is_some) {
        kept |= CapabilitySet::DAC_READ_SEARCH;
    }
    keep(kept).map_err(refused)
}

/// Gives up every capability of the calling thread.
///
/// # Errors
/// As [`limit`].
pub fn drop_all() -> Result<(), Failure> {
    keep(CapabilitySet::empty()).map_err(refused)
}

fn refused(error: Errno) -> Failure {
    Failure::failed(format!("cannot give up capabilities: {error}"))
}

/// Keeps of the calling thread's capabilities at most these.
fn keep(wanted: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    let had = capabilities(None)?;
    // Takes CAP_SETPCAP, and matters only to programs that `execve` starts: there are none.
    for capability in (CapabilitySet::all() - wanted).iter() {
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    thread::clear_ambient_capability_set()?;
    let kept = had.permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: what is given up is gone for good.
    #[test]
    fn what_is_not_wanted_is_gone_from_every_set() {
        let kept = std::thread::spawn(|| {
            keep(CapabilitySet::NET_ADMIN | CapabilitySet::SYSLOG).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().trim().to_owned()
            };
            (
                capabilities(None).unwrap(),
                [field("CapInh:"), field("CapAmb:"), field("NoNewPrivs:")],
            )
        });
        let (sets, [inherited, ambient, no_new_privs]) = kept.join().unwrap();
        let wanted = CapabilitySet::NET_ADMIN | CapabilitySet::SYSLOG;
        assert!(wanted.contains(sets.permitted), "{:?}", sets.permitted);
        assert_eq!(sets.permitted, sets.effective);
        assert_eq!(
            [&*inherited, &*ambient, &*no_new_privs],
            ["0000000000000000", "0000000000000000", "1"]
        );
    }
}
