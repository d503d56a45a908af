//! Scenarios, properties and caps of the correlator.

use std::time::Duration;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::scenario::run;
use super::*;
use crate::testing::{any_packet_event, any_story, sample_attempt, sample_syn_drop};

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&run(false, text));
}

#[test]
fn a_stale_connection_is_told_after_the_window() {
    check(
        "read=10 at=10 stale port=40001 weight=0 rs=10.1.1.2:80
         time=259
         time=260",
        expect![[r#"
              260 ms  stale connection: 10.0.0.2:40001 -> TCP 10.96.0.10:80 sent to 10.1.1.2:80 (weight 0) by port_reuse
            events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn a_drop_and_its_retransmit_are_one_delay() {
    check(
        "read=0 at=0 drop port=40009 drops=1
         read=1040 at=1033 pass port=40009 first=0 drops=1 rs=10.1.1.3:80
         time=2000",
        expect![[r#"
             2000 ms  connect delayed 1.033 s: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 1 SYN dropped by ipvs_reuse, then got through to 10.1.1.3:80 (weight 1)
            events 2 = reported 2 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn the_delay_stands_without_the_drops_record() {
    check(
        "read=1040 at=1033 pass port=40009 first=0 drops=1
         time=2000",
        expect![[r#"
             2000 ms  connect delayed 1.033 s: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 1 SYN dropped by ipvs_reuse, then got through to 10.1.1.2:8080 (weight 1)
            events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn a_drop_that_nothing_follows_is_told_at_its_deadline() {
    check(
        "read=0 at=0 drop port=40009 cause=ipvs_removed drops=1
         time=16249
         time=16250",
        expect![[r#"
            16250 ms  connect blocked: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 1 SYN dropped by ipvs_removed, none got through here in 16.0 s
            events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn a_netfilter_drop_before_a_pass_is_a_delay_by_netfilter() {
    check(
        "read=0 at=0 syn-drop port=40009 cause=netfilter
         read=1005 at=1003 syn-drop port=40009 cause=netfilter
         read=3010 at=3008 pass port=40009
         time=4000",
        expect![[r#"
             4000 ms  connect delayed 3.008 s: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 2 SYNs dropped by netfilter, then got through to 10.1.1.2:8080 (weight 1)
            events 3 = reported 3 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn a_netfilter_drop_that_never_met_ipvs_expires_as_such() {
    check(
        "read=0 at=0 syn-drop port=22 cause=netfilter
         time=16250",
        expect![[r#"
            16250 ms  SYN dropped: 10.0.0.2:22 -> TCP 10.96.0.10:80, 1 by netfilter in input, none got through here in 16.0 s
            events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn the_earlier_drop_names_the_cause() {
    check(
        "read=0 at=0 syn-drop port=40009 cause=netfilter
         read=1000 at=1000 drop port=40009 cause=ipvs_reuse drops=2
         time=18000",
        expect![[r#"
            18000 ms  connect blocked: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 2 SYNs dropped by netfilter, none got through here in 16.0 s
            events 2 = reported 2 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn a_new_attempt_on_the_same_tuple_is_not_the_retransmit() {
    check(
        "read=0 at=0 drop port=40009 isn=1 drops=1
         read=1000 at=1000 pass port=40009 isn=2
         time=16250",
        expect![[r#"
            16250 ms  connect blocked: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 1 SYN dropped by ipvs_reuse, none got through here in 16.0 s
            events 2 = reported 1 + suppressed 1 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn a_pass_read_before_its_drop_is_put_in_order() {
    check(
        "read=101 at=100 pass port=40009
         read=102 at=50 syn-drop port=40009 cause=netfilter
         time=1000",
        expect![[r#"
             1000 ms  connect delayed 0.050 s: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 1 SYN dropped by netfilter, then got through to 10.1.1.2:8080 (weight 1)
            events 2 = reported 2 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn losses_while_held_are_told() {
    check(
        "read=0 at=0 drop port=40009 drops=1
         time=300
         lost=3
         time=16250",
        expect![[r#"
            16250 ms  connect blocked: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 1 SYN dropped by ipvs_reuse, none got through here in 16.0 s (3 events lost meanwhile)
            events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn a_late_event_is_counted_and_handled() {
    check(
        "time=1000
         read=1000 at=700 stale port=40001 weight=0",
        expect![[r#"
             1000 ms  stale connection: 10.0.0.2:40001 -> TCP 10.96.0.10:80 sent to 10.1.1.2:8080 (weight 0) by port_reuse
            events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 1
        "#]],
    );
}

#[test]
fn the_end_tells_how_long_was_waited() {
    check(
        "read=0 at=0 drop port=40009 drops=1
         end=1500",
        expect![[r#"
             1500 ms  connect blocked: 10.0.0.2:40009 -> TCP 10.96.0.10:80, 1 SYN dropped by ipvs_reuse, none got through here in 1.5 s
            events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 0
        "#]],
    );
}

#[test]
fn all_decisions_are_told_when_asked_for() {
    let text = "read=10 at=10 pass port=40001
                time=260";
    expect![[r#"
          260 ms  scheduled: 10.0.0.2:40001 -> TCP 10.96.0.10:80 sent to 10.1.1.2:8080 (weight 1)
        events 1 = reported 1 + suppressed 0 + evicted 0 + held 0; late 0
    "#]]
    .assert_eq(&run(true, text));
}

/// Later than every deadline of a story.
const END: MonoNs = MonoNs(1_000_000_000_000);

/// Every finding of events read in this order, and the counters at the end.
fn findings(reads: &[(MonoNs, PacketEvent)], polls: &[bool]) -> (Vec<Finding>, Counters) {
    let mut correlator = Correlator::new(true);
    let mut out = Vec::new();
    for (i, (now, event)) in reads.iter().enumerate() {
        correlator.handle_event(*now, *event);
        if polls.get(i).copied().unwrap_or(false) {
            correlator.handle_timeout(*now);
        }
        out.extend(std::iter::from_fn(|| correlator.poll_output()));
    }
    correlator.handle_end(END);
    out.extend(std::iter::from_fn(|| correlator.poll_output()));
    (out, correlator.counters())
}

proptest! {
    #[test]
    fn order_within_the_window_does_not_matter(
        story in any_story(),
        jitter_ms in proptest::collection::vec(0_u64..250, 60),
        polls in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let in_order: Vec<_> = story.iter().map(|event| (event.at(), *event)).collect();
        let mut reads: Vec<_> = story
            .iter()
            .zip(jitter_ms)
            .map(|(event, ms)| (event.at() + Duration::from_millis(ms), *event))
            .collect();
        reads.sort_by_key(|(now, _)| *now);
        let (expected, plain) = findings(&in_order, &[]);
        let (found, jittered) = findings(&reads, &polls);
        prop_assert_eq!(found, expected);
        prop_assert_eq!(jittered, plain);
        prop_assert_eq!(jittered.late, 0);
    }

    #[test]
    fn every_event_has_one_fate(story in any_story(), pace_ms in 0_u64..5_000) {
        let mut correlator = Correlator::new(false);
        for event in story {
            correlator.handle_event(event.at(), event);
            correlator.handle_timeout(event.at() + Duration::from_millis(pace_ms));
            let counters = correlator.counters();
            let fates = counters.reported
                + counters.suppressed
                + counters.evicted
                + counters.unread
                + correlator.held_events();
            prop_assert_eq!(counters.events, fates);
        }
        correlator.handle_end(END);
        prop_assert_eq!(correlator.held_events(), 0);
        prop_assert_eq!(correlator.held_attempts(), 0);
    }

    #[test]
    fn after_a_timeout_nothing_is_due(
        events in proptest::collection::vec(any_packet_event(), 1..40),
        nows in proptest::collection::vec(0..u64::MAX / 2, 40),
    ) {
        let mut correlator = Correlator::new(true);
        for (event, now) in events.into_iter().zip(nows) {
            let now = MonoNs(now);
            correlator.handle_event(now, event);
            correlator.handle_timeout(now);
            prop_assert!(correlator.poll_timeout().is_none_or(|next| next > now));
        }
    }
}

#[test]
fn the_attempts_table_never_exceeds_its_cap() {
    let extra = 100_u64;
    let total = ATTEMPTS_HELD_MAX as u64 + extra;
    let mut correlator = Correlator::new(false);
    for i in 0..total {
        let mut dropped = sample_syn_drop();
        dropped.at = MonoNs(i);
        dropped.attempt.isn = u32::try_from(i).unwrap();
        correlator.handle_event(MonoNs(i), PacketEvent::SynDropped(dropped));
        correlator.handle_timeout(MonoNs(i) + REORDER_WINDOW);
        assert!(correlator.held_attempts() <= ATTEMPTS_HELD_MAX);
    }
    assert_eq!(correlator.held_attempts(), ATTEMPTS_HELD_MAX);
    assert_eq!(correlator.counters().evicted, extra);
}

#[test]
fn a_full_window_releases_the_oldest_early() {
    let extra = 10_usize;
    let mut correlator = Correlator::new(false);
    for i in 0..WINDOW_EVENTS_MAX + extra {
        let mut decided = sample_attempt();
        decided.at = MonoNs(i as u64);
        correlator.handle_event(MonoNs(i as u64), PacketEvent::AttemptDecided(decided));
        assert!(correlator.window_events() <= WINDOW_EVENTS_MAX);
    }
    assert_eq!(correlator.counters().released_early, extra as u64);
    assert_eq!(correlator.poll_output().unwrap().at(), MonoNs(0));
    assert_eq!(correlator.counters().reported, extra as u64);
}

#[test]
fn findings_nobody_takes_are_bounded_and_counted() {
    let extra = 5;
    let mut correlator = Correlator::new(false);
    for _ in 0..FINDINGS_MAX + extra {
        let decided = PacketEvent::AttemptDecided(sample_attempt());
        correlator.handle_event(MonoNs(u64::MAX / 2), decided);
        correlator.handle_timeout(MonoNs(u64::MAX / 2));
    }
    assert_eq!(correlator.counters().unread, extra as u64);
    assert_eq!(
        std::iter::from_fn(|| correlator.poll_output()).count(),
        FINDINGS_MAX
    );
}
