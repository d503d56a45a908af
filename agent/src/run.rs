//! The verbs that observe: puts the agent together and lets it observe.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::{ObserveArgs, RunArgs, TopArgs, TraceArgs};
use crate::clock::{self, MonoNs, WallAnchor};
use crate::confinement::Confinement;
use crate::doctor::facts::Facts;
use crate::doctor::gather::{Look, essentials_and_known};
use crate::doctor::live::Node;
use crate::doctor::rules::prerequisites;
use crate::error::Failure;
use crate::finding::Finding;
use crate::limits;
use crate::observation::{Place, observe};
use crate::observer::Sink;
use crate::outputs::http::web::Web;
use crate::outputs::http::{self, Server};
use crate::outputs::log::Limiter;
use crate::outputs::logger::LogLosses;
use crate::outputs::metrics::hazards::Hazards;
use crate::outputs::metrics::sample::Part;
use crate::outputs::metrics::system::System;
use crate::outputs::metrics::table::{Shown, TablePart};
use crate::outputs::metrics::{BuildInfo, Metrics};
use crate::outputs::trace::Lines;
use crate::probes::features::Known;
use crate::probes::table::Way;
use crate::publish::Publisher;
use crate::settings::{Attach, RealServers, SettingsError};
use crate::signals::Hangup;
use crate::table::changes::Difference;
use crate::table::tables::Tables;
use crate::top::{self, view::Choice};

/// Where the node's own files are.
const ROOT: &str = "/";

/// Where procfs is.
const PROCFS: &str = "/proc";

/// How often the node's configuration is looked at for hazards: it changes when somebody changes
/// it, and reading a table of 100,000 real servers takes a fraction of a second. Parameters of IPVS
/// are read at every scrape.
const FACTS_PERIOD: Duration = Duration::from_secs(60);

/// `ipvs-lens run`: observes until asked to stop, and serves what it sees. `log_level` reads
/// that setting again after SIGHUP.
///
/// # Errors
/// [`Failure`] with the exit status; nothing of ours is left in the kernel then.
pub fn run(
    args: &RunArgs,
    log_level: impl Fn() -> Result<LevelFilter, SettingsError> + Send + 'static,
) -> Result<(), Failure> {
    let confinement = Confinement::of(args.drop_all_capabilities);
    let runtime = runtime(confinement)?;
    let hangup = {
        let _inside = runtime.enter();
        Hangup::catch()?
    };
    let web = web(args)?;
    let (facts, known) = observable(&args.observe)?;
    let agent = Agent {
        confinement,
        needs_terminal: false,
        ..Agent::new(&args.observe, &facts)
    };
    agent.metrics.add_losses(Arc::new(LogLosses));
    let start = move || confinement.start_thread();
    let server = Server::start_with(args.http.listen, agent.shown(), web, start);
    let server = server.map_err(Failure::failed)?;
    let outcome = runtime.block_on(async {
        let reloading = tokio::spawn(hangup.reload(log_level, server.reload()));
        let looking = tokio::spawn(keep_looking(
            Arc::clone(&agent.hazards),
            Arc::clone(&agent.metrics),
            Arc::clone(&agent.armed),
        ));
        let log = Log::new(&agent, args.real_servers);
        let outcome = agent.observe(known, log).await;
        looking.abort();
        reloading.abort();
        outcome
    });
    drop(server);
    // A look at the node's configuration is no reason to stay.
    runtime.shutdown_background();
    outcome
}

/// `ipvs-lens check-config`: whether [`run`] would accept these options.
///
/// # Errors
/// [`Failure`] that names what is wrong.
pub fn check_config(args: &RunArgs) -> Result<(), Failure> {
    web(args).map(drop)
}

fn web(args: &RunArgs) -> Result<Web, Failure> {
    Web::load(args.web_config.as_deref()).map_err(Failure::usage)
}

/// `ipvs-lens trace`: prints findings until asked to stop.
///
/// # Errors
/// As [`run`].
pub fn trace(args: &TraceArgs) -> Result<(), Failure> {
    let (facts, known) = observable(&args.observe)?;
    let lines = Lines::start(args.output.format).map_err(|error| {
        Failure::failed(format!("cannot start the writer of findings: {error}"))
    })?;
    runtime(Confinement::Attaching)?
        .block_on(Agent::new(&args.observe, &facts).observe(known, lines))
}

/// `ipvs-lens top`: shows the tables until asked to stop, or prints them once.
///
/// # Errors
/// As [`run`].
pub fn top(args: &TopArgs) -> Result<(), Failure> {
    let (facts, known) = observable(&args.observe)?;
    let observe = ObserveArgs {
        table_interval: args.interval,
        ..args.observe.clone()
    };
    let choice = Choice {
        sort: args.sort,
        filter: args.filter.clone(),
        ..Choice::default()
    };
    let agent = Agent::new(&observe, &facts);
    if args.once {
        let once = top::Once::new(choice, args.output.format);
        return runtime(Confinement::Attaching)?.block_on(agent.observe(known, once));
    }
    if !top::has_terminal() {
        return Err(Failure::failed(
            "stdout is no terminal, and `top` draws on one; use --once to print the table",
        ));
    }
    let live = top::Live::open(choice)
        .map_err(|error| Failure::failed(format!("the terminal cannot be used: {error}")))?;
    runtime(Confinement::Attaching)?.block_on(agent.observe(known, live))
}

/// What this node is, and what was read of its kernel, once nothing stands in the way of observing it.
fn observable(observe: &ObserveArgs) -> Result<(Facts, Option<Known>), Failure> {
    limits::raise();
    let (facts, known) = essentials_and_known(&Look {
        kernel: Some(observe.kernel.clone()),
        ..Look::at_files()
    });
    prerequisites(&facts).map_err(Failure::cannot_observe)?;
    Ok((facts, known))
}

fn runtime(confinement: Confinement) -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(move || confinement.start_thread())
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the event loop: {error}")))
}

/// Looks at the node now, whenever observation begins, and every [`FACTS_PERIOD`].
async fn keep_looking(hazards: Arc<Hazards>, metrics: Arc<Metrics>, armed: Arc<Notify>) {
    let mut period = interval(FACTS_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = armed.notified() => {}
        }
        let (hazards, metrics) = (Arc::clone(&hazards), Arc::clone(&metrics));
        let looked = tokio::task::spawn_blocking(move || {
            hazards.look();
            metrics.count()
        });
        match looked.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("hazards are judged without new counts: {error}"),
            Err(error) => log::warn!("cannot look at this node's configuration: {error}"),
        }
    }
}

/// What both verbs share.
struct Agent<'a> {
    settings: &'a ObserveArgs,
    release: String,
    metrics: Arc<Metrics>,
    publisher: Publisher,
    hazards: Arc<Hazards>,
    /// Notified when observation begins.
    armed: Arc<Notify>,
    confinement: Confinement,
    /// Whether it prints to a terminal that it ends with.
    needs_terminal: bool,
}

impl<'a> Agent<'a> {
    fn new(settings: &'a ObserveArgs, facts: &Facts) -> Self {
        let release = facts.kernel.release.known().cloned().unwrap_or_default();
        let metrics = Arc::new(Metrics::new(BuildInfo::THIS));
        metrics.add(Arc::new(System::new(Path::new(PROCFS))));
        let way = match settings.kernel.attach {
            Attach::Kprobe => Way::Kprobe,
            Attach::Fexit | Attach::Auto => Way::Fexit,
        };
        let publisher = Publisher::new(Arc::clone(&metrics), &release, way);
        let hazards = Arc::new(Hazards::new(Node, publisher.status()));
        metrics.add(Arc::clone(&hazards) as Arc<dyn Part>);
        Self {
            settings,
            release,
            metrics,
            publisher,
            hazards,
            armed: Arc::default(),
            confinement: Confinement::Attaching,
            needs_terminal: true,
        }
    }

    fn shown(&self) -> http::Shown {
        http::Shown {
            metrics: Arc::clone(&self.metrics),
            status: self.publisher.status(),
        }
    }

    async fn observe<S: Sink>(&self, known: Option<Known>, sink: S) -> Result<(), Failure> {
        let place = Place {
            settings: self.settings,
            release: &self.release,
            root: Path::new(ROOT),
            procfs: Path::new(PROCFS),
            metrics: Arc::clone(&self.metrics),
            publisher: self.publisher.clone(),
            armed: Arc::clone(&self.armed),
            confinement: self.confinement,
            needs_terminal: self.needs_terminal,
        };
        observe(place, known, sink).await
    }
}

/// Findings as rate-limited log lines, the tables as metrics.
struct Log {
    limiter: Limiter,
    tables: Arc<TablePart>,
    which: RealServers,
}

impl Log {
    fn new(agent: &Agent<'_>, which: RealServers) -> Self {
        let tables = Arc::new(TablePart::default());
        agent.metrics.add(Arc::clone(&tables) as _);
        Self {
            limiter: Limiter::default(),
            tables,
            which,
        }
    }
}

impl Sink for Log {
    /// No warning: tables are meant to change.
    fn difference(&mut self, difference: &Difference) -> io::Result<()> {
        log::debug!("{difference}");
        Ok(())
    }

    fn tables(&mut self, now: MonoNs, tables: &Tables) -> io::Result<()> {
        let shown = Shown::of(tables, self.which, now, &clock::wall_anchor());
        self.tables.set(shown);
        Ok(())
    }

    fn finding(&mut self, now: MonoNs, finding: &Finding, _: &WallAnchor) -> io::Result<()> {
        for line in self.limiter.lines(now, finding) {
            log::warn!("{line}");
        }
        Ok(())
    }

    fn tick(&mut self, now: MonoNs) -> io::Result<()> {
        for line in self.limiter.suppressed(now) {
            log::warn!("{line}");
        }
        Ok(())
    }

    fn finish(&mut self) {
        for line in self.limiter.finish() {
            log::warn!("{line}");
        }
    }
}

impl Sink for Lines {
    fn finding(&mut self, _: MonoNs, finding: &Finding, clocks: &WallAnchor) -> io::Result<()> {
        self.send(finding, clocks)
    }

    fn tick(&mut self, _: MonoNs) -> io::Result<()> {
        self.check()
    }

    fn finish(&mut self) {
        Self::finish(self);
    }
}
