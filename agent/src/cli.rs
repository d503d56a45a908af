//! The command line as typed: every option a text, checked later in `settings`.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

/// Shows what IPVS decides about every new connection, from inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "ipvs-lens", version, after_help = PRECEDENCE)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const PRECEDENCE: &str = "Each option can also be set by the environment variable shown and, under \
    its own name with `_` for `-`, in the TOML file of --config; the command line wins, then the \
    environment, then the file.\n\n\
    Exit status: 0 done or stopped on request, 1 failure (doctor: advice), 2 usage, 3 this node \
    cannot be observed.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe this node and serve /metrics, /healthz, /readyz and /status.
    Run(RunArgs),
    /// Say what keeps this node from being observed, and what IPVS may do wrong on it.
    Doctor(DoctorArgs),
    /// Print findings as they happen, one line each.
    Trace(TraceArgs),
    /// Say whether `run` with these options would accept them, and the files they name.
    CheckConfig(RunArgs),
    /// Show services and real servers as they are now, with what each is given.
    Top(TopArgs),
}

/// Options of every verb.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// TOML file with more options [env: IPVS_LENS_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<OsString>,
    /// Least severe level logged: off, error, warn, info, debug or trace [env: IPVS_LENS_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Options of the verbs that observe.
#[derive(Args, Clone, Debug, Default)]
pub struct ObserveArgs {
    /// Milliseconds between two readings of the event ring, 10 to 1000 [env: IPVS_LENS_DRAIN_PERIOD_MS] [default: 100]
    #[arg(long, value_name = "MS")]
    pub drain_period_ms: Option<String>,
    /// Which attempts are told one by one: findings or all [env: IPVS_LENS_EMIT] [default: findings]
    #[arg(long, value_name = "WHICH")]
    pub emit: Option<String>,
    /// Log what the kernel programs say about themselves: true or false [env: IPVS_LENS_KERNEL_LOG] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub kernel_log: Option<String>,
    /// How to hang on functions of ip_vs: auto, fexit or kprobe [env: IPVS_LENS_ATTACH] [default: auto]
    #[arg(long, value_name = "WAY")]
    pub attach: Option<String>,
    /// How records leave the kernel: auto, ring or perf [env: IPVS_LENS_EVENTS] [default: auto]
    #[arg(long, value_name = "WAY")]
    pub events: Option<String>,
    /// BTF file that describes ip_vs, instead of what the kernel publishes [env: IPVS_LENS_BTF]
    #[arg(long, value_name = "FILE")]
    pub btf: Option<String>,
    /// Seconds between two readings of the IPVS table, 1 to 300; more where a reading is dear [env: IPVS_LENS_TABLE_INTERVAL_S] [default: 5]
    #[arg(long, value_name = "S")]
    pub table_interval_s: Option<String>,
    /// Seconds a real server may have weight 0 and no connection before that is a finding, 1 to 86400 [env: IPVS_LENS_FORGOTTEN_AFTER_S] [default: 300]
    #[arg(long, value_name = "S")]
    pub forgotten_after_s: Option<String>,
    /// Silence after which a stale attempt has timed out [env: IPVS_LENS_OUTCOME_TIMEOUT_MS]
    /// [default: 16000]
    #[arg(long, value_name = "MS")]
    pub outcome_timeout_ms: Option<String>,
}

/// `ipvs-lens run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Address of the HTTP server [env: IPVS_LENS_LISTEN] [default: 127.0.0.1:9742]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Real servers with series of their own: all, abnormal or none [env: IPVS_LENS_REAL_SERVERS] [default: abnormal]
    #[arg(long, value_name = "WHICH")]
    pub real_servers: Option<String>,
    /// TLS, users and limits of the HTTP server, in the YAML format of Prometheus's exporters [env: IPVS_LENS_WEB_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<String>,
    /// How it observes.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `ipvs-lens trace`.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// Form of the lines: text or json [env: IPVS_LENS_FORMAT] [default: text]
    #[arg(long, value_name = "FORM")]
    pub format: Option<String>,
    /// How it observes.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `ipvs-lens top`.
#[derive(Args, Clone, Debug, Default)]
pub struct TopArgs {
    /// Print the table after one interval, and stop
    #[arg(long)]
    pub once: bool,
    /// Seconds between two readings of the IPVS table, 1 to 300 [env: IPVS_LENS_INTERVAL_S] [default: 2]
    #[arg(long, value_name = "S")]
    pub interval_s: Option<String>,
    /// What is shown first: name, active, new, stale or draining [env: IPVS_LENS_SORT] [default: name]
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Only services and real servers whose name contains this [env: IPVS_LENS_FILTER]
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Form of what --once prints: text or json [env: IPVS_LENS_FORMAT] [default: text]
    #[arg(long, value_name = "FORM")]
    pub format: Option<String>,
    /// How it observes.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `ipvs-lens doctor`.
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArgs {
    /// Form of the report: text or json [env: IPVS_LENS_FORMAT] [default: text]
    #[arg(long, value_name = "FORM")]
    pub format: Option<String>,
    /// Where a running agent answers, which is asked what it has seen [env: IPVS_LENS_LISTEN] [default: 127.0.0.1:9742]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Judge these saved facts instead of this node [env: IPVS_LENS_FACTS]
    #[arg(long, value_name = "FILE")]
    pub facts: Option<String>,
    /// Save what was looked at, to be judged elsewhere [env: IPVS_LENS_SAVE_FACTS]
    #[arg(long, value_name = "FILE")]
    pub save_facts: Option<String>,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Every option as typed, whichever verb took it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// The configuration file.
    pub config: Option<OsString>,
    /// Names of [`crate::settings`]' keys with their texts.
    pub options: Vec<(&'static str, String)>,
}

impl Command {
    /// The options typed with this verb.
    #[must_use]
    pub fn typed(&self) -> Typed {
        let (common, options) = match self {
            Self::Run(args) | Self::CheckConfig(args) => (
                &args.common,
                observed(
                    &args.observe,
                    vec![
                        ("listen", &args.listen),
                        ("real_servers", &args.real_servers),
                        ("web_config", &args.web_config),
                    ],
                ),
            ),
            Self::Trace(args) => (
                &args.common,
                observed(&args.observe, vec![("format", &args.format)]),
            ),
            Self::Doctor(args) => (
                &args.common,
                vec![
                    ("format", &args.format),
                    ("listen", &args.listen),
                    ("facts", &args.facts),
                    ("save_facts", &args.save_facts),
                ],
            ),
            Self::Top(args) => (
                &args.common,
                observed(
                    &args.observe,
                    vec![
                        ("interval_s", &args.interval_s),
                        ("sort", &args.sort),
                        ("filter", &args.filter),
                        ("format", &args.format),
                    ],
                ),
            ),
        };
        let level = ("log_level", &common.log_level);
        let options = options.into_iter().chain([level]);
        Typed {
            config: common.config.clone(),
            options: options
                .filter_map(|(key, text)| Some((key, text.clone()?)))
                .collect(),
        }
    }
}

type Option_<'a> = (&'static str, &'a Option<String>);

fn observed<'a>(args: &'a ObserveArgs, own: Vec<Option_<'a>>) -> Vec<Option_<'a>> {
    let common = [
        ("drain_period_ms", &args.drain_period_ms),
        ("emit", &args.emit),
        ("kernel_log", &args.kernel_log),
        ("attach", &args.attach),
        ("events", &args.events),
        ("btf", &args.btf),
        ("table_interval_s", &args.table_interval_s),
        ("forgotten_after_s", &args.forgotten_after_s),
        ("outcome_timeout_ms", &args.outcome_timeout_ms),
    ];
    own.into_iter().chain(common).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::settings::KEYS;

    fn typed(words: &[&str]) -> Typed {
        let cli = Cli::try_parse_from([&["ipvs-lens"], words].concat()).unwrap();
        cli.command.typed()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_handed_on_as_typed() {
        let run = typed(&[
            "run",
            "--listen",
            "x",
            "--kernel-log",
            "--config",
            "/c.toml",
        ]);
        assert_eq!(run.config, Some("/c.toml".into()));
        assert_eq!(
            run.options,
            [
                ("listen", "x".to_owned()),
                ("kernel_log", "true".to_owned())
            ]
        );
        let doctor = typed(&["doctor", "--format", "json", "--log-level", "warn"]);
        assert_eq!(
            doctor.options,
            [
                ("format", "json".to_owned()),
                ("log_level", "warn".to_owned())
            ]
        );
    }

    #[test]
    fn unknown_flags_are_usage_errors() {
        let error = Cli::try_parse_from(["ipvs-lens", "run", "--frob"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = Cli::try_parse_from(["ipvs-lens"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn every_flag_names_its_variable_and_has_a_key() {
        for verb in Cli::command().get_subcommands() {
            let settings = verb.get_arguments().filter(|flag| {
                // What to do, not how: nobody wants that from a file.
                !["help", "once"].contains(&flag.get_id().as_str())
            });
            for flag in settings {
                let key = flag.get_id().to_string();
                let variable = format!("[env: IPVS_LENS_{}]", key.to_uppercase());
                let help = flag.get_help().unwrap().to_string();
                assert!(help.contains(&variable), "{key}: {help}");
                assert!(key == "config" || KEYS.contains(&key.as_str()), "{key}");
            }
        }
    }
}
