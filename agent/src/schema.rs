//! JSON Schemas of what is printed and served, for those who build on it: `docs/schema/`.
//!
//! Made from the types themselves; what they promise is held against real output here.

use std::time::{Duration, UNIX_EPOCH};

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::clock::{MonoNs, WallAnchor};
use crate::doctor::facts::Facts;
use crate::doctor::gather::{self, Look};
use crate::doctor::report::Report;
use crate::doctor::testing;
use crate::event::RealServer;
use crate::finding::samples::samples;
use crate::outputs::trace::{JsonLine, write_line};
use crate::settings::Format;
use crate::status::{EventsStatus, ProbeState, ProbeStatus, Status, TableStatus, WebStatus};
use crate::table::tables::Tables;
use crate::table::{Forwarding, RealServerRow, ServiceFlags, ServiceRow, Snapshot};
use crate::testing::sample_service;
use crate::top::view::{Choice, Row, View};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema");

/// The schema of what a type is written as. Fields may be added to it, also where a saved bundle of
/// facts refuses those it does not know.
fn schema<T: JsonSchema>(title: &str) -> Schema {
    let open = RecursiveTransform(|schema: &mut Schema| {
        if schema.get("additionalProperties") == Some(&false.into()) {
            schema.remove("additionalProperties");
        }
    });
    let generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .with_transform(open)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema
}

fn schemas() -> [(&'static str, Schema); 4] {
    [
        (
            "trace",
            schema::<JsonLine<'_>>("A line of `ipvs-lens trace --format json`"),
        ),
        ("status", schema::<Status>("`/status` of `ipvs-lens run`")),
        (
            "doctor",
            schema::<Report<'_>>("`ipvs-lens doctor --format json`"),
        ),
        (
            "top",
            schema::<Row>("A line of `ipvs-lens top --once --format json`"),
        ),
    ]
}

/// `IPVS_LENS_BLESS=1` writes them.
#[test]
fn the_files_are_in_step() {
    for (name, schema) in schemas() {
        let path = format!("{FOLDER}/{name}.json");
        let mut generated = serde_json::to_string_pretty(&schema).unwrap();
        generated.push('\n');
        if std::env::var_os("IPVS_LENS_BLESS").is_some() {
            std::fs::create_dir_all(FOLDER).unwrap();
            std::fs::write(&path, &generated).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == generated,
            "docs/schema/{name}.json differs from the types; run with IPVS_LENS_BLESS=1 to write it"
        );
    }
}

/// A schema that allows no other field; in this test only.
fn strict(name: &str) -> jsonschema::Validator {
    let (_, mut schema) = schemas()
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    schema.insert("unevaluatedProperties".to_owned(), false.into());
    jsonschema::draft202012::new(schema.as_value()).unwrap()
}

fn ensure_valid(validator: &jsonschema::Validator, output: &Value) {
    let errors: Vec<_> = validator
        .iter_errors(output)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{output}: {errors:#?}");
}

fn traced() -> Vec<Value> {
    let clocks = WallAnchor::new(MonoNs(0), UNIX_EPOCH);
    let mut out = Vec::new();
    for finding in samples() {
        write_line(&mut out, &finding, &clocks, Format::Json).unwrap();
    }
    let lines = std::str::from_utf8(&out).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_kind_of_finding_is_as_its_schema_says() {
    let validator = strict("trace");
    for line in traced() {
        ensure_valid(&validator, &line);
    }
}

#[test]
fn what_is_not_as_the_schema_says_is_refused() {
    let validator = strict("trace");
    for line in traced() {
        let changed = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            let mut line = line.clone();
            change(line.as_object_mut().unwrap());
            line
        };
        let wrong = [
            changed(&|line| drop(line.remove("kind"))),
            changed(&|line| drop(line.insert("kind".to_owned(), "stale".into()))),
            changed(&|line| drop(line.remove("mono_ns"))),
            changed(&|line| drop(line.insert("mono_ns".to_owned(), "1".into()))),
            changed(&|line| drop(line.insert("colour".to_owned(), "red".into()))),
        ];
        for line in wrong {
            assert!(!validator.is_valid(&line), "{line}");
        }
    }
}

#[test]
fn a_status_is_as_its_schema_says() {
    let validator = strict("status");
    ensure_valid(
        &validator,
        &serde_json::to_value(Status::default()).unwrap(),
    );
    let probe = ProbeStatus {
        name: "lookup".to_owned(),
        via: "fexit".to_owned(),
        state: ProbeState::Failed,
        reason: Some("no such function".to_owned()),
    };
    let full = Status {
        reason: Some("starting".to_owned()),
        probes: vec![probe],
        layout: [("sk_buff.data".to_owned(), 208)].into(),
        absent: [("sk_buff.head".to_owned(), "x".to_owned())].into(),
        events: EventsStatus {
            lost: [("ring_full".to_owned(), 2)].into(),
            ..EventsStatus::default()
        },
        tables: [("7".to_owned(), TableStatus::default())].into(),
        observed: [(7, crate::doctor::facts::Seen::default())].into(),
        limits: [("attempts".to_owned(), 16_384)].into(),
        web: Some(WebStatus {
            file: "/web.yml".to_owned(),
            tls: true,
            basic_auth: false,
            error: None,
        }),
        ..Status::default()
    };
    ensure_valid(&validator, &serde_json::to_value(full).unwrap());
}

#[test]
fn reports_are_as_their_schema_says() {
    let validator = strict("doctor");
    let here = gather::gather(&Look::at_files());
    for facts in [Facts::default(), testing::fit(), here] {
        let report = serde_json::to_value(Report::of(&facts)).unwrap();
        ensure_valid(&validator, &report);
    }
}

#[test]
fn rows_of_top_are_as_their_schema_says() {
    let validator = strict("top");
    let rows = [1, 0].map(|weight| RealServerRow {
        real_server: RealServer(std::net::SocketAddr::from(([10, 1, 1, 2], 8080))),
        forwarding: Forwarding::Masquerade,
        weight,
        active: 3,
        inactive: 2,
        persistent: 0,
        upper_threshold: 0,
        lower_threshold: 0,
    });
    for row in rows {
        let service = ServiceRow {
            service: sample_service(),
            scheduler: "wlc".into(),
            flags: ServiceFlags(2),
            persistence: Duration::ZERO,
            netmask: u32::MAX,
            real_servers: vec![row],
        };
        let at = MonoNs(1_000_000_000);
        let netns = sample_service().netns;
        let mut tables = Tables::default();
        let snapshot = Snapshot::new(at, Duration::ZERO, netns, vec![service]);
        tables.handle_snapshot(std::sync::Arc::new(snapshot));
        let view = View::of(&tables, at, &WallAnchor::new(MonoNs(0), UNIX_EPOCH));
        let shown = view.rows(&Choice::default());
        assert_eq!(shown.len(), 1);
        ensure_valid(&validator, &serde_json::to_value(&shown[0]).unwrap());
    }
}
