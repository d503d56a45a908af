//! IPVS's own statistics.

use super::super::facts::{Facts, Guess, Netns, Version};
use super::ipvs::Director;
use super::remedy::{self, Change};
use super::verdict::{Advice, Judged, Risk, Verdict};

/// Rates are estimated by threads of their own, in small portions, since this kernel.
const BY_THREADS: Version = Version(6, 2, 0);
/// Counters walked in one go, every 2 s, by which packets of one CPU were seen to wait for tens
/// of milliseconds.
const ESTIMATORS_MAX: u64 = 5_000;

pub(super) fn estimation(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge)
}

fn judge(here: Director<'_>) -> Judged {
    let table = here.table()?;
    let estimators = table.service_count().saturating_add(table.real_servers);
    let switch = here.optional("run_estimation")?;
    if switch == Some(0) {
        return Ok(switched_off());
    }
    let version = here.facts.kernel.version();
    let version = version.ok_or_else(|| Verdict::Unknown {
        because: "the kernel's release".to_owned(),
    })?;
    if version >= BY_THREADS || estimators <= ESTIMATORS_MAX {
        return Ok(Verdict::Ok);
    }
    let advice = Advice::new(
        (Risk::Medium, Director::sure(0, Guess::Unsure)),
        format!("{estimators} services and real servers, whose rates one CPU estimates every 2 s"),
        match switch {
            Some(_) => "run_estimation=0, or kernel 6.2 or later",
            None => "kernel 6.2 or later",
        },
        "before 6.2 one timer walks them all with packets of that CPU waiting: requests take up to \
         hundreds of milliseconds more, on one CPU, every 2 s. Switching it off also stops \
         `ipvsadm --stats` and `--rate`; ipvs-lens does not use them.",
    );
    let changes = switch.map(|on| Change::number("net.ipv4.vs.run_estimation", on, 0));
    Ok(match changes {
        Some(change) => advice.by(remedy::sysctls(here.facts, here.netns, &[change])),
        None => advice,
    }
    .into())
}

fn switched_off() -> Verdict {
    Advice::new(
        (Risk::Note, Director::sure(0, Guess::Yes)),
        "run_estimation=0",
        "to know it: `ipvsadm --stats` and `--rate` and what is made from them stand still",
        "IPVS's statistics are off, most likely on purpose; ipvs-lens does not use them",
    )
    .into()
}
