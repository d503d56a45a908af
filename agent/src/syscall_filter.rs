//! System calls that this process does not need are denied by seccomp: they fail with EPERM, and
//! never end the process.
//!
//! A list of what is denied, not of what is allowed: an allow-list would have to name every call
//! that the C library makes on any path, of any version, and a call that is missing there ends the
//! agent months later. What is denied here the agent never makes: starting programs, mounting,
//! modules, other processes' memory, other users, the clock. The shipped systemd unit adds an
//! allow-list (`SystemCallFilter=`).

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use aya_obj::generated::bpf_cmd;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter_all_threads,
};

use crate::error::Failure;

/// What `run` never needs.
const UNNEEDED: &[libc::c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // Another kernel, or its modules.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    // The kernel's own log.
    libc::SYS_syslog,
    // Namespaces are entered, never made.
    libc::SYS_unshare,
    // Other users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    // The node's clock and names.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Ways past other checks.
    libc::SYS_personality,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// What attaching, and entering network namespaces, takes.
const ATTACHING: &[libc::c_long] = &[libc::SYS_perf_event_open, libc::SYS_setns];

/// The same among the commands of `bpf(2)`; reading maps and running the loaded program stay.
const ATTACHING_COMMANDS: &[bpf_cmd] = &[
    bpf_cmd::BPF_MAP_CREATE,
    bpf_cmd::BPF_PROG_LOAD,
    bpf_cmd::BPF_PROG_ATTACH,
    bpf_cmd::BPF_RAW_TRACEPOINT_OPEN,
    bpf_cmd::BPF_BTF_LOAD,
    bpf_cmd::BPF_LINK_CREATE,
];

/// What is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// What `run` never needs.
    Unneeded,
    /// The same, and loading and attaching programs.
    Attaching,
}

/// Denies these calls to every thread of the process, and to those it will start. Filters add up.
///
/// # Errors
/// When the kernel takes no filter.
pub fn install(denied: Denied) -> Result<(), Failure> {
    let program = filter(denied);
    program
        .and_then(|program| apply_filter_all_threads(&program))
        .map_err(|error| Failure::failed(format!("cannot install the system call filter: {error}")))
}

fn filter(denied: Denied) -> Result<BpfProgram, Error> {
    // A call without conditions is denied whatever its arguments.
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        UNNEEDED.iter().map(|call| (*call, Vec::new())).collect();
    if denied == Denied::Attaching {
        rules.extend(ATTACHING.iter().map(|call| (*call, Vec::new())));
        let commands: Result<Vec<_>, _> =
            ATTACHING_COMMANDS.iter().copied().map(of_command).collect();
        rules.insert(libc::SYS_bpf, commands?);
    }
    let denial = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denial, ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

/// `bpf(2)` with this command.
fn of_command(command: bpf_cmd) -> Result<SeccompRule, Error> {
    let is_command =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command as u64)?;
    Ok(SeccompRule::new(vec![is_command])?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;

    use super::*;

    /// In a process of its own: a filter stays, and covers every thread.
    #[test]
    fn what_is_denied_fails_and_the_rest_goes_on() {
        const CHILD: &str = "IPVS_LENS_FILTER_TEST";
        if std::env::var_os(CHILD).is_none() {
            let name = "syscall_filter::tests::what_is_denied_fails_and_the_rest_goes_on";
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env(CHILD, "1")
                .status();
            assert!(status.unwrap().success());
            return;
        }
        install(Denied::Unneeded).unwrap();
        // One filter more, as after --drop-all-capabilities.
        install(Denied::Attaching).unwrap();
        let started = Command::new("true").status().map_err(|error| error.kind());
        assert_eq!(started.unwrap_err(), ErrorKind::PermissionDenied);
        std::thread::spawn(|| std::fs::read("/proc/self/status").unwrap())
            .join()
            .unwrap();
        std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    }
}
