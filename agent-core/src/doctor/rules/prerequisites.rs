//! What observing needs.

use super::super::facts::{
    CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, Fact, Facts, IpVs, Limit, Limits, Lockdown, Unmounted,
    Version,
};
use super::verdict::{Advice, Judged, Remedy, Risk, Sure, Verdict, need, not_applicable};
use crate::kernel::builtin;

/// The first kernel that publishes its own types.
const OLDEST: Version = Version(5, 4, 0);

const MISSING: (Risk, Sure) = (Risk::High, Sure::Observed);

fn judged(verdict: Judged) -> Verdict {
    verdict.unwrap_or_else(|early| early)
}

/// Ok or advice by a fact that is a plain yes or no.
fn present(fact: &Fact<bool>, name: &str, missing: impl FnOnce() -> Advice) -> Judged {
    Ok(match need(fact, name)? {
        true => Verdict::Ok,
        false => missing().into(),
    })
}

pub(super) fn kernel(facts: &Facts) -> Verdict {
    judged(need(&facts.kernel.release, "the kernel's release").map(|release| {
        match facts.kernel.version() {
            Some(version) if version >= OLDEST => Verdict::Ok,
            Some(_) => Advice::new(
                MISSING,
                format!("this kernel is {release}"),
                "5.4 or later",
                "the kernel publishes its own types since 5.4, and without them no offset is known",
            )
            .into(),
            None => Verdict::Unknown {
                because: format!("the kernel's release is {release:?}, which begins with no version"),
            },
        }
    }))
}

pub(super) fn btf(facts: &Facts) -> Verdict {
    judged(present(&facts.kernel.btf, "/sys/kernel/btf", || {
        Advice::new(
            MISSING,
            "this kernel has no BTF (/sys/kernel/btf/vmlinux)",
            "a kernel built with CONFIG_DEBUG_INFO_BTF",
            "where the kernel keeps what is read differs between kernels, even within a stable \
             series; BTF says where",
        )
    }))
}

pub(super) fn kprobes(facts: &Facts) -> Verdict {
    judged(present(
        &facts.kernel.kprobes,
        "/sys/bus/event_source",
        || {
            Advice::new(
                MISSING,
                "this kernel has no kprobes",
                "a kernel built with CONFIG_KPROBES and CONFIG_BPF_EVENTS",
                "without kprobes a kernel also lacks BPF tracing, so nothing can be attached; some \
             virtual machine monitors ship such a kernel",
            )
        },
    ))
}

pub(super) fn rights(facts: &Facts) -> Verdict {
    let missing = || {
        let bpf = facts.has(CAP_BPF) == Some(true) && facts.has(CAP_PERFMON) == Some(true);
        let has = if bpf {
            ", CAP_BPF and CAP_PERFMON alone do not do"
        } else {
            ""
        };
        Advice::new(
            MISSING,
            format!("this process lacks CAP_SYS_ADMIN{has}"),
            "root, or that capability",
            "the kernel hands out the types of a module, and lets programs attach to it, only to \
             CAP_SYS_ADMIN",
        )
    };
    judged(
        need(&facts.capabilities, "this process's capabilities").map(|_| {
            match facts.has(CAP_SYS_ADMIN) {
                Some(true) => Verdict::Ok,
                _ => missing().into(),
            }
        }),
    )
}

pub(super) fn mounts(facts: &Facts) -> Verdict {
    judged(need(&facts.kernel.unmounted, "mounts").map(|unmounted| judge_mounts(unmounted)))
}

fn judge_mounts(unmounted: &[Unmounted]) -> Verdict {
    let (found, want) = match unmounted.first() {
        None => return Verdict::Ok,
        Some(Unmounted::Proc) => (
            "there is no /proc/sys",
            "procfs mounted at /proc, without subset=pid",
        ),
        Some(Unmounted::Sys) => (
            "there is no /sys/kernel",
            "sysfs mounted at /sys; in a container, the node's",
        ),
    };
    let why = "the kernel's release, parameters and symbols are read from procfs; its types and \
               modules from sysfs";
    Advice::new(MISSING, found, want, why).into()
}

pub(super) fn lockdown(facts: &Facts) -> Verdict {
    judged(
        need(&facts.kernel.lockdown, "the kernel's lockdown").map(|mode| {
            match mode {
        Lockdown::None | Lockdown::Integrity => Verdict::Ok,
        Lockdown::NotShown => not_applicable(
            "securityfs, which shows it, is not mounted, and the command line sets none",
        ),
        Lockdown::Confidentiality => Advice::new(
            MISSING,
            "the kernel is locked down (lockdown=confidentiality)",
            "lockdown=integrity or none",
            "in this mode the kernel loads no BPF program that reads its memory, also not for root",
        )
        .into(),
    }
        }),
    )
}

/// Open files `run` needs: 24 maps, 34 programs and 44 links when everything is attached (102 on
/// 6.12), a perf buffer on each of up to 64 CPUs, 64 HTTP connections, and some to read files with.
pub const OPEN_FILES_NEEDED: u64 = 256;

/// Address space `run` needs, bytes: the kernel's types (some 10 MB), the symbols' addresses, the
/// event ring and stacks of threads; 106 MB are mapped on 6.12.
pub const ADDRESS_BYTES_NEEDED: u64 = 128 * 1024 * 1024;

pub(super) fn limits(facts: &Facts) -> Verdict {
    judged(need(&facts.limits, "resource limits").map(judge_limits))
}

fn judge_limits(limits: &Limits) -> Verdict {
    let checks = [
        (
            "RLIMIT_NOFILE",
            "LimitNOFILE=",
            limits.open_files,
            OPEN_FILES_NEEDED,
        ),
        (
            "RLIMIT_AS",
            "LimitAS=",
            limits.address_bytes,
            ADDRESS_BYTES_NEEDED,
        ),
    ];
    let below = |check: &&(_, _, Limit, u64)| check.2 < Limit::Of(check.3);
    let Some((name, unit_key, limit, needed)) = checks.iter().find(below) else {
        return Verdict::Ok;
    };
    Advice::new(
        MISSING,
        format!("{name} is {limit}"),
        format!("{needed} or more ({unit_key} of a systemd unit, ulimit)"),
        "maps, programs and their links are open files; the types of the kernel are held in memory \
         while programs are attached",
    )
    .into()
}

pub(super) fn ip_vs(facts: &Facts) -> Verdict {
    judged(need(&facts.ip_vs, "ip_vs").map(|found| {
        match found {
            IpVs::Module | IpVs::BuiltIn => Verdict::Ok,
            IpVs::Absent => Advice::new(
                (Risk::Low, Sure::Observed),
                "ip_vs is not loaded",
                "ip_vs loaded",
                "there is nothing to observe without it; `ipvs-lens run` waits for it",
            )
            .by(Remedy {
                commands: vec!["modprobe ip_vs".to_owned()],
                undo: vec!["modprobe -r ip_vs".to_owned()],
                lasting: Vec::new(),
            })
            .into(),
        }
    }))
}

pub(super) fn ip_vs_btf(facts: &Facts) -> Verdict {
    judged(judge_ip_vs_btf(facts))
}

fn judge_ip_vs_btf(facts: &Facts) -> Judged {
    match need(&facts.ip_vs, "ip_vs")? {
        IpVs::Absent => return Err(not_applicable("ip_vs is not loaded")),
        IpVs::BuiltIn => {
            return Err(not_applicable(
                "ip_vs is built into the kernel, whose own BTF describes it",
            ));
        }
        IpVs::Module => {}
    }
    let release = facts.kernel.release.known();
    if release.is_some_and(|release| builtin::of_release(release).is_some()) {
        return Ok(Verdict::Ok);
    }
    present(&facts.kernel.btf_ip_vs, "/sys/kernel/btf", || {
        Advice::new(
            (Risk::High, Sure::Observed),
            "ip_vs has no BTF (/sys/kernel/btf/ip_vs)",
            "a kernel built with CONFIG_DEBUG_INFO_BTF_MODULES, or its types by --btf FILE",
            "the structures of IPVS are described by the module's own BTF; without it only \
             kernels whose layout is built in can be observed",
        )
    })
}
