//! What observing needs.

use super::super::facts::{
    CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, Facts, IpVs, Limit, Limits, Lockdown, Unmounted,
};
use super::verdict::{Advice, Judged, Remedy, Risk, Sure, Verdict, need, not_applicable};
use crate::kernel::builtin;
use crate::kernel::features::{Feature, Features, Found, wanted_for};

const MISSING: (Risk, Sure) = (Risk::High, Sure::Observed);

fn judged(verdict: Judged) -> Verdict {
    verdict.unwrap_or_else(|early| early)
}

/// Features with a rule of their own.
const JUDGED_APART: [Feature; 3] = [Feature::KernelTypes, Feature::IpVsTypes, Feature::Kprobes];

pub(super) fn kernel(facts: &Facts) -> Verdict {
    if facts.kernel.lockdown.known() == Some(&Lockdown::Confidentiality) {
        // It refuses the programs that look, and helpers that are there.
        return not_applicable("the kernel is locked down, which hides what it offers");
    }
    judged(need(&facts.kernel.features, "what the kernel offers to programs").map(judge_features))
}

fn judge_features(features: &Features) -> Verdict {
    let missing = features.missing();
    let mut missing = missing
        .iter()
        .filter(|missing| missing.feature.is_none_or(|it| !JUDGED_APART.contains(&it)))
        .peekable();
    let Some(want) = missing.peek().map(|first| first.want.clone()) else {
        return Verdict::Ok;
    };
    let found: Vec<String> = missing.map(ToString::to_string).collect();
    Advice::new(
        MISSING,
        format!("this kernel lacks {}", found.join(", and ")),
        want,
        "each was looked for by loading a program that needs it; without it the programs cannot be \
         loaded",
    )
    .into()
}

/// What was found of a feature; `None` where it was not looked for.
fn feature(facts: &Facts, feature: Feature) -> Option<Found> {
    facts.kernel.features.known().map(|all| all.of(feature))
}

pub(super) fn btf(facts: &Facts) -> Verdict {
    match feature(facts, Feature::KernelTypes) {
        Some(Found::Present(_)) => Verdict::Ok,
        Some(Found::Absent(reason)) => no_btf(reason),
        Some(Found::Unknown(_)) | None => judged(need(&facts.kernel.btf, "/sys/kernel/btf").map(
            |present| match present {
                true => Verdict::Ok,
                false => no_btf("/sys/kernel/btf/vmlinux is not there".to_owned()),
            },
        )),
    }
}

fn no_btf(reason: String) -> Verdict {
    Advice::new(
        MISSING,
        reason,
        wanted_for(Feature::KernelTypes),
        "where the kernel keeps what is read differs between kernels, even within a stable series; \
         BTF says where",
    )
    .into()
}

pub(super) fn kprobes(facts: &Facts) -> Verdict {
    if let Some(Found::Absent(reason)) = feature(facts, Feature::Kprobes) {
        return no_kprobes(&format!("programs on kprobes: {reason}"));
    }
    judged(
        need(&facts.kernel.kprobes, "/sys/bus/event_source").map(|present| match present {
            true => Verdict::Ok,
            false => no_kprobes("no kprobes"),
        }),
    )
}

fn no_kprobes(found: &str) -> Verdict {
    Advice::new(
        MISSING,
        format!("this kernel has {found}"),
        wanted_for(Feature::Kprobes),
        "without kprobes a kernel also lacks BPF tracing, so nothing can be attached; some virtual \
         machine monitors ship such a kernel",
    )
    .into()
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

/// Open files `run` needs, an estimate: some 100 maps, programs and links when everything is
/// attached, a perf buffer on each of up to 64 CPUs, 64 HTTP connections, and some to read files
/// with.
pub const OPEN_FILES_NEEDED: u64 = 256;

/// Locked memory `run` needs where maps are charged against the limit, bytes, an estimate: the
/// event ring, the tables of attempts and counters, and the counters of each CPU.
pub const LOCKED_BYTES_NEEDED: u64 = 128 * 1024 * 1024;

/// Address space `run` needs, bytes, an estimate: the kernel's types (some 10 MB), the symbols'
/// addresses, the event ring and stacks of threads.
pub const ADDRESS_BYTES_NEEDED: u64 = 128 * 1024 * 1024;

pub(super) fn limits(facts: &Facts) -> Verdict {
    judged(need(&facts.limits, "resource limits").map(judge_limits))
}

fn judge_limits(limits: &Limits) -> Verdict {
    let charged = if limits.maps_are_charged {
        limits.locked_bytes
    } else {
        Limit::Infinite
    };
    let checks = [
        (
            "RLIMIT_NOFILE",
            "LimitNOFILE= of a systemd unit, ulimit",
            limits.open_files,
            OPEN_FILES_NEEDED,
        ),
        (
            "RLIMIT_MEMLOCK",
            "LimitMEMLOCK= of a systemd unit, ulimit, or CAP_SYS_RESOURCE",
            charged,
            LOCKED_BYTES_NEEDED,
        ),
        (
            "RLIMIT_AS",
            "LimitAS= of a systemd unit, ulimit",
            limits.address_bytes,
            ADDRESS_BYTES_NEEDED,
        ),
    ];
    let below = |check: &&(_, _, Limit, u64)| check.2 < Limit::Of(check.3);
    let Some((name, how, limit, needed)) = checks.iter().find(below) else {
        return Verdict::Ok;
    };
    Advice::new(
        MISSING,
        format!("{name} is {limit}"),
        format!("{needed} or more ({how})"),
        "maps, programs and their links are open files; kernels before 5.11 charge maps against \
         locked memory; the types of the kernel are held in memory \
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
    let ip_vs = *need(&facts.ip_vs, "ip_vs")?;
    if ip_vs == IpVs::Absent {
        return Err(not_applicable("ip_vs is not loaded"));
    }
    match feature(facts, Feature::IpVsTypes) {
        Some(Found::Present(_)) => return Ok(Verdict::Ok),
        Some(Found::Absent(reason)) => return Ok(no_ip_vs_btf(reason)),
        Some(Found::Unknown(_)) | None => {}
    }
    if ip_vs == IpVs::BuiltIn {
        return Err(not_applicable(
            "ip_vs is built into the kernel, whose own BTF describes it",
        ));
    }
    let release = facts.kernel.release.known();
    if release.is_some_and(|release| builtin::of_release(release).is_some()) {
        return Ok(Verdict::Ok);
    }
    Ok(match need(&facts.kernel.btf_ip_vs, "/sys/kernel/btf")? {
        true => Verdict::Ok,
        false => no_ip_vs_btf("/sys/kernel/btf/ip_vs is not there".to_owned()),
    })
}

fn no_ip_vs_btf(reason: String) -> Verdict {
    Advice::new(
        MISSING,
        reason,
        wanted_for(Feature::IpVsTypes),
        "the structures of IPVS are described by the module's own BTF, by the kernel's where ip_vs \
         is built in, or by a file; without it only kernels whose layout is built in can be observed",
    )
    .into()
}
