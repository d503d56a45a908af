//! The dashboards drawn without Grafana: a page that asks Prometheus what the panels would.

use anyhow::Result;
use axum::Router;
use axum::response::{Html, Json};
use axum::routing::get;
use serde_json::{Value, json};

use crate::grafana;
use crate::paths::Paths;

/// The page.
const PAGE: &str = include_str!("preview.html");

/// The page at `/` and the dashboards as shipped, for the Prometheus on this port.
///
/// # Errors
/// When a dashboard is no JSON.
pub fn routes(paths: &Paths, prometheus: u16, window: &str) -> Result<Router> {
    let boards: Vec<Value> = grafana::files(paths)
        .iter()
        .map(|(_, text)| serde_json::from_str(text))
        .collect::<Result<_, _>>()?;
    let setup = json!({
        "prometheus": format!("http://127.0.0.1:{prometheus}"),
        "window": window,
        "boards": boards,
    });
    Ok(Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/dashboards", get(|| async { Json(setup) })))
}
