//! Holds the built kernel programs to what old kernels accept, without such a kernel.
//!
//! Every branch is walked, as a verifier does that does not track read-only data as constants
//! (5.4): what a setting rules out counts all the same. Checked are, by program with the functions
//! it calls: helpers, instructions, jumps back, reads of the context, and the stack.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use super::attach::{PERF_OBJECT, RING_OBJECT};

/// Helpers that 4.18 and 5.4 have (include/uapi/linux/bpf.h). The programs read memory by
/// `bpf_probe_read_kernel` (113, 5.5), which the loader replaces by `bpf_probe_read` (4) where the
/// kernel lacks it.
const HELPERS_OF_4_18: &[i32] = &[
    1,   // map_lookup_elem
    2,   // map_update_elem
    3,   // map_delete_elem
    4,   // probe_read
    5,   // ktime_get_ns
    8,   // get_smp_processor_id
    25,  // perf_event_output
    67,  // get_stack
    113, // probe_read_kernel, replaced
];

/// Helpers of ring buffers (5.8): output, reserve, submit, discard, query.
const HELPERS_OF_RING_BUFFERS: &[i32] = &[130, 131, 132, 133, 134];

/// Bytes of stack for a program with all functions it calls (`MAX_BPF_STACK`).
const STACK_BYTES: i32 = 512;
/// Frames are rounded up to this (`check_max_stack_depth`, kernel/bpf/verifier.c).
const FRAME_BYTES: i32 = 32;

/// Arguments of the tracepoints, on the kernels where a program is attached.
const RAW_TRACEPOINTS: &[(&str, i32)] = &[
    // Packet, location, reason.
    ("il_syn_drop", 3),
    // Packet, location.
    ("il_syn_drop_loc", 2),
    // Socket, packet.
    ("il_black_hole", 2),
    // Not a tracepoint's: the tuple that the agent runs it with.
    ("il_outcome", 6),
];

const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
/// Operation of an arithmetic instruction or a jump.
const OPERATION: u8 = 0xf0;
const ADD: u8 = 0x00;
const MOD: u8 = 0x90;
const DIV: u8 = 0x30;
const MOV: u8 = 0xb0;
const END: u8 = 0xd0;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// The operand is a register.
const X: u8 = 0x08;
/// How memory is addressed.
const MODE: u8 = 0xe0;
const MEM: u8 = 0x60;
const ATOMIC: u8 = 0xc0;
/// A 64-bit constant, in two instructions.
const LD_IMM64: u8 = 0x18;
/// `src` of a call: a function of the same program.
const PSEUDO_CALL: u8 = 1;
const FRAME_POINTER: usize = 10;

/// What one program may do.
#[derive(Clone, Copy)]
struct Limits<'a> {
    helpers: &'a [i32],
    /// Bytes of its context, where they are those of a tracepoint's arguments.
    context_bytes: Option<i32>,
    loops: bool,
}

/// What a register may hold, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Value {
    /// The context.
    context: bool,
    /// An address in the function's frame: the lowest offset there.
    frame: Option<i32>,
}

impl Value {
    fn join(self, other: Self) -> Self {
        Self {
            context: self.context || other.context,
            frame: match (self.frame, other.frame) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            },
        }
    }
}

/// Registers, and what was saved on the stack, before one instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    registers: [Value; 11],
    stack: BTreeMap<i32, Value>,
}

impl State {
    fn enter(arguments: [Value; 5]) -> Self {
        let mut state = Self::default();
        state.registers[1..6].copy_from_slice(&arguments);
        state.registers[FRAME_POINTER].frame = Some(0);
        state
    }

    fn arguments(&self) -> [Value; 5] {
        // An address in the caller's frame is none in its own.
        [1, 2, 3, 4, 5].map(|register: usize| Value {
            frame: None,
            ..self.registers[register]
        })
    }

    fn join(&mut self, other: &Self) -> bool {
        let before = self.clone();
        for (own, other) in self.registers.iter_mut().zip(other.registers) {
            *own = own.join(other);
        }
        for (slot, value) in &other.stack {
            let own = self.stack.entry(*slot).or_default();
            *own = own.join(*value);
        }
        *self != before
    }
}

/// The walk through one program.
struct Walk<'a> {
    program: &'a [bpf_insn],
    limits: Limits<'a>,
    faults: BTreeSet<String>,
    /// State before each instruction that was reached.
    states: BTreeMap<usize, State>,
    open: Vec<usize>,
    /// Function of each instruction, by where the function begins.
    function: BTreeMap<usize, usize>,
    /// Lowest offset in each function's frame.
    frames: BTreeMap<usize, i32>,
    calls: BTreeSet<(usize, usize)>,
    /// Where each instruction may go on, calls aside.
    edges: BTreeMap<usize, BTreeSet<usize>>,
}

/// Everything in a program that `limits` forbid.
fn faults(program: &[bpf_insn], limits: Limits<'_>) -> BTreeSet<String> {
    let mut walk = Walk {
        program,
        limits,
        faults: BTreeSet::new(),
        states: BTreeMap::new(),
        open: Vec::new(),
        function: BTreeMap::new(),
        frames: BTreeMap::new(),
        calls: BTreeSet::new(),
        edges: BTreeMap::new(),
    };
    let context = Value {
        context: true,
        frame: None,
    };
    let mut arguments = [Value::default(); 5];
    arguments[0] = context;
    walk.enter(0, &State::enter(arguments));
    while let Some(at) = walk.open.pop() {
        walk.step(at);
    }
    walk.check_stack();
    walk.check_loops();
    walk.faults
}

impl Walk<'_> {
    fn fault(&mut self, at: usize, what: &str) {
        self.faults.insert(format!("{at}: {what}"));
    }

    fn enter(&mut self, function: usize, state: &State) {
        self.arrive(function, function, state);
    }

    fn reach(&mut self, from: usize, at: usize, state: &State) {
        self.edges.entry(from).or_default().insert(at);
        self.arrive(at, self.function[&from], state);
    }

    fn arrive(&mut self, at: usize, function: usize, state: &State) {
        self.function.insert(at, function);
        let changed = if let Some(known) = self.states.get_mut(&at) {
            known.join(state)
        } else {
            self.states.insert(at, state.clone());
            true
        };
        if changed {
            self.open.push(at);
        }
    }

    fn step(&mut self, at: usize) {
        let instruction = self.program[at];
        let mut state = self.states[&at].clone();
        self.check_age(at, instruction);
        let code = instruction.code;
        if code == LD_IMM64 {
            state.registers[usize::from(instruction.dst_reg())] = Value::default();
            return self.reach(at, at + 2, &state);
        }
        match code & CLASS {
            LDX => self.load(at, instruction, &mut state),
            ST | STX => self.store(at, instruction, &mut state),
            ALU | ALU64 => compute(instruction, &mut state),
            JMP | JMP32 => return self.branch(at, instruction, state),
            _ => {}
        }
        self.reach(at, at + 1, &state);
    }

    /// Instructions that came after 4.18 (Documentation/bpf/standardization/instruction-set.rst).
    fn check_age(&mut self, at: usize, instruction: bpf_insn) {
        let (code, class) = (instruction.code, instruction.code & CLASS);
        let operation = code & OPERATION;
        let arithmetic = class == ALU || class == ALU64;
        let young = match class {
            JMP32 => Some("a 32-bit jump (5.1)"),
            _ if arithmetic && operation == MOV && instruction.off != 0 => {
                Some("a move with sign (6.6)")
            }
            _ if arithmetic && [DIV, MOD].contains(&operation) && instruction.off != 0 => {
                Some("a signed division (6.6)")
            }
            ALU64 if operation == END => Some("a byte swap (6.6)"),
            LDX if code & MODE != MEM => Some("a load with sign (6.6)"),
            STX if code & MODE == ATOMIC && instruction.imm != 0 => {
                Some("an atomic operation that is no addition (5.12)")
            }
            _ => None,
        };
        if let Some(young) = young {
            self.fault(at, young);
        }
    }

    fn load(&mut self, at: usize, instruction: bpf_insn, state: &mut State) {
        let base = state.registers[usize::from(instruction.src_reg())];
        let offset = i32::from(instruction.off);
        let bytes = width(instruction.code);
        if base.context
            && let Some(limit) = self.limits.context_bytes
            && offset + bytes > limit
        {
            self.fault(
                at,
                &format!("reads byte {offset} of a context of {limit} bytes"),
            );
        }
        let mut value = Value::default();
        if let Some(frame) = base.frame {
            self.touch(at, frame + offset);
            value = state
                .stack
                .get(&(frame + offset))
                .copied()
                .unwrap_or_default();
        }
        state.registers[usize::from(instruction.dst_reg())] = value;
    }

    fn store(&mut self, at: usize, instruction: bpf_insn, state: &mut State) {
        let base = state.registers[usize::from(instruction.dst_reg())];
        let Some(frame) = base.frame else { return };
        let slot = frame + i32::from(instruction.off);
        self.touch(at, slot);
        let value = match instruction.code & CLASS {
            STX => state.registers[usize::from(instruction.src_reg())],
            _ => Value::default(),
        };
        state.stack.insert(slot, value);
    }

    fn touch(&mut self, at: usize, slot: i32) {
        let function = self.function[&at];
        let lowest = self.frames.entry(function).or_default();
        *lowest = slot.min(*lowest);
    }

    fn branch(&mut self, at: usize, instruction: bpf_insn, mut state: State) {
        match instruction.code & OPERATION {
            EXIT => {}
            CALL => {
                self.call(at, instruction, &state);
                for register in &mut state.registers[..6] {
                    *register = Value::default();
                }
                self.reach(at, at + 1, &state);
            }
            operation => {
                if operation != 0 {
                    self.reach(at, at + 1, &state);
                }
                self.reach(at, target(at, instruction.off.into()), &state);
            }
        }
    }

    fn call(&mut self, at: usize, instruction: bpf_insn, state: &State) {
        // What a helper is passed of the frame, it may fill.
        for value in &state.registers[1..6] {
            if let Some(frame) = value.frame {
                self.touch(at, frame);
            }
        }
        match instruction.src_reg() {
            0 if !self.limits.helpers.contains(&instruction.imm) => {
                self.fault(at, &format!("calls helper {}", instruction.imm));
            }
            0 => {}
            PSEUDO_CALL => {
                let callee = target(at, instruction.imm);
                self.calls.insert((self.function[&at], callee));
                self.enter(callee, &State::enter(state.arguments()));
            }
            _ => self.fault(at, "calls a function of the kernel (5.13)"),
        }
    }

    /// A path that comes back to where it was, as kernels before 5.3 refuse it (`check_cfg`).
    fn check_loops(&mut self) {
        if self.limits.loops {
            return;
        }
        // Instructions on the path that is being followed, and those whose paths are all known.
        let (mut path, mut done) = (BTreeSet::new(), BTreeSet::new());
        let functions: BTreeSet<usize> = self.function.values().copied().collect();
        for function in functions {
            let mut stack = vec![(function, false)];
            while let Some((at, is_left)) = stack.pop() {
                if is_left {
                    path.remove(&at);
                    done.insert(at);
                } else if !done.contains(&at) && path.insert(at) {
                    stack.push((at, true));
                    for next in self.edges.get(&at).cloned().unwrap_or_default() {
                        if path.contains(&next) {
                            self.fault(at, "loops");
                        } else {
                            stack.push((next, false));
                        }
                    }
                }
            }
        }
    }

    fn check_stack(&mut self) {
        let deepest = self.depth(0);
        if deepest > STACK_BYTES {
            self.fault(0, &format!("{deepest} bytes of stack, of {STACK_BYTES}"));
        }
    }

    /// Bytes of stack of a function and of those it calls; there is no recursion.
    fn depth(&self, function: usize) -> i32 {
        let own = -self.frames.get(&function).copied().unwrap_or(0);
        let rounded = (own.max(1) + FRAME_BYTES - 1) / FRAME_BYTES * FRAME_BYTES;
        let callees = self.calls.iter().filter(|(caller, _)| *caller == function);
        rounded
            + callees
                .map(|(_, callee)| self.depth(*callee))
                .max()
                .unwrap_or(0)
    }
}

/// Where a jump or a call leads.
fn target(at: usize, by: i32) -> usize {
    let by = isize::try_from(by).unwrap();
    at.checked_add_signed(by).unwrap() + 1
}

fn compute(instruction: bpf_insn, state: &mut State) {
    let target = usize::from(instruction.dst_reg());
    let by_register = instruction.code & X != 0;
    let operand = if by_register {
        state.registers[usize::from(instruction.src_reg())]
    } else {
        Value::default()
    };
    state.registers[target] = match instruction.code & OPERATION {
        MOV if instruction.code & CLASS == ALU64 => operand,
        ADD if !by_register => Value {
            // Deeper than any frame: a loop would go on for ever otherwise.
            frame: state.registers[target]
                .frame
                .map(|frame| (frame + instruction.imm).max(-2 * STACK_BYTES)),
            ..state.registers[target]
        },
        _ => Value::default(),
    };
}

/// Bytes that a load reads.
const fn width(code: u8) -> i32 {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

/// The programs of an object file, each with the functions it calls.
fn programs(object: &[u8]) -> BTreeMap<String, Vec<bpf_insn>> {
    let mut object = Object::parse(object).unwrap();
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object
        .relocate_calls(&sections.iter().copied().collect())
        .unwrap();
    let programs = object.programs.iter().map(|(name, program)| {
        let function = &object.functions[&program.function_key()];
        (name.clone(), function.instructions.clone())
    });
    programs.collect()
}

fn limits(program: &str, helpers: &'static [i32]) -> Limits<'static> {
    let arguments = RAW_TRACEPOINTS.iter().find(|(name, _)| *name == program);
    Limits {
        helpers,
        context_bytes: arguments.map(|(_, count)| count * 8),
        // `memset` and its like; `Feature::BoundedLoops` is looked for before they are loaded.
        loops: true,
    }
}

fn all_faults(object: &[u8], helpers: &'static [i32]) -> Vec<String> {
    let mut all = Vec::new();
    for (name, program) in programs(object) {
        let found = faults(&program, limits(&name, helpers));
        all.extend(found.into_iter().map(|fault| format!("{name} {fault}")));
    }
    all
}

#[test]
fn programs_for_perf_buffers_need_nothing_newer_than_old_kernels_have() {
    assert_eq!(
        all_faults(PERF_OBJECT, HELPERS_OF_4_18),
        Vec::<String>::new()
    );
    for (name, _) in RAW_TRACEPOINTS {
        assert!(programs(PERF_OBJECT).contains_key(*name), "{name}");
    }
}

#[test]
fn programs_for_ring_buffers_need_only_those_beside() {
    let found = all_faults(RING_OBJECT, HELPERS_OF_4_18);
    let others = found.iter().filter(|fault| {
        let helper = fault.rsplit_once("calls helper ").map(|(_, id)| id.parse());
        !matches!(helper, Some(Ok(id)) if HELPERS_OF_RING_BUFFERS.contains(&id))
    });
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(!found.is_empty(), "a helper that is too new is found");
}

/// Instructions as they are written in a kernel's samples: code, registers (target, source), jump,
/// constant.
fn made(parts: &[(u8, u8, u8, i16, i32)]) -> Vec<bpf_insn> {
    let instructions = parts
        .iter()
        .map(|&(code, target, source, off, imm)| bpf_insn {
            code,
            _bitfield_1: bpf_insn::new_bitfield_1(target, source),
            off,
            imm,
        });
    instructions.collect()
}

const EXITS: (u8, u8, u8, i16, i32) = (0x95, 0, 0, 0, 0);

fn faults_of(parts: &[(u8, u8, u8, i16, i32)], loops: bool) -> Vec<String> {
    let limits = Limits {
        helpers: HELPERS_OF_4_18,
        context_bytes: Some(16),
        loops,
    };
    faults(&made(parts), limits).into_iter().collect()
}

#[test]
fn a_read_beyond_the_arguments_is_found_also_where_a_setting_rules_it_out() {
    // The program with a reason, where a tracepoint passes none.
    let program = &programs(PERF_OBJECT)["il_syn_drop"];
    let two_arguments = Limits {
        context_bytes: Some(16),
        ..limits("il_syn_drop", HELPERS_OF_4_18)
    };
    let found = faults(program, two_arguments);
    assert!(
        found
            .iter()
            .any(|fault| fault.ends_with("reads byte 16 of a context of 16 bytes")),
        "{found:?}"
    );
    // r2 = [setting]; if r2 == 0 goto exit; r6 = r1; [r10 - 8] = r6; r7 = [r10 - 8]; r0 = r7[16]
    let behind_a_setting = [
        (0x18, 2, 1, 0, 7),
        (0x00, 0, 0, 0, 0),
        (0x61, 2, 2, 0, 0),
        (0x15, 2, 0, 4, 0),
        (0xbf, 6, 1, 0, 0),
        (0x7b, 10, 6, -8, 0),
        (0x79, 7, 10, -8, 0),
        (0x79, 0, 7, 16, 0),
        EXITS,
    ];
    assert_eq!(
        faults_of(&behind_a_setting, false),
        ["7: reads byte 16 of a context of 16 bytes"]
    );
}

#[test]
fn a_read_in_a_called_function_is_found() {
    let calls = [
        (0x85, 0, PSEUDO_CALL, 0, 1),
        EXITS,
        (0x79, 0, 1, 24, 0),
        EXITS,
    ];
    assert_eq!(
        faults_of(&calls, false),
        ["2: reads byte 24 of a context of 16 bytes"]
    );
}

#[test]
fn a_helper_that_is_too_new_is_found() {
    assert_eq!(
        faults_of(&[(0x85, 0, 0, 0, 131), EXITS], false),
        ["0: calls helper 131"]
    );
    assert_eq!(
        faults_of(&[(0x85, 0, 2, 0, 131), EXITS], false),
        ["0: calls a function of the kernel (5.13)"]
    );
}

#[test]
fn instructions_that_are_too_new_are_found() {
    for (part, fault) in [
        ((0x16, 1, 0, 0, 0), "a 32-bit jump (5.1)"),
        ((0xbf, 1, 2, 8, 0), "a move with sign (6.6)"),
        ((0x3f, 1, 2, 1, 0), "a signed division (6.6)"),
        ((0xd7, 1, 0, 0, 16), "a byte swap (6.6)"),
        ((0x91, 1, 10, -8, 0), "a load with sign (6.6)"),
        (
            (0xdb, 10, 2, -8, 1),
            "an atomic operation that is no addition (5.12)",
        ),
    ] {
        assert_eq!(faults_of(&[part, EXITS], false), [format!("0: {fault}")]);
    }
    assert!(faults_of(&[(0xdb, 10, 2, -8, 0), EXITS], false).is_empty());
}

#[test]
fn a_loop_is_found_where_loops_are_not_allowed() {
    let loops = [
        (0xb7, 0, 0, 0, 0),
        (0x07, 0, 0, 0, 1),
        (0x55, 0, 0, -2, 4),
        EXITS,
    ];
    assert_eq!(faults_of(&loops, false), ["2: loops"]);
    assert!(faults_of(&loops, true).is_empty());
    // Back to code that ends, as compilers lay out what many paths share.
    let shared = [
        (0x05, 0, 0, 2, 0),
        (0xb7, 0, 0, 0, 0),
        EXITS,
        (0x05, 0, 0, -3, 0),
    ];
    assert!(faults_of(&shared, false).is_empty());
}

#[test]
fn a_stack_that_is_too_deep_is_found_over_calls() {
    // r2 = r10; r2 -= 300; call a helper with it; call a function that uses as much.
    let uses = |rest: &[(u8, u8, u8, i16, i32)]| {
        let mut parts = vec![
            (0xbf, 2, 10, 0, 0),
            (0x07, 2, 0, 0, -300),
            (0x85, 0, 0, 0, 5),
        ];
        parts.extend_from_slice(rest);
        parts
    };
    let once = uses(&[EXITS]);
    assert!(faults_of(&once, false).is_empty());
    let twice = [uses(&[(0x85, 0, PSEUDO_CALL, 0, 1), EXITS]), once].concat();
    assert_eq!(faults_of(&twice, false), ["0: 640 bytes of stack, of 512"]);
}
