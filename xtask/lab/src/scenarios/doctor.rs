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

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    ensure_advised(&[
        ("stale_reuse", "conn_reuse_mode=1"),
        ("removed_server", "expire_nodest_conn=1"),
        ("uneven_reuse", "conn_reuse_mode=1"),
    ])
    .context("as it is")?;

    director::set("expire_nodest_conn", "1")?;
    ensure_advised(&[("uneven_reuse", "conn_reuse_mode=1")]).context("expire_nodest_conn=1")?;

    director::set("conn_reuse_mode", "1")?;
    ensure_advised(&[]).context("cured by conn_reuse_mode=1")?;

    director::set("conntrack", "1")?;
    ensure_advised(&[]).context("conntrack=1 where netfilter tracks nothing")?;
    director::enable_conntrack()?;
    ensure_advised(&[("syn_drop", "conntrack=0")]).context("conntrack=1")?;
    lab.bpf_before.ensure_nothing_new()
}

/// Both formats advise by exactly these rules, each naming its cure; notes do not count.
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
    let verdicts = json["verdicts"].as_array().context("no verdicts")?;
    let advising: Vec<_> = verdicts
        .iter()
        .filter(|verdict| verdict["verdict"] == "advise" && verdict["risk"] != "note")
        .collect();
    let names: Vec<_> = advising
        .iter()
        .filter_map(|verdict| verdict["id"].as_str())
        .collect();
    let want: Vec<_> = advice.iter().map(|(rule, _)| *rule).collect();
    ensure!(
        names == want,
        "rules with advice are {names:?}, want {want:?}: {json}"
    );
    for (verdict, (_, cure)) in advising.iter().zip(advice) {
        let wanted = verdict["want"].as_str().unwrap_or_default();
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
