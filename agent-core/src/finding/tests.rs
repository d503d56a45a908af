//! What findings of the tables say; those of attempts stand beside the lines of `outputs::trace`.

use serde_json::json;

use super::*;
use crate::event::RealServer;
use crate::table::draining::{Holder, Told};
use crate::testing::sample_service;

fn draining(ending: Ending) -> Finding {
    Finding::of_draining(&Concluded {
        place: (
            sample_service(),
            RealServer("10.1.1.2:8080".parse().unwrap()),
        ),
        timeline: Timeline {
            since: MonoNs(1_000_000_000),
            told: Told::Live,
            last_scheduled: Some(MonoNs(900_000_000)),
            last_reused: None,
            last_stale: Some(MonoNs(4_000_000_000)),
            stale: 7,
            stale_datagrams: 0,
        },
        ending,
    })
}

fn removed() -> Finding {
    draining(Ending::Removed {
        at: MonoNs(6_500_000_000),
        told: Told::Live,
        held_by: Holder::PortReuse,
    })
}

#[test]
fn a_draining_that_ended_is_told_with_its_timeline() {
    assert_eq!(
        removed().to_string(),
        "draining ended: 10.1.1.2:8080 of TCP 10.96.0.10:80 was removed 5.5 s after its weight \
         became 0; 7 stale connections meanwhile, held by port_reuse"
    );
    let mut json = serde_json::to_value(removed()).unwrap();
    let fields = json.as_object_mut().unwrap();
    fields.retain(|_, value| !value.is_null());
    let expected = json!({
        "kind": "draining_ended",
        "mono_ns": 6_500_000_000_u64,
        "netns": 4_026_531_840_u32,
        "isn": 0,
        "proto": "TCP",
        "local_address": "10.96.0.10",
        "local_port": 80,
        "local_mark": "",
        "remote_address": "10.1.1.2",
        "remote_port": 8080,
        "weight": 0,
        "drops": 0,
        "events_lost": 0,
        "timeline": {
            "weight_0_ns": 1_000_000_000,
            "weight_0_told": "live",
            "last_scheduled_ns": 900_000_000,
            "last_reused_ns": null,
            "last_stale_ns": 4_000_000_000_u64,
            "stale_connections": 7,
            "stale_datagrams": 0,
        },
        "removed_ns": 6_500_000_000_u64,
        "removed_told": "live",
        "held_by": "port_reuse",
    });
    assert_eq!(json, expected);
}

#[test]
fn what_was_forgotten_says_what_to_do() {
    let forgotten = |wanted_by| {
        draining(Ending::Forgotten {
            at: MonoNs(400_000_000_000),
            empty_since: MonoNs(90_000_000_000),
            wanted_by,
        })
    };
    assert_eq!(
        forgotten(0).to_string(),
        "draining forgotten: 10.1.1.2:8080 of TCP 10.96.0.10:80 has weight 0 and had no \
         connection for 310 s; whoever set the weight should remove it or give it one again"
    );
    let alive = forgotten(2).to_string();
    assert!(
        alive.contains("310 s; it is alive, 2 other services use it; whoever"),
        "{alive}"
    );
    let json = serde_json::to_value(forgotten(1)).unwrap();
    assert_eq!(json["kind"], "draining_forgotten");
    assert_eq!(json["empty_since_ns"], 90_000_000_000_u64);
    assert_eq!(json["wanted_by_services"], 1);
    assert_eq!(json["removed_ns"], serde_json::Value::Null);
}

#[test]
fn a_service_with_nobody_left_says_who_is_still_listed() {
    let left = |draining| Finding::of_vacancy(MonoNs(1), sample_service(), draining);
    let text = "no real server: TCP 10.96.0.10:80 has nobody left to choose";
    assert_eq!(left(0).to_string(), text);
    let two = format!("{text}, all 2 real servers have weight 0");
    assert_eq!(left(2).to_string(), two);
    let json = serde_json::to_value(left(2)).unwrap();
    assert_eq!(json["draining"], 2);
    assert_eq!(json["netns"], 4_026_531_840_u32);
    assert_eq!(json["remote_address"], serde_json::Value::Null);
}
