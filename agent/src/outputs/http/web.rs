//! The web configuration in force: read from its files, and again when they change.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use axum::http::HeaderMap;
use tokio_rustls::TlsAcceptor;

use super::auth::Auth;
use super::rate::Bucket;
use super::tls::{self, Files};
use super::web_config::{self, WebConfigError};
use crate::clock::{self, MonoNs};
use crate::outputs::metrics::names;
use crate::outputs::metrics::sample::{Page, Part, Sample};
use crate::status::WebStatus;

/// How often the files are looked at; certificates are renewed days before they end.
pub const RELOAD_PERIOD: Duration = Duration::from_secs(5);

/// Largest file read: a chain of certificates is a few KiB, a bundle of authorities 300.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What connections and requests are held against.
#[derive(Default)]
pub struct Rules {
    /// Speaks TLS, where it is wanted.
    pub tls: Option<TlsAcceptor>,
    /// Knows the users, where there are any.
    pub auth: Option<Arc<Auth>>,
    /// Headers of every answer.
    pub headers: HeaderMap,
    rate: Option<Mutex<Bucket>>,
}

impl Rules {
    /// Whether one more request is allowed at `now`.
    pub fn within_rate(&self, now: MonoNs) -> bool {
        let Some(rate) = &self.rate else { return true };
        rate.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(now)
    }
}

/// The rules in force, and where they come from.
pub struct Web {
    file: Option<PathBuf>,
    rules: RwLock<Arc<Rules>>,
    state: Mutex<State>,
}

/// What was last read, and what came of it.
#[derive(Default)]
struct State {
    seen: Option<Result<Contents, String>>,
    error: Option<String>,
    loaded_seconds: f64,
}

/// Every byte that rules are made of.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    text: String,
    files: Files,
}

impl Web {
    /// No TLS, no users, no limit.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            file: None,
            rules: RwLock::default(),
            state: Mutex::default(),
        }
    }

    /// Whether there is a file that may change.
    #[must_use]
    pub const fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The rules of `file`, or none where there is no file.
    ///
    /// # Errors
    /// One line: the file, the key, the value, and what is wanted.
    pub fn load(file: Option<&Path>) -> Result<Self, String> {
        let Some(file) = file else {
            return Ok(Self::plain());
        };
        let web = Self {
            file: Some(file.to_owned()),
            ..Self::plain()
        };
        web.reload();
        match web.status().and_then(|status| status.error) {
            Some(error) => Err(error),
            None => Ok(web),
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        let rules = self.rules.read();
        Arc::clone(&rules.unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files; if they have changed and make sense, they are in force from here on.
    pub fn reload(&self) {
        let Some(file) = &self.file else { return };
        let found = read(file).map_err(|error| named(file, &error));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.seen.as_ref() == Some(&found) {
            return;
        }
        let made = match &found {
            Ok(contents) => rules(file, contents).map_err(|error| named(file, &error)),
            Err(error) => Err(error.clone()),
        };
        match made {
            Ok(rules) => {
                if state.seen.is_some() {
                    log::info!("web configuration {} loaded again", file.display());
                }
                *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
                state.error = None;
                let now = clock::wall_anchor().wall(clock::now());
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                state.loaded_seconds = since.as_secs_f64();
            }
            Err(error) => {
                if state.seen.is_some() {
                    log::error!("{error}; the configuration before it stays in force");
                }
                state.error = Some(error);
            }
        }
        state.seen = Some(found);
    }

    /// What `/status` says; `None` without a file.
    pub fn status(&self) -> Option<WebStatus> {
        let file = self.file.as_ref()?;
        let rules = self.rules();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Some(WebStatus {
            file: file.display().to_string(),
            tls: rules.tls.is_some(),
            basic_auth: rules.auth.is_some(),
            error: state.error.clone(),
        })
    }
}

impl Part for Web {
    fn show(&self, page: &mut Page) {
        if self.file.is_none() {
            return;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let good = f64::from(u8::from(state.error.is_none()));
        page.put_one(names::WEB_CONFIG_SUCCESSFUL, Sample::Gauge(good));
        let loaded = Sample::Gauge(state.loaded_seconds);
        page.put_one(names::WEB_CONFIG_LOADED, loaded);
    }
}

fn named(file: &Path, error: &WebConfigError) -> String {
    format!("web configuration {}: {error}", file.display())
}

fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}

fn read(file: &Path) -> Result<Contents, WebConfigError> {
    let bytes = bytes(file)?;
    let text = String::from_utf8(bytes).map_err(|error| WebConfigError::Unreadable {
        path: file.to_owned(),
        reason: error.to_string(),
    })?;
    let config = web_config::parse(&text, directory(file))?;
    let named = config.tls.iter().flat_map(tls::files);
    let files = named.map(|path| Ok((path.to_owned(), self::bytes(path)?)));
    let files = files.collect::<Result<Files, WebConfigError>>()?;
    Ok(Contents { text, files })
}

fn bytes(path: &Path) -> Result<Vec<u8>, WebConfigError> {
    let unreadable = |reason: String| WebConfigError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let file = fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut bytes = Vec::new();
    // One more than allowed, to distinguish the largest from the too large.
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(error.to_string()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(unreadable(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn rules(file: &Path, contents: &Contents) -> Result<Rules, WebConfigError> {
    let config = web_config::parse(&contents.text, directory(file))?;
    let acceptor = |tls| tls::acceptor(tls, &contents.files);
    Ok(Rules {
        tls: config.tls.as_ref().map(acceptor).transpose()?,
        auth: Auth::new(config.users)?.map(Arc::new),
        headers: config.headers,
        rate: config.rate.map(|rate| Mutex::new(Bucket::new(rate))),
    })
}
