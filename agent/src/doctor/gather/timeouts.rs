//! IPVS's timeouts, which procfs does not show.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::super::facts::Timeouts;

/// `IP_VS_SO_GET_TIMEOUT` of `include/uapi/linux/ip_vs.h`: 64 + 1024 + 64 + 6.
const GET_TIMEOUT: libc::c_int = 64 + 1024 + 64 + 6;

/// `struct ip_vs_timeout_user`.
#[repr(C)]
#[derive(Default)]
struct Answer {
    tcp: libc::c_int,
    tcp_fin: libc::c_int,
    udp: libc::c_int,
}

/// Those of this thread's network namespace; asking takes `CAP_NET_ADMIN`.
pub(super) fn read() -> Result<Timeouts, String> {
    ask().map_err(|error| format!("cannot read the timeouts (IP_VS_SO_GET_TIMEOUT): {error}"))
}

fn ask() -> io::Result<Timeouts> {
    let socket = raw_socket()?;
    let mut answer = Answer::default();
    let mut size: libc::socklen_t = 12;
    // SAFETY: the socket is open, and the kernel writes at most `size` bytes, which is what
    // `Answer` has, into a live value of plain integers.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            GET_TIMEOUT,
            (&raw mut answer).cast(),
            &raw mut size,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = |value: libc::c_int| u32::try_from(value).unwrap_or(0);
    Ok(Timeouts {
        tcp_seconds: seconds(answer.tcp),
        tcp_fin_seconds: seconds(answer.tcp_fin),
        udp_seconds: seconds(answer.udp),
    })
}

fn raw_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes plain numbers and returns a descriptor or -1.
    let socket = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_RAW) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened here and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}
