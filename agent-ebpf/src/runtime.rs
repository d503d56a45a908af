//! What every object file of kernel programs must hold.

/// Most helpers the programs call (`bpf_probe_read_kernel`, `bpf_ktime_get_ns`) are only open to
/// programs that declare a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never reached: nothing in the programs panics, and the verifier would refuse it if it could.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
