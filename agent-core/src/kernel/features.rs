//! What the kernel of a node offers, and what follows from it. Pure.
//!
//! A version says nothing: vendors bring features to old kernels and leave them out of new ones.
//! So each feature is looked for, and [`TABLE`] says what its absence means. `run` does what
//! [`Features::plan`] says, `doctor` prints the table.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that a kernel may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Types of the kernel's own structures.
    KernelTypes,
    /// Types of ip_vs's structures, with every field that is needed.
    IpVsTypes,
    /// Programs on kprobes.
    Kprobes,
    /// Programs on raw tracepoints.
    RawTracepoints,
    /// Settings in read-only data.
    GlobalData,
    /// Loops with a bound.
    BoundedLoops,
    /// Helpers that the programs cannot do without.
    Helpers,
    /// The map type of ring buffers.
    RingBuffer,
    /// Programs at the return of ip_vs's functions.
    Fexit,
    /// A reason with every dropped packet.
    DropReasons,
    /// Programs that run without an event (`BPF_PROG_TEST_RUN`).
    TestRun,
}

/// What looking for a feature has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It is there; where, or empty.
    Present(String),
    /// It is not there: where it was looked for, or what the kernel answered.
    Absent(String),
    /// It could not be looked for: why.
    Unknown(String),
}

impl Found {
    /// Whether it is there for certain.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        matches!(self, Self::Present(_))
    }

    /// Why it is not there, if that is certain.
    #[must_use]
    pub fn absence(&self) -> Option<&str> {
        match self {
            Self::Absent(reason) => Some(reason),
            Self::Present(_) | Self::Unknown(_) => None,
        }
    }
}

impl From<Result<bool, String>> for Found {
    fn from(answer: Result<bool, String>) -> Self {
        match answer {
            Ok(true) => Self::Present(String::new()),
            Ok(false) => Self::Absent("the kernel refuses it".to_owned()),
            Err(error) => Self::Unknown(error),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answer, detail) = match self {
            Self::Present(detail) => ("yes", detail),
            Self::Absent(detail) => ("no", detail),
            Self::Unknown(detail) => ("unknown", detail),
        };
        f.write_str(answer)?;
        if detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {detail}")
    }
}

/// The functions one probe attaches to, as far as this kernel has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HookFound {
    /// Name of the probe.
    pub probe: String,
    /// Whether IPVS cannot be observed without it.
    pub required: bool,
    /// What is lost without it.
    pub finds: String,
    /// The functions, the first alternative of which the kernel has all.
    pub found: Found,
}

/// What one node was found to offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Each feature that was looked for.
    pub found: BTreeMap<Feature, Found>,
    /// Functions of each probe.
    pub hooks: Vec<HookFound>,
    /// Features that an option asks for, with that option: nothing is used instead of them.
    #[serde(default)]
    pub asked: BTreeMap<Feature, String>,
}

/// What the absence of a feature means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// IPVS cannot be observed; what to do about it.
    Refused(&'static str),
    /// Something else is used.
    Instead(&'static str),
    /// Something is not reported.
    Lost(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// Its name, for people.
    pub name: &'static str,
    /// What it is used for.
    pub serves: &'static str,
    /// What its absence means.
    pub without: Without,
}

const fn row(feature: Feature, name: &'static str, serves: &'static str, without: Without) -> Row {
    Row {
        feature,
        name,
        serves,
        without,
    }
}

/// A kernel that lacks one of these was built without a part of BPF, or is older than that part.
const OTHER_KERNEL: &str = "a kernel that has them";

/// Every feature: what it serves, and what its absence means.
pub const TABLE: &[Row] = &[
    row(
        Feature::KernelTypes,
        "types of the kernel (BTF)",
        "offsets in the kernel's structures",
        Without::Refused(
            "a kernel built with CONFIG_DEBUG_INFO_BTF, or its types by --btf FILE \
             (`pahole --btf_encode_detached FILE vmlinux`, or an archive of BTFHub)",
        ),
    ),
    row(
        Feature::IpVsTypes,
        "types of ip_vs",
        "offsets in IPVS's structures",
        Without::Refused(
            "a kernel built with CONFIG_DEBUG_INFO_BTF_MODULES, or its types by --btf FILE \
             (`pahole --btf_encode_detached FILE ip_vs.ko`, of a module with debug information)",
        ),
    ),
    row(
        Feature::Kprobes,
        "programs on kprobes",
        "every probe that is not on a tracepoint",
        Without::Refused("a kernel built with CONFIG_KPROBES and CONFIG_BPF_EVENTS"),
    ),
    row(
        Feature::RawTracepoints,
        "programs on raw tracepoints",
        "dropped packets",
        Without::Refused(OTHER_KERNEL),
    ),
    row(
        Feature::GlobalData,
        "global data of programs",
        "offsets and settings of the programs",
        Without::Refused(OTHER_KERNEL),
    ),
    row(
        Feature::BoundedLoops,
        "loops with a bound",
        "tables that the programs search",
        Without::Refused(OTHER_KERNEL),
    ),
    row(
        Feature::Helpers,
        "helpers of the programs",
        "reading memory and stacks, sending records",
        Without::Refused(
            "a kernel that has them and is not locked down (lockdown=confidentiality hides them)",
        ),
    ),
    row(
        Feature::RingBuffer,
        "ring buffers",
        "records of all CPUs, in order",
        Without::Instead("one perf buffer per CPU"),
    ),
    row(
        Feature::Fexit,
        "fexit on functions of ip_vs",
        "arguments and result at once",
        Without::Instead("a kprobe and a kretprobe, which cost about twice as much per hit"),
    ),
    row(
        Feature::DropReasons,
        "reasons of dropped packets",
        "the cause of a dead SYN",
        Without::Instead("the function that freed the packet"),
    ),
    row(
        Feature::TestRun,
        "programs run without an event",
        "outcomes of stale attempts",
        Without::Lost("outcomes `refused` and `timed_out` of stale attempts"),
    ),
];

/// What to do where a feature is missing that IPVS cannot be observed without; else empty.
#[must_use]
pub fn wanted_for(feature: Feature) -> &'static str {
    let row = TABLE.iter().find(|row| row.feature == feature);
    match row.map(|row| row.without) {
        Some(Without::Refused(want)) => want,
        _ => "",
    }
}

/// Something that is missing, and why it is taken for missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The feature; `None` for functions of a probe.
    pub feature: Option<Feature>,
    /// What is missing, for people.
    pub what: String,
    /// Where it was looked for, or the kernel's answer.
    pub reason: String,
    /// What to do.
    pub want: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

/// How records leave the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Through one ring buffer.
    Ring,
    /// Through a perf buffer per CPU.
    Perf,
}

/// How programs are attached to functions of ip_vs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// By a trampoline at the return.
    Fexit,
    /// By a kprobe at the entry and a kretprobe at the return.
    Kprobe,
}

impl AttachMode {
    /// The label value of `via`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
        }
    }
}

/// What is done on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which object is loaded.
    pub stream: Stream,
    /// How it is attached.
    pub attach: AttachMode,
    /// Whether the program on dropped packets reads a reason.
    pub has_drop_reasons: bool,
    /// Whether the program that looks at stale attempts can be run.
    pub runs_outcomes: bool,
    /// Features without which something is not reported, and what.
    pub lost: Vec<(&'static str, &'static str)>,
}

impl Features {
    /// Notes what was found.
    pub fn set(&mut self, feature: Feature, found: impl Into<Found>) {
        self.found.insert(feature, found.into());
    }

    /// What was found of a feature.
    #[must_use]
    pub fn of(&self, feature: Feature) -> Found {
        let found = self.found.get(&feature).cloned();
        found.unwrap_or_else(|| Found::Unknown("not looked for".to_owned()))
    }

    /// What IPVS cannot be observed without, or an option asks for, and this kernel lacks for
    /// certain. What could not be looked for is not among it: loading the programs shows it.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let features = TABLE.iter().filter_map(|row| {
            let want = match (row.without, self.asked.get(&row.feature)) {
                (Without::Refused(want), _) => want.to_owned(),
                (Without::Instead(other), Some(option)) => {
                    format!("no `{option}`, so that {other} can be used")
                }
                _ => return None,
            };
            Some(Missing {
                feature: Some(row.feature),
                what: row.name.to_owned(),
                reason: self.of(row.feature).absence()?.to_owned(),
                want,
            })
        });
        let hooks = self.hooks.iter().filter(|hook| hook.required);
        let hooks = hooks.filter_map(|hook| {
            Some(Missing {
                feature: None,
                what: format!("functions of probe `{}` ({})", hook.probe, hook.finds),
                reason: hook.found.absence()?.to_owned(),
                want: OTHER_KERNEL.to_owned(),
            })
        });
        features.chain(hooks).collect()
    }

    /// What is done with these features.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let lost = TABLE.iter().filter_map(|row| match row.without {
            Without::Lost(what) if self.of(row.feature).absence().is_some() => {
                Some((row.name, what))
            }
            _ => None,
        });
        Plan {
            // Where even asking fails, loading says why.
            stream: match self.of(Feature::RingBuffer) {
                Found::Absent(_) => Stream::Perf,
                Found::Present(_) | Found::Unknown(_) => Stream::Ring,
            },
            attach: if self.of(Feature::Fexit).is_present() {
                AttachMode::Fexit
            } else {
                AttachMode::Kprobe
            },
            has_drop_reasons: self.of(Feature::DropReasons).is_present(),
            // Where even asking fails, the first run says why.
            runs_outcomes: self.of(Feature::TestRun).absence().is_none(),
            lost: lost.collect(),
        }
    }

    /// The table with what was found here, one line for each feature and each probe that attaches
    /// to functions, for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let features = TABLE.iter().map(|row| {
            let found = self.of(row.feature);
            let without = match (&found, row.without) {
                (Found::Absent(_), Without::Refused(want)) => format!("; expected {want}"),
                (Found::Absent(_), Without::Instead(other)) => format!("; instead {other}"),
                (Found::Absent(_), Without::Lost(what)) => format!("; not reported: {what}"),
                _ => String::new(),
            };
            format!("{:<30}  {found}{without}", row.name)
        });
        let hooks = self.hooks.iter().map(|hook| {
            let name = format!("probe {}", hook.probe);
            let without = match hook.found {
                Found::Absent(_) => format!("; not reported: {}", hook.finds),
                _ => String::new(),
            };
            format!("{name:<30}  {}{without}", hook.found)
        });
        features.chain(hooks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node where everything is there but what is named.
    fn without(absent: &[Feature]) -> Features {
        let mut features = Features::default();
        for row in TABLE {
            let found = if absent.contains(&row.feature) {
                Found::Absent("the kernel refuses it".to_owned())
            } else {
                Found::Present(String::new())
            };
            features.set(row.feature, found);
        }
        features
    }

    fn missing(features: &Features) -> Vec<String> {
        let missing = features.missing();
        missing.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_an_option_asks_for_has_no_substitute() {
        let mut features = without(&[Feature::RingBuffer, Feature::Fexit]);
        assert_eq!(missing(&features), [""; 0]);
        let option = "--events ring".to_owned();
        features.asked.insert(Feature::RingBuffer, option);
        assert_eq!(missing(&features), ["ring buffers: the kernel refuses it"]);
        assert_eq!(
            features.missing()[0].want,
            "no `--events ring`, so that one perf buffer per CPU can be used"
        );
        let mut features = without(&[]);
        let option = "--attach fexit".to_owned();
        features.asked.insert(Feature::Fexit, option);
        assert_eq!(missing(&features), [""; 0]);
    }

    #[test]
    fn every_feature_has_its_row() {
        let rows: Vec<Feature> = TABLE.iter().map(|row| row.feature).collect();
        let mut sorted = rows.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(rows, sorted, "once, in the order of the features");
        assert_eq!(rows.len(), Feature::TestRun as usize + 1);
    }

    #[test]
    fn a_new_kernel_gets_the_best_of_everything() {
        let features = without(&[]);
        assert_eq!(missing(&features), Vec::<String>::new());
        assert_eq!(
            features.plan(),
            Plan {
                stream: Stream::Ring,
                attach: AttachMode::Fexit,
                has_drop_reasons: true,
                runs_outcomes: true,
                lost: Vec::new(),
            }
        );
    }

    /// 5.4 with ip_vs built in: types in the kernel's BTF, no ring buffer, no fexit, no reasons, no
    /// run by hand.
    #[test]
    fn an_old_kernel_gets_what_it_can_run() {
        use Feature::{DropReasons, Fexit, RingBuffer, TestRun};
        let features = without(&[DropReasons, Fexit, RingBuffer, TestRun]);
        assert_eq!(missing(&features), Vec::<String>::new());
        assert_eq!(
            features.plan(),
            Plan {
                stream: Stream::Perf,
                attach: AttachMode::Kprobe,
                has_drop_reasons: false,
                runs_outcomes: false,
                lost: vec![(
                    "programs run without an event",
                    "outcomes `refused` and `timed_out` of stale attempts"
                )],
            }
        );
    }

    /// A vendor's 4.18 with the BPF of a newer kernel, but without ring buffers.
    #[test]
    fn a_vendors_kernel_is_judged_by_what_it_has() {
        let features = without(&[Feature::RingBuffer, Feature::DropReasons]);
        let plan = features.plan();
        assert_eq!(
            (plan.stream, plan.attach),
            (Stream::Perf, AttachMode::Fexit)
        );
    }

    /// A 4.18 without that: each missing feature is named.
    #[test]
    fn a_kernel_without_types_and_loops_is_refused_by_name() {
        use Feature::{BoundedLoops, GlobalData, IpVsTypes, KernelTypes};
        let features = without(&[BoundedLoops, GlobalData, IpVsTypes, KernelTypes]);
        assert_eq!(
            missing(&features),
            [
                "types of the kernel (BTF): the kernel refuses it",
                "types of ip_vs: the kernel refuses it",
                "global data of programs: the kernel refuses it",
                "loops with a bound: the kernel refuses it"
            ]
        );
    }

    #[test]
    fn a_missing_function_costs_its_probe() {
        let hook = |required, found| HookFound {
            probe: "p".to_owned(),
            required,
            finds: "what it finds".to_owned(),
            found,
        };
        let absent = Found::Absent("no `f` in /proc/kallsyms".to_owned());
        let mut features = without(&[]);
        features.hooks = vec![hook(false, absent.clone())];
        assert!(features.missing().is_empty());
        let lines = features.lines();
        let last = lines.last().map(String::as_str);
        assert!(last.is_some_and(|line| line.ends_with("; not reported: what it finds")));
        features.hooks = vec![hook(true, absent)];
        assert_eq!(
            missing(&features),
            ["functions of probe `p` (what it finds): no `f` in /proc/kallsyms"]
        );
        features.hooks = vec![hook(true, Found::Unknown("not loaded".to_owned()))];
        assert!(features.missing().is_empty());
    }

    #[test]
    fn what_was_not_looked_for_refuses_nothing() {
        let features = Features::default();
        assert!(features.missing().is_empty());
        let plan = features.plan();
        assert_eq!(
            (plan.stream, plan.attach),
            (Stream::Ring, AttachMode::Kprobe)
        );
    }

    #[test]
    fn lines_say_what_absence_means() {
        let mut features = without(&[Feature::RingBuffer, Feature::TestRun]);
        features.set(
            Feature::IpVsTypes,
            Found::Present("BTF of the kernel".to_owned()),
        );
        let lines = features.lines();
        let line = |name: &str| {
            let found = lines.iter().find(|line| line.starts_with(name));
            found.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            line("types of ip_vs").as_deref(),
            Some("types of ip_vs yes: BTF of the kernel")
        );
        assert_eq!(
            line("ring buffers").as_deref(),
            Some("ring buffers no: the kernel refuses it; instead one perf buffer per CPU")
        );
        assert_eq!(
            line("programs run").as_deref(),
            Some(
                "programs run without an event no: the kernel refuses it; not reported: outcomes \
                 `refused` and `timed_out` of stale attempts"
            )
        );
    }
}
