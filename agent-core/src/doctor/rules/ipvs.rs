//! What the rules about one namespace have in common.

use super::super::facts::{ControllerKind, Facts, Guess, IpVs, Netns, Seen, Table};
use super::verdict::{Judged, Sure, Verdict, need, not_applicable};

/// A namespace with IPVS in it, under judgement.
#[derive(Clone, Copy)]
pub(super) struct Director<'a> {
    pub(super) facts: &'a Facts,
    pub(super) netns: &'a Netns,
}

impl<'a> Director<'a> {
    /// Judges where there are services to be judged.
    pub(super) fn judge(
        facts: &'a Facts,
        netns: &'a Netns,
        rule: impl FnOnce(Self) -> Judged,
    ) -> Verdict {
        let director = Self { facts, netns };
        let judged = director.has_services().and_then(|()| rule(director));
        judged.unwrap_or_else(|early| early)
    }

    fn has_services(self) -> Result<(), Verdict> {
        if *need(&self.facts.ip_vs, "ip_vs")? == IpVs::Absent {
            return Err(not_applicable("ip_vs is not loaded"));
        }
        if self.table()?.service_count() == 0 {
            return Err(not_applicable("no virtual service is configured"));
        }
        Ok(())
    }

    pub(super) fn table(self) -> Result<&'a Table, Verdict> {
        need(&self.netns.table, "/proc/net/ip_vs")
    }

    /// A numeric parameter of `net.ipv4.vs`; `None` where this kernel has none of that name.
    pub(super) fn optional(self, name: &str) -> Result<Option<i64>, Verdict> {
        let all = need(&self.netns.sysctls, "net.ipv4.vs")?;
        let Some(text) = all.get(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| Verdict::Unknown {
            because: format!("net.ipv4.vs.{name} is {text:?}, which is no number"),
        })
    }

    /// A numeric parameter that every kernel has.
    pub(super) fn sysctl(self, name: &str) -> Result<i64, Verdict> {
        self.optional(name)?.ok_or_else(|| Verdict::Unknown {
            because: format!("this kernel has no net.ipv4.vs.{name}"),
        })
    }

    /// What a running agent has seen here; nothing when none runs.
    pub(super) fn seen(self) -> Seen {
        self.facts.seen(self.netns).cloned().unwrap_or_default()
    }

    /// Whether netfilter tracks connections in this namespace.
    ///
    /// An entry proves it, and so does a rule that asks for it; that there is none now is proven
    /// only by knowing the rules.
    pub(super) fn tracks_connections(self) -> Result<bool, Verdict> {
        if !*need(&self.facts.nf_conntrack, "nf_conntrack")? {
            return Ok(false);
        }
        if *need(&self.netns.conntrack.count, "nf_conntrack_count")? > 0 {
            return Ok(true);
        }
        let rules = need(
            &self.netns.rules,
            "whether netfilter tracks connections here (it has no entry now): the rules",
        )?;
        Ok(rules.stateful > 0)
    }

    /// Whether somebody needs IPVS to keep netfilter's entries (`net.ipv4.vs.conntrack=1`).
    pub(super) fn needs_conntrack(self) -> Option<&'static str> {
        let controllers = [
            ControllerKind::KubeProxy,
            ControllerKind::KubeRouter,
            ControllerKind::DockerSwarm,
        ];
        let found = controllers
            .into_iter()
            .find(|kind| self.facts.has_controller(*kind));
        if let Some(kind) = found {
            return Some(kind.name());
        }
        let rules = self.netns.rules.known()?;
        (!rules.masquerades.is_empty()).then_some("a masquerading rule of this namespace")
    }

    /// Who sets `conn_reuse_mode`, and by what.
    pub(super) fn who_sets_reuse_mode(self) -> &'static str {
        if self.facts.has_controller(ControllerKind::KubeRouter) {
            return " kube-router sets conn_reuse_mode=0 on every kernel and will set it back.";
        }
        if self.facts.has_controller(ControllerKind::DockerSwarm) {
            return " Docker Swarm sets conn_reuse_mode=0 when it makes a namespace.";
        }
        if !self.facts.has_controller(ControllerKind::KubeProxy) {
            return "";
        }
        if self.facts.kernel.is_vendor() {
            return " kube-proxy decides by the version in the kernel's release (0 before 5.9), \
                    which says little about a kernel with a distributor's own patches.";
        }
        " kube-proxy sets conn_reuse_mode=0 on releases before 5.9 and leaves it alone from then on."
    }

    /// How sure, from a count of what was seen and what the version says.
    pub(super) fn sure(seen: u64, guess: Guess) -> Sure {
        match guess {
            _ if seen > 0 => Sure::Observed,
            Guess::Unsure => Sure::Unknown,
            Guess::Yes | Guess::No => Sure::Configured,
        }
    }
}

/// ", seen N times by the agent" where it was.
pub(super) fn times(seen: u64) -> String {
    match seen {
        0 => String::new(),
        1 => "; seen once since the settings last changed".to_owned(),
        _ => format!("; seen {seen} times since the settings last changed"),
    }
}
