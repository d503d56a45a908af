//! Debian's systemd as process 1 of the guest.

use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command;

/// The program that becomes process 1.
const PROGRAM: &str = "/lib/systemd/systemd";

/// The unit of the lab: it ends by powering the guest off.
const LAB_UNIT: (&str, &str) = (
    "/etc/systemd/system/lab.service",
    "[Unit]\n\
     After=basic.target\n\
     Requires=basic.target\n\
     [Service]\n\
     ExecStart=/bin/lab unit\n\
     StandardOutput=tty\n\
     TTYPath=/dev/console\n",
);

/// What an installed system has and unpacked packages lack.
const FILES: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\n"),
    ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("/etc/fstab", ""),
    LAB_UNIT,
];

/// Units of the usual start that an emulated machine without disks does not need.
const MASKED: &[&str] = &[
    "systemd-binfmt.service",
    "systemd-hwdb-update.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-update-utmp.service",
];

/// Turns this process into systemd, which starts the lab's unit and little else.
///
/// # Errors
/// The guest has no systemd, or a file cannot be written.
pub fn become_process_1() -> Result<Infallible> {
    fs::create_dir_all("/etc/systemd/system")?;
    for (path, text) in FILES {
        fs::write(path, text).with_context(|| format!("write {path}"))?;
    }
    for unit in MASKED {
        let link = format!("/etc/systemd/system/{unit}");
        std::os::unix::fs::symlink("/dev/null", &link).with_context(|| format!("mask {unit}"))?;
    }
    let error = Command::new(PROGRAM)
        .args(["--unit=lab.service", "--show-status=no"])
        .exec();
    Err(error).with_context(|| format!("start {PROGRAM}"))
}

/// Writes a unit and makes systemd read it.
///
/// # Errors
/// The file cannot be written, or systemd refuses it.
pub fn install(name: &str, text: &str) -> Result<()> {
    fs::write(format!("/etc/systemd/system/{name}"), text)
        .with_context(|| format!("write {name}"))?;
    command::line("systemctl daemon-reload").map(drop)
}

/// What systemd calls the state of a unit: `active`, `failed`, `inactive`.
///
/// # Errors
/// systemctl cannot be started.
pub fn state(name: &str) -> Result<String> {
    let output = Command::new("systemctl")
        .args(["show", "--value", "--property=ActiveState", name])
        .output()
        .context("start systemctl")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Last lines that a unit has logged.
pub fn log(name: &str) -> String {
    let output = Command::new("journalctl")
        .args(["--no-pager", "--output=cat", "--lines=30", "--unit", name])
        .output();
    output.map_or_else(
        |error| format!("journalctl: {error}"),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}
