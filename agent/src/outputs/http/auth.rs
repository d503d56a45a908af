//! Basic authentication against bcrypt hashes, so that guessing cannot keep a CPU busy.
//!
//! A credential is verified once and remembered by a keyed hash. Verifications run one at a time
//! away from the event loop, and each is followed by a rest of [`REST`] times its own length:
//! together they take at most a quarter of one CPU, however many guesses come.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, oneshot};
use tokio::time::sleep;

use super::queue::Queue;
use super::web_config::{Hash, WebConfigError};
use crate::clock;

/// Length of the rest after a verification, in lengths of the verification.
const REST: u32 = 3;

/// Requests that may wait for their turn; at cost 10 the last of them waits four seconds.
pub const WAITING_MAX: usize = 16;

/// Credentials remembered as right, and as wrong; at the limit all are forgotten, which costs a
/// verification each and no more.
const REMEMBERED_MAX: usize = 64;

/// What became of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is right.
    Right,
    /// It is missing, malformed or wrong.
    Wrong,
    /// Too many wait to be verified.
    Busy,
}

/// Users, and what is remembered of their credentials.
pub struct Auth {
    users: BTreeMap<String, Hash>,
    /// Verified for a user who does not exist, as slowly as for one who does.
    decoy: String,
    key: hmac::Key,
    remembered: Mutex<Remembered>,
    turn: Arc<Turn<()>>,
    waiting: Queue,
}

#[derive(Default)]
struct Remembered {
    right: HashSet<Vec<u8>>,
    wrong: HashSet<Vec<u8>>,
}

impl Auth {
    /// Knows these users; `None` where there are none.
    ///
    /// # Errors
    /// The system has no random numbers: without them every request is refused.
    pub fn new(users: BTreeMap<String, Hash>) -> Result<Option<Self>, WebConfigError> {
        let Some(slowest) = users.values().max_by_key(|hash| hash.cost) else {
            return Ok(None);
        };
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| WebConfigError::Unfit {
            key: "basic_auth_users",
            reason: "this system gives no random numbers".to_owned(),
        })?;
        Ok(Some(Self {
            decoy: slowest.text.clone(),
            users,
            key,
            remembered: Mutex::default(),
            turn: Arc::default(),
            waiting: Queue::new(WAITING_MAX),
        }))
    }

    /// Checks the `authorization` header of a request.
    pub async fn check(self: &Arc<Self>, authorization: Option<&HeaderValue>) -> Outcome {
        let Some((user, password)) = authorization.and_then(credential) else {
            return Outcome::Wrong;
        };
        let tag = self.tag(&user, &password);
        if let Some(outcome) = self.remembered(&tag) {
            return outcome;
        }
        let Some(waiting) = self.waiting.enter() else {
            return Outcome::Busy;
        };
        let turn = Arc::clone(&self.turn).lock_owned().await;
        drop(waiting);
        // The one before may have brought the same.
        if let Some(outcome) = self.remembered(&tag) {
            return outcome;
        }
        let (send, outcome) = oneshot::channel();
        let auth = Arc::clone(self);
        // A task of its own: a client that hangs up does not get out of the rest.
        tokio::spawn(async move {
            let right = auth.verify(&user, password, turn).await;
            // Nobody listens any more where the client has hung up.
            send.send(auth.remember(tag, right)).ok();
        });
        outcome.await.unwrap_or(Outcome::Wrong)
    }

    async fn verify(&self, user: &str, password: Vec<u8>, turn: OwnedMutexGuard<()>) -> bool {
        let hash = self.users.get(user);
        let exists = hash.is_some();
        let hash = hash.map_or(&self.decoy, |hash| &hash.text).clone();
        let verified = tokio::task::spawn_blocking(move || {
            let since = clock::now();
            let same = bcrypt::verify(&password, &hash).unwrap_or(false);
            (same, clock::now().since(since))
        });
        let (same, taken) = verified.await.unwrap_or_default();
        tokio::spawn(async move {
            sleep(taken * REST).await;
            drop(turn);
        });
        same && exists
    }

    fn tag(&self, user: &str, password: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        // A name has no colon.
        for part in [user.as_bytes(), b":", password] {
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    }

    fn remembered(&self, tag: &[u8]) -> Option<Outcome> {
        let remembered = self.remembered.lock();
        let remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        if remembered.right.contains(tag) {
            return Some(Outcome::Right);
        }
        remembered.wrong.contains(tag).then_some(Outcome::Wrong)
    }

    fn remember(&self, tag: Vec<u8>, right: bool) -> Outcome {
        let remembered = self.remembered.lock();
        let mut remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        let (of, outcome) = if right {
            (&mut remembered.right, Outcome::Right)
        } else {
            (&mut remembered.wrong, Outcome::Wrong)
        };
        if of.len() >= REMEMBERED_MAX {
            of.clear();
        }
        of.insert(tag);
        outcome
    }
}

/// User and password of a `Basic` header (RFC 7617).
fn credential(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(colon);
    let user = std::str::from_utf8(user).ok()?.to_owned();
    Some((user, password.get(1..)?.to_vec()))
}
