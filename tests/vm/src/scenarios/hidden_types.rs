//! The kernel hides its types: without files nothing is observed, with them everything is.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::modes::{FOLLOW, PORTS, play};
use super::refusals::{BTF, without_btf};
use crate::agent::{self, Agent};
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::ORDINARY;
use crate::topology::REAL_SERVERS;

/// Types of several kernels, by release.
const DIRECTORY: &str = "/tmp/types";
/// Exit status: this node cannot be observed.
const CANNOT_OBSERVE: i32 = 3;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&FOLLOW)?;
    ORDINARY.create(&REAL_SERVERS)?;
    keep_types()?;
    without_btf(|| {
        refuses(&["run"])?;
        refuses(&["doctor"])?;
        refuses_another_release()?;
        observes(lab)?;
        let doctor = agent::finish(&["doctor", "--btf", DIRECTORY])?;
        ensure!(
            doctor.code != Some(CANNOT_OBSERVE) && doctor.stdout.contains(DIRECTORY),
            "the doctor with types: exit status {:?}\n{}",
            doctor.code,
            doctor.stdout
        );
        Ok(())
    })?;
    lab.bpf_before.ensure_nothing_new()
}

/// Copies what the kernel publishes; 5.10 does not publish the types of modules.
fn keep_types() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let directory = Path::new(DIRECTORY).join(release.trim());
    fs::create_dir_all(&directory)?;
    for name in ["vmlinux", "ip_vs"] {
        let published = Path::new(BTF).join(name);
        if published.exists() {
            fs::copy(&published, directory.join(name)).with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}

/// `run` and `doctor` agree: the same exit status, the same reason.
fn refuses(verb: &[&str]) -> Result<()> {
    let finished = agent::finish(verb)?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    ensure!(
        finished.code == Some(CANNOT_OBSERVE) && said.contains("this kernel publishes no BTF"),
        "{verb:?}: exit status {:?}, want {CANNOT_OBSERVE} and the reason:\n{said}",
        finished.code
    );
    Ok(())
}

fn refuses_another_release() -> Result<()> {
    let other = "/tmp/types-of-others";
    fs::create_dir_all(format!("{other}/4.18.0-1.el8.x86_64"))?;
    for verb in ["run", "doctor"] {
        let finished = agent::finish(&[verb, "--btf", other])?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(
            finished.code == Some(CANNOT_OBSERVE) && said.contains("no types for kernel"),
            "{verb}: exit status {:?}, want {CANNOT_OBSERVE} and the reason:\n{said}",
            finished.code
        );
    }
    Ok(())
}

fn observes(lab: &Lab) -> Result<()> {
    let mut agent = Agent::spawn_with(&["--btf", DIRECTORY])?;
    agent.wait_ready()?;
    let played = play(&ORDINARY, &Lab::plan(PORTS.collect()), |plan| lab.run(plan))?;
    agent.expect(&played.add_to(Expected::none()))?;
    agent.terminate()
}
