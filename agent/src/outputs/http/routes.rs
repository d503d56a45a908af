//! The pages, and what stands before them: rate limit and basic authentication.

use std::sync::Arc;

use agent_core::output::pulse::{HEALTH_SILENCE_MAX, READY_SILENCE_MAX};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};

use super::Shown;
use super::auth::Outcome;
use super::encoding::Encoding;
use super::exposition::{Expositions, Failed};
use super::refused::{Refusals, Refused};
use super::seats::Seat;
use super::web::Web;
use crate::clock;
use crate::outputs::metrics::form::Form;
use crate::status;

/// Pages for probes, which have no credentials and get nothing worth any.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// What the pages are made of.
#[derive(Clone)]
pub(super) struct Served {
    pub shown: Shown,
    pub expositions: Arc<Expositions>,
    pub refusals: Arc<Refusals>,
    pub web: Arc<Web>,
}

/// The routes, without the server.
pub(super) fn router(served: Served) -> Router {
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status_json))
        .layer(middleware::from_fn_with_state(served.clone(), guarded))
        .with_state(served)
}

/// Lets a request through, or says why not; either way with the headers that are wanted.
async fn guarded(State(served): State<Served>, request: Request, next: Next) -> Response {
    let rules = served.web.rules();
    let mut response = if !names_one_host(&request) {
        refuse(&served, Refused::Malformed)
    } else if OPEN.contains(&request.uri().path()) {
        next.run(request).await
    } else if !rules.within_rate(clock::now()) {
        refuse(&served, Refused::RateLimited)
    } else {
        let authorization = request.headers().get(header::AUTHORIZATION);
        let outcome = match &rules.auth {
            Some(auth) => auth.check(authorization).await,
            None => Outcome::Right,
        };
        match outcome {
            Outcome::Right => next.run(request).await,
            Outcome::Wrong => refuse(&served, Refused::Unauthorized),
            Outcome::Busy => refuse(&served, Refused::AuthBusy),
        }
    };
    response.headers_mut().extend(rules.headers.clone());
    response
}

/// HTTP/1.1 wants exactly one `Host` field (RFC 9112, 3.2); HTTP/1.0 knows none.
fn names_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    request.version() < Version::HTTP_11 || hosts == 1
}

fn refuse(served: &Served, why: Refused) -> Response {
    served.refusals.count(why);
    match why {
        Refused::Unauthorized => {
            let realm = [(header::WWW_AUTHENTICATE, "Basic realm=\"ipvs-lens\"")];
            (StatusCode::UNAUTHORIZED, realm, "Unauthorized\n").into_response()
        }
        Refused::Malformed => {
            let text = "HTTP/1.1 needs exactly one Host field\n";
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        Refused::RateLimited => {
            let text = "over rate_limit of the web configuration\n";
            (StatusCode::TOO_MANY_REQUESTS, text).into_response()
        }
        Refused::AuthBusy => busy("too many credentials wait to be verified\n"),
        _ => busy("too many clients are reading /metrics\n"),
    }
}

fn busy(text: &'static str) -> Response {
    let later = [(header::RETRY_AFTER, "5")];
    (StatusCode::SERVICE_UNAVAILABLE, later, text).into_response()
}

const LANDING: &str = "<!doctype html><title>ipvs-lens</title><h1>ipvs-lens</h1><ul>\
    <li><a href=\"/metrics\">/metrics</a></li><li><a href=\"/healthz\">/healthz</a></li>\
    <li><a href=\"/readyz\">/readyz</a></li><li><a href=\"/status\">/status</a></li></ul>\n";

async fn landing() -> Html<&'static str> {
    Html(LANDING)
}

async fn metrics(
    State(served): State<Served>,
    seat: Option<Extension<Arc<Seat>>>,
    headers: HeaderMap,
) -> Response {
    let form = Form::wanted(&list(&headers, header::ACCEPT));
    let encoding = Encoding::accepted(&list(&headers, header::ACCEPT_ENCODING));
    let seat = seat.map(|Extension(seat)| seat);
    match served.expositions.write(form, encoding, seat).await {
        Ok(body) => {
            let described = [
                (header::CONTENT_TYPE, form.content_type()),
                (header::VARY, "accept, accept-encoding"),
            ];
            let encoded = encoding.field();
            let encoded = encoded.map(|coding| [(header::CONTENT_ENCODING, coding)]);
            (described, encoded, body).into_response()
        }
        Err(Failed::Busy) => refuse(&served, Refused::MetricsBusy),
        Err(Failed::Render(error)) => failed(&error.to_string()),
        Err(Failed::Compress(error)) => failed(&format!("cannot compress the metrics: {error}")),
        Err(Failed::Gone) => failed("the thread that wrote the exposition is gone"),
    }
}

/// A list, which may be spread over several fields (RFC 9110, 5.3).
fn list(headers: &HeaderMap, name: HeaderName) -> String {
    let fields = headers.get_all(name).into_iter();
    let fields: Vec<_> = fields.filter_map(|value| value.to_str().ok()).collect();
    fields.join(",")
}

fn failed(reason: &str) -> Response {
    log::error!("scrape failed: {reason}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response()
}

async fn healthz(State(served): State<Served>) -> Response {
    match served
        .shown
        .status
        .pulse(clock::now())
        .check(HEALTH_SILENCE_MAX)
    {
        Ok(line) => format!("ok\n{line}\n").into_response(),
        Err(line) => unavailable(&line),
    }
}

fn unavailable(line: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{line}\n")).into_response()
}

async fn readyz(State(served): State<Served>) -> Response {
    let status = served.shown.status.get();
    if status.state == status::State::Armed {
        let pulse = served.shown.status.pulse(clock::now());
        return match pulse.check(READY_SILENCE_MAX) {
            Ok(line) => format!("ready\n{line}\n").into_response(),
            Err(line) => unavailable(&line),
        };
    }
    let reason = status.reason.as_deref().unwrap_or("no reason given");
    unavailable(&format!("{}: {reason}", status.state.as_str()))
}

async fn status_json(State(served): State<Served>) -> Response {
    let mut status = served.shown.status.get();
    status.web = served.web.status();
    let silence = served.shown.status.pulse(clock::now()).silence();
    status.observer_last_run_ms_ago =
        silence.map(|silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
    match serde_json::to_string_pretty(&status) {
        Ok(json) => {
            let kind = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, kind)], json + "\n").into_response()
        }
        Err(error) => failed(&error.to_string()),
    }
}
