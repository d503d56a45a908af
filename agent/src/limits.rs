//! Resource limits of this process: raised to what is needed before anything is opened.

use agent_core::doctor::facts::{Limit, Limits};
use agent_core::doctor::rules::OPEN_FILES_NEEDED;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::probes::features::create_smallest_map;

/// Raises the limits as far as this process may.
///
/// Open files: to the hard limit at least, and the hard limit itself where it is below what is
/// needed and `CAP_SYS_RESOURCE` allows it. Locked memory, against which kernels before 5.11
/// charge maps: to infinity, or to the hard limit.
pub fn raise() {
    raise_one(Resource::Nofile, Some(OPEN_FILES_NEEDED));
    raise_one(Resource::Memlock, None);
}

/// The limits now, and whether this kernel charges maps against the one of locked memory.
pub fn current() -> Limits {
    let soft = |resource| match getrlimit(resource).current {
        Some(limit) => Limit::Of(limit),
        None => Limit::Infinite,
    };
    Limits {
        open_files: soft(Resource::Nofile),
        locked_bytes: soft(Resource::Memlock),
        maps_are_charged: maps_are_charged(),
        address_bytes: soft(Resource::As),
    }
}

/// Whether a map that can be created cannot be while the limit of locked memory is 0.
///
/// To lower the soft limit, and to raise it again up to the hard one, needs no right.
fn maps_are_charged() -> bool {
    let limit = getrlimit(Resource::Memlock);
    if limit.current.is_none() || create_smallest_map().is_err() {
        return false;
    }
    let zero = Rlimit {
        current: Some(0),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Memlock, zero).is_err() {
        return false;
    }
    let is_refused = create_smallest_map().is_err();
    if let Err(error) = setrlimit(Resource::Memlock, limit) {
        log::warn!(
            "RLIMIT_MEMLOCK cannot be set to {:?} again: {error}",
            limit.current
        );
    }
    is_refused
}

/// Raises one limit to `needed` (`None`: infinity), or as near as allowed.
fn raise_one(resource: Resource, needed: Option<u64>) {
    let limit = getrlimit(resource);
    let is_enough = |limit: Option<u64>| match (limit, needed) {
        (None, _) => true,
        (Some(limit), Some(needed)) => limit >= needed,
        (Some(_), None) => false,
    };
    if is_enough(limit.current) {
        return;
    }
    let hard = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let beyond = Rlimit {
        current: needed,
        maximum: needed,
    };
    let wanted = if is_enough(limit.maximum) {
        &hard
    } else {
        &beyond
    };
    let raised = match setrlimit(resource, *wanted) {
        Err(Errno::PERM) => setrlimit(resource, hard),
        raised => raised,
    };
    if let Err(error) = raised {
        log::debug!("limit {resource:?} stays at {:?}: {error}", limit.current);
    }
}
