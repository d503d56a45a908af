//! `ipvs-lens doctor`: it names the hazard and its cure, and is content once cured.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::topology::REAL_SERVERS;

/// Exit status: nothing to do.
const FINE: i32 = 0;
/// Exit status: there is advice.
const ADVICE: i32 = 1;
/// Rule: a reused port follows its entry to a stale real server.
const STALE_REUSE: &str = "stale-reuse";
/// Rule: IPVS drops the SYN of a reused port.
const SYN_DROP: &str = "syn-drop";

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    ensure_advised(&[(STALE_REUSE, "conn_reuse_mode=1")]).context("conn_reuse_mode=0")?;

    director::set("conn_reuse_mode", "1")?;
    ensure_advised(&[]).context("cured by conn_reuse_mode=1")?;

    director::set("conn_reuse_mode", "0")?;
    director::set("expire_nodest_conn", "1")?;
    ensure_advised(&[]).context("cured by expire_nodest_conn=1")?;

    director::set("conntrack", "1")?;
    director::enable_conntrack()?;
    ensure_advised(&[(SYN_DROP, "conntrack=0")]).context("conntrack=1")?;
    lab.bpf_before.ensure_nothing_new()
}

/// Both formats advise by exactly these rules, each naming its cure.
fn ensure_advised(advice: &[(&str, &str)]) -> Result<()> {
    let status = if advice.is_empty() { FINE } else { ADVICE };
    let text = ask("text", status)?;
    for (rule, cure) in advice {
        ensure!(
            text.contains(rule) && text.contains(cure),
            "no {rule} with {cure} in:\n{text}"
        );
    }
    let json: Value = serde_json::from_str(&ask("json", status)?).context("no JSON")?;
    ensure!(
        json["exit_status"] == status,
        "exit_status is {}, want {status}",
        json["exit_status"]
    );
    let rules = json["rules"].as_array().context("no rules")?;
    let advising: Vec<_> = rules
        .iter()
        .filter(|rule| rule["verdict"] == "advise")
        .collect();
    let names: Vec<_> = advising
        .iter()
        .filter_map(|rule| rule["id"].as_str())
        .collect();
    let want: Vec<_> = advice.iter().map(|(rule, _)| *rule).collect();
    ensure!(
        names == want,
        "rules with advice are {names:?}, want {want:?}: {json}"
    );
    for (rule, (_, cure)) in advising.iter().zip(advice) {
        let wanted = rule["want"].as_str().unwrap_or_default();
        ensure!(
            wanted.contains(cure),
            "wants {wanted:?}, which does not name {cure}"
        );
    }
    Ok(())
}

fn ask(format: &str, status: i32) -> Result<String> {
    let verdict = agent::finish(&["doctor", "--format", format])?;
    ensure!(
        verdict.code == Some(status),
        "doctor --format {format} ended with {:?}, want {status}:\n{}{}",
        verdict.code,
        verdict.stdout,
        verdict.stderr
    );
    Ok(verdict.stdout)
}
