//! Attaches programs to the return of functions in a kernel module.
//!
//! aya resolves traced functions in the kernel's own BTF only, so this file makes the three
//! system calls itself: find the module's BTF object, load the program against it
//! (`attach_btf_obj_fd`, Linux 5.11), attach it. The program's code and its maps come from the
//! same object aya has loaded, so both share every map.

use std::{
    collections::HashSet,
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{
    Object,
    generated::{
        BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_K, BPF_MOV, bpf_attach_type::BPF_TRACE_FEXIT, bpf_attr,
        bpf_btf_info, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type::BPF_PROG_TYPE_TRACING,
    },
};

pub use super::error::FexitError;

/// Bytes kept of the verifier's account of a refused program.
const VERIFIER_LOG_BYTES: usize = 1 << 20;
/// Bytes of a BTF object's name (`MODULE_NAME_LEN`).
const BTF_NAME_BYTES: usize = 64;

/// The object's programs with their map references filled in.
pub struct TracingObject {
    object: Object,
}

/// The BTF of a loaded module, held open.
pub struct ModuleTypes {
    fd: OwnedFd,
}

/// An attached program; dropping it detaches and unloads.
#[derive(Debug)]
pub struct FexitLink {
    program: OwnedFd,
    _link: OwnedFd,
}

impl TracingObject {
    /// Parses the object a second time and binds it to the maps aya created for it.
    ///
    /// Must come before any `take_map`, or that map is missing here.
    ///
    /// # Errors
    /// [`FexitError::Link`] when object and maps do not fit together.
    pub fn link(bytes: &[u8], loaded: &Ebpf) -> Result<Self, FexitError> {
        let mut object =
            Object::parse(bytes).map_err(|error| FexitError::Link(error.to_string()))?;
        let text_sections: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let definitions = mem::take(&mut object.maps);
        let maps: Vec<_> = loaded
            .maps()
            .filter_map(|(name, map)| Some((name, map_fd(map)?, definitions.get(name)?)))
            .collect();
        object
            .relocate_maps(maps.into_iter(), &text_sections.iter().copied().collect())
            .map_err(|error| FexitError::Link(describe(&error)))?;
        object
            .relocate_calls(&text_sections.iter().copied().collect())
            .map_err(|error| FexitError::Link(describe(&error)))?;
        Ok(Self { object })
    }

    /// Loads `program` and attaches it to the return of the function with number `function_id`
    /// in the module's BTF, or in the kernel's own.
    ///
    /// # Errors
    /// [`FexitError::Refused`] with the verifier's reason, or the failing system call.
    pub fn attach(
        &self,
        program: &str,
        module: Option<&ModuleTypes>,
        function_id: u32,
    ) -> Result<FexitLink, FexitError> {
        let no_program = || FexitError::NoProgram(program.to_owned());
        let found = self.object.programs.get(program).ok_or_else(no_program)?;
        let code = self
            .object
            .functions
            .get(&found.function_key())
            .ok_or_else(no_program)?;
        let request = LoadRequest {
            program,
            instructions: &code.instructions,
            license: &found.license,
            module: module.map(|module| module.fd.as_fd()),
            function_id,
        };
        let program_fd = request.load()?;
        let link = open_link(&program_fd).map_err(|source| FexitError::Syscall {
            command: "BPF_RAW_TRACEPOINT_OPEN",
            object: program.to_owned(),
            source,
        })?;
        Ok(FexitLink {
            program: program_fd,
            _link: link,
        })
    }
}

/// Attaches a program that does nothing to the return of a function, and takes it off again.
///
/// # Errors
/// As [`TracingObject::attach`]; the kernel then lacks this way of attaching for this function.
pub fn try_attach(module: Option<&ModuleTypes>, function_id: u32) -> Result<(), FexitError> {
    const PROGRAM: &str = "il_trial";
    let request = LoadRequest {
        program: PROGRAM,
        instructions: &[
            instruction(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0),
            instruction(BPF_JMP | BPF_EXIT, 0, 0),
        ],
        license: c"GPL",
        module: module.map(|module| module.fd.as_fd()),
        function_id,
    };
    let program = request.load()?;
    open_link(&program)
        .map(drop)
        .map_err(|source| FexitError::Syscall {
            command: "BPF_RAW_TRACEPOINT_OPEN",
            object: PROGRAM.to_owned(),
            source,
        })
}

impl FexitLink {
    /// As [`recursion_misses`], of this program.
    ///
    /// # Errors
    /// The kernel's answer when it does not know.
    pub fn recursion_misses(&self) -> io::Result<u64> {
        recursion_misses(self.program.as_fd())
    }
}

/// Times the kernel skipped a program because of what ran on the same CPU (an interrupt came in
/// the middle of it); each may be a lost observation. Linux 5.12 and newer for a trampoline's, 6.7
/// and newer for a kprobe's (`trace_call_bpf`, kernel/trace/bpf_trace.c), 0 before.
///
/// # Errors
/// The kernel's answer when it does not know.
pub fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: an all-zero `bpf_prog_info` is valid: integers and null pointers.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    object_info(program, &mut info)?;
    Ok(info.recursion_misses)
}

impl ModuleTypes {
    /// Finds the kernel's BTF object of a loaded module.
    ///
    /// # Errors
    /// [`FexitError::NoModule`] when the kernel lists none.
    pub fn find(module: &str) -> Result<Self, FexitError> {
        let mut id = 0;
        loop {
            id = next_btf_id(id).map_err(|_| FexitError::NoModule(module.to_owned()))?;
            let Ok(fd) = btf_by_id(id) else { continue };
            if is_btf_of(fd.as_fd(), module) {
                return Ok(Self { fd });
            }
        }
    }
}

/// What `BPF_PROG_LOAD` is asked to load.
struct LoadRequest<'a> {
    program: &'a str,
    instructions: &'a [bpf_insn],
    license: &'a CStr,
    module: Option<BorrowedFd<'a>>,
    function_id: u32,
}

impl LoadRequest<'_> {
    /// Loads without a log first; only a refusal is worth the log's cost.
    fn load(&self) -> Result<OwnedFd, FexitError> {
        if let Ok(fd) = self.try_load(&mut []) {
            return Ok(fd);
        }
        let mut log = vec![0; VERIFIER_LOG_BYTES];
        self.try_load(&mut log)
            .map_err(|source| FexitError::Refused {
                program: self.program.to_owned(),
                source,
                reason: reason(&log),
            })
    }

    fn try_load(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        // SAFETY: an all-zero `bpf_attr` is valid: integers and null pointers.
        let mut attr: bpf_attr = unsafe { mem::zeroed() };
        // SAFETY: the union was zeroed, so every view of it is initialised.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = BPF_PROG_TYPE_TRACING as u32;
        load.expected_attach_type = BPF_TRACE_FEXIT as u32;
        load.insns = self.instructions.as_ptr() as u64;
        load.insn_cnt = u32::try_from(self.instructions.len()).map_err(io::Error::other)?;
        load.license = self.license.as_ptr() as u64;
        load.attach_btf_id = self.function_id;
        if let Some(module) = self.module {
            load.__bindgen_anon_1.attach_btf_obj_fd = fd_number(module)?;
        }
        for (to, from) in load.prog_name.iter_mut().zip(self.program.bytes().take(15)) {
            *to = from.cast_signed();
        }
        if !log.is_empty() {
            load.log_level = 1;
            load.log_buf = log.as_mut_ptr() as u64;
            load.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
        }
        bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
    }
}

fn open_link(program: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `bpf_attr` is valid; a zero name asks for the program's own target.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.raw_tracepoint.prog_fd = fd_number(program.as_fd())?;
    bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

fn next_btf_id(after: u32) -> io::Result<u32> {
    // SAFETY: an all-zero `bpf_attr` is valid.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.start_id = after;
    bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr)?;
    // SAFETY: the union was zeroed and the kernel wrote an integer.
    Ok(unsafe { attr.__bindgen_anon_6.next_id })
}

fn btf_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `bpf_attr` is valid.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
    bpf_fd(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr)
}

fn is_btf_of(btf: BorrowedFd<'_>, module: &str) -> bool {
    let mut name = [0_u8; BTF_NAME_BYTES];
    // SAFETY: an all-zero `bpf_btf_info` is valid.
    let mut info: bpf_btf_info = unsafe { mem::zeroed() };
    info.name = name.as_mut_ptr() as u64;
    info.name_len = u32::try_from(BTF_NAME_BYTES).unwrap_or(0);
    let known = object_info(btf, &mut info).is_ok() && info.kernel_btf == 1;
    let found = CStr::from_bytes_until_nul(&name).map(CStr::to_bytes);
    known && found == Ok(module.as_bytes())
}

fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    // SAFETY: an all-zero `bpf_attr` is valid.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.info.bpf_fd = fd_number(object)?;
    attr.info.info_len = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    attr.info.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

pub(super) fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole `bpf_attr`, and every address in it points to memory that lives
    // across the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

pub(super) fn fd_number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// The descriptor of a map; `None` for kinds this product does not use.
fn map_fd(map: &Map) -> Option<RawFd> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::PerCpuHashMap(data)
    | Map::PerfEventArray(data)
    | Map::RingBuf(data)) = map
    else {
        return None;
    };
    Some(data.fd().as_fd().as_raw_fd())
}

fn describe(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Why the verifier refused: its last line before the statistics. The whole account is logged.
fn reason(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log)
        .map(CStr::to_string_lossy)
        .unwrap_or_default();
    log::debug!("{text}");
    let statistics = ["processed ", "verification time ", "stack depth "];
    text.lines()
        .rfind(|line| !statistics.iter().any(|start| line.starts_with(start)))
        .unwrap_or("no reason given")
        .to_owned()
}

/// An instruction on register 0.
#[expect(clippy::cast_possible_truncation, reason = "codes are bytes")]
pub(super) fn instruction(code: u32, jump: i16, value: i32) -> bpf_insn {
    bpf_insn {
        code: code as u8,
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: jump,
        imm: value,
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn the_verifiers_reason_is_its_last_line_before_the_statistics() {
        let log = b"55: (7b) *(u64 *)(r10 -200) = r0\nR0 !read_ok\nverification time 1 usec\n\
            stack depth 312+0\nprocessed 5067 insns (limit 1000000)\n\0\0";
        assert_eq!(reason(log), "R0 !read_ok");
    }

    #[test]
    fn silence_is_said() {
        assert_eq!(reason(b"\0"), "no reason given");
    }
}
