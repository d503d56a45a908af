//! The agent as somebody who may do little: another user, few capabilities, hidden files, low
//! limits. A child process of its own gives everything up and then becomes the program.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::agent::BINARY;
use crate::sysctl;

/// This program, which makes itself smaller.
const LAB: &str = "/bin/lab";

/// What a masked file is replaced by: empty, and closed to all but root, as systemd's.
const MASK: &str = "/tmp/masked";

/// Who a program runs as and what is kept from it.
#[derive(Args, Clone, Debug, Default)]
pub struct Rights {
    /// User and group to run as; root when absent.
    #[arg(long, default_value_t = 0)]
    pub uid: u32,
    /// Capabilities to keep, one bit each in hexadecimal as `CapEff` of /proc/PID/status; all when
    /// absent.
    #[arg(long, value_parser = hexadecimal)]
    pub capabilities: Option<u64>,
    /// Sets `no_new_privs`.
    #[arg(long)]
    pub no_new_privs: bool,
    /// Files shown as empty, as systemd's `InaccessiblePaths=` does.
    #[arg(long)]
    pub mask: Vec<PathBuf>,
    /// Directories shown as empty.
    #[arg(long)]
    pub empty: Vec<PathBuf>,
    /// Directories shown read-only.
    #[arg(long)]
    pub read_only: Vec<PathBuf>,
    /// Both limits of `RLIMIT_NOFILE`.
    #[arg(long)]
    pub open_files: Option<u64>,
    /// Both limits of `RLIMIT_MEMLOCK`, in bytes.
    #[arg(long)]
    pub locked_bytes: Option<u64>,
    /// Both limits of `RLIMIT_AS`, in bytes.
    #[arg(long)]
    pub address_bytes: Option<u64>,
}

fn hexadecimal(text: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(text, 16)
}

impl Rights {
    /// Of a user with these capabilities, one bit each, and without a limit of locked memory: the
    /// unit sets `LimitMEMLOCK=infinity`, because kernels before 5.11 charge maps against it.
    pub fn of(uid: u32, capabilities: u64) -> Self {
        Self {
            uid,
            capabilities: Some(capabilities),
            locked_bytes: Some(RLIM_INFINITY),
            ..Self::default()
        }
    }

    /// The agent with `args` and these rights.
    pub fn agent(&self, args: &[&str]) -> Command {
        let mut command = Command::new(LAB);
        command.arg("as").args(self.options()).arg("--");
        command.arg(BINARY).args(args);
        command
    }

    fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = vec!["--uid".into(), self.uid.to_string().into()];
        let mut add = |name: &str, value: OsString| options.extend([name.into(), value]);
        if let Some(capabilities) = self.capabilities {
            add("--capabilities", format!("{capabilities:x}").into());
        }
        let numbers = [
            ("--open-files", self.open_files),
            ("--locked-bytes", self.locked_bytes),
            ("--address-bytes", self.address_bytes),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                add(name, value.to_string().into());
            }
        }
        let places = [
            ("--mask", &self.mask),
            ("--empty", &self.empty),
            ("--read-only", &self.read_only),
        ];
        for (name, paths) in places {
            for path in paths {
                add(name, path.into());
            }
        }
        if self.no_new_privs {
            options.push("--no-new-privs".into());
        }
        options
    }

    /// Gives up everything else and becomes `program`.
    ///
    /// # Errors
    /// A step is refused, or there is no such program.
    pub fn exec(&self, program: &str, args: &[String]) -> Result<Infallible> {
        self.hide_files()?;
        self.limit_resources()?;
        self.limit_capabilities()?;
        let error = Command::new(program).args(args).exec();
        Err(error).with_context(|| format!("start {program}"))
    }

    fn hide_files(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).context("make mounts private")?;
        for file in &self.mask {
            std::fs::write(MASK, "").context("make an empty file")?;
            std::fs::set_permissions(MASK, Permissions::from_mode(0o0))?;
            mount(Some(MASK), file, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("mask {}", file.display()))?;
        }
        for directory in &self.empty {
            let flags = MsFlags::MS_RDONLY;
            mount(Some("tmpfs"), directory, Some("tmpfs"), flags, none)
                .with_context(|| format!("empty {}", directory.display()))?;
        }
        for directory in &self.read_only {
            let name = || format!("make {} read-only", directory.display());
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(directory), directory, none, bind, none).with_context(name)?;
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, directory, none, flags, none).with_context(name)?;
        }
        Ok(())
    }

    fn limit_resources(&self) -> Result<()> {
        let limits = [
            (Resource::RLIMIT_NOFILE, self.open_files),
            (Resource::RLIMIT_MEMLOCK, self.locked_bytes),
            (Resource::RLIMIT_AS, self.address_bytes),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                setrlimit(resource, limit, limit).with_context(|| format!("set {resource:?}"))?;
            }
        }
        Ok(())
    }

    fn limit_capabilities(&self) -> Result<()> {
        let kept = self.capabilities.map_or_else(known_capabilities, |bits| {
            Ok(CapabilitySet::from_bits_retain(bits))
        })?;
        for capability in (known_capabilities()? - kept).iter() {
            thread::remove_capability_from_bounding_set(capability).context("bound")?;
        }
        thread::set_keep_capabilities(true)?;
        setgroups(&[]).context("give up groups")?;
        setgid(Gid::from_raw(self.uid)).context("set the group")?;
        setuid(Uid::from_raw(self.uid)).context("set the user")?;
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: kept,
        };
        thread::set_capabilities(None, sets).context("set capabilities")?;
        for capability in kept.iter() {
            thread::configure_capability_in_ambient_set(capability, true).context("ambient")?;
        }
        if self.no_new_privs {
            thread::set_no_new_privs(true).context("set no_new_privs")?;
        }
        Ok(())
    }
}

/// Those this process, which has all, may hand on.
fn known_capabilities() -> Result<CapabilitySet> {
    Ok(thread::capabilities(None)?.permitted)
}

/// Sets `kernel.kptr_restrict` for as long as `work` runs.
///
/// # Errors
/// Those of `work`; or the parameter cannot be written.
pub fn with_kptr_restrict<T>(value: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    const NAME: &str = "kernel/kptr_restrict";
    let before = std::fs::read_to_string(format!("/proc/sys/{NAME}"))?;
    sysctl::write(NAME, value)?;
    let worked = work();
    sysctl::write(NAME, before.trim())?;
    worked
}
