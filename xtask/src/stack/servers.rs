//! Prometheus and Alertmanager as running processes, with configurations made for the occasion.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::api::Api;
use super::programs::Programs;
use super::{checks, timelapse, wait};
use crate::paths::Paths;
use crate::rules;

/// From the start to the first answer.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Address of the receivers in the example configuration of Alertmanager.
const EXAMPLE_RECEIVER: &str = "http://127.0.0.1:9099";

/// A server process; dropping it ends it.
struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts a server; what it says goes to a file in `dir`.
    fn start(command: &mut Command, name: &str, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file =
            File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log,
        })
    }

    /// Waits until it answers on `port`.
    fn wait_ready(&mut self, port: u16) -> Result<()> {
        let api = Api::new(port);
        wait::until(&format!("{} to be ready", self.name), READY_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{} ended with {status}:\n{said}", self.name);
            }
            Ok(api.ready().ok())
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running Alertmanager.
pub struct Alertmanager {
    _server: Server,
    port: u16,
}

impl Alertmanager {
    /// Starts it with the example configuration in time-lapse, its receivers being paths below
    /// `/NAME` of the webhook.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(
        paths: &Paths,
        programs: &Programs,
        name: &str,
        port: u16,
        webhook: u16,
    ) -> Result<Self> {
        let dir = fresh_dir(paths, &format!("{name}-alertmanager"))?;
        let example = fs::read_to_string(paths.root.join(checks::ALERTMANAGER))?;
        let receiver = format!("http://127.0.0.1:{webhook}/{name}");
        let config = dir.join("alertmanager.yml");
        fs::write(
            &config,
            timelapse::compress(&example).replace(EXAMPLE_RECEIVER, &receiver),
        )?;
        let mut command = programs.server("prometheus-alertmanager");
        command
            .arg(flag("--config.file", &config))
            .arg(flag("--storage.path", &dir.join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            // One alone: no gossip.
            .arg("--cluster.listen-address=");
        let mut server = Server::start(&mut command, "alertmanager", &dir)?;
        server.wait_ready(port)?;
        Ok(Self {
            _server: server,
            port,
        })
    }
}

/// What a Prometheus is started with.
pub struct Setup<'a> {
    /// For people, and for its directory.
    pub name: &'a str,
    /// Where it listens.
    pub port: u16,
    /// The agent's port.
    pub agent: u16,
    /// Receives its alerts.
    pub alertmanager: Option<&'a Alertmanager>,
    /// Whether it keeps native histograms.
    pub native_histograms: bool,
    /// More settings of its scrape job.
    pub scrape_settings: Value,
}

/// A running Prometheus.
pub struct Prometheus {
    _server: Server,
    /// Its API.
    pub api: Api,
}

impl Prometheus {
    /// Starts it with the rules in time-lapse, scraping the agent.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(paths: &Paths, programs: &Programs, setup: &Setup) -> Result<Self> {
        let dir = fresh_dir(paths, &format!("{}-prometheus", setup.name))?;
        let rule_file = dir.join("ipvs-lens.rules.yml");
        fs::write(&rule_file, timelapse::compress(&rules::read(paths)?))?;
        let config = dir.join("prometheus.yml");
        // JSON is YAML.
        fs::write(&config, configuration(setup, &rule_file).to_string())?;
        let mut features = "exemplar-storage".to_owned();
        if setup.native_histograms {
            features.push_str(",native-histograms");
        }
        let mut command = programs.server("prometheus");
        command
            .arg(flag("--config.file", &config))
            .arg(flag("--storage.tsdb.path", &dir.join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{}", setup.port))
            .arg(format!("--enable-feature={features}"));
        let mut server = Server::start(&mut command, "prometheus", &dir)?;
        server.wait_ready(setup.port)?;
        Ok(Self {
            _server: server,
            api: Api::new(setup.port),
        })
    }
}

fn configuration(setup: &Setup, rule_file: &Path) -> Value {
    let interval = format!("{}ms", timelapse::SCRAPE_MS);
    let alertmanagers: Vec<_> = setup
        .alertmanager
        .iter()
        .map(|alertmanager| format!("127.0.0.1:{}", alertmanager.port))
        .collect();
    let mut job = json!({
        "job_name": "ipvs-lens",
        "static_configs": [{
            "targets": [format!("127.0.0.1:{}", setup.agent)],
            "labels": { "cluster": "demo", "instance": "director" },
        }],
    });
    if let (Some(job), Some(settings)) = (job.as_object_mut(), setup.scrape_settings.as_object()) {
        job.extend(settings.clone());
    }
    json!({
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": interval,
        },
        "rule_files": [rule_file],
        "alerting": {
            "alertmanagers": [{ "static_configs": [{ "targets": alertmanagers }] }],
        },
        "scrape_configs": [job],
    })
}

fn flag(name: &str, value: &Path) -> String {
    format!("{name}={}", value.display())
}

/// An empty directory for one server: what an earlier run left would alert again.
fn fresh_dir(paths: &Paths, name: &str) -> Result<PathBuf> {
    let dir = paths.target.join("stack").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}
