use super::*;

fn kernel(release: &str, upstream: Option<&str>) -> Kernel {
    Kernel {
        release: Fact::Known(release.to_owned()),
        upstream: upstream.map_or_else(Fact::default, |text| Fact::Known(text.to_owned())),
        ..Kernel::default()
    }
}

#[test]
fn releases_are_read_as_distributions_write_them() {
    let version = |release| kernel(release, None).version();
    assert_eq!(version("6.1.0-56-cloud-amd64"), Some(Version(6, 1, 0)));
    assert_eq!(version("5.10-rc1"), Some(Version(5, 10, 0)));
    assert_eq!(version("5.4.163+"), Some(Version(5, 4, 163)));
    assert_eq!(version("6"), None);
    assert_eq!(version("six.one"), None);
    assert_eq!(Kernel::default().version(), None);
}

/// Release, stated upstream version: conntrack does not stop reuse, nodest works without reuse.
#[test]
fn what_a_version_says_about_the_fixes() {
    use Guess::{No, Unsure, Yes};
    let table = [
        ("6.12.1", None, Yes, Yes),
        ("5.16.0", None, Yes, Yes),
        ("5.15.6", None, Yes, Yes),
        ("5.15.5", None, Yes, No),
        ("5.10.0-46-cloud-amd64", Some("5.10.262"), Yes, Yes),
        ("5.10.0-8-amd64", Some("5.10.46"), Yes, No),
        // A distributor's number without the version it was made from.
        ("5.10.0-46-cloud-amd64", None, Yes, Unsure),
        ("5.4.0-216-generic", Some("5.4.289"), Yes, Yes),
        ("5.4.0-216-generic", None, Unsure, Unsure),
        ("5.4.18", None, No, No),
        ("5.4.60", None, Yes, No),
        ("4.18.0-553.el8.x86_64", None, Unsure, Unsure),
        ("5.14.0-503.el9.x86_64", None, Yes, Unsure),
        ("4.19.91-28.an7.x86_64", None, Unsure, Unsure),
        ("4.4.0", None, Unsure, Unsure),
    ];
    for (release, upstream, conntrack, nodest) in table {
        let kernel = kernel(release, upstream);
        let found = (
            kernel.reuses_with_conntrack(),
            kernel.nodest_without_reuse(),
        );
        assert_eq!(found, (conntrack, nodest), "{release}");
    }
}

#[test]
fn capabilities_are_bits() {
    let facts = Facts {
        capabilities: Fact::Known(1 << CAP_BPF),
        ..Facts::default()
    };
    assert_eq!(facts.has(CAP_BPF), Some(true));
    assert_eq!(facts.has(CAP_SYS_ADMIN), Some(false));
    assert_eq!(facts.has(64), Some(false));
    assert_eq!(Facts::default().has(CAP_BPF), None);
}

#[test]
fn facts_survive_being_saved() {
    let facts = Facts {
        ip_vs: Fact::Known(IpVs::BuiltIn),
        controllers: Fact::Known(vec![Controller {
            kind: ControllerKind::Keepalived,
            evidence: vec!["process 7".to_owned()],
        }]),
        netns: vec![Netns::default()],
        observed: Fact::Known(Observed {
            source: "here".to_owned(),
            by_netns: [(7, Seen::default())].into(),
        }),
        ..Facts::default()
    };
    let saved = serde_json::to_string(&facts).unwrap();
    assert_eq!(Facts::parse(&saved).unwrap(), facts);
}

#[test]
fn a_bundle_of_the_first_builds_is_read() {
    let mut saved = serde_json::to_value(Facts::default()).unwrap();
    saved.as_object_mut().unwrap().remove("conn_tab_bits");
    assert_eq!(
        Facts::parse(&saved.to_string()).unwrap().conn_tab_bits,
        Fact::Unknown("not looked at".to_owned())
    );
}

#[test]
fn what_is_no_bundle_is_refused_by_name() {
    let refusal = |text: &str| Facts::parse(text).unwrap_err().to_string();
    assert_eq!(
        refusal(r#"{"version": 9, "much": "else"}"#),
        "version is 9, expected 1; check it with the build that saved it"
    );
    assert!(refusal("{}").starts_with("not a bundle of facts: missing field `version`"));
    assert!(refusal(r#"{"version": 1, "frob": 2}"#).contains("unknown field `frob`"));
}
