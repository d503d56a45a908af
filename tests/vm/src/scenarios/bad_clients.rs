//! Clients of the agent's HTTP server that do not play by the rules, while it counts and is scraped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::modes::FOLLOW;
use crate::agent::{Agent, LISTEN};
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::scrape::Scrape;
use crate::topology::{REAL_SERVERS, RS1};
use crate::{http, process};

/// The agent's web configuration: one user, whose password is `right`, at the lowest cost of bcrypt,
/// because the guest is slow.
const WEB_CONFIG: &str = "/tmp/web.yml";
const USERS: &str = "basic_auth_users:\n  alice: \
    $2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC\n";
/// `alice:right`, `alice:wrong`.
const RIGHT: &str = "Authorization: Basic YWxpY2U6cmlnaHQ=\r\n";
const WRONG: &str = "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n";

/// Ports that are used twice: four for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_012;
/// Connections that ask for nothing; as soon as one is closed another comes.
const IDLE: usize = 200;
/// Readers of one byte a second.
const SLOW: usize = 4;
/// Kilobytes of a request's header, of which the server reads sixteen.
const HEADER_KB: usize = 1_000;
/// The beginning of a TLS handshake, which the server does not speak.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03";
/// Pause of everybody who comes again.
const PAUSE: Duration = Duration::from_millis(100);
/// What the agent may need of memory, its start included, which needs most: the kernel's types.
const PEAK_MAX_KIB: u64 = 100 << 10;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&FOLLOW)?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    fs::write(WEB_CONFIG, USERS)?;
    let mut agent = Agent::spawn_with(&["--web-config", WEB_CONFIG])?;
    agent.authorize(RIGHT);
    agent.wait_ready()?;
    let first = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    director::set_weight(RS1, 0)?;

    let crowd = Crowd::come()?;
    let again = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    let stale = first.answered_by(RS1.name);
    let mut expected = Expected::none()
        .decision("scheduled", first.attempts())
        .came_back(again.attempts() - stale, stale, RS1);
    for rs in REAL_SERVERS {
        let given = first.answered_by(rs.name) + again.answered_by(rs.name);
        expected = expected.new_connections(rs, given);
    }
    // Scrapes, with all of them there.
    agent.expect(&expected)?;
    let memory = process::memory(agent.id())?;
    println!("among bad clients: {memory:?}");
    ensure!(
        memory.peak_kib < PEAK_MAX_KIB,
        "{memory:?}, want a peak below {PEAK_MAX_KIB} KiB"
    );
    crowd.leave()?.check(&agent.scrape()?)?;
    agent.expect(&expected)?;
    agent.terminate()
}

/// What was done to the server.
#[derive(Debug, Default)]
struct Done {
    guesses: AtomicU64,
    headers: AtomicU64,
    handshakes: AtomicU64,
}

impl Done {
    /// Each is refused under its own name, and some of the idle had to go.
    fn check(&self, scrape: &Scrape) -> Result<()> {
        let refused = |reason| {
            let labels = [("reason", reason)];
            scrape.count("ipvs_lens_http_requests_refused_total", &labels)
        };
        let each = [
            ("unauthorized", &self.guesses),
            ("header_too_large", &self.headers),
            ("malformed", &self.handshakes),
        ];
        for (reason, done) in each {
            let (done, counted) = (done.load(Ordering::Relaxed), refused(reason)?);
            ensure!(done > 0, "nothing was done that is {reason}");
            ensure!(
                done == counted,
                "{counted} refused for {reason}, want the {done} that were sent"
            );
        }
        let displaced = refused("displaced")?;
        ensure!(
            displaced > 0,
            "{IDLE} idle connections, and none was displaced"
        );
        println!("{self:?} and {displaced} displaced");
        Ok(())
    }
}

/// All clients at once, until `leave` is set.
struct Crowd {
    leave: Arc<AtomicBool>,
    done: Arc<Done>,
    members: Vec<JoinHandle<Result<()>>>,
}

impl Crowd {
    fn come() -> Result<Self> {
        let mut crowd = Self {
            leave: Arc::default(),
            done: Arc::default(),
            members: Vec::new(),
        };
        let mut idle: Vec<TcpStream> = (0..IDLE).map(|_| connect()).collect::<Result<_>>()?;
        crowd.member(move |_| {
            // One after the other is replaced; so slowly that who asks at once has his turn.
            idle.rotate_left(1);
            if let Some(last) = idle.last_mut() {
                *last = connect()?;
            }
            Ok(())
        });
        for _ in 0..SLOW {
            let mut reader: Option<TcpStream> = None;
            crowd.member(move |_| {
                let stream = match &mut reader {
                    Some(stream) => stream,
                    None => reader.insert(ask(RIGHT)?),
                };
                thread::sleep(Duration::from_secs(1));
                if !matches!(stream.read(&mut [0]), Ok(1)) {
                    reader = None;
                }
                Ok(())
            });
        }
        crowd.member(|done| {
            let answer = http::get(LISTEN.into(), "/metrics", WRONG);
            // A guess may find that others wait to be verified, or be displaced.
            if answer.is_ok_and(|answer| answer.status == 401) {
                done.guesses.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        crowd.member(|done| {
            let kilobyte = format!("x: {}\r\n", "a".repeat(1_019));
            let mut stream = connect()?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\n")?;
            // The server has enough long before the end, and closes.
            for _ in 0..HEADER_KB {
                if stream.write_all(kilobyte.as_bytes()).is_err() {
                    break;
                }
            }
            read_to_end(&mut stream);
            done.headers.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        crowd.member(|done| {
            let mut stream = connect()?;
            stream.write_all(CLIENT_HELLO)?;
            read_to_end(&mut stream);
            done.handshakes.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        Ok(crowd)
    }

    fn member(&mut self, mut again: impl FnMut(&Done) -> Result<()> + Send + 'static) {
        let (leave, done) = (Arc::clone(&self.leave), Arc::clone(&self.done));
        self.members.push(thread::spawn(move || {
            while !leave.load(Ordering::Relaxed) {
                again(&done)?;
                thread::sleep(PAUSE);
            }
            Ok(())
        }));
    }

    fn leave(self) -> Result<Arc<Done>> {
        self.leave.store(true, Ordering::Relaxed);
        for member in self.members {
            member
                .join()
                .map_err(|_| anyhow!("a bad client panicked"))??;
        }
        Ok(self.done)
    }
}

fn connect() -> Result<TcpStream> {
    TcpStream::connect(LISTEN).context("connect to the agent")
}

/// Asks for the metrics and reads nothing yet.
fn ask(authorization: &str) -> Result<TcpStream> {
    let mut stream = connect()?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: agent\r\n{authorization}\r\n"
    )?;
    Ok(stream)
}

/// Until the server has closed, in whatever way.
fn read_to_end(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}
