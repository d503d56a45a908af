//! Every kind of origin but the environment, which `tests/cli.rs` has.

use std::time::Duration;

use log::LevelFilter;

use super::*;
use crate::cli::{Command, RunArgs, TopArgs};
use crate::table::draining::FORGOTTEN_AFTER;
use crate::top::view::SortBy;

fn arguments(words: &[&str]) -> Vec<OsString> {
    let words = ["ipvs-lens"].iter().chain(words);
    words.map(OsString::from).collect()
}

/// With this text in the file `c.toml`.
fn loaded(words: &[&str], file: &str) -> Result<Cli, SettingsError> {
    load(&arguments(words), |path| {
        if path == Path::new("c.toml") {
            Ok(file.to_owned())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    })
}

fn run(words: &[&str], file: &str) -> RunArgs {
    match loaded(&[&["run"], words].concat(), file).unwrap().command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    }
}

fn top(words: &[&str], file: &str) -> TopArgs {
    match loaded(&[&["top"], words].concat(), file).unwrap().command {
        Command::Top(args) => args,
        other => panic!("{other:?}"),
    }
}

fn refusal(words: &[&str], file: &str) -> String {
    loaded(words, file).unwrap_err().to_string()
}

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
}

#[test]
fn the_defaults() {
    let args = run(&[], "");
    assert_eq!(args.http.listen, "127.0.0.1:9742".parse().unwrap());
    assert_eq!(args.web_config, None);
    assert_eq!(args.real_servers, RealServers::Abnormal);
    assert_eq!(args.common.config, None);
    assert_eq!(args.common.log_level, LevelFilter::Info);
    let observe = args.observe;
    assert_eq!(observe.drain_period, Duration::from_millis(100));
    assert_eq!(observe.emit, Emit::Findings);
    assert!(!observe.kernel_log);
    assert_eq!(observe.kernel.attach, Attach::Auto);
    assert_eq!(observe.kernel.events, Events::Auto);
    assert_eq!(observe.kernel.btf, None);
    assert_eq!(observe.table_interval, Duration::from_secs(5));
    assert_eq!(observe.forgotten_after, FORGOTTEN_AFTER);
    assert_eq!(observe.outcome_timeout, Duration::from_secs(16));
    let args = top(&[], "");
    assert!(!args.once);
    assert_eq!(args.interval, Duration::from_secs(2));
    assert_eq!((args.sort, args.filter.as_str()), (SortBy::Name, ""));
    assert_eq!(args.output.format, Format::Text);
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let file = "listen = \"1.1.1.1:1\"\nemit = \"all\"\ndrain_period_ms = 50\nkernel_log = true\n\
                log_level = \"WARN\"\nsort = \"new\"\nbtf = \"/b\"\n";
    let args = run(
        &[
            "--config",
            "c.toml",
            "--listen",
            "3.3.3.3:3",
            "--emit=findings",
        ],
        file,
    );
    assert_eq!(args.http.listen, "3.3.3.3:3".parse().unwrap());
    assert_eq!(args.observe.emit, Emit::Findings);
    assert_eq!(args.observe.drain_period, Duration::from_millis(50));
    assert!(args.observe.kernel_log);
    assert_eq!(args.observe.kernel.btf, Some("/b".into()));
    assert_eq!(args.common.log_level, LevelFilter::Warn);
    let off = ["--config", "c.toml", "--kernel-log", "false"];
    assert!(!run(&off, file).observe.kernel_log);
    assert_eq!(top(&["--config", "c.toml"], file).sort, SortBy::New);
}

#[test]
fn bad_values_name_their_origin_and_what_is_allowed() {
    let flag = |option, value| refusal(&["run", option, value], "");
    assert_eq!(
        flag("--drain-period-ms", "9"),
        "--drain-period-ms is \"9\", expected 10 to 1000"
    );
    assert_eq!(
        flag("--events", "some"),
        "--events is \"some\", expected auto, ring or perf"
    );
    assert_eq!(
        flag("--kernel-log", "1"),
        "--kernel-log is \"1\", expected true or false"
    );
    assert_eq!(
        flag("--log-level", "loud"),
        "--log-level is \"loud\", expected off, error, warn, info, debug or trace"
    );
    let file = |text| refusal(&["run", "--config", "c.toml"], text);
    assert_eq!(
        file("listen = 80\n"),
        "key listen in c.toml is \"80\", expected ADDR:PORT"
    );
    assert_eq!(
        file("emit = [\"all\"]\n"),
        "key emit in c.toml is \"[\\\"all\\\"]\", expected findings or all"
    );
    // Of another verb's option too: the file is one for all.
    assert_eq!(
        file("interval_s = 0\n"),
        "key interval_s in c.toml is \"0\", expected 1 to 300"
    );
    assert_eq!(
        file("web_config = \"\"\n"),
        "key web_config in c.toml is \"\", expected FILE"
    );
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for key in ["listne", "config", "once"] {
        let refused = refusal(
            &["trace", "--config", "c.toml"],
            &format!("{key} = \"1.1.1.1:1\"\n"),
        );
        assert_eq!(
            refused,
            format!(
                "unknown key {key} in c.toml, expected one of listen, real_servers, web_config, drop_all_capabilities, \
                 drain_period_ms, emit, kernel_log, attach, events, btf, table_interval_s, \
                 forgotten_after_s, outcome_timeout_ms, kernel_counts, log_level, format, facts, save_facts, \
                 interval_s, sort, filter"
            )
        );
    }
}

#[test]
fn broken_and_missing_files_are_one_line() {
    let broken = refusal(
        &["run", "--config", "c.toml"],
        "emit = \"all\"\nlisten = = 3\n",
    );
    assert!(
        broken.starts_with("c.toml is not TOML: line 2: "),
        "{broken}"
    );
    assert_eq!(broken.lines().count(), 1);
    assert_eq!(
        refusal(&["run", "--config", "d.toml"], ""),
        "cannot read the configuration file d.toml: entity not found"
    );
    let long = "#".repeat(FILE_BYTES_MAX + 1);
    assert_eq!(
        refusal(&["run", "--config", "c.toml"], &long),
        "cannot read the configuration file c.toml: 65537 bytes, expected at most 65536"
    );
}

#[test]
fn other_usage_errors_are_claps() {
    for words in [&["run", "--frob"][..], &[], &["run", "--emit"]] {
        let Err(SettingsError::Usage(error)) = loaded(words, "") else {
            panic!("{words:?} is not refused by clap");
        };
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn the_help_of_every_option_shows_variable_and_range() {
    for verb in command().get_subcommands() {
        for option in verb.get_arguments() {
            let long = option.get_long().unwrap();
            let variable = format!("{PREFIX}{}", key(long).to_uppercase());
            let shown = option.get_env().and_then(|name| name.to_str());
            let expected = (!FLAG_ONLY.contains(&long)).then_some(variable.as_str());
            assert_eq!(shown, expected, "{long}");
        }
    }
    let mut command = command();
    let run = command.find_subcommand_mut("run").unwrap();
    let help = run.render_help().to_string();
    let period = help.split("--drain-period-ms").nth(1).unwrap();
    let period: Vec<&str> = period.split_whitespace().take(17).collect();
    assert_eq!(
        period.join(" "),
        "<MS> Milliseconds between two reads of the event ring [allowed: 10 to 1000] [env: \
         IPVS_LENS_DRAIN_PERIOD_MS] [default: 100]"
    );
}
