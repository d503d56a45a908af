//! Looks for what the kernel of this node offers to programs.
//!
//! By trying: small programs and maps are loaded and dropped at once, and a program that does
//! nothing is attached to a function of ip_vs for a moment. What follows from the answers is
//! decided in `agent_core::kernel::features`.

use std::fmt::Display;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use agent_core::kernel::features::{Feature, Features, Found, HookFound};
use agent_core::kernel::{layout, reasons};
use agent_core::lifecycle::ModuleId;
use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{
    BpfHelper, is_bpf_global_data_supported, is_helper_supported, is_map_supported,
    is_program_supported,
};
use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_JNE, BPF_K, BPF_MOV, bpf_attr, bpf_cmd, bpf_insn,
    bpf_map_type, bpf_prog_type,
};

use super::error::AttachError;
use super::fexit::{self, ModuleTypes, bpf, bpf_fd, fd_number, instruction};
use super::locations::read_symbols;
use super::table::{DROP_TRACEPOINT, PROBES, Probe};
use crate::cli::KernelArgs;
use crate::kernel::btf::{BtfError, Types};
use crate::kernel::symbols::{Existence, KernelSymbols, Symbols};
use crate::source::module::{self, IPVS_MODULE};

/// Why nothing is known about a module that is not there.
const NOT_LOADED: &str = "ip_vs is not loaded";

/// Arguments of the tracepoint of dropped packets where it passes a reason: packet, location,
/// reason.
const ARGS_WITH_REASON: usize = 3;

/// A function of ip_vs that every kernel has and that is called on a drop only.
const FEXIT_TRIAL: &str = "ip_vs_leave";

/// A helper and a kind of program that calls it.
const HELPERS: &[(ProgramType, BpfHelper, &str)] = &[
    (
        ProgramType::KProbe,
        BpfHelper::BPF_FUNC_ktime_get_ns,
        "bpf_ktime_get_ns",
    ),
    (
        ProgramType::KProbe,
        BpfHelper::BPF_FUNC_perf_event_output,
        "bpf_perf_event_output",
    ),
    (
        ProgramType::RawTracePoint,
        BpfHelper::BPF_FUNC_get_stack,
        "bpf_get_stack",
    ),
];

/// What was read of a node on which ip_vs is loaded. Reading takes a second and the memory of the
/// kernel's types, so what was read to judge the node is kept until programs are attached.
pub struct Known {
    /// The loading of the module that it is about.
    module: Option<ModuleId>,
    /// Types of the kernel and of ip_vs.
    pub(super) types: Types,
    /// Functions of the kernel.
    pub(super) symbols: KernelSymbols,
    /// What the kernel offers.
    pub(super) features: Features,
}

impl Known {
    /// Reads and tries everything, with ip_vs loaded.
    ///
    /// # Errors
    /// [`BtfError`] when there are no types.
    pub fn read(args: &KernelArgs, release: &str) -> Result<Self, BtfError> {
        let module = module::read().live();
        let types = Types::read(IPVS_MODULE, args.btf.as_deref(), release)?;
        let symbols = read_symbols(|function| types.has_function(function));
        let mut features = features_of(Ok(&types), &symbols.symbols, true);
        features.asked = args.asked();
        Ok(Self {
            module,
            types,
            symbols,
            features,
        })
    }

    /// Whether it is about the module as it is loaded now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.module.is_some() && self.module == module::read().live()
    }
}

/// What the kernel offers, and what was read to find out where ip_vs is loaded.
#[must_use]
pub fn look(args: &KernelArgs, release: &str, ip_vs_is_loaded: bool) -> (Features, Option<Known>) {
    let types = if ip_vs_is_loaded {
        match Known::read(args, release) {
            Ok(known) => return (known.features.clone(), Some(known)),
            Err(error) => Err(error),
        }
    } else {
        Types::read(IPVS_MODULE, args.btf.as_deref(), release)
    };
    let types = types.as_ref();
    let KernelSymbols { symbols, .. } =
        read_symbols(|function| types.is_ok_and(|types| types.has_function(function)));
    let mut features = features_of(types, &symbols, ip_vs_is_loaded);
    features.asked = args.asked();
    (features, None)
}

fn features_of(
    types: Result<&Types, &BtfError>,
    symbols: &Symbols,
    ip_vs_is_loaded: bool,
) -> Features {
    let mut features = Features::default();
    look_at_programs(&mut features);
    look_at_types(&mut features, types, ip_vs_is_loaded);
    look_at_hooks(&mut features, symbols, ip_vs_is_loaded);
    let fexit = match types {
        _ if !ip_vs_is_loaded => Found::Unknown(NOT_LOADED.to_owned()),
        Ok(types) => fexit(types, symbols),
        Err(_) => Found::Absent("the types of ip_vs are not known".to_owned()),
    };
    features.set(Feature::Fexit, fexit);
    features
}

/// What needs no types.
fn look_at_programs(features: &mut Features) {
    let program = |kind| answer(is_program_supported(kind));
    features.set(Feature::Kprobes, program(ProgramType::KProbe));
    features.set(Feature::RawTracepoints, program(ProgramType::RawTracePoint));
    features.set(Feature::GlobalData, answer(is_bpf_global_data_supported()));
    features.set(Feature::BoundedLoops, tried(bounded_loop()));
    features.set(Feature::Helpers, helpers());
    features.set(
        Feature::RingBuffer,
        answer(is_map_supported(MapType::RingBuf)),
    );
    features.set(Feature::TestRun, tried(run_without_event()));
}

fn answer<E: Display>(answer: Result<bool, E>) -> Found {
    answer.map_err(|error| error.to_string()).into()
}

/// A refusal is an answer; only a process without the right to ask gets none.
fn tried(answer: io::Result<()>) -> Found {
    match answer {
        Ok(()) => Found::Present(String::new()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Found::Unknown(error.to_string())
        }
        Err(error) => Found::Absent(format!("the kernel answers: {error}")),
    }
}

fn helpers() -> Found {
    for (program, helper, name) in HELPERS {
        match is_helper_supported(*program, *helper) {
            Ok(true) => {}
            Ok(false) => return Found::Absent(format!("lacks `{name}`")),
            Err(error) => return Found::Unknown(error.to_string()),
        }
    }
    // The newer name is replaced by the older one at load time.
    let reads = [
        BpfHelper::BPF_FUNC_probe_read_kernel,
        BpfHelper::BPF_FUNC_probe_read,
    ];
    let reads = reads.map(|helper| is_helper_supported(ProgramType::KProbe, helper));
    if reads.iter().any(|answer| matches!(answer, Ok(true))) {
        return Found::Present(String::new());
    }
    Found::Absent("lacks `bpf_probe_read_kernel` and `bpf_probe_read`".to_owned())
}

/// `r0 = 0; do { r0 += 1 } while (r0 != 4)`.
fn bounded_loop() -> io::Result<()> {
    load(
        bpf_prog_type::BPF_PROG_TYPE_KPROBE,
        &[
            instruction(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0),
            instruction(BPF_ALU64 | BPF_ADD | BPF_K, 0, 1),
            instruction(BPF_JMP | BPF_JNE | BPF_K, -2, 4),
            instruction(BPF_JMP | BPF_EXIT, 0, 0),
        ],
    )
    .map(drop)
}

/// Runs a raw tracepoint's program that does nothing.
fn run_without_event() -> io::Result<()> {
    let program = load(
        bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT,
        &[
            instruction(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0),
            instruction(BPF_JMP | BPF_EXIT, 0, 0),
        ],
    )?;
    // SAFETY: an all-zero `bpf_attr` is valid: integers and null pointers.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.test.prog_fd = fd_number(program.as_fd())?;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map(drop)
}

/// Creates a map of one entry and drops it: whether this process may, and within its limits.
///
/// # Errors
/// The kernel's answer.
pub fn create_smallest_map() -> io::Result<()> {
    // SAFETY: an all-zero `bpf_attr` is valid: integers and null pointers.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the union was zeroed, so every view of it is initialised.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    map.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    (map.key_size, map.value_size, map.max_entries) = (4, 4, 1);
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr).map(drop)
}

fn load(kind: bpf_prog_type, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `bpf_attr` is valid: integers and null pointers.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the union was zeroed, so every view of it is initialised.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind as u32;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    load.license = c"GPL".as_ptr() as u64;
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

fn look_at_types(features: &mut Features, types: Result<&Types, &BtfError>, is_loaded: bool) {
    let found = match types {
        Ok(types) => {
            features.set(Feature::DropReasons, drop_reasons(types));
            let of_ip_vs = match layout::resolve(types.kernel(), types.module()) {
                Ok(_) => Found::Present(types.origin()),
                Err(unresolved) => Found::Absent(unresolved.to_string()),
            };
            [Found::Present(types.kernel_origin()), of_ip_vs]
        }
        Err(error @ BtfError::NoKernelBtf { .. }) => {
            let unread = Found::Unknown("types of the kernel are needed first".to_owned());
            [Found::Absent(error.reason()), unread]
        }
        Err(BtfError::NoModuleBtf { .. }) if !is_loaded => [
            Found::Present("BTF of the kernel".to_owned()),
            Found::Unknown(NOT_LOADED.to_owned()),
        ],
        Err(error) => [
            Found::Unknown("not looked at".to_owned()),
            Found::Absent(error.reason()),
        ],
    };
    let [of_kernel, of_ip_vs] = found;
    features.set(Feature::KernelTypes, of_kernel);
    features.set(Feature::IpVsTypes, of_ip_vs);
}

/// A reason needs its names, and a tracepoint that passes it.
fn drop_reasons(types: &Types) -> Found {
    if reasons::causes(types.kernel()).is_none() {
        return Found::Absent("the kernel's types have no `skb_drop_reason`".to_owned());
    }
    match reasons::tracepoint_args(types.kernel(), DROP_TRACEPOINT) {
        Some(args) if args < ARGS_WITH_REASON => Found::Absent(format!(
            "tracepoint `{DROP_TRACEPOINT}` passes {args} arguments"
        )),
        _ => Found::Present(String::new()),
    }
}

fn look_at_hooks(features: &mut Features, symbols: &Symbols, is_loaded: bool) {
    features.hooks = PROBES
        .iter()
        .filter_map(|probe| {
            let found = hook(probe, symbols, is_loaded)?;
            Some(HookFound {
                probe: probe.name.to_owned(),
                required: probe.is_required(),
                finds: probe.finds.to_owned(),
                found,
            })
        })
        .collect();
}

/// `None` for a tracepoint: whether it is there shows when a program is attached.
fn hook(probe: &Probe, symbols: &Symbols, is_loaded: bool) -> Option<Found> {
    if probe.is_tracepoint() {
        return None;
    }
    if !is_loaded && probe.is_of_module() {
        return Some(Found::Unknown(NOT_LOADED.to_owned()));
    }
    let candidates = probe.candidates(|function| symbols.existence(function));
    let mut names = all_of(&candidates).peekable();
    Some(match candidates.first() {
        None => Found::Absent(format!("this kernel has no {}", probe.wanted())),
        Some(_) if names.peek().is_none() => Found::Present(probe.wanted()),
        Some(_) if names.all(|name| symbols.existence(name) == Existence::Present) => {
            Found::Present(all_of(&candidates).collect::<Vec<_>>().join(", "))
        }
        Some(_) => Found::Unknown(format!(
            "the kernel hides whether it has {}",
            probe.wanted()
        )),
    })
}

fn all_of(candidates: &[&'static [&'static str]]) -> impl Iterator<Item = &'static str> {
    candidates.iter().copied().flatten().copied()
}

/// fexit where the kernel knows the types of every function to attach to, and does attach.
fn fexit(types: &Types, symbols: &Symbols) -> Found {
    let of_ipvs = PROBES.iter().filter(|probe| probe.is_required());
    let functions = of_ipvs.flat_map(|probe| {
        let candidates = probe.candidates(|function| symbols.existence(function));
        candidates.first().copied().unwrap_or_default()
    });
    for function in functions {
        if let Err(error) = types.function_id(function) {
            return Found::Absent(error.to_string());
        }
    }
    match try_fexit(types) {
        Ok(()) => Found::Present(String::new()),
        Err(error) => Found::Absent(error.to_string()),
    }
}

/// Whether this kernel runs programs at the return of functions of ip_vs: types of functions may
/// be known where that cannot be done yet.
fn try_fexit(types: &Types) -> Result<(), AttachError> {
    let failed = |source| AttachError::Fexit {
        probe: "trial",
        finds: "nothing",
        source,
    };
    let id = types.function_id(FEXIT_TRIAL)?;
    let module = match types.module() {
        layout::ModuleTypes::InKernel => None,
        _ => Some(ModuleTypes::find(IPVS_MODULE).map_err(failed)?),
    };
    fexit::try_attach(module.as_ref(), id).map_err(failed)
}
