//! One observation from the first wait to the last finding: does what the lifecycle decides.
//!
//! The only file that attaches, detaches, waits for events, and reads the clock for them.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use agent_common::config::{ALL_DECISIONS, Config, FINDINGS};
use agent_common::stat::Stat;
use agent_core::lifecycle::{Action, Event, MODULE_RELEASE_GRACE, ReleaseReason};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::cli::ObserveArgs;
use crate::clock::{self, MonoNs};
use crate::confinement::Confinement;
use crate::correlate::Correlator;
use crate::error::Failure;
use crate::kernel::model;
use crate::kernel::preemption::Preemption;
use crate::observer::{Activity, Observer, Session, Sink};
use crate::outputs::metrics::Metrics;
use crate::probes::attach::{Loaded, Wanted, load};
use crate::probes::counters::{Carried, Counters};
use crate::probes::error::AttachError;
use crate::probes::features::Known;
use crate::publish::Publisher;
use crate::settings::Emit;
use crate::source::Source;
use crate::source::counts::CountSource;
use crate::source::module::{self, IPVS_MODULE};
use crate::source::proc::Procfs;
use crate::source::table::{Held, TableSource};
use crate::status::State;
use crate::table::tables::Tables;
use crate::wake::{Alarm, MODULE_POLL, Woken};

/// How often the numbers of `/status` are brought up to date.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// The kernel announces a module as live while it still holds a reference to it from loading it
/// (`do_init_module`, kernel/module/main.c): gone after microseconds, on a busy machine after some
/// of these.
const LOOKS_AT_NEW_MODULE: u32 = 5;
const LOOK_AT_NEW_MODULE_PAUSE: Duration = Duration::from_millis(50);

/// What an observation reads and where it reports.
pub struct Place<'a> {
    /// What the user asked for.
    pub settings: &'a ObserveArgs,
    /// Release of the running kernel.
    pub release: &'a str,
    /// Where the node's own files are.
    pub root: &'a Path,
    /// Where procfs is.
    pub procfs: &'a Path,
    /// Where counts are shown.
    pub metrics: Arc<Metrics>,
    /// Where it is shown what is attached.
    pub publisher: Publisher,
    /// Notified when programs are attached.
    pub armed: Arc<Notify>,
    /// What is given up once programs are attached.
    pub confinement: Confinement,
    /// Whether it stops when the terminal it prints to is gone.
    pub needs_terminal: bool,
}

/// Waits for IPVS, observes it as often as it is loaded, and reports what is in flight when asked
/// to stop. `known` is what was read of the kernel before, if anything.
///
/// # Errors
/// [`Failure`] with the exit status; nothing of ours is left in the kernel then.
pub async fn observe<S: Sink>(
    place: Place<'_>,
    known: Option<Known>,
    sink: S,
) -> Result<(), Failure> {
    let mut stop = StopSignals::listen(place.needs_terminal)?;
    let mut lifecycle = place.confinement.lifecycle();
    let mut observation = Observation::new(place, known, sink);
    let mut event = Event::Module(module::read());
    loop {
        event = match lifecycle.handle(clock::now(), event) {
            Action::Continue => observation.next_event(&mut stop).await?,
            Action::Attach => observation.attach()?,
            Action::Stop => return observation.stop(),
            action => {
                observation.report(action)?;
                // What follows depends on the module as it is now.
                Event::Module(module::read())
            }
        };
    }
}

struct Observation<'a, S> {
    place: Place<'a>,
    observer: Observer<S>,
    /// What was attached last, until it is known whether it may stay.
    attached: Option<Result<Loaded, AttachError>>,
    session: Option<Session>,
    carried: Carried,
    alarm: Alarm,
    look: Look,
    /// What was read of the kernel before; for the first attaching.
    known: Option<Known>,
}

impl<'a, S: Sink> Observation<'a, S> {
    fn new(place: Place<'a>, known: Option<Known>, sink: S) -> Self {
        let correlator = Correlator::new(place.settings.emit == Emit::All);
        let observer = Observer::new(
            correlator,
            Procfs::new(place.procfs),
            Tables::new(place.settings.forgotten_after),
            Arc::clone(&place.metrics),
            place.publisher.status(),
            sink,
        );
        let alarm = Alarm::new(place.settings.drain_period);
        Self {
            place,
            observer,
            attached: None,
            session: None,
            carried: Carried::default(),
            alarm,
            look: Look::default(),
            known,
        }
    }

    /// Sleeps until there is something to do, drains and does what is due.
    async fn next_event(&mut self, stop: &mut StopSignals) -> Result<Event, Failure> {
        let woken = tokio::select! {
            () = stop.asked() => return Ok(Event::Stop),
            woken = self.woken() => woken,
        };
        let mismatch = self.look(woken);
        let Some(activity) = printed(self.drain())? else {
            return Ok(Event::Stop);
        };
        let active = activity == Activity::Busy || woken.is_activity();
        self.alarm.handle_run(clock::now(), active);
        Ok(if mismatch {
            Event::LayoutMismatch
        } else {
            Event::Module(module::read())
        })
    }

    async fn woken(&self) -> Woken {
        let Some(session) = &self.session else {
            sleep(MODULE_POLL).await;
            return Woken::Timer;
        };
        // A module that is being loaded has no message of its own for the moment it is live.
        let module = (!session.holds_module).then(|| clock::now() + MODULE_POLL);
        let due = [self.observer.poll_timeout(), self.look.due(), module];
        let due = due.into_iter().flatten().min();
        self.alarm.next(&session.source, due).await
    }

    fn drain(&mut self) -> io::Result<Activity> {
        match &mut self.session {
            Some(session) => self.observer.drain(session, clock::now()),
            None => self.observer.advance(clock::now()).map(|()| Activity::Idle),
        }
    }

    /// Looks at what is counted without a record; returns whether the layout proved wrong.
    fn look(&mut self, woken: Woken) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        let now = clock::now();
        self.look.handle_woken(woken, &session.source);
        if self.look.is_due(now) {
            let lost = session.programs.stat(Stat::CpuWithoutBuffer);
            session.source.update_cpus(lost);
            self.observer.refresh(session, now);
            self.observer.look_at_node(session, now);
        }
        session.programs.stat(Stat::LayoutContradicted) > 0
    }

    /// Loads the programs and attaches them, in place of those attached before.
    fn attach(&mut self) -> Result<Event, Failure> {
        self.end_session()?;
        let references_before =
            references_of_others(self.known.as_ref().is_some_and(Known::is_current));
        let wanted = wanted(&self.place);
        let attached = load(&wanted, self.known.take(), self.carried.clone());
        let attached = attached.and_then(|mut loaded| {
            loaded.programs.attach()?;
            Ok(loaded)
        });
        let module = module::read();
        let event = match &attached {
            Ok(_) => Event::Attached {
                references_before,
                module,
            },
            Err(_) => Event::AttachFailed { module },
        };
        self.attached = Some(attached);
        Ok(event)
    }

    fn report(&mut self, action: Action) -> Result<(), Failure> {
        match action {
            Action::ReportWaiting => {
                let reason = format!("module {IPVS_MODULE} is not loaded yet; waiting for it");
                log::warn!("{reason}");
                self.place.publisher.not_observing(State::Waiting, reason);
            }
            Action::Observe | Action::Fail => self.begin()?,
            Action::DropAttached => {
                let error = self.attached.take().and_then(Result::err);
                let reason = error.map_or_else(String::new, |error| format!(": {error}"));
                log::warn!(
                    "{IPVS_MODULE} was unloaded while probes were being attached; retrying{reason}"
                );
            }
            Action::Release(reason) => self.release(reason),
            Action::ReportNotReattaching => self.report_not_reattaching(),
            Action::Refuse => self.refuse()?,
            Action::Continue | Action::Attach | Action::Stop => {}
        }
        Ok(())
    }

    /// Shows what the attached programs count; the error, where they could not be attached.
    fn begin(&mut self) -> Result<(), Failure> {
        let Some(attached) = self.attached.take() else {
            return Ok(());
        };
        let Loaded {
            events,
            counters,
            programs,
        } = attached.map_err(Failure::cannot_observe)?;
        self.place.confinement.confine(&counters)?;
        let source: Arc<dyn CountSource> = Arc::clone(&counters) as _;
        self.place.metrics.set_source(Some(source));
        self.place.publisher.observing(&programs);
        self.place.armed.notify_one();
        self.session = Some(Session {
            programs,
            source: events,
            table: self.tables(&counters),
            holds_module: true,
        });
        Ok(())
    }

    /// Starts to read the IPVS tables; only with the programs attached, so that the kernel is not
    /// asked about a module that has gone.
    fn tables(&self, counters: &Arc<Counters>) -> Option<TableSource> {
        let counts: Arc<dyn Held> = Arc::clone(counters) as _;
        let ready = self.alarm.tables();
        TableSource::start(self.place.settings.table_interval, counts, ready)
            .inspect_err(|error| log::warn!("the IPVS tables cannot be read: {error}"))
            .ok()
    }

    /// Detaches what holds the module; the other programs are drained as before.
    fn release(&mut self, reason: ReleaseReason) {
        let Some(session) = &mut self.session else {
            return;
        };
        let reason = match reason {
            ReleaseReason::Unloaded => format!(
                "{IPVS_MODULE} unloaded; its probes are detached until it is loaded again; other \
                 probes stay attached"
            ),
            ReleaseReason::NoOtherUsers => format!(
                "{IPVS_MODULE} has no other users; released it for {} s so that it can be unloaded; \
                 other probes stay attached",
                MODULE_RELEASE_GRACE.as_secs()
            ),
        };
        log::warn!("{reason}");
        session.table = None;
        session.programs.release_module();
        session.holds_module = false;
        self.place.publisher.released(&session.programs, reason);
    }

    fn report_not_reattaching(&self) {
        let Some(session) = &self.session else {
            return;
        };
        let reason = format!(
            "{IPVS_MODULE} can be observed again, but the capabilities to attach to it were given up \
             (--drop-all-capabilities); restart the agent; other probes stay attached"
        );
        log::warn!("{reason}");
        self.place
            .publisher
            .not_observing_module(&session.programs, reason);
    }

    /// What was counted until now stays readable.
    fn refuse(&mut self) -> Result<(), Failure> {
        let reason = "an entry did not carry the addresses of the packet that asked for it: the \
            layout is wrong for this kernel, nothing is reported any more; give the right types \
            with --btf FILE";
        log::error!("{reason}");
        self.end_session()?;
        let publisher = &self.place.publisher;
        publisher.not_observing(State::Refused, reason.to_owned());
        Ok(())
    }

    /// Detaches every program, reports what waits in its stream, and keeps its counts.
    fn end_session(&mut self) -> Result<(), Failure> {
        let Some(mut session) = self.session.take() else {
            return Ok(());
        };
        session.table = None;
        session.programs.detach();
        self.observer.look_at_node(&session, clock::now());
        printed(self.observer.drain(&mut session, clock::now()))?;
        self.carried = session
            .programs
            .counters()
            .carry()
            .map_err(Failure::failed)?;
        Ok(())
    }

    fn stop(mut self) -> Result<(), Failure> {
        self.end_session()?;
        self.place.publisher.stopping();
        printed(self.observer.finish(clock::now())).map(drop)
    }
}

/// References to the module while nothing of ours is attached. Of a module that may just have been
/// loaded (`is_settled` is false), the fewest seen: the kernel's own is no user.
fn references_of_others(is_settled: bool) -> u64 {
    let read = || module::read().references().unwrap_or(0);
    let mut fewest = read();
    let mut looks = LOOKS_AT_NEW_MODULE;
    while fewest > 0 && looks > 0 && !is_settled {
        thread::sleep(LOOK_AT_NEW_MODULE_PAUSE);
        fewest = fewest.min(read());
        looks -= 1;
    }
    fewest
}

fn wanted(place: &Place<'_>) -> Wanted {
    let settings = place.settings;
    Wanted {
        config: Config {
            emit_decisions: match settings.emit {
                Emit::Findings => FINDINGS,
                Emit::All => ALL_DECISIONS,
            },
            emit_syn_drops: 1,
            connect_args: 0,
            pad: 0,
            outcome_timeout_ns: nanoseconds(settings.outcome_timeout),
        },
        logs: settings.kernel_log,
        counts: settings.kernel_counts,
        kernel: settings.kernel.clone(),
        release: place.release.to_owned(),
        preemption: Preemption::judge(&model::gather(place.root, place.release)),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// When the node's counters and `/status` are looked at: once a second while something happens,
/// otherwise whenever the observer runs.
#[derive(Debug, Default)]
struct Look {
    last: MonoNs,
    /// Something happened since, which may have been counted without a record.
    pending: bool,
}

impl Look {
    fn handle_woken(&mut self, woken: Woken, source: &Source) {
        // Perf buffers do not wake for what has no record.
        self.pending |= woken.is_activity() || matches!(source, Source::Perf(_));
    }

    fn due(&self) -> Option<MonoNs> {
        self.pending.then(|| self.last + STATUS_PERIOD)
    }

    fn is_due(&mut self, now: MonoNs) -> bool {
        let due = now >= self.last + STATUS_PERIOD;
        if due {
            (self.last, self.pending) = (now, false);
        }
        due
    }
}

/// `None` when findings can be printed no more; a reader that closed the pipe, as `head` does, is no
/// failure.
fn printed<T>(result: io::Result<T>) -> Result<Option<T>, Failure> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(Failure::failed(format!("cannot print findings: {error}"))),
    }
}

/// SIGTERM, SIGINT, and SIGHUP where it says that the terminal is gone.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether stdout was a terminal, and is needed.
    needs_terminal: bool,
}

impl StopSignals {
    fn listen(needs_terminal: bool) -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
            needs_terminal: needs_terminal && io::stdout().is_terminal(),
        })
    }

    async fn asked(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    // The kernel answers for a terminal that was hung up as for no terminal.
                    if self.needs_terminal && !io::stdout().is_terminal() {
                        return;
                    }
                }
            }
        }
    }
}
