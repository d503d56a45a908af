//! A receiver of Alertmanager's webhooks: keeps what arrives.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use axum::extract::{Json, State};
use axum::http::Uri;
use axum::{Router, routing};
use serde::Deserialize;

use crate::exec::say;

/// One alert of a notification, and where it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Path of the request: what the configuration calls its receiver.
    pub path: String,
    /// The alert.
    pub alert: Alert,
}

/// An alert as Alertmanager reports it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    /// Its name among them.
    pub labels: BTreeMap<String, String>,
    /// Texts for people.
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    /// The value of a label; empty when it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The body of a notification.
#[derive(Deserialize)]
struct Notification {
    alerts: Vec<Alert>,
}

/// The receiver; it listens until the process ends.
#[derive(Clone, Default)]
pub struct Webhook {
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl Webhook {
    /// Listens on a port of the loopback address; `pages` are served as well.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn listen(port: u16, pages: Router) -> Result<Self> {
        let webhook = Self::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        listener.set_nonblocking(true)?;
        let receiver = Router::new()
            .fallback(routing::post(take))
            .with_state(webhook.clone());
        let app = pages.fallback_service(receiver);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        thread::spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, app).await
            });
            if let Err(error) = served {
                say(format!("the webhook receiver ended: {error}"));
            }
        });
        Ok(webhook)
    }

    /// Everything received so far, in its order.
    pub fn notices(&self) -> Vec<Notice> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Notice>> {
        // A list of notices is whole at any time.
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(State(webhook): State<Webhook>, uri: Uri, Json(body): Json<Notification>) {
    let path = uri.path();
    let notices = body.alerts.into_iter().map(|alert| Notice {
        path: path.to_owned(),
        alert,
    });
    webhook.lock().extend(notices);
}
