//! The tables of docs/kernels.md that follow from the features: what each is for, and which
//! kernels that people run are reached how. `IPVS_LENS_BLESS=1` writes them.

use std::fmt::Write as _;

use agent_core::kernel::features::{AttachMode, Feature, Features, Found, Stream, TABLE, Without};

use Feature::{
    BoundedLoops, DropReasons, Fexit, GlobalData, IpVsTypes, KernelTypes, RingBuffer, TestRun,
};
use Known::{Derived, Elsewhere, Here};

/// How it is known what a kernel lacks.
#[derive(Clone, Copy)]
enum Known {
    /// The suite runs on it.
    Here,
    /// Run by others, who reported what they measured.
    Elsewhere,
    /// From the mainline version it is made of and what is published of its configuration; not run.
    Derived,
}

/// A kernel that people run, and what it lacks.
struct Reach {
    kernel: &'static str,
    lacks: &'static [Feature],
    known: Known,
}

const fn reach(kernel: &'static str, lacks: &'static [Feature], known: Known) -> Reach {
    Reach {
        kernel,
        lacks,
        known,
    }
}

/// Lacked by every kernel before 5.8 without newer BPF from its vendor.
const OLD: &[Feature] = &[RingBuffer, Fexit, DropReasons, TestRun];
/// As [`OLD`], and no types at all.
const OLD_WITHOUT_TYPES: &[Feature] = &[
    KernelTypes,
    IpVsTypes,
    RingBuffer,
    Fexit,
    DropReasons,
    TestRun,
];
/// Before 5.2.
const OLDEST: &[Feature] = &[
    KernelTypes,
    IpVsTypes,
    GlobalData,
    BoundedLoops,
    RingBuffer,
    Fexit,
    DropReasons,
    TestRun,
];

const REACH: &[Reach] = &[
    reach("Debian 11: 5.10", &[Fexit, DropReasons], Here),
    reach("Debian 12: 6.1", &[], Here),
    reach("Debian 13: 6.12", &[], Here),
    reach("Debian forky: 7.2", &[], Here),
    reach(
        "4.18.0-240.el8, ip_vs built in",
        &[RingBuffer, DropReasons],
        Elsewhere,
    ),
    reach("5.4.32, two vendor builds, ip_vs built in", OLD, Elsewhere),
    reach("RHEL 8.1: 4.18.0-147.el8", OLDEST, Elsewhere),
    reach(
        "RHEL 8.3 and later: 4.18, ip_vs a module",
        &[IpVsTypes, RingBuffer, Fexit, DropReasons],
        Derived,
    ),
    reach("RHEL 9: 5.14", &[DropReasons], Derived),
    reach("RHEL 10: 6.12", &[], Derived),
    reach("Ubuntu 18.04: 4.15; Debian 10: 4.19", OLDEST, Derived),
    reach("Ubuntu 20.04: 5.4", OLD_WITHOUT_TYPES, Derived),
    reach("Ubuntu 22.04: 5.15", &[DropReasons], Derived),
    reach("Ubuntu 24.04: 6.8", &[], Derived),
    reach(
        "Amazon Linux 2, Alibaba Cloud Linux 3, Container-Optimized OS: 5.10",
        &[Fexit, DropReasons],
        Derived,
    ),
    reach("Amazon Linux 2023, Bottlerocket: 6.1", &[], Derived),
    reach(
        "SLES 15 SP6: 6.4; Flatcar: 6.6 and later; Talos: 6.12 and later",
        &[],
        Derived,
    ),
];

fn features(lacks: &[Feature]) -> Features {
    let mut features = Features::default();
    for row in TABLE {
        let found = if lacks.contains(&row.feature) {
            Found::Absent(String::new())
        } else {
            Found::Present(String::new())
        };
        features.set(row.feature, found);
    }
    features
}

fn name(feature: Feature) -> &'static str {
    let row = TABLE.iter().find(|row| row.feature == feature);
    row.map_or("", |row| row.name)
}

/// How the agent works on a kernel, by the same plan that `run` obeys.
fn works(lacks: &[Feature]) -> String {
    let features = features(lacks);
    let missing = features.missing();
    let types = |feature| [KernelTypes, IpVsTypes].contains(&feature);
    let (supplied, absent): (Vec<_>, Vec<_>) = missing
        .iter()
        .partition(|missing| missing.feature.is_some_and(types));
    if !absent.is_empty() {
        return "refused".to_owned();
    }
    let plan = features.plan();
    let attach = match plan.attach {
        AttachMode::Fexit => "fexit",
        AttachMode::Kprobe => "kprobes",
    };
    let stream = match plan.stream {
        Stream::Ring => "ring buffer",
        Stream::Perf => "perf buffers",
    };
    let by = format!("{attach}, {stream}");
    let lost: Vec<_> = plan.lost.iter().map(|(_, what)| *what).collect();
    let lost = match lost.join(" and ") {
        lost if lost.is_empty() => lost,
        lost => format!("; without {lost}"),
    };
    match supplied.len() {
        0 => format!("{by}{lost}"),
        1 => format!("with types of ip_vs by `--btf`: {by}{lost}"),
        _ => format!("with types of the kernel and of ip_vs by `--btf`: {by}{lost}"),
    }
}

fn reach_table() -> String {
    let mut table =
        "| kernel | lacks | the agent works by | known |\n|---|---|---|---|\n".to_owned();
    for reach in REACH {
        let lacks: Vec<_> = reach.lacks.iter().map(|feature| name(*feature)).collect();
        let lacks = if lacks.is_empty() {
            "nothing".to_owned()
        } else {
            lacks.join(", ")
        };
        let known = match reach.known {
            Here => "measured here",
            Elsewhere => "measured elsewhere",
            Derived => "derived",
        };
        let works = works(reach.lacks);
        let _ = writeln!(table, "| {} | {lacks} | {works} | {known} |", reach.kernel);
    }
    table
}

fn feature_table() -> String {
    let mut table = "| feature | serves | without it |\n|---|---|---|\n".to_owned();
    for row in TABLE {
        let without = match row.without {
            Without::Refused(want) => format!("refused, exit status 3; expected {want}"),
            Without::Instead(other) => other.to_owned(),
            Without::Lost(what) => format!("not reported: {what}"),
        };
        let _ = writeln!(table, "| {} | {} | {without} |", row.name, row.serves);
    }
    table
}

/// `text` with what stands between the marks of `name` replaced by `table`.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: made -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the table begins");
    let (_, after) = rest.split_once(&end).expect("the table ends");
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_document_says_what_the_features_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md");
    let written = std::fs::read_to_string(path).unwrap();
    let made = with_table(&written, "features", &feature_table());
    let made = with_table(&made, "reach", &reach_table());
    if std::env::var_os("IPVS_LENS_BLESS").is_some() {
        std::fs::write(path, &made).unwrap();
        return;
    }
    assert!(
        written == made,
        "docs/kernels.md differs from the features; IPVS_LENS_BLESS=1 writes its tables"
    );
}

#[test]
fn kernels_are_reached_as_their_features_allow() {
    assert_eq!(works(&[]), "fexit, ring buffer");
    assert_eq!(works(OLDEST), "refused");
    assert_eq!(
        works(OLD_WITHOUT_TYPES),
        "with types of the kernel and of ip_vs by `--btf`: kprobes, perf buffers; without outcomes \
         `refused` and `timed_out` of stale attempts"
    );
}
