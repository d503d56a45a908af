//! A directory with a bare Debian in it, and running commands there as if it were the machine.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::apt;
use crate::exec::{self, say};
use crate::pins;

/// What a newcomer has before reading the README: git to get the project, certificates for it.
const BEFORE_THE_README: &[&str] = &["ca-certificates", "git"];

/// Marks a root that was made in full.
const MADE: &str = ".made";

/// Where the clone lies in the root.
const PROJECT: &str = "src/project";

/// The machine's way to its mirrors and registries, the same path in the root. Without them a root
/// has those of a new installation.
const CONFIGURATION: &[&str] = &[
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
];

/// Files of apt's configuration that make sense on the machine itself only: they call programs
/// which the root does not have.
const OTHERS_APT_CONFIGURATION: &[&str] = &["docker", "20packagekit", "50appstream"];

/// Variables that lead to registries begin with one of these; nothing else of the environment is
/// in the root.
const KEPT_VARIABLES: &[&str] = &[
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CI",
    "CURL_CA_",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NODE_EXTRA_CA",
    "NO_PROXY",
    "PIP_CERT",
    "PIP_FIND",
    "PIP_INDEX",
    "REQUESTS_CA",
    "RUSTUP_AUTO_INSTALL",
    "RUSTUP_DIST",
    "RUSTUP_UPDATE",
    "SSL_CERT_",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "npm_config_",
];

/// Search path in the root.
const PATH: &str = "/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Commands that reach the package mirror and the registry of crates. They leave nothing behind
/// that a build of the project would find.
const TRIALS: &[&str] = &[
    "apt-get -q update",
    "cargo new --quiet --vcs none /tmp/trial && cd /tmp/trial && cargo add --quiet itoa && cargo fetch --quiet && rm -r /tmp/trial",
];

/// Makes the root `$0` the machine, runs `$1` in the project's clone, with the variables that
/// follow. The mounts are in a namespace of their own and end with it.
const ENTER: &str = r#"
root=$0; command=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
exec chroot "$root" /usr/bin/env -i "$@" sh -c "cd /src/project && $command"
"#;

/// A bare machine.
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// Makes a machine that has never seen the project.
    ///
    /// # Errors
    /// When this process may not, a program is missing, or a mirror does not answer.
    pub fn make(dir: PathBuf) -> Result<Self> {
        may_mount()?;
        apt::ensure_program("mmdebstrap")?;
        let root = Self { dir };
        root.clear()?;
        say(format!(
            "making a bare machine in {}: minimal Debian, {}, rustup",
            root.dir.display(),
            pins::BARE_PACKAGES.join(", ")
        ));
        root.install_debian()?;
        root.copy_configuration()?;
        root.copy_rustup()?;
        fs::create_dir_all(root.dir.join("src"))?;
        fs::write(root.dir.join(MADE), "")?;
        Ok(root)
    }

    /// The machine that a former run left.
    ///
    /// # Errors
    /// When there is none, or this process may not use it.
    pub fn open(dir: PathBuf) -> Result<Self> {
        may_mount()?;
        ensure!(
            dir.join(MADE).exists(),
            "there is no bare machine in {}; leave --warm out",
            dir.display()
        );
        Ok(Self { dir })
    }

    /// Its directory, as this machine sees it.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The project's clone, as this machine sees it.
    pub fn project(&self) -> PathBuf {
        self.dir.join(PROJECT)
    }

    /// Runs a command of the shell in the project's clone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, command: &str) -> Result<ExitStatus> {
        say(format!("on the bare machine: {command}"));
        self.command(command)
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("cannot run `{command}` in {}", self.dir.display()))
    }

    /// Runs a command of the shell in the project's clone and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn output(&self, command: &str) -> Result<String> {
        exec::output(self.command(command).stdin(Stdio::null()))
    }

    /// Reaches each registry once: what fails here is no fault of the project.
    ///
    /// # Errors
    /// When one of them cannot be reached from the root.
    pub fn try_out(&self) -> Result<()> {
        for command in TRIALS {
            let status = self.run(command)?;
            ensure!(status.success(), "`{command}` in it failed: {status}");
        }
        Ok(())
    }

    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove(self) -> Result<()> {
        self.clear()
    }

    /// Never enters what is mounted in it.
    fn clear(&self) -> Result<()> {
        exec::run(
            Command::new("rm")
                .args(["--recursive", "--force", "--one-file-system"])
                .arg(&self.dir),
        )
    }

    fn install_debian(&self) -> Result<()> {
        let packages: Vec<_> = BEFORE_THE_README
            .iter()
            .chain(pins::BARE_PACKAGES)
            .copied()
            .collect();
        // Interrupted, it leaves /proc and /dev mounted in the root: not in this namespace.
        exec::run(
            Command::new("unshare")
                .args(["--mount", "mmdebstrap", "--quiet", "--variant=minbase"])
                .arg(format!("--include={}", packages.join(" ")))
                .arg(suite()?)
                .arg(&self.dir),
        )
    }

    fn copy_configuration(&self) -> Result<()> {
        let _ = fs::remove_file(self.dir.join("etc/apt/sources.list"));
        for path in CONFIGURATION {
            self.copy(Path::new(path), path)?;
        }
        for entry in fs::read_dir("/etc/apt/apt.conf.d")? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !OTHERS_APT_CONFIGURATION
                .iter()
                .any(|other| name.starts_with(other))
            {
                self.copy(&path, "/etc/apt/apt.conf.d/")?;
            }
        }
        Ok(())
    }

    /// rustup as its installer leaves it: the programs and the default toolchain.
    fn copy_rustup(&self) -> Result<()> {
        let cargo = home("CARGO_HOME", ".cargo")?;
        let rustup = home("RUSTUP_HOME", ".rustup")?;
        let default = exec::output(Command::new("rustup").arg("default"))?;
        let default = default.split_whitespace().next().unwrap_or_default();
        let toolchain = Path::new("toolchains").join(default);
        let toolchain_files = fs::canonicalize(rustup.join(&toolchain))
            .with_context(|| format!("rustup's default toolchain {default} is not installed"))?;
        for dir in ["root/.cargo", "root/.rustup/toolchains"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        for name in ["bin", "config.toml", "config"] {
            self.copy(&cargo.join(name), &format!("/root/.cargo/{name}"))?;
        }
        let settings = "settings.toml";
        self.copy(&rustup.join(settings), &format!("/root/.rustup/{settings}"))?;
        let to = format!("/root/.rustup/{}", toolchain.display());
        self.copy(&toolchain_files, &to)
    }

    /// Copies a file, or what a directory holds, if it is there. Links to files are followed: what
    /// they lead to may not be in the root.
    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        if !from.exists() {
            return Ok(());
        }
        let to = self.dir.join(to.trim_start_matches('/'));
        let mut command = Command::new("cp");
        if from.is_dir() {
            fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
            // Not those that lead out of the directory: a toolchain's programs are links of rustup.
            command.arg("-a").arg(from.join("."));
        } else {
            command.arg("-L").arg(from);
        }
        exec::run(command.arg(to))
    }

    fn command(&self, command: &str) -> Command {
        let mut enter = Command::new("unshare");
        enter
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-e",
                "-c",
            ])
            .arg(ENTER)
            .arg(&self.dir)
            .arg(command)
            .args(["HOME=/root", "USER=root", "TERM=dumb"])
            .arg(format!("PATH={PATH}"));
        for (name, value) in env::vars_os().filter(|(name, _)| is_kept(&name.to_string_lossy())) {
            let mut word = name;
            word.push("=");
            word.push(value);
            enter.arg(word);
        }
        enter
    }
}

fn is_kept(name: &str) -> bool {
    KEPT_VARIABLES.iter().any(|kept| match *kept {
        "CI" => name == "CI",
        prefix => name.starts_with(prefix),
    })
}

/// Asks the kernel, before minutes go into a root that cannot be used.
fn may_mount() -> Result<()> {
    exec::output(Command::new("unshare").args([
        "--mount",
        "--pid",
        "--fork",
        "sh",
        "-e",
        "-c",
        "mount --bind /mnt /mnt; mount -t proc proc /mnt; chroot / true",
    ]))
    .context("mounting in a namespace of its own is refused; run this as root, outside of a confined container")
    .map(drop)
}

/// The release of Debian that this machine runs.
fn suite() -> Result<String> {
    let file = "/etc/os-release";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let mut names = text
        .lines()
        .filter_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match names.next() {
        Some(name) => Ok(name.trim_matches('"').to_owned()),
        None => bail!("{file} has no VERSION_CODENAME; this needs Debian"),
    }
}

/// Directory that the variable `name` names, else `default` below the home directory.
fn home(name: &str, default: &str) -> Result<PathBuf> {
    let set: Option<OsString> = env::var_os(name);
    match (set, env::home_dir()) {
        (Some(dir), _) => Ok(dir.into()),
        (None, Some(home)) => Ok(home.join(default)),
        (None, None) => bail!("neither {name} nor HOME is set"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_kept;

    #[test]
    fn only_ways_to_registries_are_kept() {
        for name in ["CARGO_NET_RETRY", "PIP_INDEX_URL", "https_proxy", "CI"] {
            assert!(is_kept(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_TARGET_DIR", "CI_JOB"] {
            assert!(!is_kept(name), "{name}");
        }
    }
}
