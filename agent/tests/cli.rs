//! The binary from outside: one clear line and the promised exit status, on any host.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn ipvs_lens(arguments: &[&str]) -> Output {
    with_environment(arguments, &[])
}

fn with_environment(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipvs-lens"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn status_and_stderr(arguments: &[&str]) -> (i32, String) {
    let output = ipvs_lens(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), stderr)
}

/// A configuration file of this test's own, removed at the end.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("ipvs-lens-cli-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn an_unknown_flag_is_usage() {
    let (status, stderr) = status_and_stderr(&["run", "--frob"]);
    assert_eq!(status, 2);
    let first = stderr.lines().next().unwrap();
    assert_eq!(first, "error: unexpected argument '--frob' found");
}

#[test]
fn a_missing_verb_is_usage() {
    assert_eq!(status_and_stderr(&[]).0, 2);
}

#[test]
fn an_unreadable_configuration_is_usage() {
    assert_eq!(
        status_and_stderr(&["run", "--config", "/nonexistent/x.toml"]),
        (
            2,
            "ipvs-lens: cannot read the configuration file /nonexistent/x.toml: \
             No such file or directory (os error 2)\n"
                .to_owned()
        )
    );
}

#[test]
fn an_unknown_key_names_key_and_file() {
    let config = Config::new("key", "port = 1\n");
    let (status, stderr) = status_and_stderr(&["trace", "--config", config.path()]);
    assert_eq!(status, 2);
    let wanted = format!(
        "ipvs-lens: unknown key port in {}, expected one of ",
        config.path()
    );
    assert!(stderr.starts_with(&wanted), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn a_bad_value_names_its_flag() {
    assert_eq!(
        status_and_stderr(&["run", "--listen", "nowhere"]),
        (
            2,
            "ipvs-lens: --listen is \"nowhere\", expected ADDR:PORT\n".to_owned()
        )
    );
}

#[test]
fn a_bad_value_names_its_variable() {
    let variables = [("IPVS_LENS_OUTCOME_TIMEOUT_MS", "999")];
    let refused = with_environment(&["run"], &variables);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(refused.stderr).unwrap(),
        "ipvs-lens: environment variable IPVS_LENS_OUTCOME_TIMEOUT_MS is \"999\", expected 1000 to \
         120000\n"
    );
}

/// Each step adds a stronger origin to the ones before.
#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let facts = Config::new("precedence-facts.json", "");
    ipvs_lens(&["doctor", "--save-facts", facts.path()]);
    let config = Config::new("precedence", "format = \"json\"\n");
    let doctor = ["doctor", "--facts", facts.path()];
    let file = ["--config", config.path()];
    let with_file = [&doctor[..], &file[..]].concat();
    let with_flag = [&doctor[..], &file[..], &["--format", "json"]].concat();
    let variable = [("IPVS_LENS_FORMAT", "text")];
    let is_json = |output: &Output| output.stdout.starts_with(b"{");
    assert!(!is_json(&ipvs_lens(&doctor)));
    assert!(is_json(&ipvs_lens(&with_file)));
    assert!(!is_json(&with_environment(&with_file, &variable)));
    assert!(is_json(&with_environment(&with_flag, &variable)));
    let named = [("IPVS_LENS_CONFIG", config.path())];
    assert!(is_json(&with_environment(&doctor, &named)));
}

#[test]
fn a_web_configuration_is_checked_before_anything_else() {
    let web = Config::new("web", "tls_server_config: {cert_file: a.crt}\n");
    let wanted = format!(
        "ipvs-lens: web configuration {}: tls_server_config.key_file is missing, expected a file \
         with the certificate's key, or the key in key\n",
        web.path()
    );
    for verb in ["run", "check-config"] {
        let found = status_and_stderr(&[verb, "--web-config", web.path()]);
        assert_eq!(found, (2, wanted.clone()), "{verb}");
    }
}

#[test]
fn a_good_configuration_is_called_good() {
    let web = Config::new("good-web", "rate_limit: {interval: 1s, burst: 5}\n");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nweb_config = \"{}\"\n",
        web.path()
    );
    let config = Config::new("good", &text);
    let output = ipvs_lens(&["check-config", "--config", config.path()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"configuration OK\n");
}

#[test]
fn the_doctor_exits_as_it_reports() {
    let output = ipvs_lens(&["doctor", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let status = output.status.code().map(i64::from);
    assert_eq!(report["exit_status"].as_i64(), status);
    assert!(matches!(status, Some(0 | 1 | 3)));
    let verdicts = report["verdicts"].as_array().unwrap();
    assert!(verdicts.iter().any(|verdict| verdict["id"] == "kernel"));
}

#[test]
fn saved_facts_are_judged_the_same_elsewhere() {
    let bundle = Config::new("facts.json", "");
    let here = ipvs_lens(&["doctor", "--format", "json", "--save-facts", bundle.path()]);
    let there = ipvs_lens(&["doctor", "--format", "json", "--facts", bundle.path()]);
    assert_eq!(here.stdout, there.stdout);
    assert_eq!(here.status, there.status);
}

#[test]
fn what_is_no_bundle_is_wrong_usage() {
    let bundle = Config::new("old.json", "{\"version\": 0}");
    let wanted = format!(
        "ipvs-lens: --facts {}: version is 0, expected 1; check it with the build that saved it\n",
        bundle.path()
    );
    assert_eq!(
        status_and_stderr(&["doctor", "--facts", bundle.path()]),
        (2, wanted)
    );
}

/// Runs the binary with its stdout and stderr where nothing can be written.
fn status_with(arguments: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> i32 {
    Command::new(env!("CARGO_BIN_EXE_ipvs-lens"))
        .args(arguments)
        .env_clear()
        .stdout(stdout)
        .stderr(stderr)
        .status()
        .unwrap()
        .code()
        .unwrap()
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has gone.
fn broken() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn statuses_hold_whatever_can_be_written() {
    let good = Config::new("good", "log_level = \"info\"\n");
    let bad = Config::new("bad", "log_level = 7\n");
    let cases: [(&[&str], i32); 4] = [
        (&["check-config", "--config", good.path()], 0),
        (&["check-config", "--config", bad.path()], 2),
        (&["run", "--frob"], 2),
        (&["doctor", "--facts", "/nonexistent"], 2),
    ];
    for (arguments, status) in cases {
        assert_eq!(
            status_with(arguments, full(), full()),
            status,
            "{arguments:?}"
        );
        assert_eq!(
            status_with(arguments, broken(), broken()),
            status,
            "{arguments:?}"
        );
    }
}

#[test]
fn statuses_hold_without_stdout_and_stderr() {
    let program = env!("CARGO_BIN_EXE_ipvs-lens");
    let closed = |arguments: &str| {
        let script = format!("exec {program} {arguments} >&- 2>&-");
        let status = Command::new("sh").args(["-c", &script]).status();
        status.unwrap().code()
    };
    assert_eq!(closed("run --frob"), Some(2));
    assert_eq!(closed("run --config /nonexistent"), Some(2));
    assert_eq!(closed("check-config"), Some(0));
}

/// The report's status is that of the verdict; a report that is lost is never "nothing to do".
#[test]
fn the_doctors_status_holds_whatever_can_be_written() {
    let facts = Config::new("facts", &saved_facts());
    let doctor = ["doctor", "--facts", facts.path()];
    let status = status_and_stderr(&doctor).0;
    assert_eq!(status, 3, "nothing could be read");
    assert_eq!(status_with(&doctor, broken(), Stdio::null()), status);
    assert_eq!(status_with(&doctor, full(), full()), status);
}

/// A bundle of a node on which nothing could be read.
fn saved_facts() -> String {
    let facts = agent_core::doctor::facts::Facts::default();
    serde_json::to_string(&facts).unwrap()
}
