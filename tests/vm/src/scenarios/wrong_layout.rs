//! The agent gets wrong offsets of ip_vs: it must notice by the first SYN and say no more.
//!
//! The right offsets are the agent's own of a first, right run, so that only what is changed here
//! is wrong. A layout that misses a field is refused before anything is attached.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{self, Agent};
use crate::btf::{self, Layout, Place};
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::ORDINARY;
use crate::topology::REAL_SERVERS;

/// Where the wrong types are.
const BTF_FILE: &str = "/tmp/ip_vs.btf";
/// Exit status: this node cannot be observed.
const CANNOT_OBSERVE: i32 = 3;
/// Fields of ip_vs with their sizes in bytes, the same on every kernel.
const SIZES: &[(&str, &[(&str, u32)])] = &[
    (
        "ip_vs_iphdr",
        &[
            ("hdr_flags", 4),
            ("len", 4),
            ("fragoffs", 2),
            ("protocol", 2),
            ("saddr", 16),
            ("daddr", 16),
        ],
    ),
    (
        "ip_vs_conn",
        &[
            ("cport", 2),
            ("vport", 2),
            ("dport", 2),
            ("caddr", 16),
            ("vaddr", 16),
            ("daddr", 16),
            ("protocol", 2),
            ("fwmark", 4),
            ("state", 2),
            ("control", 8),
            ("dest", 8),
        ],
    ),
    (
        "ip_vs_dest",
        &[
            ("af", 2),
            ("port", 2),
            ("addr", 16),
            ("weight", 4),
            ("flags", 4),
            ("cflags", 8),
            ("protocol", 2),
            ("vport", 2),
            ("vaddr", 16),
            ("svc", 8),
            ("vfwmark", 4),
        ],
    ),
    (
        "ip_vs_service",
        &[
            ("af", 2),
            ("protocol", 2),
            ("addr", 16),
            ("port", 2),
            ("fwmark", 4),
            ("ipvs", 8),
        ],
    ),
    ("netns_ipvs", &[("net", 8)]),
];

/// Fields of which each alone, moved, must be noticed by the first SYN.
const PROVEN: [(&str, &str); 8] = [
    ("ip_vs_conn", "caddr"),
    ("ip_vs_conn", "dest"),
    ("ip_vs_dest", "addr"),
    ("ip_vs_dest", "port"),
    ("ip_vs_dest", "vport"),
    ("ip_vs_dest", "vaddr"),
    ("ip_vs_service", "ipvs"),
    ("netns_ipvs", "net"),
];

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0")])?;
    ORDINARY.create(&REAL_SERVERS)?;
    let right = right_layout()?;
    let mut ports = (40_000..).step_by(10);
    let mut port = || ports.next().context("no port is left");

    observes(lab, &right, port()?).context("the right layout, from a file")?;
    let mut undetected = String::new();
    let swapped = swapped(&right)?;
    if let Err(error) = refuses(lab, &swapped, port()?) {
        let _ = writeln!(undetected, "cport and vport swapped: {error:#}");
    }
    for (structure, field) in PROVEN {
        let wrong = moved(&right, structure, field)?;
        if let Err(error) = refuses(lab, &wrong, port()?) {
            let _ = writeln!(undetected, "{structure}.{field} moved: {error:#}");
        }
    }
    ensure!(
        undetected.is_empty(),
        "wrong layouts went through:\n{undetected}"
    );
    for field in ["cport", "dest"] {
        misses(&right, "ip_vs_conn", field)?;
    }
    Ok(())
}

/// The offsets the agent itself finds.
fn right_layout() -> Result<Layout> {
    let agent = Agent::start()?;
    let status = agent.status()?;
    agent.terminate()?;
    let offsets = status["layout"]
        .as_object()
        .context("no layout in /status")?;
    let mut layout = Layout::new();
    for (structure, fields) in SIZES {
        for (field, size_bytes) in *fields {
            let Some(offset) = offsets.get(&format!("{structure}.{field}")) else {
                ensure!(
                    *field == "cflags",
                    "/status has no offset of {structure}.{field}"
                );
                continue;
            };
            let offset = offset.as_u64().context("an offset is no number")?;
            let place = Place {
                offset_bytes: u32::try_from(offset)?,
                size_bytes: *size_bytes,
            };
            layout.insert(((*structure).to_owned(), (*field).to_owned()), place);
        }
    }
    let known = offsets.keys().filter(|name| is_of_module(name)).count();
    ensure!(
        layout.len() == known,
        "/status has {known} fields of ip_vs, this scenario knows {}: {offsets:?}",
        layout.len()
    );
    Ok(layout)
}

fn is_of_module(name: &str) -> bool {
    name.starts_with("ip_vs_") || name.starts_with("netns_ipvs.")
}

fn place<'a>(layout: &'a mut Layout, structure: &str, field: &str) -> Result<&'a mut Place> {
    layout
        .get_mut(&(structure.to_owned(), field.to_owned()))
        .with_context(|| format!("no {structure}.{field} in the layout"))
}

/// The layout with one field taken for what follows it.
fn moved(right: &Layout, structure: &str, field: &str) -> Result<Layout> {
    let mut wrong = right.clone();
    let place = place(&mut wrong, structure, field)?;
    place.offset_bytes += place.size_bytes;
    Ok(wrong)
}

fn swapped(right: &Layout) -> Result<Layout> {
    let mut wrong = right.clone();
    let cport = *place(&mut wrong, "ip_vs_conn", "cport")?;
    let vport = std::mem::replace(place(&mut wrong, "ip_vs_conn", "vport")?, cport);
    *place(&mut wrong, "ip_vs_conn", "cport")? = vport;
    Ok(wrong)
}

/// Starts the agent with this layout; only kprobes work without the kernel's own types.
fn start(layout: &Layout) -> Result<Agent> {
    fs::write(BTF_FILE, btf::file(layout))?;
    let mut agent = Agent::spawn_with(&["--attach", "auto", "--btf", BTF_FILE])?;
    agent.wait_ready()?;
    Ok(agent)
}

fn observes(lab: &Lab, layout: &Layout, port: u16) -> Result<()> {
    let agent = start(layout)?;
    let types = agent.status()?["types"].to_string();
    ensure!(
        types.contains(BTF_FILE),
        "types come from {types}, want {BTF_FILE}"
    );
    lab.run_all_answered(&Lab::plan(vec![port]))?;
    agent.expect(&Expected::none().decision("scheduled", 1))?;
    agent.terminate()
}

/// The first SYN contradicts the layout; later ones, new and reused, change nothing.
fn refuses(lab: &Lab, layout: &Layout, port: u16) -> Result<()> {
    let began = Instant::now();
    let mut agent = start(layout)?;
    let ready = began.elapsed();
    lab.run_all_answered(&Lab::plan(vec![port]))?;
    let expected = Expected::none().lost("layout_contradicted", 1);
    agent.expect(&expected)?;
    agent.wait_readyz(503)?;
    let status = agent.status()?;
    let reason = status["reason"].as_str().unwrap_or_default();
    ensure!(
        status["state"] == "refused" && reason.contains("layout"),
        "/status: want state \"refused\" and a reason that names the layout, got {status}"
    );
    lab.run_all_answered(&Lab::plan(vec![port, port + 1]))?;
    agent.expect(&expected).context("after more SYNs")?;
    agent.terminate()?;
    lab.bpf_before.ensure_nothing_new()?;
    println!(
        "refused: ready after {ready:.1?}, ended after {:.1?}",
        began.elapsed()
    );
    Ok(())
}

/// Without one of its fields the layout is refused at the start, by the field's name.
fn misses(right: &Layout, structure: &str, field: &str) -> Result<()> {
    let mut layout = right.clone();
    layout.remove(&(structure.to_owned(), field.to_owned()));
    fs::write(BTF_FILE, btf::file(&layout))?;
    let finished = agent::finish(&["run", "--attach", "auto", "--btf", BTF_FILE])?;
    let lines = finished.stderr.lines();
    let naming = lines.filter(|line| line.contains(structure) && line.contains(field));
    ensure!(
        finished.code == Some(CANNOT_OBSERVE) && naming.count() == 1,
        "without {structure}.{field}: exit status {:?}, want {CANNOT_OBSERVE} and one line that names it; stderr:\n{}",
        finished.code,
        finished.stderr
    );
    Ok(())
}
