//! Brings the kernel programs into the kernel and onto their hooks, and takes them off again.
//!
//! Two steps: [`load`] makes the maps and resolves everything about this kernel, and
//! [`Programs::attach`] hangs the programs on the module. When the module goes, both are done again
//! for the next one, which may be another build; the counts go with [`Carried`].

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_common::config::Config;
use agent_common::layout::{ABSENT, FIELDS, KernelLayout};
use agent_common::stat::Stat;
use agent_core::doctor::facts::{Fact, Facts};
use agent_core::doctor::rules::prerequisites;
use agent_core::kernel::features::{Feature, Features, Plan, Stream};
use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::{KProbe, Program, ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;

use super::banks::{Banks, Pair, Rest};
use super::counters::{Carried, Counters};
use super::error::AttachError;
use super::features::Known;
use super::fexit::{FexitError, ModuleTypes, TracingObject};
use super::grace::Grace;
use super::locations;
use super::outcomes::Outcomes;
use super::table::{Hook, Moment, PROBES, Probe, WITHOUT_REASON, Way};
use crate::cli::KernelArgs;
use crate::kernel::btf::Types;
use crate::kernel::layout;
use crate::kernel::limitation::{AddressesHiddenBy, Limitation};
use crate::kernel::preemption::Preemption;
use crate::kernel::reasons;
use crate::kernel::symbols::{KernelSymbols, Symbols};
use crate::settings::{Attach, Events};
use crate::source::Source;
use crate::source::module::IPVS_MODULE;
use crate::source::perf::PerfSource;
use crate::source::ring::RingSource;

/// The kernel programs with a ring buffer, as `build.rs` made them.
pub(super) static RING_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ipvs-lens-ring"));

/// The same with perf buffers: a map the kernel lacks makes a whole object unloadable.
pub(super) static PERF_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ipvs-lens-perf"));

/// The function whose number of arguments a program has to know.
const CONNECT_FUNCTION: &str = "__inet_hash_connect";

/// The program [`Outcomes`] runs; it hangs on no hook.
const OUTCOME_PROGRAM: &str = "il_outcome";

/// What the user asked for, and what the node is.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Settings of the programs; `connect_args` is found out here.
    pub config: Config,
    /// Whether the programs' own debug lines go to the logger.
    pub logs: bool,
    /// Keys in each bank of counters.
    pub counts: u32,
    /// How it is attached, how records leave the kernel, and where types are.
    pub kernel: KernelArgs,
    /// Release of the running kernel.
    pub release: String,
    /// Whether it preempts itself.
    pub preemption: Preemption,
}

/// What [`load`] brings back.
pub struct Loaded {
    /// The evidence stream.
    pub events: Source,
    /// What the programs count.
    pub counters: Arc<Counters>,
    /// The programs, not yet on their hooks.
    pub programs: Programs,
}

/// Programs in the kernel.
///
/// The kernel detaches and frees everything when this is dropped, and also when the process dies.
pub struct Programs {
    /// Taken once detached: the kernel lets go of what this held.
    ebpf: Option<Ebpf>,
    object: TracingObject,
    /// Let go of once attached: those of a kernel are tens of megabytes.
    types: Option<Types>,
    types_origin: String,
    layout: KernelLayout,
    symbols: Symbols,
    /// What follows from the features of this kernel.
    plan: Plan,
    limitations: Vec<Limitation>,
    way: Way,
    way_reason: String,
    counters: Arc<Counters>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    armed: Array<MapData, u32>,
    /// Why a probe IPVS can be observed without is not attached.
    missing: BTreeMap<&'static str, String>,
    outcomes: Outcomes,
}

/// The object of a way for records to leave the kernel.
const fn object_of(stream: Stream) -> &'static [u8] {
    match stream {
        Stream::Ring => RING_OBJECT,
        Stream::Perf => PERF_OBJECT,
    }
}

fn open(stream: Stream, map: Map) -> Result<Source, AttachError> {
    Ok(match stream {
        Stream::Ring => {
            let ring = RingSource::new(typed(map, "EVENTS")?);
            Source::Ring(ring.map_err(AttachError::Ring)?)
        }
        Stream::Perf => Source::Perf(PerfSource::open(typed(map, "EVENTS")?)?),
    })
}

/// Creates the maps and resolves the layout; nothing is attached yet. `known` spares reading what
/// was read before, where the module has not gone since.
///
/// # Errors
/// The first thing that stands in the way; nothing stays behind in the kernel then.
pub fn load(
    wanted: &Wanted,
    known: Option<Known>,
    carried: Carried,
) -> Result<Loaded, AttachError> {
    let Known {
        types,
        symbols: KernelSymbols { symbols, hidden_by },
        features,
        ..
    } = judged(wanted, known)?;
    let layout = layout::resolve(types.kernel(), types.module())?;
    let causes = reasons::causes(types.kernel());
    let config = Config {
        connect_args: types.kernel_function_args(CONNECT_FUNCTION).unwrap_or(0),
        ..wanted.config
    };
    let plan = features.plan();
    let stream = match wanted.kernel.events {
        Events::Ring => Stream::Ring,
        Events::Perf => Stream::Perf,
        Events::Auto => plan.stream,
    };
    let logs = wanted.logs && stream == Stream::Ring;
    let mut ebpf = create(object_of(stream), &layout, config, wanted.counts, logs)?;
    // Before any map is taken out, or it would be missing here.
    let object = TracingObject::link(object_of(stream), &ebpf).map_err(linking)?;
    fill_causes(&mut ebpf, causes.as_ref().map_or(&[], |causes| &causes[..]))?;
    let map = borrow(&mut ebpf, "DROP_LOCATIONS")?;
    let has_reasons = causes.is_some();
    locations::fill_drop_locations(typed(map, "DROP_LOCATIONS")?, &symbols, has_reasons)?;
    let map = borrow(&mut ebpf, "HOOK_CALLERS")?;
    locations::fill_hook_callers(typed(map, "HOOK_CALLERS")?, &symbols)?;
    let banks = banks(&mut ebpf, wanted.counts)?;
    let node_latest = typed(take(&mut ebpf, "NODE_LATEST")?, "NODE_LATEST")?;
    let stats = typed(take(&mut ebpf, "STATS")?, "STATS")?;
    let attempts = typed(take(&mut ebpf, "ATTEMPTS")?, "ATTEMPTS")?;
    let events = open(stream, take(&mut ebpf, "EVENTS")?)?;
    let armed = typed(take(&mut ebpf, "ARMED")?, "ARMED")?;
    let outcomes = Outcomes::new(typed(take(&mut ebpf, "FOLLOWED")?, "FOLLOWED")?);
    let logger = if logs {
        Some(EbpfLogger::init(&mut ebpf)?)
    } else {
        None
    };
    let counters = Counters::new(carried, banks, node_latest, stats, attempts);
    let counters = Arc::new(counters);
    let (way, way_reason) = match wanted.kernel.attach {
        Attach::Fexit => (Way::Fexit, "as asked".to_owned()),
        Attach::Kprobe => (Way::Kprobe, "as asked".to_owned()),
        Attach::Auto => (plan.attach, reason_of(&features, &wanted.preemption)),
    };
    let programs = Programs {
        ebpf: Some(ebpf),
        object,
        types_origin: types.origin(),
        types: Some(types),
        layout,
        symbols,
        limitations: limitations(hidden_by, &plan),
        plan,
        way,
        way_reason,
        counters: Arc::clone(&counters),
        logger,
        armed,
        missing: BTreeMap::new(),
        outcomes,
    };
    Ok(Loaded {
        events,
        counters,
        programs,
    })
}

impl Programs {
    /// How the programs hang on the module's functions.
    pub const fn way(&self) -> Way {
        self.way
    }

    /// The way and why it was taken, for people.
    pub fn attachment(&self) -> String {
        format!("{}: {}", self.way.as_str(), self.way_reason)
    }

    /// Where this kernel keeps what the programs read.
    pub const fn layout(&self) -> &KernelLayout {
        &self.layout
    }

    /// Where the types of the module came from, for people.
    pub fn types_origin(&self) -> &str {
        &self.types_origin
    }

    /// What is not reported on this kernel: addresses are hidden, or a feature is missing.
    pub fn limitations(&self) -> &[Limitation] {
        &self.limitations
    }

    /// Probes that could not be attached and are not needed to observe IPVS, with the reason.
    pub const fn missing(&self) -> &BTreeMap<&'static str, String> {
        &self.missing
    }

    /// Hangs every program on its hook, then lets them count.
    ///
    /// # Errors
    /// The first probe of IPVS that cannot be attached; none is attached then.
    pub fn attach(&mut self) -> Result<(), AttachError> {
        let attached = self.attach_all();
        self.types = None;
        match attached {
            Ok(()) => self.arm(1),
            Err(_) => self.detach(),
        }
        attached
    }

    /// Takes every program off its hook and out of the kernel; the maps stay readable.
    pub fn detach(&mut self) {
        self.arm(0);
        self.outcomes.stop();
        self.counters.unwatch();
        self.ebpf = None;
    }

    /// Takes the programs off that hold the module, so that it can be unloaded; what is observed
    /// besides IPVS goes on.
    pub fn release_module(&self) {
        self.counters.unwatch_module();
    }

    /// Looks at the stale attempts on their way: which were refused, which have timed out.
    ///
    /// Returns whether there are any.
    pub fn look_at_outcomes(&mut self) -> bool {
        self.outcomes.look()
    }

    /// Whether the programs' own log lines were asked for: nothing wakes the agent for those.
    pub const fn logs(&self) -> bool {
        self.logger.is_some()
    }

    /// Hands the programs' own log lines to the logger, if they were asked for.
    pub fn flush_logs(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// What the programs have counted about themselves under `stat`; 0 when it cannot be read.
    pub fn stat(&self, stat: Stat) -> u64 {
        self.counters.stat(stat).unwrap_or(0)
    }

    /// What the programs count, readable also when they are gone.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn arm(&mut self, armed: u32) {
        if let Err(error) = self.armed.set(0, &armed, 0) {
            log::error!("cannot enable counting: writing map ARMED failed: {error}");
        }
    }

    fn load_outcome(&mut self) -> Result<(), AttachError> {
        let failed = |source| AttachError::Program {
            probe: "outcome",
            finds: "refusals and time-outs of stale attempts",
            source,
        };
        let program = self.program(OUTCOME_PROGRAM)?;
        let program: &mut RawTracePoint = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        let fd = program.fd().map_err(failed)?.try_clone();
        self.outcomes
            .run_by(fd.map_err(|error| failed(ProgramError::IOError(error)))?);
        Ok(())
    }

    fn attach_all(&mut self) -> Result<(), AttachError> {
        if self.plan.runs_outcomes {
            self.load_outcome()?;
        }
        for probe in PROBES {
            match self.attach_probe(probe) {
                Err(error) if !probe.is_required() => {
                    log::warn!("{error}; optional probe disabled");
                    self.missing.insert(probe.name, error.to_string());
                }
                attached => attached?,
            }
        }
        Ok(())
    }

    fn attach_probe(&mut self, probe: &Probe) -> Result<(), AttachError> {
        self.has_fields(probe)?;
        let mut attached = Err(AttachError::NoHook {
            probe: probe.name,
            finds: probe.finds,
            wanted: probe.wanted(),
        });
        let candidates = probe.candidates(|function| self.symbols.existence(function));
        for functions in candidates {
            attached = self.attach_to(probe, functions);
            if attached.is_ok() {
                break;
            }
        }
        attached
    }

    /// Attaches a probe to all of these functions, one of its alternatives.
    fn attach_to(&mut self, probe: &Probe, functions: &[&str]) -> Result<(), AttachError> {
        match (probe.hook, self.way) {
            (Hook::DropTracepoint(tracepoint), _) if !self.plan.has_drop_reasons => {
                let program = format!("{}{WITHOUT_REASON}", probe.program);
                self.attach_tracepoint(probe, &program, tracepoint)
            }
            (Hook::DropTracepoint(tracepoint) | Hook::OptionalTracepoint(tracepoint), _) => {
                self.attach_tracepoint(probe, probe.program, tracepoint)
            }
            (Hook::IpvsReturn(_) | Hook::TableReturn(_), Way::Fexit) => {
                self.attach_fexit(probe, functions)
            }
            (Hook::IpvsReturn(_) | Hook::TableReturn(_), Way::Kprobe) => {
                self.attach_kprobes(probe, Moment::Both, functions)
            }
            (Hook::Function(moment, function), _) => {
                self.attach_kprobes(probe, moment, &[function])
            }
            (Hook::KernelReturn(function), _) => self.attach_kernel_return(probe, function),
        }
    }

    fn has_fields(&self, probe: &Probe) -> Result<(), AttachError> {
        let offsets = FIELDS.iter().zip(self.layout.offsets());
        let mut absent = offsets
            .filter(|(field, offset)| *offset == ABSENT && probe.needs.contains(&field.name));
        match absent.next() {
            None => Ok(()),
            Some((field, _)) => Err(AttachError::NoField {
                probe: probe.name,
                finds: probe.finds,
                field: field.name,
            }),
        }
    }

    fn types(&self) -> Result<&Types, AttachError> {
        let attached_before = AttachError::Missing("types for a second attachment");
        self.types.as_ref().ok_or(attached_before)
    }

    fn attach_fexit(&mut self, probe: &Probe, functions: &[&str]) -> Result<(), AttachError> {
        let failed = |source| AttachError::Fexit {
            probe: probe.name,
            finds: probe.finds,
            source,
        };
        // Functions of a built-in ip_vs are numbered in the kernel's own BTF.
        let module = match self.types()?.module() {
            layout::ModuleTypes::InKernel => None,
            _ => Some(ModuleTypes::find(IPVS_MODULE).map_err(failed)?),
        };
        for function in functions {
            let id = self.types()?.function_id(function)?;
            let link = self
                .object
                .attach(probe.program, module.as_ref(), id)
                .map_err(failed)?;
            self.counters.watch_module(link);
        }
        Ok(())
    }

    fn attach_kernel_return(&self, probe: &Probe, function: &str) -> Result<(), AttachError> {
        let id = self.types()?.kernel_function_id(function)?;
        let link = self.object.attach(probe.program, None, id);
        let link = link.map_err(|source| AttachError::Fexit {
            probe: probe.name,
            finds: probe.finds,
            source,
        })?;
        self.counters.watch_kernel(link);
        Ok(())
    }

    fn attach_kprobes(
        &mut self,
        probe: &Probe,
        moment: Moment,
        functions: &[&str],
    ) -> Result<(), AttachError> {
        for suffix in moment.suffixes() {
            self.attach_kprobe(probe, suffix, functions)?;
        }
        Ok(())
    }

    fn attach_kprobe(
        &mut self,
        probe: &Probe,
        suffix: &str,
        functions: &[&str],
    ) -> Result<(), AttachError> {
        let failed = |source| AttachError::Program {
            probe: probe.name,
            finds: probe.finds,
            source,
        };
        let name = format!("{}{suffix}", probe.program);
        let program = self.program(&name)?;
        let program: &mut KProbe = program.try_into().map_err(failed)?;
        // Loaded already where another alternative was tried first.
        if program.fd().is_err() {
            program.load().map_err(failed)?;
        }
        for function in functions {
            program.attach(*function, 0).map_err(failed)?;
        }
        let fd = program.fd().map_err(failed)?.try_clone();
        self.counters
            .watch_kprobe(fd.map_err(|error| failed(ProgramError::IOError(error)))?);
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result<&mut Program, AttachError> {
        let program = self.ebpf.as_mut().and_then(|ebpf| ebpf.program_mut(name));
        program.ok_or(AttachError::Missing("program of this name"))
    }

    fn attach_tracepoint(
        &mut self,
        probe: &Probe,
        program: &str,
        tracepoint: &str,
    ) -> Result<(), AttachError> {
        let failed = |source| AttachError::Program {
            probe: probe.name,
            finds: probe.finds,
            source,
        };
        let program = self.program(program)?;
        let program: &mut RawTracePoint = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
        program.attach(tracepoint).map_err(failed)?;
        Ok(())
    }
}

/// Why functions of ip_vs are attached to the way they are.
///
/// A kernel that preempts itself may skip a trampoline's program for a client on this node. It may
/// skip a kprobe's for anybody, whenever the agent reads a map on the same CPU, so fexit it is.
fn reason_of(features: &Features, preemption: &Preemption) -> String {
    let fexit = features.of(Feature::Fexit);
    if let Some(reason) = fexit.absence() {
        return format!("fexit cannot be used ({reason})");
    }
    let shown_by = &preemption.shown_by;
    if preemption.preempts {
        format!(
            "the kernel knows the types; it preempts itself ({shown_by}), so attempts of clients on \
             this node may be missed"
        )
    } else {
        format!("the kernel knows the types and does not preempt itself ({shown_by})")
    }
}

/// What is not reported, and why.
fn limitations(hidden_by: Option<AddressesHiddenBy>, plan: &Plan) -> Vec<Limitation> {
    let hidden = hidden_by.map(|hidden| hidden.limitation(plan.has_drop_reasons));
    let lost = plan.lost.iter().map(|(feature, what)| Limitation {
        missing: format!("{what} are not reported"),
        because: format!("this kernel lacks {feature}"),
        remedy: "boot a kernel that has them".to_owned(),
    });
    hidden.into_iter().chain(lost).collect()
}

/// What is known of the kernel with ip_vs as it is loaded now, unless observing needs more than the
/// kernel offers; by the same rules as before the start.
fn judged(wanted: &Wanted, known: Option<Known>) -> Result<Known, AttachError> {
    let known = match known.filter(Known::is_current) {
        Some(known) => known,
        None => Known::read(&wanted.kernel, &wanted.release)?,
    };
    let mut facts = Facts::default();
    facts.kernel.features = Fact::Known(known.features.clone());
    prerequisites(&facts)?;
    Ok(known)
}

fn create(
    object: &[u8],
    layout: &KernelLayout,
    config: Config,
    counts: u32,
    logs: bool,
) -> Result<Ebpf, EbpfError> {
    // Below every level the verifier removes the log lines from the programs.
    let log_level = if logs { aya_log::Level::Debug as u8 } else { 0 };
    EbpfLoader::new()
        .map_max_entries("COUNTS_0", counts)
        .map_max_entries("COUNTS_1", counts)
        .override_global("LAYOUT", layout, true)
        .override_global("CONFIG", &config, true)
        .override_global(aya_log::LEVEL, &log_level, false)
        .load(object)
}

fn fill_causes(ebpf: &mut Ebpf, causes: &[u8]) -> Result<(), AttachError> {
    let mut map: Array<_, u8> = typed(borrow(ebpf, "DROP_CAUSES")?, "DROP_CAUSES")?;
    for (number, cause) in (0..).zip(causes) {
        map.set(number, cause, 0)
            .map_err(|source| AttachError::Map {
                name: "DROP_CAUSES",
                source,
            })?;
    }
    Ok(())
}

/// Takes the maps of the counters out.
fn banks(ebpf: &mut Ebpf, size: u32) -> Result<Banks, AttachError> {
    let grace = Grace::new().map_err(|error| AttachError::Map {
        name: "of maps",
        source: MapError::IoError(error),
    })?;
    Ok(Banks {
        counts: Pair::new([
            typed(take(ebpf, "COUNTS_0")?, "COUNTS_0")?,
            typed(take(ebpf, "COUNTS_1")?, "COUNTS_1")?,
        ]),
        node_counts: Pair::new([
            typed(take(ebpf, "NODE_COUNTS_0")?, "NODE_COUNTS_0")?,
            typed(take(ebpf, "NODE_COUNTS_1")?, "NODE_COUNTS_1")?,
        ]),
        rest: Rest::new(typed(take(ebpf, "REST")?, "REST")?),
        node_rest: Rest::new(typed(take(ebpf, "NODE_REST")?, "NODE_REST")?),
        bank: typed(take(ebpf, "BANK")?, "BANK")?,
        keys: typed(take(ebpf, "BANK_KEYS")?, "BANK_KEYS")?,
        services: typed(take(ebpf, "SERVICES")?, "SERVICES")?,
        grace,
        size: size.into(),
        in_use: 0,
        full_seen: 0,
    })
}

/// Takes a map out for good; whoever holds it keeps it open for the programs.
fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, AttachError> {
    ebpf.take_map(name).ok_or(AttachError::Missing(name))
}

/// Borrows a map only the programs need later.
fn borrow<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, AttachError> {
    ebpf.map_mut(name).ok_or(AttachError::Missing(name))
}

fn typed<M, T: TryFrom<M, Error = MapError>>(map: M, name: &'static str) -> Result<T, AttachError> {
    map.try_into()
        .map_err(|source| AttachError::Map { name, source })
}

fn linking(source: FexitError) -> AttachError {
    AttachError::Fexit {
        probe: "all",
        finds: "everything",
        source,
    }
}
