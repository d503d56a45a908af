//! Waits until no kernel program runs that was running when the wait began.
//!
//! Writing an element of a map of maps makes the kernel wait for a grace period of RCU before the
//! system call returns (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c, Linux 4.20 and newer), so
//! that what a program read before is not used afterwards. Programs on functions,
//! tracepoints and kprobes run inside one read-side section. The map itself holds nothing that
//! anybody looks at.

use std::io;
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};

use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type};

use super::fexit::{bpf, bpf_fd, fd_number};

/// A map of maps that is written to wait.
pub struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    /// Makes the map.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        let inner = create(BPF_MAP_TYPE_ARRAY, 0)?;
        let outer = create(BPF_MAP_TYPE_ARRAY_OF_MAPS, fd_number(inner.as_fd())?)?;
        Ok(Self { outer, inner })
    }

    /// Returns once every program that runs now has ended: after some 10 ms.
    ///
    /// # Errors
    /// The kernel's; it has not waited then.
    pub fn wait(&self) -> io::Result<()> {
        let key = 0_u32;
        let value = fd_number(self.inner.as_fd())?;
        // SAFETY: an all-zero `bpf_attr` is valid.
        let mut attr: bpf_attr = unsafe { mem::zeroed() };
        // SAFETY: writing a member of a union of integers; it stays valid for every reading.
        let element = unsafe { &mut attr.__bindgen_anon_2 };
        element.map_fd = fd_number(self.outer.as_fd())?;
        element.key = std::ptr::from_ref(&key) as u64;
        element.__bindgen_anon_1.value = std::ptr::from_ref(&value) as u64;
        bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
    }
}

/// A map of one element of 4 bytes.
fn create(kind: bpf_map_type, inner_map_fd: u32) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `bpf_attr` is valid.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: writing a member of a union of integers; it stays valid for every reading.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    map.map_type = kind as u32;
    map.key_size = 4;
    map.value_size = 4;
    map.max_entries = 1;
    map.inner_map_fd = inner_map_fd;
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}
