//! The emulator's command line, and the promise that it never outlives us.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::pins;

/// One guest to start.
pub struct Machine<'a> {
    /// Kernel image.
    pub image: &'a Path,
    /// First file system.
    pub initramfs: &'a Path,
    /// Words of ours behind those every guest gets.
    pub arguments: &'a [String],
    /// Copy of everything on the first serial port.
    pub console_log: &'a Path,
    /// Where the second serial port goes when the first has the terminal.
    pub results_log: &'a Path,
    /// Whether a person sits at the first serial port.
    pub interactive: bool,
    /// Ports of the host's loopback address that lead into the guest.
    pub forwards: &'a [Forward],
    /// Whether the guest's clock counts instructions.
    pub counting: bool,
}

/// A port of the host's loopback address and the guest's port it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// On 127.0.0.1.
    pub host: u16,
    /// On [`GUEST_ADDRESS`].
    pub guest: u16,
}

/// Where a guest with forwarded ports is reached; from the network kept for documentation, which
/// nothing else uses.
const GUEST_ADDRESS: &str = "192.0.2.15";

/// The network of [`GUEST_ADDRESS`], which only the emulator sees.
const GUEST_NETWORK: &str = "192.0.2.0/24";

/// Kernel arguments every guest gets: die instead of hanging on a panic, and do not take the
/// slowness of emulation on a busy host for a fault.
const ARGUMENTS: &[&str] = &[
    "console=ttyS0",
    "panic=-1",
    "no_timer_check",
    "nowatchdog",
    "rcupdate.rcu_cpu_stall_suppress=1",
    "random.trust_cpu=on",
];

/// Software emulation: needs no rights and gives the same machine everywhere.
///
/// Both CPUs share one emulation thread. With a thread each, guests ended now and then in
/// `Oops: int3` at a function whose probe was being attached or detached; one thread has not shown
/// it, and takes no longer for these scenarios.
const MACHINE: &[&str] = &[
    "-accel",
    "tcg,thread=single",
    "-cpu",
    "max",
    "-no-reboot",
    "-display",
    "none",
    "-nodefaults",
    "-no-user-config",
];

/// CPUs and memory of a guest whose clock is that of the host.
const ORDINARY: &[&str] = &["-smp", "2", "-m", "1024"];

/// One CPU on which an instruction takes a nanosecond and an idle moment none: what is measured
/// in the guest does not depend on how busy the host is. The memory is for bpftrace's compiler.
const COUNTING: &[&str] = &["-smp", "1", "-m", "2048", "-icount", "shift=0,sleep=off"];

/// A running guest; dropping it ends it.
pub struct Guest {
    /// The emulator.
    pub child: Child,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a guest. Unless interactive, its second serial port is the child's stdout.
///
/// # Errors
/// When the emulator cannot be started.
pub fn start(machine: &Machine) -> Result<Guest> {
    let mut command = command(machine);
    if !machine.interactive {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
    }
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {}", pins::QEMU_PROGRAM))?;
    Ok(Guest { child })
}

/// `setpriv` makes the kernel kill the emulator when this process dies, however it dies.
fn command(machine: &Machine) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", pins::QEMU_PROGRAM])
        .args(MACHINE)
        .args(if machine.counting { COUNTING } else { ORDINARY });
    command.arg("-kernel").arg(machine.image);
    command.arg("-initrd").arg(machine.initramfs);
    let words: Vec<_> = ARGUMENTS
        .iter()
        .copied()
        .chain(machine.arguments.iter().map(String::as_str))
        .collect();
    command.args(["-append", &words.join(" ")]);
    let log = escape(machine.console_log);
    if machine.interactive {
        command.args([
            "-chardev",
            &format!("stdio,id=console,mux=on,signal=off,logfile={log}"),
        ]);
        command.args(["-mon", "chardev=console"]);
        let results = escape(machine.results_log);
        command.args(["-chardev", &format!("file,id=results,path={results}")]);
    } else {
        command.args(["-chardev", &format!("file,id=console,path={log}")]);
        command.args(["-chardev", "stdio,id=results,signal=off"]);
    }
    command.args(["-serial", "chardev:console", "-serial", "chardev:results"]);
    if !machine.forwards.is_empty() {
        command.args(["-netdev", &network(machine.forwards)]);
        // Without a boot ROM: nothing boots from it.
        command.args(["-device", "virtio-net-pci,netdev=host,romfile="]);
    }
    command
}

/// A network of its own for the guest: `restrict` lets nothing out of it but answers to what comes
/// in by a forwarded port.
fn network(forwards: &[Forward]) -> String {
    let ports: Vec<_> = forwards
        .iter()
        .map(|Forward { host, guest }| {
            format!(",hostfwd=tcp:127.0.0.1:{host}-{GUEST_ADDRESS}:{guest}")
        })
        .collect();
    format!(
        "user,id=host,restrict=on,net={GUEST_NETWORK}{}",
        ports.concat()
    )
}

/// The emulator reads a comma as the end of a value unless it is doubled.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::{Forward, Machine, command};
    use std::path::Path;

    fn arguments(interactive: bool) -> Vec<String> {
        let machine = Machine {
            image: Path::new("/k"),
            initramfs: Path::new("/i"),
            arguments: &["lab.mode=demo".to_owned(), "quiet".to_owned()],
            console_log: Path::new("/a,b/console.log"),
            results_log: Path::new("/a,b/results.log"),
            interactive,
            forwards: &[Forward {
                host: 19_742,
                guest: 9_742,
            }],
            counting: false,
        };
        command(&machine)
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    fn after<'a>(words: &'a [String], flag: &str) -> Vec<&'a str> {
        let pairs = words.iter().zip(words.iter().skip(1));
        pairs
            .filter(|(word, _)| *word == flag)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    #[test]
    fn results_are_the_second_port_and_go_to_stdout() {
        let words = arguments(false);
        assert_eq!(
            after(&words, "-serial"),
            ["chardev:console", "chardev:results"]
        );
        assert_eq!(
            after(&words, "-chardev"),
            [
                "file,id=console,path=/a,,b/console.log",
                "stdio,id=results,signal=off"
            ]
        );
        assert!(after(&words, "-append")[0].ends_with(" lab.mode=demo quiet"));
    }

    #[test]
    fn forwarded_ports_are_on_the_loopback_address_only() {
        assert_eq!(
            after(&arguments(false), "-netdev"),
            [
                "user,id=host,restrict=on,net=192.0.2.0/24,hostfwd=tcp:127.0.0.1:19742-192.0.2.15:9742"
            ]
        );
    }

    #[test]
    fn interactive_guest_has_the_terminal_on_the_first_port() {
        let words = arguments(true);
        assert_eq!(
            after(&words, "-chardev"),
            [
                "stdio,id=console,mux=on,signal=off,logfile=/a,,b/console.log",
                "file,id=results,path=/a,,b/results.log"
            ]
        );
    }
}
