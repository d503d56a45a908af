//! Findings are the same however long the machine has been up.

use proptest::prelude::*;

use super::scenario::run_from;

/// Nanoseconds around which the clock is shifted, both ways.
const ORIGIN_NS: i64 = 1 << 62;

/// Lines of a scenario in the order of time: events of a few clients, and time that passes.
fn any_scenario() -> impl Strategy<Value = String> {
    let event = (
        prop_oneof![Just("drop"), Just("pass"), Just("stale"), Just("syn-drop")],
        prop_oneof![Just("ipvs_reuse"), Just("ipvs_removed"), Just("netfilter")],
        40_000_u16..40_003,
        // Since the line before; and how long ago it happened when it was read.
        0_u64..4_000,
        0_u64..300,
    );
    prop::collection::vec(event, 1..20).prop_map(|events| {
        let mut now = 0;
        let mut lines = Vec::new();
        for (what, cause, port, later, ago) in events {
            now += later;
            let at = now.saturating_sub(ago);
            lines.push(format!(
                "read={now} at={at} {what} port={port} cause={cause}"
            ));
            lines.push(format!("time={}", now + 1));
        }
        lines.push(format!("time={}", now + 30_000));
        lines.push(format!("end={}", now + 30_001));
        lines.join("\n")
    })
}

proptest! {
    #[test]
    fn findings_do_not_depend_on_the_uptime(
        text in any_scenario(),
        shift_ns in -ORIGIN_NS..=ORIGIN_NS,
        tell_all in any::<bool>(),
    ) {
        let at_origin = run_from(ORIGIN_NS.unsigned_abs(), tell_all, &text);
        for shift_ns in [shift_ns, 0, -ORIGIN_NS, ORIGIN_NS] {
            let uptime_ns = ORIGIN_NS.unsigned_abs().saturating_add_signed(shift_ns);
            prop_assert_eq!(&run_from(uptime_ns, tell_all, &text), &at_origin, "{}", uptime_ns);
        }
    }
}
