//! Finds network namespaces by their inode number and visits them.
//!
//! A namespace is visited for one reading and left at once: a socket or thread that stayed there
//! would keep alive what its owner has deleted.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::event::NetnsId;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// Where `ip netns` and Docker keep theirs.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// Where every other is that a process lives in.
const PROCESSES: &str = "/proc";

/// Why a namespace cannot be visited.
#[derive(Debug, Error)]
pub enum VisitError {
    /// Nothing refers to it here.
    #[error(
        "network namespace {0} is not found under /run/netns, /run/docker/netns or /proc/*/ns/net: \
        it is gone, or of a process this one does not see; run with the host's process namespace"
    )]
    NotFound(NetnsId),
    /// The kernel refused.
    #[error(
        "network namespace {netns} cannot be entered: {source}; CAP_SYS_ADMIN is needed for that"
    )]
    Refused {
        /// Which.
        netns: NetnsId,
        /// Why.
        source: io::Error,
    },
    /// This thread cannot go back: it is of no more use.
    #[error("cannot return to the original network namespace from {netns}: setns failed: {source}")]
    NoReturn {
        /// Which.
        netns: NetnsId,
        /// Why.
        source: io::Error,
    },
}

/// The namespace of the calling thread.
///
/// # Errors
/// /proc cannot be read.
pub fn own() -> io::Result<NetnsId> {
    inode(Path::new(OWN))
}

/// Does `work` inside a namespace and comes back.
///
/// Changes the calling thread for that long: call it on a thread of its own.
///
/// # Errors
/// [`VisitError`]; after [`VisitError::NoReturn`] the thread must end.
pub fn within<T>(netns: NetnsId, work: impl FnOnce() -> T) -> Result<T, VisitError> {
    let refused = |source| VisitError::Refused { netns, source };
    let home = File::open(OWN).map_err(refused)?;
    if number(&home).map_err(refused)? == netns {
        return Ok(work());
    }
    let there = find(netns).ok_or(VisitError::NotFound(netns))?;
    enter(&there).map_err(refused)?;
    drop(there);
    let done = work();
    enter(&home).map_err(|source| VisitError::NoReturn { netns, source })?;
    Ok(done)
}

fn enter(namespace: &File) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
}

fn find(netns: NetnsId) -> Option<File> {
    let named = NAMED.iter().flat_map(|directory| entries(directory));
    let lived_in = entries(PROCESSES).map(|process| process.join("ns/net"));
    named
        .chain(lived_in)
        .filter(|path| inode(path).is_ok_and(|found| found == netns))
        // Opened, it can be no other any more.
        .filter_map(|path| File::open(path).ok())
        .find(|file| number(file).is_ok_and(|found| found == netns))
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> {
    let listed = fs::read_dir(directory).into_iter().flatten();
    listed.flatten().map(|entry| entry.path())
}

fn inode(path: &Path) -> io::Result<NetnsId> {
    // Follows the link, as opening does.
    fs::metadata(path).and_then(|metadata| narrow(metadata.ino()))
}

fn number(file: &File) -> io::Result<NetnsId> {
    file.metadata().and_then(|metadata| narrow(metadata.ino()))
}

fn narrow(inode: u64) -> io::Result<NetnsId> {
    u32::try_from(inode)
        .map(NetnsId)
        .map_err(|_| io::Error::other("the inode number of a namespace has 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_namespace_needs_no_privilege() {
        let own = own().unwrap();
        assert!(own.0 > 0);
        assert_eq!(within(own, || 7).unwrap(), 7);
    }

    #[test]
    fn what_nobody_lives_in_is_not_found() {
        let error = within(NetnsId(1), || ()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("network namespace 1 is not found")
        );
    }
}
