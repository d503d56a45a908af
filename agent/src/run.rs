//! The two verbs that observe: waits for IPVS, attaches, and keeps the observer going.
//!
//! The only file that sleeps, waits for signals, or decides when to stop.

use std::io::{self, Stdout};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_common::attempt::{ATTEMPTS_MAX, PENDING_MAX};
use agent_common::config::{ALL_DECISIONS, Config, FINDINGS};
use agent_common::count::COUNTS_MAX;
use agent_common::flow::FLOWS_MAX;
use agent_common::follow::FOLLOWED_MAX;
use agent_common::layout::{ABSENT, FIELDS, KernelLayout};
use agent_common::node::NODE_COUNTS_MAX;
use agent_common::record::RING_BYTES;
use agent_common::stat::Stat;
use log::LevelFilter;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::cli::{ObserveArgs, RunArgs, TopArgs, TraceArgs};
use crate::clock::{self, MonoNs, WallAnchor};
use crate::correlate::{ATTEMPTS_HELD_MAX, Correlator, STALE_REMEMBERED_MAX, WINDOW_EVENTS_MAX};
use crate::doctor::facts::Facts;
use crate::doctor::gather::essentials;
use crate::doctor::rules::prerequisites;
use crate::error::Failure;
use crate::finding::Finding;
use crate::kernel::model;
use crate::kernel::preemption::Preemption;
use crate::limits;
use crate::observer::{Observer, Session, Sink};
use crate::outputs::http::web::Web;
use crate::outputs::http::{self, SEATS_MAX, Server};
use crate::outputs::log::Limiter;
use crate::outputs::metrics::hazards::{Hazards, Node};
use crate::outputs::metrics::sample::Part;
use crate::outputs::metrics::system::System;
use crate::outputs::metrics::table::{Shown, TablePart};
use crate::outputs::metrics::{BuildInfo, CountSource, Metrics, SERIES_MAX};
use crate::outputs::trace;
use crate::probes::attach::{Loaded, Programs, Wanted, load};
use crate::probes::counters::{Carried, Counters};
use crate::probes::module::{self, LastUser, Loading};
use crate::probes::table::{IPVS_MODULE, PROBES, Way};
use crate::settings::{Attach, Emit, Format, RealServers, SettingsError};
use crate::signals::Hangup;
use crate::source::proc::Procfs;
use crate::source::table::{Held, NETNS_MAX, TableSource};
use crate::status::{ProbeState, ProbeStatus, SharedStatus, State, Status};
use crate::table::changes::Difference;
use crate::table::draining::DRAINING_MAX;
use crate::table::tables::Tables;
use crate::top::{self, view::Choice};

/// Where the node's own files are.
const ROOT: &str = "/";

/// Where procfs is.
const PROCFS: &str = "/proc";

/// How soon a loaded module is noticed.
const MODULE_POLL: Duration = Duration::from_millis(250);

/// How long a module is left alone after everybody else has: time for `rmmod` to be tried again.
const LET_GO: Duration = Duration::from_secs(5);

/// How often the node's configuration is looked at for hazards: it changes when somebody changes
/// it, and reading a table of 100,000 real servers takes a fraction of a second. Parameters of IPVS
/// are read at every scrape.
const FACTS_PERIOD: Duration = Duration::from_secs(60);

/// How often the numbers of `/status` are brought up to date.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// `ipvs-lens run`: observes until asked to stop, and serves what it sees. `log_level` reads
/// that setting again after SIGHUP.
///
/// # Errors
/// [`Failure`] with the exit status; nothing of ours is left in the kernel then.
pub fn run(
    args: &RunArgs,
    log_level: impl Fn() -> Result<LevelFilter, SettingsError> + Send + 'static,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    let hangup = {
        let _inside = runtime.enter();
        Hangup::catch()?
    };
    let web = web(args)?;
    let facts = observable()?;
    let agent = Agent::new(&args.observe, &facts);
    let server = Server::start(args.http.listen, agent.shown(), web).map_err(Failure::failed)?;
    let outcome = runtime.block_on(async {
        let reloading = tokio::spawn(hangup.reload(log_level, server.reload()));
        let looking = tokio::spawn(keep_looking(
            Arc::clone(&agent.hazards),
            Arc::clone(&agent.metrics),
            Arc::clone(&agent.armed),
        ));
        let outcome = agent.observe(Log::new(&agent, args.real_servers)).await;
        looking.abort();
        reloading.abort();
        outcome
    });
    drop(server);
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
    let facts = observable()?;
    let lines = Lines {
        out: io::stdout(),
        format: args.output.format,
    };
    runtime()?.block_on(Agent::new(&args.observe, &facts).observe(lines))
}

/// `ipvs-lens top`: shows the tables until asked to stop, or prints them once.
///
/// # Errors
/// As [`run`].
pub fn top(args: &TopArgs) -> Result<(), Failure> {
    let facts = observable()?;
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
        return runtime()?.block_on(agent.observe(once));
    }
    if !top::has_terminal() {
        return Err(Failure::failed(
            "stdout is no terminal, and `top` draws on one; use --once to print the table",
        ));
    }
    let live = top::Live::open(choice)
        .map_err(|error| Failure::failed(format!("the terminal cannot be used: {error}")))?;
    runtime()?.block_on(agent.observe(live))
}

/// What this node is, once nothing stands in the way of observing it.
fn observable() -> Result<Facts, Failure> {
    limits::raise();
    let facts = essentials(Path::new(ROOT));
    prerequisites(&facts).map_err(Failure::cannot_observe)?;
    Ok(facts)
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the event loop: {error}")))
}

/// Looks at the node now, whenever observation begins, and every [`FACTS_PERIOD`].
async fn keep_looking(hazards: Arc<Hazards>, metrics: Arc<Metrics>, armed: Arc<Notify>) {
    let mut period = ticks(FACTS_PERIOD);
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
    status: SharedStatus,
    hazards: Arc<Hazards>,
    /// Told when observation begins.
    armed: Arc<Notify>,
}

impl<'a> Agent<'a> {
    fn new(settings: &'a ObserveArgs, facts: &Facts) -> Self {
        let release = facts.kernel.release.known().cloned().unwrap_or_default();
        let metrics = Arc::new(Metrics::new(BuildInfo::THIS));
        metrics.add(Arc::new(System::new(Path::new(PROCFS))));
        metrics.set_probes(probe_statuses(Way::Fexit, ProbeState::Disabled, None));
        let status = SharedStatus::new(Status {
            version: BuildInfo::THIS.version.to_owned(),
            reason: Some("starting".to_owned()),
            kernel: release.clone(),
            probes: probe_statuses(Way::Fexit, ProbeState::Disabled, None),
            limits: bounds().collect(),
            ..Status::default()
        });
        let hazards = Arc::new(Hazards::new(Node, status.clone()));
        metrics.add(Arc::clone(&hazards) as Arc<dyn Part>);
        Self {
            settings,
            release,
            metrics,
            status,
            hazards,
            armed: Arc::default(),
        }
    }

    fn shown(&self) -> http::Shown {
        http::Shown {
            metrics: Arc::clone(&self.metrics),
            status: self.status.clone(),
        }
    }

    /// Waits for IPVS, observes it as often as it comes, and drains when asked to stop.
    async fn observe<S: Sink>(&self, sink: S) -> Result<(), Failure> {
        let mut stop = StopSignals::listen()?;
        let correlator = Correlator::new(self.settings.emit == Emit::All);
        let mut observer = Observer::new(
            correlator,
            Procfs::new(Path::new(PROCFS)),
            Tables::new(self.settings.forgotten_after),
            Arc::clone(&self.metrics),
            self.status.clone(),
            sink,
        );
        let mut carried = Carried::default();
        loop {
            if !self.module_comes(&mut observer, &mut stop).await? {
                break;
            }
            let loading = module::loading();
            let attached = self.attach(loading, carried.clone());
            if loading.is_none() || module::loading() != loading {
                // What was attached went with it, or hangs on the next one.
                let reason = attached
                    .err()
                    .map_or_else(String::new, |error| format!(": {error}"));
                log::warn!("module {IPVS_MODULE} went while probes were attached{reason}");
                continue;
            }
            let (loaded, watch) = attached?;
            let (mut session, counters) = self.begin(loaded);
            let end = self
                .keep_going(&mut observer, &mut session, watch, &mut stop)
                .await?;
            session.table = None;
            let goes_on = self.goes_on(end, &mut observer, &mut session, &mut stop);
            let goes_on = goes_on.await?;
            session.programs.detach();
            observer.look_at_node(&session, clock::now());
            printed(observer.drain(&mut session, clock::now()))?;
            carried = counters.carry().map_err(Failure::failed)?;
            if !goes_on {
                break;
            }
        }
        self.status.update(|status| status.state = State::Stopping);
        printed(observer.finish(clock::now())).map(|_| ())
    }

    /// Returns once the module is there, `false` when asked to stop before.
    async fn module_comes<S: Sink>(
        &self,
        observer: &mut Observer<S>,
        stop: &mut StopSignals,
    ) -> Result<bool, Failure> {
        if module::loading().is_none() {
            let reason = format!("module {IPVS_MODULE} is not loaded yet; waiting for it");
            log::warn!("{reason}");
            self.not_observing(State::Waiting, reason);
        }
        while module::loading().is_none() {
            if !printed(observer.advance(clock::now()))? {
                return Ok(false);
            }
            tokio::select! {
                () = stop.asked() => return Ok(false),
                () = sleep(MODULE_POLL) => {}
            }
        }
        Ok(true)
    }

    /// Hangs the programs on this loading of the module.
    fn attach(
        &self,
        loading: Option<Loading>,
        carried: Carried,
    ) -> Result<(Loaded, Watch), Failure> {
        let references = module::references().unwrap_or(0);
        let mut loaded = load(&self.wanted(), carried).map_err(Failure::cannot_observe)?;
        let attached = loaded.programs.attach();
        attached.map_err(Failure::cannot_observe)?;
        let last_user = LastUser::new(references, module::references().unwrap_or(0));
        Ok((loaded, Watch { loading, last_user }))
    }

    /// Shows what attached programs count.
    fn begin(&self, loaded: Loaded) -> (Session, Arc<Counters>) {
        let Loaded {
            events,
            counters,
            programs,
        } = loaded;
        let source: Arc<dyn CountSource> = Arc::clone(&counters) as _;
        self.metrics.set_source(Some(source));
        self.observing(&programs);
        let session = Session {
            programs,
            source: events,
            table: self.tables(&counters),
        };
        (session, counters)
    }

    /// Starts to read the IPVS tables; only with the programs attached, so that the kernel is not
    /// asked about a module that has gone.
    fn tables(&self, counters: &Arc<Counters>) -> Option<TableSource> {
        let counts: Arc<dyn Held> = Arc::clone(counters) as _;
        TableSource::start(self.settings.table_interval, counts)
            .inspect_err(|error| log::warn!("the IPVS tables cannot be read: {error}"))
            .ok()
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            config: Config {
                emit_decisions: match self.settings.emit {
                    Emit::Findings => FINDINGS,
                    Emit::All => ALL_DECISIONS,
                },
                emit_syn_drops: 1,
                connect_args: 0,
                pad: 0,
                outcome_timeout_ns: nanoseconds(self.settings.outcome_timeout),
            },
            logs: self.settings.kernel_log,
            attach: self.settings.attach,
            events: self.settings.events,
            btf_file: self.settings.btf.clone(),
            release: self.release.clone(),
            preemption: Preemption::judge(&model::gather(Path::new(ROOT), &self.release)),
        }
    }

    fn observing(&self, programs: &Programs) {
        let probes = attached_statuses(programs);
        self.metrics.set_probes(probes.clone());
        self.status.update(|status| {
            status.state = State::Armed;
            status.reason = None;
            status.probes = probes;
            programs.types_origin().clone_into(&mut status.types);
            status.attachment = programs.attachment();
            status.layout = layout_by_name(programs.layout()).collect();
            status.absent = absent_fields(programs.layout()).collect();
            status.limitations = programs.limitation().cloned().into_iter().collect();
        });
        self.armed.notify_one();
        if let Some(limitation) = programs.limitation() {
            log::warn!("{limitation}");
        }
        let (attachment, origin) = (programs.attachment(), programs.types_origin());
        log::info!(
            "{} probes attached, those of {IPVS_MODULE} by {attachment}; offsets from {origin}",
            PROBES.len() - programs.missing().len()
        );
    }

    /// IPVS is not observed for a while; everything else is.
    fn observing_beside(&self, programs: &Programs, reason: String) {
        let mut probes = attached_statuses(programs);
        for (status, probe) in probes.iter_mut().zip(PROBES) {
            if probe.is_of_module() {
                status.state = ProbeState::Disabled;
                status.reason = Some(reason.clone());
            }
        }
        self.metrics.set_probes(probes.clone());
        self.status.update(|status| {
            status.state = State::Waiting;
            status.reason = Some(reason);
            status.probes = probes;
            status.gaps += 1;
        });
    }

    fn not_observing(&self, state: State, reason: String) {
        let way = match self.settings.attach {
            Attach::Kprobe => Way::Kprobe,
            Attach::Fexit | Attach::Auto => Way::Fexit,
        };
        let probes = probe_statuses(way, ProbeState::Disabled, Some(&reason));
        self.metrics.set_probes(probes.clone());
        self.status.update(|status| {
            status.state = state;
            status.reason = Some(reason);
            status.probes = probes;
        });
    }

    /// What follows the end of a session, which goes on beside IPVS until this returns; `false` to
    /// stop.
    async fn goes_on<S: Sink>(
        &self,
        end: End,
        observer: &mut Observer<S>,
        session: &mut Session,
        stop: &mut StopSignals,
    ) -> Result<bool, Failure> {
        let reason = match end {
            End::Asked => return Ok(false),
            End::ModuleGone => {
                format!("module {IPVS_MODULE} was unloaded; waiting for it, observing beside it")
            }
            End::LastUser => format!(
                "nobody uses module {IPVS_MODULE} any more; let go of it for {} s, observing beside it",
                LET_GO.as_secs()
            ),
            End::Contradicted => {
                let reason = "an entry did not carry the addresses of the packet that asked for \
                    it: the layout is wrong for this kernel, nothing is reported any more; give \
                    the right types with --btf FILE";
                log::error!("{reason}");
                self.not_observing(State::Refused, reason.to_owned());
                stop.asked().await;
                return Ok(false);
            }
        };
        log::warn!("{reason}");
        session.programs.let_go_of_module();
        self.observing_beside(&session.programs, reason);
        self.module_is_wanted(end, observer, session, stop).await
    }

    /// Drains until the module is there and may be held again; `false` when asked to stop before.
    async fn module_is_wanted<S: Sink>(
        &self,
        end: End,
        observer: &mut Observer<S>,
        session: &mut Session,
        stop: &mut StopSignals,
    ) -> Result<bool, Failure> {
        let until = clock::now() + LET_GO;
        let mut look = ticks(STATUS_PERIOD);
        let mut module = ticks(MODULE_POLL);
        loop {
            let left_alone =
                end == End::LastUser && clock::now() < until && module::references() == Some(0);
            if module::loading().is_some() && !left_alone {
                return Ok(true);
            }
            tokio::select! {
                () = stop.asked() => return Ok(false),
                _ = module.tick() => {}
                _ = look.tick() => {
                    observer.refresh(session, clock::now());
                    observer.look_at_node(session, clock::now());
                }
            }
            if !printed(observer.drain(session, clock::now()))? {
                return Ok(false);
            }
        }
    }

    async fn keep_going<S: Sink>(
        &self,
        observer: &mut Observer<S>,
        session: &mut Session,
        mut watch: Watch,
        stop: &mut StopSignals,
    ) -> Result<End, Failure> {
        let wake = Wake::on(session)?;
        let mut drain = ticks(self.settings.drain_period);
        let mut refresh = ticks(STATUS_PERIOD);
        let mut module = ticks(MODULE_POLL);
        loop {
            tokio::select! {
                () = stop.asked() => break Ok(End::Asked),
                _ = drain.tick() => {}
                () = wake.asked() => {}
                _ = refresh.tick() => {
                    observer.refresh(session, clock::now());
                    observer.look_at_node(session, clock::now());
                    if session.programs.stat(Stat::LayoutContradicted) > 0 {
                        break Ok(End::Contradicted);
                    }
                }
                _ = module.tick() => {
                    if let Some(end) = watch.end() {
                        break Ok(end);
                    }
                }
            }
            if !printed(observer.drain(session, clock::now()))? {
                break Ok(End::Asked);
            }
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A signal, or nobody reads our lines any more.
    Asked,
    /// The module is gone, or is another one.
    ModuleGone,
    /// Only we still hold the module.
    LastUser,
    /// The kernel programs found the layout wrong.
    Contradicted,
}

/// The module of one session.
struct Watch {
    loading: Option<Loading>,
    last_user: LastUser,
}

impl Watch {
    fn end(&mut self) -> Option<End> {
        if module::loading() != self.loading {
            return Some(End::ModuleGone);
        }
        let references = module::references()?;
        self.last_user.is_us(references).then_some(End::LastUser)
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Whether lines can still be told; a reader that has seen enough, as `head` does, is no failure.
fn printed(told: io::Result<()>) -> Result<bool, Failure> {
    match told {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("cannot print findings: {error}"))),
    }
}

/// The kernel's own call to be read before the timer: the ring is half full.
struct Wake(Option<AsyncFd<BorrowedRing>>);

/// The ring's descriptor, borrowed from a session for as long as it is watched.
struct BorrowedRing(RawFd);

impl AsRawFd for BorrowedRing {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Wake {
    fn on(session: &Session) -> Result<Self, Failure> {
        let Some(ring) = session.source.wakes() else {
            return Ok(Self(None));
        };
        // SAFETY: the session outlives its watching, and with it the ring's descriptor.
        let registered =
            unsafe { AsyncFd::register_with_interest(BorrowedRing(ring), Interest::READABLE) };
        registered
            .map(|ring| Self(Some(ring)))
            .map_err(|error| Failure::failed(format!("cannot watch the event ring: {error}")))
    }

    async fn asked(&self) {
        let Some(ring) = &self.0 else {
            return std::future::pending().await;
        };
        if let Ok(mut ready) = ring.readable().await {
            ready.clear_ready();
        }
    }
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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

/// Findings as lines on stdout.
struct Lines {
    out: Stdout,
    format: Format,
}

impl Sink for Lines {
    fn finding(&mut self, _: MonoNs, finding: &Finding, clocks: &WallAnchor) -> io::Result<()> {
        trace::write_line(&mut self.out, finding, clocks, self.format)
    }

    fn tick(&mut self, _now: MonoNs) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) {}
}

fn probe_statuses(way: Way, state: ProbeState, reason: Option<&str>) -> Vec<ProbeStatus> {
    PROBES
        .iter()
        .map(|probe| ProbeStatus {
            name: probe.name.to_owned(),
            via: probe.via(way).to_owned(),
            state,
            reason: reason.map(str::to_owned),
        })
        .collect()
}

/// Every probe, once IPVS is observed: those it can be observed without may be missing.
fn attached_statuses(programs: &Programs) -> Vec<ProbeStatus> {
    let mut statuses = probe_statuses(programs.way(), ProbeState::Active, None);
    for status in &mut statuses {
        if let Some(reason) = programs.missing().get(status.name.as_str()) {
            status.state = ProbeState::Failed;
            status.reason = Some(reason.clone());
        }
    }
    statuses
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn layout_by_name(layout: &KernelLayout) -> impl Iterator<Item = (String, u16)> {
    FIELDS
        .iter()
        .zip(layout.offsets())
        .filter(|(_, offset)| *offset != ABSENT)
        .map(|(field, offset)| (format!("{}.{}", field.structure, field.path), offset))
}

/// Fields this kernel does not have, each with what is not told for it.
fn absent_fields(layout: &KernelLayout) -> impl Iterator<Item = (String, String)> {
    FIELDS
        .iter()
        .zip(layout.offsets())
        .filter(|(_, offset)| *offset == ABSENT)
        .map(|(field, _)| {
            let name = format!("{}.{}", field.structure, field.path);
            (name, field.costs().to_owned())
        })
}

fn bounds() -> impl Iterator<Item = (String, u64)> {
    let sizes = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    [
        ("kernel_counts", u64::from(COUNTS_MAX)),
        ("kernel_attempts", u64::from(ATTEMPTS_MAX)),
        ("kernel_pending", u64::from(PENDING_MAX)),
        ("kernel_followed", u64::from(FOLLOWED_MAX)),
        ("kernel_flows", u64::from(FLOWS_MAX)),
        ("kernel_node_counts", u64::from(NODE_COUNTS_MAX)),
        ("ring_bytes", u64::from(RING_BYTES)),
        ("correlator_attempts", sizes(ATTEMPTS_HELD_MAX)),
        ("correlator_stale", sizes(STALE_REMEMBERED_MAX)),
        ("correlator_window_events", sizes(WINDOW_EVENTS_MAX)),
        ("series_per_family", sizes(SERIES_MAX)),
        ("table_namespaces", sizes(NETNS_MAX)),
        ("table_draining", sizes(DRAINING_MAX)),
        ("http_connections", sizes(SEATS_MAX)),
    ]
    .into_iter()
    .map(|(name, limit)| (name.to_owned(), limit))
}
