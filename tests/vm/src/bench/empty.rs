//! Programs on the hooks the agent uses that do nothing, or only what it takes to know a SYN: what
//! any observer pays at least.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result, anyhow};
use aya_obj::generated::{
    bpf_attach_type::BPF_TRACE_FEXIT,
    bpf_attr, bpf_btf_info, bpf_cmd,
    bpf_prog_type::{BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_TRACING},
    perf_event_attr,
};
use btf_rs::{Btf, Type};
use nix::libc;

/// `r0 = 0; exit`.
const RETURN_ZERO: &[u64] = &[put(0, 0), EXIT];

/// Looks at one byte, the flags of the TCP header, where 6.1.192 keeps it: the least that
/// distinguishes a SYN from other packets, with loads from the arguments where the verifier knows
/// their types.
const READ_FLAGS_FEXIT: &[u64] = &[
    load(6, 1, 2 * ARGUMENT_BYTES),
    load(7, 1, 3 * ARGUMENT_BYTES),
    load(3, 6, SKB_DATA),
    load_32(2, 7, IPHDR_LEN),
    add_register(3, 2),
    add(3, TCP_FLAGS),
    copy(1, 10),
    add(1, -8),
    put(2, 1),
    PROBE_READ_KERNEL,
    put(0, 0),
    EXIT,
];

/// The same from a kprobe, which must ask for everything.
const READ_FLAGS_KPROBE: &[u64] = &[
    load(6, 1, REGS_DX),
    load(7, 1, REGS_CX),
    copy(1, 10),
    add(1, -8),
    put(2, 8),
    copy(3, 6),
    add(3, SKB_DATA as i32),
    PROBE_READ_KERNEL,
    copy(1, 10),
    add(1, -16),
    put(2, 4),
    copy(3, 7),
    add(3, IPHDR_LEN as i32),
    PROBE_READ_KERNEL,
    load(3, 10, -8),
    load_32(2, 10, -16),
    add_register(3, 2),
    add(3, TCP_FLAGS),
    copy(1, 10),
    add(1, -24),
    put(2, 1),
    PROBE_READ_KERNEL,
    put(0, 0),
    EXIT,
];

/// Bytes of an argument in a trampoline's context.
const ARGUMENT_BYTES: i16 = 8;
/// `struct sk_buff.data` and `struct ip_vs_iphdr.len` of 6.1.192.
const SKB_DATA: i16 = 208;
const IPHDR_LEN: i16 = 8;
/// Of the flags in a TCP header (RFC 9293, section 3.1).
const TCP_FLAGS: i32 = 13;
/// The third and fourth argument in `struct pt_regs` of x86-64.
const REGS_DX: i16 = 96;
const REGS_CX: i16 = 88;

// Instructions, as Documentation/bpf/standardization/instruction-set.rst encodes them.

const EXIT: u64 = 0x95;
/// Helper 113.
const PROBE_READ_KERNEL: u64 = instruction(0x85, 0, 0, 0, 113);

const fn put(to: u64, value: i32) -> u64 {
    instruction(0xb7, to, 0, 0, value)
}

const fn copy(to: u64, from: u64) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

const fn add(to: u64, value: i32) -> u64 {
    instruction(0x07, to, 0, 0, value)
}

const fn add_register(to: u64, from: u64) -> u64 {
    instruction(0x0f, to, from, 0, 0)
}

const fn load(to: u64, from: u64, offset: i16) -> u64 {
    instruction(0x79, to, from, offset, 0)
}

const fn load_32(to: u64, from: u64, offset: i16) -> u64 {
    instruction(0x61, to, from, offset, 0)
}

#[expect(
    clippy::cast_sign_loss,
    reason = "two's complement is what the kernel reads"
)]
const fn instruction(code: u64, to: u64, from: u64, offset: i16, value: i32) -> u64 {
    code | to << 8 | from << 12 | (offset as u16 as u64) << 16 | (value as u32 as u64) << 32
}

/// What the programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    None,
    /// One look at the TCP flags at the lookup; nothing elsewhere.
    ReadFlags,
}

/// Where [`Work::ReadFlags`] looks.
const LOOKUP: &str = "ip_vs_conn_in_get_proto";
const LICENSE: &[u8] = b"GPL\0";
const BTF_DIRECTORY: &str = "/sys/kernel/btf";
/// Dynamic perf unit of kprobes; its type is a number the kernel hands out.
const KPROBE_UNIT: &str = "/sys/bus/event_source/devices/kprobe/type";
/// Bit of `config` that asks for the return of the function.
const AT_RETURN: u64 = 1;
/// `PERF_EVENT_IOC_SET_BPF` and `PERF_EVENT_IOC_ENABLE` (include/uapi/linux/perf_event.h).
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 8;
/// Longest name of a module, `MODULE_NAME_LEN`.
const NAME_BYTES: usize = 64;

/// Attached programs; dropping them detaches.
pub struct Empty(#[expect(dead_code, reason = "held open")] Vec<OwnedFd>);

impl Empty {
    /// At the return of each of these functions of ip_vs, by a trampoline.
    ///
    /// # Errors
    /// The kernel has no such function or refuses.
    pub fn fexit(functions: &[&str], work: Work) -> Result<Self> {
        let kernel = Btf::from_file(format!("{BTF_DIRECTORY}/vmlinux"))?;
        let module = Btf::from_split_file(format!("{BTF_DIRECTORY}/ip_vs"), &kernel)?;
        let types = module_btf("ip_vs")?;
        let mut held = Vec::new();
        for function in functions {
            let id = function_id(&module, function)?;
            let code = match work {
                Work::ReadFlags if *function == LOOKUP => READ_FLAGS_FEXIT,
                _ => RETURN_ZERO,
            };
            let program = load_program(code, |attr| {
                attr.prog_type = BPF_PROG_TYPE_TRACING as u32;
                attr.expected_attach_type = BPF_TRACE_FEXIT as u32;
                attr.attach_btf_id = id;
                attr.__bindgen_anon_1.attach_btf_obj_fd = number(&types);
            })
            .with_context(|| format!("load an empty program for {function}"))?;
            let mut attr = zeroed();
            attr.raw_tracepoint.prog_fd = number(&program);
            held.push(bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?);
            held.push(program);
        }
        Ok(Self(held))
    }

    /// At the beginning and the return of each of these functions, by a pair of kprobes.
    ///
    /// # Errors
    /// As [`Self::fexit`].
    pub fn kprobe(functions: &[&str], work: Work) -> Result<Self> {
        let unit = fs::read_to_string(KPROBE_UNIT)?.trim().parse()?;
        let mut held = Vec::new();
        for function in functions {
            for config in [0, AT_RETURN] {
                let code = match work {
                    Work::ReadFlags if *function == LOOKUP && config != AT_RETURN => {
                        READ_FLAGS_KPROBE
                    }
                    _ => RETURN_ZERO,
                };
                let program =
                    load_program(code, |attr| attr.prog_type = BPF_PROG_TYPE_KPROBE as u32)?;
                let event = open_kprobe(unit, function, config)
                    .with_context(|| format!("open a kprobe on {function}"))?;
                ioctl(&event, SET_BPF, program.as_raw_fd())?;
                ioctl(&event, ENABLE, 0)?;
                held.extend([event, program]);
            }
        }
        Ok(Self(held))
    }
}

fn function_id(module: &Btf, function: &str) -> Result<u32> {
    let ids = module.resolve_ids_by_name(function)?;
    ids.into_iter()
        .find(|id| matches!(module.resolve_type_by_id(*id), Ok(Type::Func(_))))
        .with_context(|| format!("ip_vs has no function {function}"))
}

fn load_program(
    code: &[u64],
    fill: impl FnOnce(&mut aya_obj::generated::bpf_attr__bindgen_ty_4),
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: the union was zeroed, so every view of it is initialised.
    let view = unsafe { &mut attr.__bindgen_anon_3 };
    view.insns = code.as_ptr() as u64;
    view.insn_cnt = u32::try_from(code.len()).map_err(io::Error::other)?;
    view.license = LICENSE.as_ptr() as u64;
    fill(view);
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// The BTF of a loaded module, as a descriptor: the kernel only lists numbers.
fn module_btf(module: &str) -> Result<OwnedFd> {
    let mut id = 0;
    loop {
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr)
            .map_err(|error| anyhow!("no BTF of {module}: {error}"))?;
        // SAFETY: the union was zeroed and the kernel wrote an integer.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
        let btf = bpf_fd(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr)?;
        if name_of(&btf)? == module {
            return Ok(btf);
        }
    }
}

fn name_of(btf: &OwnedFd) -> Result<String> {
    let mut name = [0_u8; NAME_BYTES];
    // SAFETY: an all-zero `bpf_btf_info` is valid.
    let mut info: bpf_btf_info = unsafe { mem::zeroed() };
    info.name = name.as_mut_ptr() as u64;
    info.name_len = u32::try_from(NAME_BYTES)?;
    let mut attr = zeroed();
    attr.info.bpf_fd = number(btf);
    attr.info.info_len = u32::try_from(size_of::<bpf_btf_info>())?;
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn open_kprobe(unit: u32, function: &str, config: u64) -> Result<OwnedFd> {
    let function = CString::new(function)?;
    // SAFETY: an all-zero `perf_event_attr` is valid.
    let mut attr: perf_event_attr = unsafe { mem::zeroed() };
    attr.size = u32::try_from(size_of::<perf_event_attr>())?;
    attr.type_ = unit;
    attr.config = config;
    attr.__bindgen_anon_3.kprobe_func = function.as_ptr() as u64;
    // SAFETY: `attr` and the name it points to live across the call; CPU 0, every process.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            -1,
            0,
            -1,
            CLOSE_ON_EXEC,
        )
    };
    Ok(owned(fd)?)
}

fn ioctl(fd: &OwnedFd, request: libc::c_ulong, argument: RawFd) -> io::Result<()> {
    // SAFETY: both requests take an integer.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn zeroed() -> bpf_attr {
    // SAFETY: an all-zero `bpf_attr` is valid: integers and null pointers.
    unsafe { mem::zeroed() }
}

fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    owned(bpf(command, attr)?)
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
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
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
