//! The doctor's report, for people and as JSON, and the exit status that goes with it.
//!
//! PURE.

use std::fmt::{self, Write};

use serde::Serialize;

use super::facts::Facts;
use super::rules::{RULES, Rule, Verdict};
use crate::error::Exit;

/// Where the sections of the rules are.
const DOCUMENT: &str = "docs/doctor.md";

/// One rule's judgement, with what a reader needs to act on it.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Name of the rule.
    pub id: &'static str,
    /// What is as it should be when the verdict is Ok.
    pub title: &'static str,
    /// The judgement.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Why it matters.
    pub why: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// How to take that back.
    pub undo: &'static str,
    /// Where to read more.
    pub doc: String,
    #[serde(skip)]
    prerequisite: bool,
}

/// Everything the doctor says about a node.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The exit status.
    pub exit_status: u8,
    /// One per rule, in their order.
    pub rules: Vec<Entry>,
    /// What was judged.
    pub facts: &'a Facts,
}

impl<'a> Report<'a> {
    /// Judges a node.
    #[must_use]
    pub fn of(facts: &'a Facts) -> Self {
        let rules: Vec<Entry> = RULES.iter().map(|rule| Entry::of(rule, facts)).collect();
        Self {
            exit_status: exit(&rules).status(),
            rules,
            facts,
        }
    }

    /// The exit status as a word.
    #[must_use]
    pub fn exit(&self) -> Exit {
        exit(&self.rules)
    }

    /// For people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn text(&self, out: &mut impl Write) -> fmt::Result {
        for entry in &self.rules {
            entry.text(out)?;
        }
        let ending = match self.exit() {
            Exit::Done => "nothing to do",
            Exit::Failed => "there is advice above",
            Exit::Usage | Exit::CannotObserve => "this node cannot be observed as it is",
        };
        writeln!(out, "\n{ending}")
    }
}

/// 3 when observing is impossible, or nothing but unknowns is left to say; else 1 for advice.
fn exit(rules: &[Entry]) -> Exit {
    let advice = |entry: &&Entry| matches!(entry.verdict, Verdict::Advise { .. });
    let unknown = |entry: &Entry| matches!(entry.verdict, Verdict::Unknown { .. });
    let mut advised = rules.iter().filter(advice).peekable();
    if advised.peek().is_none() {
        let some_unknown = rules.iter().any(unknown);
        return if some_unknown {
            Exit::CannotObserve
        } else {
            Exit::Done
        };
    }
    if advised.any(|entry| entry.prerequisite) {
        return Exit::CannotObserve;
    }
    Exit::Failed
}

impl Entry {
    fn of(rule: &Rule, facts: &Facts) -> Self {
        Self {
            id: rule.id,
            title: rule.title,
            verdict: (rule.check)(facts),
            why: rule.why,
            fix: rule.fix,
            undo: rule.undo,
            doc: format!("{DOCUMENT}#{}", rule.id),
            prerequisite: rule.prerequisite,
        }
    }

    fn text(&self, out: &mut impl Write) -> fmt::Result {
        let (word, rest) = match &self.verdict {
            Verdict::Ok => ("ok", self.title.to_owned()),
            Verdict::Advise { found, .. } => ("advice", found.clone()),
            Verdict::NotApplicable { why } => ("not applicable", why.clone()),
            Verdict::Unknown { missing } => ("unknown", format!("cannot read {missing}")),
        };
        writeln!(out, "{word:<15} {:<12} {rest}", self.id)?;
        if let Verdict::Advise { want, .. } = &self.verdict {
            for (name, text) in [
                ("want", want.as_str()),
                ("why", self.why),
                ("fix", self.fix),
                ("undo", self.undo),
                ("more", &self.doc),
            ] {
                writeln!(out, "{:<15} {name:<5} {text}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;

    use super::super::facts::IpVs;
    use super::*;

    fn facts() -> Facts {
        Facts {
            release: Some("6.12.1".to_owned()),
            capabilities: Some(u64::MAX),
            btf_kernel: Some(true),
            btf_ip_vs: Some(true),
            kprobes: Some(true),
            ip_vs: Some(IpVs::Module),
            nf_conntrack: Some(false),
            sysctls: ["conn_reuse_mode", "conntrack", "expire_nodest_conn"]
                .map(|name| (name.to_owned(), 0))
                .into(),
        }
    }

    #[test]
    fn the_text() {
        let mut text = String::new();
        Report::of(&facts()).text(&mut text).unwrap();
        expect![[r#"
            ok              kernel       the kernel is new enough
            ok              btf          the kernel describes its own types (BTF)
            ok              kprobes      the kernel can be probed
            ok              rights       this process may attach to the kernel
            ok              ip-vs        ip_vs is loaded
            ok              ip-vs-btf    the structures of ip_vs are known
            advice          stale-reuse  conn_reuse_mode=0 and expire_nodest_conn=0
                            want  conn_reuse_mode=1, or expire_nodest_conn=1
                            why   a new connection from a source port that comes back within two minutes is sent to the real server of the old entry, also when its weight is 0 or it is gone
                            fix   sysctl -w net.ipv4.vs.conn_reuse_mode=1 (or net.ipv4.vs.expire_nodest_conn=1), in the network namespace of the director; kube-router, and kube-proxy on kernels before 5.9, set it back to 0
                            undo  sysctl -w net.ipv4.vs.conn_reuse_mode=0
                            more  docs/doctor.md#stale-reuse
            ok              syn-drop     IPVS does not drop the SYN of a reused source port

            there is advice above
        "#]].assert_eq(&text);
    }

    #[test]
    fn the_json() {
        let facts = facts();
        let mut report = Report::of(&facts);
        report
            .rules
            .retain(|entry| ["btf", "stale-reuse"].contains(&entry.id));
        expect![[r#"
            {
              "exit_status": 1,
              "rules": [
                {
                  "id": "btf",
                  "title": "the kernel describes its own types (BTF)",
                  "verdict": "ok",
                  "why": "where the kernel keeps what is read differs between kernels, even within a stable series; BTF says where",
                  "fix": "boot a kernel built with CONFIG_DEBUG_INFO_BTF, as those of the large distributions are",
                  "undo": "boot the former kernel",
                  "doc": "docs/doctor.md#btf"
                },
                {
                  "id": "stale-reuse",
                  "title": "a reused source port does not follow its old entry to a stale real server",
                  "verdict": "advise",
                  "found": "conn_reuse_mode=0 and expire_nodest_conn=0",
                  "want": "conn_reuse_mode=1, or expire_nodest_conn=1",
                  "why": "a new connection from a source port that comes back within two minutes is sent to the real server of the old entry, also when its weight is 0 or it is gone",
                  "fix": "sysctl -w net.ipv4.vs.conn_reuse_mode=1 (or net.ipv4.vs.expire_nodest_conn=1), in the network namespace of the director; kube-router, and kube-proxy on kernels before 5.9, set it back to 0",
                  "undo": "sysctl -w net.ipv4.vs.conn_reuse_mode=0",
                  "doc": "docs/doctor.md#stale-reuse"
                }
              ],
              "facts": {
                "release": "6.12.1",
                "capabilities": 18446744073709551615,
                "btf_kernel": true,
                "btf_ip_vs": true,
                "kprobes": true,
                "ip_vs": "module",
                "nf_conntrack": false,
                "sysctls": {
                  "conn_reuse_mode": 0,
                  "conntrack": 0,
                  "expire_nodest_conn": 0
                }
              }
            }"#]].assert_eq(&serde_json::to_string_pretty(&report).unwrap());
    }

    #[test]
    fn exits() {
        let exit = |change: fn(&mut Facts)| {
            let mut facts = facts();
            facts.sysctls.insert("conn_reuse_mode".to_owned(), 1);
            change(&mut facts);
            Report::of(&facts).exit()
        };
        assert_eq!(exit(|_| ()), Exit::Done);
        assert_eq!(exit(|f| f.ip_vs = Some(IpVs::Absent)), Exit::Failed);
        assert_eq!(exit(|f| f.kprobes = Some(false)), Exit::CannotObserve);
        assert_eq!(exit(|f| f.sysctls = BTreeMap::new()), Exit::CannotObserve);
        assert_eq!(
            exit(|f| {
                f.ip_vs = Some(IpVs::Absent);
                f.release = None;
            }),
            Exit::Failed
        );
        assert_eq!(exit(|f| *f = Facts::default()), Exit::CannotObserve);
    }
}
