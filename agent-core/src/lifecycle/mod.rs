//! When to attach, to release the ip_vs module and to stop: a state machine without I/O.
//!
//! The agent feeds it what happens ([`Event`]) with the time it is, and does what it returns
//! ([`Action`]). One event causes one action.
//!
//! ```text
//!              live                 Attached, same module
//! Waiting ───────────▶ Attaching ─────────────────────────▶ Observing ──LayoutMismatch──▶ Refused
//!    ▲                  │     ▲                                 │
//!    └─module went──────┘     └──live, not in the grace──Released◀── unloaded, or no other users
//!                             period
//! ```
//!
//! `Stop` leads from every state to `Stopped`, and so does a failure to attach while the module
//! stays. An agent that attaches once ([`Lifecycle::attaching_once`]) goes from `Released` to
//! `NotReattaching` instead of `Attaching`. SIGHUP is no event: it changes settings, never what is attached.

use std::time::Duration;

use crate::clock::MonoNs;

/// How long the module stays released after it had no other users: time for `rmmod` to be run
/// again, which fails at once while a program holds a reference.
pub const MODULE_RELEASE_GRACE: Duration = Duration::from_secs(5);

/// One loading of the module; unloading and loading again makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleId {
    /// The inode number of its directory in /sys/module.
    Directory(u64),
    /// Part of the kernel's image and without a directory: never unloaded.
    Image,
}

/// The module as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// Not loaded.
    Absent,
    /// Listed, but its functions cannot be probed yet.
    Loading,
    /// Loaded, or built into the kernel.
    Live {
        /// Which loading it is.
        id: ModuleId,
        /// Schedulers, services, and programs attached to its functions; `None` where the kernel
        /// does not count them, as for a module that is built in.
        references: Option<u64>,
    },
    /// Still listed, but on its way out.
    Unloading,
}

impl Module {
    /// From the files of /sys/module/ip_vs: `initstate` (`live`, `coming` or `going`; kernel/module)
    /// and `refcnt`. A module that is built in has neither and is always live.
    #[must_use]
    pub fn of(id: ModuleId, initstate: Option<&str>, refcnt: Option<&str>) -> Self {
        match initstate.map(str::trim) {
            None | Some("live") => Self::Live {
                id,
                references: refcnt.and_then(|text| text.trim().parse().ok()),
            },
            Some("going") => Self::Unloading,
            Some(_) => Self::Loading,
        }
    }

    /// Which loading it is, when it is live.
    #[must_use]
    pub const fn live(&self) -> Option<ModuleId> {
        match self {
            Self::Live { id, .. } => Some(*id),
            Self::Absent | Self::Loading | Self::Unloading => None,
        }
    }

    /// References to it; `None` when it is not live or they are not counted.
    #[must_use]
    pub const fn references(&self) -> Option<u64> {
        match self {
            Self::Live { references, .. } => *references,
            Self::Absent | Self::Loading | Self::Unloading => None,
        }
    }

    fn is(&self, id: ModuleId) -> bool {
        self.live() == Some(id)
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The module was looked at.
    Module(Module),
    /// Every program is attached.
    Attached {
        /// References to the module before the first program was attached.
        references_before: u64,
        /// The module afterwards.
        module: Module,
    },
    /// A program could not be attached, and none is.
    AttachFailed {
        /// The module afterwards.
        module: Module,
    },
    /// The kernel programs found that the layout is wrong, and stopped counting.
    LayoutMismatch,
    /// The user asked to stop, or whoever reads the output closed it.
    Stop,
}

/// What to do about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: go on as before.
    Continue,
    /// Report that the module is waited for; no program is attached.
    ReportWaiting,
    /// Detach what is attached, load the programs and attach them; answer with
    /// [`Event::Attached`] or [`Event::AttachFailed`].
    Attach,
    /// Report that IPVS is observed.
    Observe,
    /// Drop what was just attached and report that the module went meanwhile.
    DropAttached,
    /// End with the error of the failed attachment.
    Fail,
    /// Detach what holds the module, keep the other programs, and report it.
    Release(ReleaseReason),
    /// Report that the module is live again and nothing will be attached to it.
    ReportNotReattaching,
    /// Detach everything, report that the layout is wrong, and serve what was counted.
    Refuse,
    /// Detach everything, report what is in flight, and end.
    Stop,
}

/// Why the module is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// It was unloaded, or unloaded and loaded again.
    Unloaded,
    /// Only the agent still refers to it.
    NoOtherUsers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No program is attached, and the module is not live.
    Waiting { reported: bool },
    /// Programs are being attached to this loading of the module.
    Attaching { id: ModuleId },
    /// Every program is attached.
    Observing { id: ModuleId, users: ModuleUsers },
    /// Only programs that do not hold the module are attached.
    Released { grace_until: Option<MonoNs> },
    /// As `Released`, for good: this process may no longer attach.
    NotReattaching,
    /// The layout is wrong; only stopping helps.
    Refused,
    /// The end.
    Stopped,
}

/// The life of the agent, as far as programs and the module are concerned.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    state: State,
    attaches_once: bool,
}

impl Default for Lifecycle {
    /// Nothing attached, nothing known of the module.
    fn default() -> Self {
        Self {
            state: State::Waiting { reported: false },
            attaches_once: false,
        }
    }
}

impl Lifecycle {
    /// Of a process that may not attach again once it has observed.
    #[must_use]
    pub fn attaching_once() -> Self {
        Self {
            attaches_once: true,
            ..Self::default()
        }
    }

    /// What to do about `event` at `now`.
    pub fn handle(&mut self, now: MonoNs, event: Event) -> Action {
        let was_released = matches!(self.state, State::Released { .. });
        let (state, action) = match next(self.state, now, event) {
            (_, Action::Attach) if was_released && self.attaches_once => {
                (State::NotReattaching, Action::ReportNotReattaching)
            }
            followed => followed,
        };
        self.state = state;
        action
    }
}

/// One transition.
fn next(state: State, now: MonoNs, event: Event) -> (State, Action) {
    match (state, event) {
        (State::Stopped, _) => (state, Action::Continue),
        (_, Event::Stop) => (State::Stopped, Action::Stop),
        (State::Waiting { reported }, Event::Module(module)) => waiting(reported, module),
        (
            State::Attaching { id },
            Event::Attached {
                references_before,
                module,
            },
        ) => attached(id, references_before, module),
        (State::Attaching { id }, Event::AttachFailed { module }) => attach_failed(id, module),
        (State::Observing { id, users }, Event::Module(module)) => {
            observing(id, users, now, module)
        }
        (
            State::Observing { .. } | State::Released { .. } | State::NotReattaching,
            Event::LayoutMismatch,
        ) => (State::Refused, Action::Refuse),
        (State::Released { grace_until }, Event::Module(module)) => {
            released(grace_until, now, module)
        }
        // The answer to an attachment that nothing asked for, a mismatch of programs that are not
        // attached, and whatever follows a refusal change nothing.
        _ => (state, Action::Continue),
    }
}

fn waiting(reported: bool, module: Module) -> (State, Action) {
    match module.live() {
        Some(id) => (State::Attaching { id }, Action::Attach),
        None if reported => (State::Waiting { reported }, Action::Continue),
        None => (State::Waiting { reported: true }, Action::ReportWaiting),
    }
}

/// What was attached to a module that went is attached to nothing.
fn attached(id: ModuleId, references_before: u64, module: Module) -> (State, Action) {
    if !module.is(id) {
        return (State::Waiting { reported: false }, Action::DropAttached);
    }
    let users = ModuleUsers::new(references_before, module.references().unwrap_or(0));
    (State::Observing { id, users }, Action::Observe)
}

/// While the module stays, another attempt would fail for the same reason.
fn attach_failed(id: ModuleId, module: Module) -> (State, Action) {
    if module.is(id) {
        (State::Stopped, Action::Fail)
    } else {
        (State::Waiting { reported: false }, Action::DropAttached)
    }
}

fn observing(id: ModuleId, mut users: ModuleUsers, now: MonoNs, module: Module) -> (State, Action) {
    let (grace_until, reason) = if !module.is(id) {
        (None, ReleaseReason::Unloaded)
    } else if module.references().is_some_and(|now| users.only_us(now)) {
        let until = now + MODULE_RELEASE_GRACE;
        (Some(until), ReleaseReason::NoOtherUsers)
    } else {
        return (State::Observing { id, users }, Action::Continue);
    };
    (State::Released { grace_until }, Action::Release(reason))
}

fn released(grace_until: Option<MonoNs>, now: MonoNs, module: Module) -> (State, Action) {
    let in_grace = grace_until.is_some_and(|until| now < until) && module.references() == Some(0);
    match module.live() {
        Some(id) if !in_grace => (State::Attaching { id }, Action::Attach),
        _ => (State::Released { grace_until }, Action::Continue),
    }
}

/// Who refers to the module, as far as its reference count shows.
///
/// A program attached by fexit holds a reference, and `rmmod` fails on a module that has one. Once
/// schedulers and services are gone there is nothing to observe, so the references are released. A
/// module that has not been used yet is kept: its first service must not be missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ModuleUsers {
    ours: u64,
    was_used: bool,
}

impl ModuleUsers {
    /// `before` and `after` are the references around our own attaching.
    const fn new(before: u64, after: u64) -> Self {
        Self {
            ours: after.saturating_sub(before),
            was_used: before > 0,
        }
    }

    /// Whether only we are left, by the references now.
    const fn only_us(&mut self, references: u64) -> bool {
        if references > self.ours {
            self.was_used = true;
        }
        self.ours > 0 && self.was_used && references <= self.ours
    }
}

#[cfg(test)]
mod tests;
