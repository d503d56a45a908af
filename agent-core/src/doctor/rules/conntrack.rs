//! netfilter's connection tracking table.

use super::super::facts::{ControllerKind, Facts, Netns};
use super::verdict::{Advice, Judged, Lasting, Remedy, Risk, Sure, Verdict, need, not_applicable};

/// Percent in use from which a burst fills the table: what node alerts commonly take.
const NEARLY_FULL_PERCENT: u64 = 75;
/// Percent in use from which the next burst will.
const FULL_PERCENT: u64 = 90;
/// Entries for each bucket of the hash table, as the kernel sizes it since 5.15 is one, before
/// four: above that lookups get slow.
const ENTRIES_PER_BUCKET_MAX: u64 = 4;
/// Where the kernel takes another size of the hash table.
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

pub(super) fn full(facts: &Facts, netns: &Netns) -> Verdict {
    judge_full(facts, netns).unwrap_or_else(|early| early)
}

fn judge_full(facts: &Facts, netns: &Netns) -> Judged {
    tracking_loaded(facts)?;
    let count = *need(&netns.conntrack.count, "nf_conntrack_count")?;
    let max = *need(&netns.conntrack.max, "nf_conntrack_max")?;
    let percent = count.saturating_mul(100).checked_div(max);
    // 0 means no bound.
    let Some(percent) = percent.filter(|percent| *percent >= NEARLY_FULL_PERCENT) else {
        return Ok(Verdict::Ok);
    };
    let dropped = netns.conntrack.drop.known().copied().unwrap_or(0);
    let (risk, sure) = match (percent >= FULL_PERCENT, dropped > 0) {
        (_, true) => (Risk::High, Sure::Observed),
        (true, false) => (Risk::High, Sure::Configured),
        (false, false) => (Risk::Medium, Sure::Configured),
    };
    let found = format!(
        "{count} of {max} entries in use ({percent} %), {dropped} packets dropped for want of room \
         since boot"
    );
    let want = max.saturating_mul(2);
    Ok(Advice::new(
        (risk, sure),
        found,
        format!("nf_conntrack_max={want}, or shorter timeouts"),
        "when the table is full, the first packet of every new connection is dropped, and to the \
         client it looks like a lost SYN",
    )
    .by(larger(facts, netns, max, want))
    .into())
}

/// Only the first namespace may set the bound, which holds for each; the rest cannot.
fn larger(facts: &Facts, netns: &Netns, max: u64, want: u64) -> Remedy {
    let set = |value: u64| format!("sysctl -w net.netfilter.nf_conntrack_max={value}");
    let mut remedy = Remedy {
        commands: vec![set(want)],
        undo: vec![set(max)],
        lasting: vec![Lasting {
            place: "/etc/sysctl.d/90-conntrack.conf".to_owned(),
            text: format!("net.netfilter.nf_conntrack_max = {want}"),
        }],
    };
    if facts.has_controller(ControllerKind::KubeProxy) {
        remedy.lasting = vec![Lasting {
            place: "kube-proxy's configuration, which overrides sysctl.d".to_owned(),
            text: format!("conntrack:\n  maxPerCore: 0\n  min: {want}"),
        }];
    }
    let buckets = netns.conntrack.buckets.known().copied();
    if let Some(buckets) = buckets.filter(|buckets| want / ENTRIES_PER_BUCKET_MAX > *buckets) {
        let size = want / ENTRIES_PER_BUCKET_MAX;
        remedy.commands.push(format!("echo {size} > {HASHSIZE}"));
        remedy
            .undo
            .insert(0, format!("echo {buckets} > {HASHSIZE}"));
        remedy.lasting.push(Lasting {
            place: "/etc/modprobe.d/conntrack.conf".to_owned(),
            text: format!("options nf_conntrack hashsize={size}"),
        });
    }
    remedy
}

pub(super) fn insert(facts: &Facts, netns: &Netns) -> Verdict {
    judge_insert(facts, netns).unwrap_or_else(|early| early)
}

fn judge_insert(facts: &Facts, netns: &Netns) -> Judged {
    tracking_loaded(facts)?;
    let failed = *need(&netns.conntrack.insert_failed, "insert_failed")?;
    if failed == 0 {
        return Ok(Verdict::Ok);
    }
    let masquerades = netns.rules.known().map(|rules| &rules.masquerades);
    let plain = masquerades.map_or(0, |rules| {
        let random =
            |rule: &&String| rule.contains("random-fully") || rule.contains("fully-random");
        rules.iter().filter(|rule| !random(rule)).count()
    });
    let want = if plain > 0 {
        format!("--random-fully on every masquerading rule ({plain} here lack it)")
    } else {
        "fewer flows that are translated to the same address and port".to_owned()
    };
    Ok(Advice::new(
        (Risk::Note, Sure::Observed),
        format!("{failed} entries could not be inserted since boot"),
        want,
        "two flows were translated to the same addresses and ports, or two packets of one flow \
         raced: the packet that lost was dropped, and its client waits 1 s (TCP) or for its own \
         timeout (DNS: 5 s)",
    )
    .into())
}

fn tracking_loaded(facts: &Facts) -> Result<(), Verdict> {
    if *need(&facts.nf_conntrack, "nf_conntrack")? {
        return Ok(());
    }
    Err(not_applicable("nf_conntrack is not loaded"))
}
