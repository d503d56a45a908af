//! The exposition as a whole, the caps, and the document made of the names.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use agent_common::count::{CountKey, TALLY_ATTEMPT};
use agent_common::key::{RealServerKey, ServiceKey};
use agent_common::verdict::{Decision, DropCause, Lost, Outcome, StaleCause};
use expect_test::expect_file;
use names::Kind;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as proto;
use prost::Message;
use proto::MetricFamily;

use super::families::{SERIES_MAX_OF_MANY, SERVICES_MAX_OF_MANY};
use super::*;
use crate::clock::MonoNs;
use crate::decode::wire;
use crate::event::{
    AttemptDecided, FirstDrop, PacketEvent, Proto, RealServer, ServiceName, SynDropped, Verdict,
};
use crate::ledger::{Count, Ledger};
use crate::outputs::http::Refused;
use crate::testing::{sample_attempt, sample_service, sample_syn_drop};

#[derive(Clone, Default)]
struct Fixed(Vec<(CountKey, u64)>);

impl CountSource for Fixed {
    fn counts(&self) -> Result<Counts, SourceError> {
        let mut all = self.0.clone();
        all.sort();
        Ok(Counts {
            reading: 1,
            at: MonoNs(0),
            all: all.into_iter().map(Count::from).collect(),
        })
    }

    fn stats(&self) -> Result<Vec<(Stat, u64)>, SourceError> {
        Ok(vec![(Stat::Emitted, 9), (Stat::RingFull, 2)])
    }

    fn skipped_runs(&self) -> SkippedRuns {
        SkippedRuns {
            trampolines: 1,
            kprobes: 3,
        }
    }
}

const BUILD: BuildInfo = BuildInfo {
    version: "0.1.0",
    revision: "0123456789ab",
    rustc: "rustc 1.98.0",
};

const SERVERS: [&str; 2] = ["10.1.1.2:8080", "10.1.1.3:8080"];

fn attempts(
    service: Service,
    server: Option<&str>,
    verdict: Verdict,
    count: u64,
) -> (CountKey, u64) {
    let server = server.map(|server| RealServer(server.parse().unwrap()));
    let key = CountKey {
        service: wire::service(&service),
        real_server: wire::real_server(server),
        tally: TALLY_ATTEMPT,
        decision: verdict.decision() as u8,
        cause: wire::cause(verdict),
        pad: 0,
    };
    (key, count)
}

fn syn_drops(service: Service, cause: DropCause, count: u64) -> (CountKey, u64) {
    let (mut key, count) = attempts(service, None, Verdict::Dropped(cause), count);
    (key.tally, key.decision) = (agent_common::count::TALLY_SYN_DROP, 0);
    (key, count)
}

fn unknown_service(netns: u32) -> Service {
    Service {
        netns: NetnsId(netns),
        name: ServiceName::Unknown,
    }
}

fn fwmark_service() -> Service {
    Service {
        netns: sample_service().netns,
        name: ServiceName::Fwmark {
            mark: 0x64,
            family: crate::event::Family::V6,
        },
    }
}

fn v6_service() -> Service {
    Service {
        netns: sample_service().netns,
        name: ServiceName::Address {
            proto: Proto::Tcp,
            local: "[fd00::10]:443".parse().unwrap(),
        },
    }
}

fn with(counts: Vec<(CountKey, u64)>) -> Metrics {
    let metrics = Metrics::new(BUILD);
    metrics.set_source(Some(Arc::new(Fixed(counts))));
    metrics
}

impl Metrics {
    /// The exposition as OpenMetrics text.
    fn text(&self) -> String {
        String::from_utf8(self.render(Form::OpenMetrics1).unwrap()).unwrap()
    }
}

fn anchor() -> WallAnchor {
    WallAnchor::new(MonoNs(0), UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

/// Tells `metrics` every finding of these events.
fn take_all(metrics: &Metrics, events: &[PacketEvent]) {
    let mut correlator = crate::correlate::Correlator::new(false);
    for event in events {
        metrics.received();
        correlator.handle_event(event.at(), *event);
    }
    correlator.handle_end(MonoNs(100_000_000_000));
    while let Some(finding) = correlator.poll_output() {
        metrics.finding(&finding, &anchor());
    }
    metrics.correlated(correlator.counters());
}

fn delayed(at_ms: u64) -> PacketEvent {
    PacketEvent::AttemptDecided(AttemptDecided {
        at: MonoNs(at_ms * 1_000_000),
        verdict: Verdict::Scheduled,
        first_drop: Some(FirstDrop {
            at: MonoNs(1),
            cause: DropCause::IpvsReuse,
        }),
        ..sample_attempt()
    })
}

/// Something of everything.
fn full() -> Metrics {
    let service = sample_service();
    let stale = Verdict::ReusedStale(StaleCause::PortReuse);
    let dropped = Verdict::Dropped(DropCause::IpvsReuse);
    let metrics = with(vec![
        attempts(service, Some(SERVERS[0]), stale, 5),
        attempts(service, Some(SERVERS[0]), Verdict::Scheduled, 3),
        attempts(service, Some(SERVERS[1]), Verdict::Reused, 4),
        attempts(service, Some(SERVERS[1]), Verdict::Rescheduled, 2),
        attempts(service, Some(SERVERS[0]), dropped, 6),
        syn_drops(service, DropCause::IpvsReuse, 7),
        syn_drops(unknown_service(1), DropCause::Netfilter, 8),
        syn_drops(unknown_service(2), DropCause::Netfilter, 9),
        attempts(fwmark_service(), Some("[fd00::2]:80"), Verdict::Reused, 1),
        attempts(
            v6_service(),
            None,
            Verdict::Dropped(DropCause::IpvsNoDestination),
            1,
        ),
    ]);
    metrics.set_probes(vec![
        ProbeStatus {
            name: "lookup".to_owned(),
            via: "fexit".to_owned(),
            state: ProbeState::Active,
            reason: None,
        },
        ProbeStatus {
            name: "syn_drop".to_owned(),
            via: "tracepoint".to_owned(),
            state: ProbeState::Failed,
            reason: Some("no such tracepoint".to_owned()),
        },
    ]);
    metrics.malformed(&crate::decode::decode(&[]).unwrap_err());
    take_all(
        &metrics,
        &[
            PacketEvent::AttemptDecided(sample_attempt()),
            delayed(1_033),
            delayed(3_060),
            delayed(7_100),
        ],
    );
    metrics
}

/// `promtool check metrics` reads the second file in `cargo xtask test`.
#[test]
fn the_whole_exposition_as_text() {
    let metrics = full();
    expect_file!["./golden.openmetrics"].assert_eq(&metrics.text());
    let text = String::from_utf8(metrics.render(Form::Text0).unwrap()).unwrap();
    expect_file!["./golden.prom"].assert_eq(&text);
    for (one, other) in [
        (Form::OpenMetrics0, Form::OpenMetrics1),
        (Form::Text1, Form::Text0),
    ] {
        assert_eq!(metrics.render(one).unwrap(), metrics.render(other).unwrap());
    }
}

fn messages(metrics: &Metrics) -> Vec<MetricFamily> {
    let bytes = metrics.render(Form::Protobuf).unwrap();
    let mut bytes = bytes.as_slice();
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut bytes).unwrap());
    }
    families
}

/// Upper bounds and counts of positive native buckets, as the format defines them.
fn native_buckets(of: &proto::Histogram) -> Vec<(f64, i64)> {
    let mut deltas = of.positive_delta.iter();
    let (mut index, mut count) = (0, 0);
    let mut buckets = Vec::new();
    for span in &of.positive_span {
        index += span.offset;
        for _ in 0..span.length {
            count += deltas.next().unwrap();
            let bound = 2_f64.powf(f64::from(index) / 2_f64.powi(of.schema));
            buckets.push((bound, count));
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    buckets
}

#[test]
fn protobuf_has_classic_and_native_buckets_and_exemplars() {
    let families = messages(&full());
    let family = |name: &str| families.iter().find(|f| f.name == name).unwrap();
    let delays = family(names::CONNECT_DELAY.name);
    assert_eq!(
        (delays.r#type(), delays.unit.as_str()),
        (proto::MetricType::Histogram, "seconds")
    );
    let [of] = &*delays.metric else {
        panic!("one service and cause: {delays:#?}");
    };
    let histogram = of.histogram.as_ref().unwrap();
    assert_eq!((histogram.sample_count, histogram.schema), (3, 3));
    assert!((histogram.sample_sum - 11.193).abs() < 1e-6);
    // Classic: each exemplar in the bucket its delay fell into.
    let examples: Vec<_> = histogram
        .bucket
        .iter()
        .filter_map(|bucket| {
            let example = bucket.exemplar.as_ref()?;
            let milliseconds = (example.value * 1000.0).round();
            Some((bucket.upper_bound, bucket.cumulative_count, milliseconds))
        })
        .collect();
    assert_eq!(
        examples,
        [(1.5, 1, 1033.0), (4.0, 2, 3060.0), (9.0, 3, 7100.0)]
    );
    let example = histogram.bucket[4].exemplar.as_ref().unwrap();
    assert_eq!(example.label[0].value, "10.0.0.2:40001");
    assert_eq!(example.timestamp.unwrap().seconds, 1_700_000_001);
    // Native: each delay alone, in a bucket that ends at most 9 % above it.
    let native = native_buckets(histogram);
    let filled: Vec<_> = native.iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(filled.len(), 3);
    for ((bound, count), delay) in filled.iter().zip([1.033, 3.06, 7.1]) {
        assert_eq!(*count, 1);
        assert!(
            (delay..=delay * 1.0905).contains(bound),
            "{bound} for {delay}"
        );
    }
    let stale = family(names::STALE_CONNECTIONS.name);
    let with_example = stale.metric.iter().filter_map(|metric| {
        let counter = metric.counter.as_ref().unwrap();
        Some((
            counter.value,
            counter.exemplar.as_ref()?.label[0].value.as_str(),
        ))
    });
    assert_eq!(with_example.collect::<Vec<_>>(), [(5.0, "10.0.0.2:40001")]);
}

#[test]
fn every_form_tells_the_same() {
    let metrics = full();
    let text = metrics.text();
    let in_text = text.lines().filter(|line| !line.starts_with('#')).count();
    let plain = metrics.render(Form::Text0).unwrap();
    let plain = String::from_utf8(plain).unwrap();
    let in_plain = plain.lines().filter(|line| !line.starts_with('#')).count();
    let in_messages: usize = messages(&metrics)
        .iter()
        .flat_map(|family| &family.metric)
        .map(|metric| {
            metric
                .histogram
                .as_ref()
                .map_or(1, |of| of.bucket.len() + 2)
        })
        .sum();
    assert_eq!((in_text, in_plain), (in_messages, in_messages));
}

/// A part as the table or the doctor is one.
struct Other(NetnsId);

impl Part for Other {
    fn netns(&self) -> BTreeSet<NetnsId> {
        BTreeSet::from([self.0])
    }

    fn show(&self, page: &mut Page) {
        let labels = page.service(&Service {
            netns: self.0,
            ..sample_service()
        });
        let decision = labels::and(labels, "decision", "scheduled");
        page.put(
            names::CONNECTIONS,
            vec![(decision, Sample::Counter(7, None))],
        );
        page.refuse(names::CONNECTIONS, 2);
    }
}

#[test]
fn parts_add_families_namespaces_and_refusals() {
    let row = attempts(sample_service(), None, Verdict::Scheduled, 1);
    let metrics = with(vec![row]);
    metrics.add(Arc::new(Other(NetnsId(7))));
    for _ in 0..2 {
        let text = metrics.text();
        for line in [
            "local_mark=\"\",netns=\"7\",decision=\"scheduled\"} 7\n",
            "local_mark=\"\",netns=\"4026531840\",decision=\"scheduled\"} 1\n",
            "ipvs_lens_series_dropped{family=\"ipvs_lens_connections_total\"} 2.0\n",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}

#[test]
fn names_follow_the_conventions() {
    for (at, metric) in names::ALL.iter().enumerate() {
        let name = metric.name;
        assert!(name.starts_with("ipvs_lens_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            metric.kind == Kind::Counter,
            "{name}"
        );
        assert!(metric.help.ends_with('.'), "{name}: {}", metric.help);
        assert!(
            names::ALL[..at].iter().all(|other| other.name != name),
            "{name} twice"
        );
        let unit = metric
            .unit()
            .map(|unit| format!("_{unit}"))
            .unwrap_or_default();
        let total = if metric.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        assert_eq!(format!("{}{unit}{total}", metric.stem()), name);
    }
    assert_eq!(names::CONNECT_DELAY.unit(), Some("seconds"));
    assert_eq!(names::CONNECTIONS.unit(), None);
}

#[test]
fn one_second_steps_fall_into_buckets_of_their_own() {
    let bucket = |seconds: f64| DELAY_BUCKETS_SECONDS.iter().position(|le| seconds <= *le);
    for (at_once, on_a_slow_machine) in [(1.0, 1.4), (3.0, 3.9), (7.0, 8.9), (15.0, 19.9)] {
        assert_eq!(bucket(at_once), bucket(on_a_slow_machine));
        assert_ne!(bucket(at_once), bucket(at_once - 0.6));
    }
}

#[test]
fn without_a_source_everything_of_ours_is_there_at_zero() {
    let text = Metrics::new(BUILD).text();
    for reason in [
        "ring_full",
        "record_short",
        "attempts_evicted",
        "program_recursion",
        "kprobe_skipped",
    ] {
        let line = format!("ipvs_lens_events_lost_total{{reason=\"{reason}\"}} 0\n");
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
    assert!(text.contains("ipvs_lens_events_received_total 0\n"));
    for metric in names::ALL {
        assert!(text.contains(&format!(
            "# HELP {}",
            metric.name.trim_end_matches("_total")
        )));
    }
}

#[test]
fn netns_is_a_label_only_where_more_than_one_is_watched() {
    let here = sample_service();
    let there = Service {
        netns: NetnsId(7),
        ..here
    };
    let row = |service| attempts(service, None, Verdict::Scheduled, 1);
    let alone = with(vec![row(here)]).text();
    assert!(alone.contains("local_mark=\"\",decision=\"scheduled\"} 1\n"));
    let both = with(vec![row(here), row(there)]).text();
    assert!(both.contains("local_mark=\"\",netns=\"7\",decision=\"scheduled\"} 1\n"));
    assert!(both.contains("local_mark=\"\",netns=\"4026531840\",decision=\"scheduled\"} 1\n"));
}

fn server(i: usize) -> String {
    format!("10.{}.{}.{}:80", i / 65_536, (i / 256) % 256, i % 256)
}

#[test]
fn a_family_is_capped_with_the_most_abnormal_first() {
    let service = sample_service();
    let extra = 5;
    let mut counts: Vec<_> = (0..SERIES_MAX + extra)
        .map(|i| attempts(service, Some(&server(i)), Verdict::Scheduled, 100))
        .collect();
    let last = server(SERIES_MAX + extra);
    let stale = Verdict::ReusedStale(StaleCause::Persistence);
    counts.push(attempts(service, Some(&last), stale, 1));
    let metrics = with(counts);
    let text = metrics.text();
    let rows = |name: &str| {
        let named = |line: &&str| line.starts_with(name) && !line.contains("=\"other\"");
        text.lines().filter(named).count()
    };
    let shown = SERIES_MAX_OF_MANY;
    assert_eq!(rows("ipvs_lens_new_connections_total{"), shown);
    assert_eq!(rows("ipvs_lens_stale_connections_total{"), 2 * shown);
    let (address, _) = last.split_once(':').unwrap();
    let first = format!("remote_address=\"{address}\",remote_port=\"80\"}} 1\n");
    assert!(text.contains(&first), "the stale one must be kept");
    let hidden = SERIES_MAX + extra + 1 - shown;
    for (family, sets) in [("new", 1), ("stale", 2)] {
        let line = format!(
            "ipvs_lens_series_dropped{{family=\"ipvs_lens_{family}_connections_total\"}} {}.0\n",
            sets * hidden
        );
        assert!(text.contains(&line), "{line} is missing");
    }
    // What the others were given is there all the same.
    let sent = (SERIES_MAX + extra) as u64 * 100 + 1;
    assert_eq!(sum(&text, "ipvs_lens_new_connections_total{"), sent);
    assert_eq!(sum(&text, "ipvs_lens_stale_connections_total{"), 1);
    assert_eq!(sum(&text, "ipvs_lens_connections_total{"), sent);
}

/// The sum of a family of counters.
fn sum(text: &str, family: &str) -> u64 {
    let rows = text.lines().filter(|line| line.starts_with(family));
    let value = |line: &str| {
        let line = line.split_once(" # ").map_or(line, |(line, _)| line);
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    rows.map(value).sum()
}

#[test]
fn what_has_no_key_of_its_own_is_in_the_sum_of_every_family() {
    let (mut of_kernel, count) = attempts(
        sample_service(),
        None,
        Verdict::ReusedStale(StaleCause::PortReuse),
        30,
    );
    of_kernel.service = ServiceKey::REST;
    let (mut folded, more) = attempts(sample_service(), None, Verdict::Scheduled, 7);
    folded.real_server = RealServerKey::REST;
    let text = with(vec![(of_kernel, count), (folded, more)]).text();
    assert_eq!(sum(&text, "ipvs_lens_connections_total{"), 37);
    assert_eq!(sum(&text, "ipvs_lens_new_connections_total{"), 37);
    assert_eq!(sum(&text, "ipvs_lens_stale_connections_total{"), 30);
    let of_service = "local_mark=\"\",decision=\"scheduled\"} 7\n";
    assert!(text.contains(of_service), "its service has kept it");
    let other = "local_address=\"other\",local_port=\"\",local_mark=\"\",\
        remote_address=\"other\",remote_port=\"\",cause=\"port_reuse\"} 30\n";
    assert!(text.contains(other), "{other} is missing in {text}");
}

/// A source whose counts a test changes.
#[derive(Default)]
struct Changing(Mutex<Ledger>);

impl CountSource for Changing {
    fn counts(&self) -> Result<Counts, SourceError> {
        Ok(self.0.lock().unwrap().counts(MonoNs(0)))
    }

    fn stats(&self) -> Result<Vec<(Stat, u64)>, SourceError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_real_server_that_is_removed_ends_and_one_that_returns_starts_again() {
    let source = Arc::new(Changing::default());
    let metrics = Metrics::new(BUILD);
    metrics.set_source(Some(Arc::clone(&source) as _));
    let (key, _) = attempts(sample_service(), Some(SERVERS[0]), Verdict::Scheduled, 1);
    let add = |more| source.0.lock().unwrap().add(MonoNs(0), key, more);
    let family = "ipvs_lens_new_connections_total{";
    add(5);
    assert_eq!(sum(&metrics.text(), family), 5);
    source
        .0
        .lock()
        .unwrap()
        .fold(&[(key.service, key.real_server)]);
    let text = metrics.text();
    assert_eq!(sum(&text, family), 5);
    assert!(!text.contains("10.1.1.2"), "it must have ended: {text}");
    let ended = text.lines().find(|line| line.contains("\"ended\""));
    assert!(ended.is_some_and(|line| line.ends_with("} 5")), "{ended:?}");
    add(2);
    let text = metrics.text();
    assert_eq!(sum(&text, family), 7);
    let again = "remote_address=\"10.1.1.2\",remote_port=\"8080\"} 2\n";
    assert!(text.contains(again), "{again} is missing in {text}");
    // Its service has never stopped.
    assert_eq!(sum(&text, "ipvs_lens_connections_total{"), 7);
    assert!(text.contains("decision=\"scheduled\"} 7\n"));
}

#[test]
fn services_are_capped_with_the_most_abnormal_first() {
    let at = |port: usize| Service {
        name: ServiceName::Address {
            proto: Proto::Tcp,
            local: std::net::SocketAddr::new(
                "10.0.0.1".parse().unwrap(),
                u16::try_from(port).unwrap(),
            ),
        },
        ..sample_service()
    };
    let extra = 4;
    let busy = Verdict::Scheduled;
    let mut counts: Vec<_> = (1..=SERVICES_MAX + extra)
        .map(|port| attempts(at(port), None, busy, 100))
        .collect();
    let hurt = Verdict::Dropped(DropCause::IpvsReuse);
    counts.push(attempts(at(9_000), None, hurt, 1));
    let text = with(counts).text();
    let kept = "local_port=\"9000\",local_mark=\"\",decision=\"dropped\"} 1\n";
    assert!(text.contains(kept), "the one that is hurt must be kept");
    let refused = SERVICES_MAX + extra + 1 - SERVICES_MAX_OF_MANY;
    for (family, labels) in [
        ("ipvs_lens_connections_total", Decision::ALL.len()),
        ("ipvs_lens_syn_drops_total", DropCause::ALL.len()),
        ("ipvs_lens_stale_outcomes_total", Outcome::ALL.len()),
        ("ipvs_lens_syn_retransmits_total", Lost::ALL.len()),
    ] {
        let known = |line: &&str| line.starts_with(family) && line.contains("10.0.0.1");
        let rows = text.lines().filter(known).count();
        assert_eq!(rows, SERVICES_MAX_OF_MANY * labels, "{family}");
        let dropped = format!(
            "ipvs_lens_series_dropped{{family=\"{family}\"}} {}.0\n",
            refused * labels
        );
        assert!(text.contains(&dropped), "{dropped} is missing");
    }
}

#[test]
fn delays_are_capped() {
    let metrics = Metrics::new(BUILD);
    let extra = 3_u16;
    for i in 0..u16::try_from(HISTOGRAMS_MAX).unwrap() + extra {
        let PacketEvent::AttemptDecided(mut decided) = delayed(1_000) else {
            unreachable!()
        };
        decided.service.name = ServiceName::Address {
            proto: Proto::Tcp,
            local: std::net::SocketAddr::new("10.0.0.1".parse().unwrap(), i),
        };
        take_all(&metrics, &[PacketEvent::AttemptDecided(decided)]);
    }
    let text = metrics.text();
    assert_eq!(
        text.matches("connect_delay_seconds_count{").count(),
        HISTOGRAMS_MAX + 1
    );
    let other = "connect_delay_seconds_count{proto=\"\",local_address=\"other\",local_port=\"\",\
        local_mark=\"\",cause=\"ipvs_reuse\"} 3\n";
    assert!(text.contains(other), "{other} is missing in {text}");
    assert!(text.contains("{family=\"ipvs_lens_connect_delay_seconds\"} 1.0\n"));
    // What is hidden is hidden for as long as it happens.
    let live = metrics.live().clone();
    let last = *live.delays_hidden.values().max().unwrap();
    assert_eq!(hidden_recently(&live.delays_hidden, last + RECENT), 1);
    let later = last + RECENT + Duration::from_secs(1);
    assert_eq!(hidden_recently(&live.delays_hidden, later), 0);
}

#[test]
fn counts_that_make_no_sense_are_counted() {
    let mut row = attempts(sample_service(), None, Verdict::Scheduled, 4);
    row.0.decision = 77;
    let unknown = ServiceKey {
        family: 3,
        ..wire::service(&sample_service())
    };
    let mut other = attempts(sample_service(), None, Verdict::Scheduled, 5);
    other.0.service = unknown;
    let text = with(vec![row, other]).text();
    assert!(text.contains("ipvs_lens_events_lost_total{reason=\"count_key_malformed\"} 9\n"));
}

#[test]
fn a_source_that_fails_is_no_exposition() {
    struct Broken;
    impl CountSource for Broken {
        fn counts(&self) -> Result<Counts, SourceError> {
            Err("map is gone".into())
        }
        fn stats(&self) -> Result<Vec<(Stat, u64)>, SourceError> {
            Ok(Vec::new())
        }
    }
    let metrics = Metrics::new(BUILD);
    metrics.set_source(Some(Arc::new(Broken)));
    assert_eq!(
        metrics.render(Form::Text0).unwrap_err().to_string(),
        "cannot read the kernel's counters: map is gone; see /status for the probes"
    );
}

#[test]
fn an_unresolved_drop_is_no_delay() {
    let metrics = Metrics::new(BUILD);
    take_all(
        &metrics,
        &[PacketEvent::SynDropped(SynDropped {
            ..sample_syn_drop()
        })],
    );
    let text = metrics.text();
    assert!(!text.contains("ipvs_lens_connect_delay_seconds_count"));
}

/// `docs/metrics.md`; `IPVS_LENS_BLESS=1` writes it again.
#[test]
fn the_document_is_in_step() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let wanted = document();
    if std::env::var_os("IPVS_LENS_BLESS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        found, wanted,
        "run with IPVS_LENS_BLESS=1 to write docs/metrics.md"
    );
}

fn document() -> String {
    let mut text = "# Metrics\n\n\
        Made from `agent/src/outputs/metrics/names.rs` by a test; change that file, then run\n\
        `IPVS_LENS_BLESS=1 cargo test -p ipvs-lens --lib`.\n\n\
        Every metric with service labels also has `netns` where services of more than one\n\
        network namespace are seen. Firewall-mark services have `proto=\"FWM\"`, an empty address and\n\
        the mark in `local_mark`, as node_exporter prints them; dead SYNs of no known service have\n\
        empty service labels. Clients appear only in exemplars.\n\n\
        A family shows the services and real servers that are abnormal or listed first. What the\n\
        others counted is in one series for each combination of the remaining labels, with\n\
        `local_address=\"other\"` and, where there are such labels, `remote_address=\"other\"`. When a\n\
        series ends, because its real server was removed or others are shown first, what it had\n\
        reached is added to a series with `ended` instead of `other`, whose label `until` is the Unix\n\
        time of the last such end: with a new number it is a new series. So the sum of a counter is\n\
        exact at every scrape, and no increase is seen that did not happen. A real server that comes\n\
        back starts at 0. Services that are listed start at 0 before their first connection, real\n\
        servers too where there are at most 1,000, or when they begin to drain.\n\n\
        A name ends in its unit; without one it is a number of things, or 0 and 1. Histograms have\n\
        native buckets too where a scraper asks for protobuf.\n\n\
        | name | type | unit | labels | meaning |\n|---|---|---|---|---|\n"
        .to_owned();
    for metric in names::ALL {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let (name, labels, help) = (metric.name, labels.join(", "), metric.help);
        let unit = metric.unit().unwrap_or_default();
        writeln!(text, "| `{name}` | {kind} | {unit} | {labels} | {help} |").unwrap();
    }
    text +=
        "\n## Reasons of `ipvs_lens_events_lost_total`\n\n| reason | what is lost |\n|---|---|\n";
    for (reason, _) in Metrics::new(BUILD).losses().unwrap() {
        let meaning = names::lost(reason).unwrap();
        writeln!(text, "| `{reason}` | {meaning} |").unwrap();
    }
    text += "\n## Reasons of `ipvs_lens_http_requests_refused_total`\n\n\
        | reason | what was refused |\n|---|---|\n";
    for why in Refused::ALL {
        writeln!(text, "| `{}` | {} |", why.as_str(), why.meaning()).unwrap();
    }
    text += "\n## Buckets of `ipvs_lens_connect_delay_seconds`\n\n";
    let bounds: Vec<_> = DELAY_BUCKETS_SECONDS.iter().map(f64::to_string).collect();
    text += &bounds.join(", ");
    text += ", +Inf. Linux sends a SYN again 1, 3, 7 and 15 s after\n\
        the first; each of these waits has a bucket that ends well above it.\n";
    text
}

#[test]
fn every_reason_says_what_is_lost() {
    for (reason, _) in Metrics::new(BUILD).losses().unwrap() {
        assert!(
            names::lost(reason).is_some(),
            "{reason} has no meaning in names.rs"
        );
    }
}
