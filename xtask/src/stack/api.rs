//! Prometheus's HTTP API, as far as the stack needs it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A Prometheus on the loopback address.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    agent: ureq::Agent,
}

/// What Prometheus answers with.
#[derive(Deserialize)]
struct Answer {
    data: Value,
}

impl Api {
    /// The API on this port.
    pub fn new(port: u16) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .build();
        Self {
            base: format!("http://127.0.0.1:{port}"),
            agent: config.into(),
        }
    }

    /// Whether the server says that it is ready.
    ///
    /// # Errors
    /// When it does not answer, or is not ready.
    pub fn ready(&self) -> Result<()> {
        self.agent.get(format!("{}/-/ready", self.base)).call()?;
        Ok(())
    }

    /// Result of an instant query: one value per series.
    ///
    /// # Errors
    /// When the query is refused; the message has Prometheus's reason.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let data = self.get("query", &[("query", query)])?;
        let result = data["result"].as_array();
        Ok(result.context("the answer has no result")?.clone())
    }

    /// Exemplars of a query's series within the last hour.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn exemplars(&self, query: &str, from: u64, to: u64) -> Result<Vec<Value>> {
        let (from, to) = (from.to_string(), to.to_string());
        let parameters = [("query", query), ("start", &from), ("end", &to)];
        let data = self.get("query_exemplars", &parameters)?;
        Ok(data.as_array().context("the answer is no list")?.clone())
    }

    /// Every rule, with what became of its last evaluation.
    ///
    /// # Errors
    /// When the answer is none.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let data = self.get("rules", &[])?;
        let groups = data["groups"].as_array();
        let groups = groups.context("the answer has no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules.flatten().cloned().collect())
    }

    fn get(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = format!("{}/api/v1/{what}", self.base);
        let request = self
            .agent
            .get(&url)
            .query_pairs(parameters.iter().copied())
            .config()
            .http_status_as_error(false)
            .build();
        let mut answer = request
            .call()
            .with_context(|| format!("cannot ask {url}"))?;
        let text = answer.body_mut().read_to_string()?;
        ensure!(
            answer.status().is_success(),
            "{url} {parameters:?}: {}: {text}",
            answer.status()
        );
        let answer: Answer = serde_json::from_str(&text)
            .with_context(|| format!("{url} answered what is no JSON: {text}"))?;
        Ok(answer.data)
    }
}
