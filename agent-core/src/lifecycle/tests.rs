//! Every state meets every event: [`TRANSITIONS`] lists what changes, all else changes nothing.

use super::{
    Action, Event, Lifecycle, MODULE_RELEASE_GRACE, Module, ModuleId, ModuleUsers, ReleaseReason,
    State, next,
};
use crate::clock::MonoNs;

const A: ModuleId = ModuleId::Directory(1);
const B: ModuleId = ModuleId::Directory(2);
const NOW: MonoNs = MonoNs(1_000);
/// References that the agent's own programs hold in these tests.
const OURS: u64 = 8;

const fn live(id: ModuleId, references: u64) -> Module {
    Module::Live {
        id,
        references: Some(references),
    }
}

/// As the kernel shows what is built in.
const BUILT_IN: Module = Module::Live {
    id: A,
    references: None,
};

const NEW: State = State::Waiting { reported: false };
const WAITING: State = State::Waiting { reported: true };
const ATTACHING: State = State::Attaching { id: A };
const UNUSED: State = observing(OURS, false);
const USED: State = observing(OURS, true);
/// By kprobes, which hold no reference.
const BY_KPROBE: State = observing(0, true);
const RELEASED: State = State::Released { grace_until: None };
const IN_GRACE: State = State::Released {
    grace_until: Some(MonoNs(NOW.0 + 1)),
};
const GRACE_OVER: State = State::Released {
    grace_until: Some(NOW),
};

const fn observing(ours: u64, was_used: bool) -> State {
    State::Observing {
        id: A,
        users: ModuleUsers { ours, was_used },
    }
}

const STATES: &[State] = &[
    NEW,
    WAITING,
    ATTACHING,
    UNUSED,
    USED,
    BY_KPROBE,
    RELEASED,
    IN_GRACE,
    GRACE_OVER,
    State::NotReattaching,
    State::Refused,
    State::Stopped,
];

const ABSENT: Event = Event::Module(Module::Absent);
const LOADING: Event = Event::Module(Module::Loading);
const UNLOADING: Event = Event::Module(Module::Unloading);
const IDLE: Event = Event::Module(live(A, 0));
const ONLY_US: Event = Event::Module(live(A, OURS));
const IN_USE: Event = Event::Module(live(A, OURS + 1));
const BUILT_IN_SEEN: Event = Event::Module(BUILT_IN);
const ANOTHER: Event = Event::Module(live(B, 0));
const ATTACHED: Event = attached(0, live(A, OURS));
const ATTACHED_IN_USE: Event = attached(2, live(A, OURS + 2));
const ATTACHED_BUILT_IN: Event = attached(0, BUILT_IN);
const ATTACHED_TO_NOTHING: Event = attached(0, Module::Unloading);
const ATTACHED_TO_ANOTHER: Event = attached(0, live(B, OURS));
const FAILED: Event = Event::AttachFailed { module: live(A, 0) };
const FAILED_WITHOUT_MODULE: Event = Event::AttachFailed {
    module: Module::Absent,
};
const FAILED_ON_ANOTHER: Event = Event::AttachFailed { module: live(B, 0) };

const fn attached(references_before: u64, module: Module) -> Event {
    Event::Attached {
        references_before,
        module,
    }
}

const EVENTS: &[Event] = &[
    ABSENT,
    LOADING,
    UNLOADING,
    IDLE,
    ONLY_US,
    IN_USE,
    BUILT_IN_SEEN,
    ANOTHER,
    ATTACHED,
    ATTACHED_IN_USE,
    ATTACHED_BUILT_IN,
    ATTACHED_TO_NOTHING,
    ATTACHED_TO_ANOTHER,
    FAILED,
    FAILED_WITHOUT_MODULE,
    FAILED_ON_ANOTHER,
    Event::LayoutMismatch,
    Event::Stop,
];

const ATTACHING_ANOTHER: State = State::Attaching { id: B };
const UNLOADED: Action = Action::Release(ReleaseReason::Unloaded);
const NO_OTHER_USERS: Action = Action::Release(ReleaseReason::NoOtherUsers);
const GRACE: State = State::Released {
    grace_until: Some(MonoNs(
        NOW.0 + MODULE_RELEASE_GRACE.as_secs() * 1_000_000_000,
    )),
};

/// State, event, state afterwards, action.
const TRANSITIONS: &[(State, Event, State, Action)] = &[
    // A start without the module says so once, and attaches when it is live.
    (NEW, ABSENT, WAITING, Action::ReportWaiting),
    (NEW, LOADING, WAITING, Action::ReportWaiting),
    (NEW, UNLOADING, WAITING, Action::ReportWaiting),
    (NEW, IDLE, ATTACHING, Action::Attach),
    (NEW, ONLY_US, ATTACHING, Action::Attach),
    (NEW, IN_USE, ATTACHING, Action::Attach),
    (NEW, BUILT_IN_SEEN, ATTACHING, Action::Attach),
    (NEW, ANOTHER, ATTACHING_ANOTHER, Action::Attach),
    (WAITING, IDLE, ATTACHING, Action::Attach),
    (WAITING, ONLY_US, ATTACHING, Action::Attach),
    (WAITING, IN_USE, ATTACHING, Action::Attach),
    (WAITING, BUILT_IN_SEEN, ATTACHING, Action::Attach),
    (WAITING, ANOTHER, ATTACHING_ANOTHER, Action::Attach),
    // Attached to the module that was to be observed, or to one that went.
    (ATTACHING, ATTACHED, UNUSED, Action::Observe),
    (ATTACHING, ATTACHED_IN_USE, USED, Action::Observe),
    (
        ATTACHING,
        ATTACHED_BUILT_IN,
        observing(0, false),
        Action::Observe,
    ),
    (ATTACHING, ATTACHED_TO_NOTHING, NEW, Action::DropAttached),
    (ATTACHING, ATTACHED_TO_ANOTHER, NEW, Action::DropAttached),
    (ATTACHING, FAILED, State::Stopped, Action::Fail),
    (ATTACHING, FAILED_WITHOUT_MODULE, NEW, Action::DropAttached),
    (ATTACHING, FAILED_ON_ANOTHER, NEW, Action::DropAttached),
    // The first user is remembered; without other users the module is released.
    (UNUSED, IN_USE, USED, Action::Continue),
    (USED, ONLY_US, GRACE, NO_OTHER_USERS),
    (USED, IDLE, GRACE, NO_OTHER_USERS),
    // The module goes, or another one is in its place.
    (UNUSED, ABSENT, RELEASED, UNLOADED),
    (UNUSED, LOADING, RELEASED, UNLOADED),
    (UNUSED, UNLOADING, RELEASED, UNLOADED),
    (UNUSED, ANOTHER, RELEASED, UNLOADED),
    (USED, ABSENT, RELEASED, UNLOADED),
    (USED, LOADING, RELEASED, UNLOADED),
    (USED, UNLOADING, RELEASED, UNLOADED),
    (USED, ANOTHER, RELEASED, UNLOADED),
    (BY_KPROBE, ABSENT, RELEASED, UNLOADED),
    (BY_KPROBE, LOADING, RELEASED, UNLOADED),
    (BY_KPROBE, UNLOADING, RELEASED, UNLOADED),
    (BY_KPROBE, ANOTHER, RELEASED, UNLOADED),
    // Attached again as soon as the module is live; in the grace period only if it is in use.
    (RELEASED, IDLE, ATTACHING, Action::Attach),
    (RELEASED, ONLY_US, ATTACHING, Action::Attach),
    (RELEASED, IN_USE, ATTACHING, Action::Attach),
    (RELEASED, BUILT_IN_SEEN, ATTACHING, Action::Attach),
    (RELEASED, ANOTHER, ATTACHING_ANOTHER, Action::Attach),
    (IN_GRACE, ONLY_US, ATTACHING, Action::Attach),
    (IN_GRACE, IN_USE, ATTACHING, Action::Attach),
    (IN_GRACE, BUILT_IN_SEEN, ATTACHING, Action::Attach),
    (GRACE_OVER, IDLE, ATTACHING, Action::Attach),
    (GRACE_OVER, ONLY_US, ATTACHING, Action::Attach),
    (GRACE_OVER, IN_USE, ATTACHING, Action::Attach),
    (GRACE_OVER, BUILT_IN_SEEN, ATTACHING, Action::Attach),
    (GRACE_OVER, ANOTHER, ATTACHING_ANOTHER, Action::Attach),
    // A wrong layout ends every report, also while the module is released.
    (
        UNUSED,
        Event::LayoutMismatch,
        State::Refused,
        Action::Refuse,
    ),
    (USED, Event::LayoutMismatch, State::Refused, Action::Refuse),
    (
        BY_KPROBE,
        Event::LayoutMismatch,
        State::Refused,
        Action::Refuse,
    ),
    (
        RELEASED,
        Event::LayoutMismatch,
        State::Refused,
        Action::Refuse,
    ),
    (
        IN_GRACE,
        Event::LayoutMismatch,
        State::Refused,
        Action::Refuse,
    ),
    (
        GRACE_OVER,
        Event::LayoutMismatch,
        State::Refused,
        Action::Refuse,
    ),
    (
        State::NotReattaching,
        Event::LayoutMismatch,
        State::Refused,
        Action::Refuse,
    ),
    // Stopping is possible in every state.
    (NEW, Event::Stop, State::Stopped, Action::Stop),
    (WAITING, Event::Stop, State::Stopped, Action::Stop),
    (ATTACHING, Event::Stop, State::Stopped, Action::Stop),
    (UNUSED, Event::Stop, State::Stopped, Action::Stop),
    (USED, Event::Stop, State::Stopped, Action::Stop),
    (BY_KPROBE, Event::Stop, State::Stopped, Action::Stop),
    (RELEASED, Event::Stop, State::Stopped, Action::Stop),
    (IN_GRACE, Event::Stop, State::Stopped, Action::Stop),
    (GRACE_OVER, Event::Stop, State::Stopped, Action::Stop),
    (
        State::NotReattaching,
        Event::Stop,
        State::Stopped,
        Action::Stop,
    ),
    (State::Refused, Event::Stop, State::Stopped, Action::Stop),
];

#[test]
fn every_state_meets_every_event() {
    for state in STATES {
        for event in EVENTS {
            let listed = TRANSITIONS
                .iter()
                .find(|(from, by, ..)| from == state && by == event);
            let expected = listed.map_or((*state, Action::Continue), |(.., to, action)| {
                (*to, *action)
            });
            assert_eq!(next(*state, NOW, *event), expected, "{state:?}, {event:?}");
        }
    }
}

#[test]
fn every_listed_transition_is_met_once() {
    for (state, event, ..) in TRANSITIONS {
        assert!(STATES.contains(state), "{state:?}");
        assert!(EVENTS.contains(event), "{event:?}");
        let same = TRANSITIONS
            .iter()
            .filter(|(from, by, ..)| from == state && by == event);
        assert_eq!(same.count(), 1, "{state:?}, {event:?}");
    }
}

#[test]
fn a_life_from_the_first_wait_to_the_end() {
    let mut life = Lifecycle::default();
    let story = [
        (ABSENT, Action::ReportWaiting),
        (LOADING, Action::Continue),
        (IDLE, Action::Attach),
        (ATTACHED_TO_NOTHING, Action::DropAttached),
        (ABSENT, Action::ReportWaiting),
        (IDLE, Action::Attach),
        (ATTACHED, Action::Observe),
        (ONLY_US, Action::Continue),
        (IN_USE, Action::Continue),
        (ONLY_US, NO_OTHER_USERS),
        (IDLE, Action::Continue),
        (ABSENT, Action::Continue),
        (ANOTHER, Action::Continue),
        (IN_USE, Action::Attach),
        (ATTACHED_IN_USE, Action::Observe),
        (Event::LayoutMismatch, Action::Refuse),
        (ABSENT, Action::Continue),
        (Event::Stop, Action::Stop),
    ];
    for (number, (event, action)) in story.into_iter().enumerate() {
        assert_eq!(life.handle(NOW, event), action, "step {number}: {event:?}");
    }
}

#[test]
fn the_grace_period_ends_by_the_clock() {
    let mut life = Lifecycle {
        state: USED,
        ..Lifecycle::default()
    };
    assert_eq!(life.handle(NOW, ONLY_US), NO_OTHER_USERS);
    let until = NOW + MODULE_RELEASE_GRACE;
    assert_eq!(life.handle(MonoNs(until.0 - 1), IDLE), Action::Continue);
    assert_eq!(life.handle(until, IDLE), Action::Attach);
}

#[test]
fn an_agent_that_attaches_once_reports_once_that_it_does_not_again() {
    let mut life = Lifecycle::attaching_once();
    let story = [
        (ABSENT, Action::ReportWaiting),
        // A module that went before it was observed is no second attachment.
        (IDLE, Action::Attach),
        (ATTACHED_TO_NOTHING, Action::DropAttached),
        (IDLE, Action::Attach),
        (ATTACHED, Action::Observe),
        (ABSENT, UNLOADED),
        (LOADING, Action::Continue),
        (ANOTHER, Action::ReportNotReattaching),
        (ANOTHER, Action::Continue),
        (ABSENT, Action::Continue),
        (IN_USE, Action::Continue),
        (Event::Stop, Action::Stop),
    ];
    for (number, (event, action)) in story.into_iter().enumerate() {
        assert_eq!(life.handle(NOW, event), action, "step {number}: {event:?}");
    }
}

#[test]
fn a_module_is_what_its_files_say() {
    let of = |initstate, refcnt| Module::of(A, initstate, refcnt);
    assert_eq!(of(Some("live\n"), Some("3\n")), live(A, 3));
    assert_eq!(of(Some("coming\n"), Some("1\n")), Module::Loading);
    assert_eq!(of(Some("going\n"), Some("0\n")), Module::Unloading);
    assert_eq!(of(None, None), BUILT_IN);
    assert_eq!(of(Some("live\n"), Some("-")), BUILT_IN);
}

#[test]
fn kprobes_hold_no_reference() {
    let mut users = ModuleUsers::new(2, 2);
    assert!(!users.only_us(0));
}

#[test]
fn a_user_that_comes_later_is_noticed_when_it_goes() {
    let mut users = ModuleUsers::new(0, OURS);
    assert!(!users.only_us(OURS), "not used yet");
    assert!(!users.only_us(OURS + 1), "in use");
    assert!(users.only_us(OURS), "no longer in use");
}
