//! SIGHUP: reads again what can change without attaching again, and never ends the process.

use log::LevelFilter;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Failure;
use crate::outputs::http::Reload;
use crate::settings::SettingsError;

/// Keeps SIGHUP from ending the process from here on, whatever the verb. What it reloads,
/// [`Hangup`] says.
///
/// # Errors
/// When the kernel refuses the handler.
pub fn survive_hangup() -> Result<(), Failure> {
    let refused = |error| Failure::failed(format!("cannot catch SIGHUP: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(refused)?;
    let _inside = runtime.enter();
    // tokio's handler stays when this and the runtime are dropped.
    Hangup::catch().map(drop)
}

/// SIGHUP, caught from its making on.
pub struct Hangup(Signal);

impl Hangup {
    /// Catches SIGHUP; call it within a runtime.
    ///
    /// # Errors
    /// When the kernel refuses the handler.
    pub fn catch() -> Result<Self, Failure> {
        signal(SignalKind::hangup())
            .map(Self)
            .map_err(|error| Failure::failed(format!("cannot catch SIGHUP: {error}")))
    }

    /// Reloads on each SIGHUP, for as long as it is polled.
    pub async fn reload(
        mut self,
        log_level: impl Fn() -> Result<LevelFilter, SettingsError>,
        web: Reload,
    ) {
        while self.0.recv().await.is_some() {
            web.now();
            match log_level() {
                Ok(level) => set_log_level(level),
                Err(error) => log::error!("SIGHUP: the log level stays as it is: {error}"),
            }
        }
    }
}

fn set_log_level(level: LevelFilter) {
    log::set_max_level(level);
    log::info!(
        "SIGHUP: web configuration and log level ({level}) read again; other settings need a restart"
    );
}
