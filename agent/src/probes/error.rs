//! Why programs could not be loaded or attached.

use std::io;

use agent_core::doctor::rules::CannotObserve;
use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use crate::kernel::btf::BtfError;
use crate::kernel::layout::Unresolved;
use crate::source::perf::PerfError;

/// Why the programs are not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No type information.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A field is missing or different.
    #[error("the layout of this kernel is not proven: {0}")]
    Layout(#[from] Unresolved),
    /// The kernel lacks something the programs need.
    #[error(transparent)]
    Unmet(#[from] CannotObserve),
    /// Maps or programs could not be created.
    #[error("kernel programs cannot be loaded: {}", chain(.0))]
    Load(#[from] EbpfError),
    /// A map has another shape than this build expects.
    #[error("map `{name}` cannot be used: {source}")]
    Map {
        /// Map concerned.
        name: &'static str,
        /// What is wrong with it.
        source: MapError,
    },
    /// The object lacks something this build expects.
    #[error("kernel object has no {0}")]
    Missing(&'static str),
    /// The perf buffers cannot be had.
    #[error(transparent)]
    Perf(#[from] PerfError),
    /// The ring buffer cannot be waited for.
    #[error("cannot wait for the ring buffer: registering it with epoll failed: {0}")]
    Ring(io::Error),
    /// The programs' own log lines cannot be read.
    #[error("the log of the kernel programs cannot be read: {0}")]
    Log(#[from] aya_log::Error),
    /// This kernel has none of the functions a probe can hang on.
    #[error(
        "probe `{probe}` ({finds}) finds none of its functions in this kernel, expected {wanted}"
    )]
    NoHook {
        /// Probe concerned.
        probe: &'static str,
        /// What is lost without it.
        finds: &'static str,
        /// Functions it could hang on.
        wanted: String,
    },
    /// This kernel's types lack a field the probe reads.
    #[error(
        "probe `{probe}` ({finds}) needs field `{field}`, which this kernel's BTF does not have"
    )]
    NoField {
        /// Probe concerned.
        probe: &'static str,
        /// What is lost without it.
        finds: &'static str,
        /// Field of the layout.
        field: &'static str,
    },
    /// A module function could not be hooked.
    #[error("probe `{probe}` ({finds}) cannot be attached: {source}")]
    Fexit {
        /// Probe concerned.
        probe: &'static str,
        /// What is lost without it.
        finds: &'static str,
        /// Why.
        source: FexitError,
    },
    /// A tracepoint or kprobe could not be hooked.
    #[error("probe `{probe}` ({finds}) cannot be attached: {}", chain(.source))]
    Program {
        /// Probe concerned.
        probe: &'static str,
        /// What is lost without it.
        finds: &'static str,
        /// Why.
        source: ProgramError,
    },
}

/// Why a program could not be attached to a module's function.
#[derive(Debug, thiserror::Error)]
pub enum FexitError {
    /// The object file and the loaded maps do not fit together.
    #[error("kernel object cannot be linked: {0}")]
    Link(String),
    /// The object has no such program.
    #[error("kernel object has no program `{0}`")]
    NoProgram(String),
    /// The kernel lists no BTF object of this module.
    #[error("the kernel lists no type information for module `{0}`; is the module loaded?")]
    NoModule(String),
    /// A system call failed.
    #[error("bpf({command}) for `{object}` failed: {source}")]
    Syscall {
        /// What was asked of the kernel.
        command: &'static str,
        /// Program or module it was asked for.
        object: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error("the kernel refused program `{program}`: {source}: {reason}")]
    Refused {
        /// Program that was refused.
        program: String,
        /// The kernel's answer.
        source: io::Error,
        /// The line of the verifier's account that says why.
        reason: String,
    },
}

/// An error of aya with its causes, on one line; what the verifier said at length is logged.
fn chain(error: &dyn std::error::Error) -> String {
    let mut links = Vec::new();
    let mut next = Some(error);
    while let Some(link) = next {
        let text = link.to_string();
        let line = text.lines().next().unwrap_or_default();
        if line.len() < text.len() {
            log::debug!("{text}");
        }
        links.push(line.to_owned());
        next = link.source();
    }
    links.join(": ")
}
