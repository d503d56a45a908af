//! A server of a test's own, and the directory with its files.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipvs_lens::outputs::http::web::Web;
use ipvs_lens::outputs::http::{Server, Shown};
use ipvs_lens::outputs::metrics::sample::{Page, Part, Sample};
use ipvs_lens::outputs::metrics::{BuildInfo, Metrics, names};
use ipvs_lens::status::SharedStatus;

/// A directory that goes with the test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ipvs-lens-http-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// As many series as a node with this many services has.
struct Services(usize);

impl Part for Services {
    fn show(&self, page: &mut Page) {
        let samples = (0..self.0).map(|i| {
            let labels = vec![
                ("proto", "TCP".to_owned()),
                ("local_address", format!("10.96.{}.{}", i / 256, i % 256)),
                ("local_port", "80".to_owned()),
                ("local_mark", String::new()),
                ("decision", "scheduled".to_owned()),
            ];
            (labels, Sample::Counter(7, None))
        });
        page.put(names::CONNECTIONS, samples.collect());
    }
}

/// A running server.
pub struct Served {
    _server: Server,
    pub address: SocketAddr,
}

impl Served {
    /// Without a web configuration.
    pub fn plain() -> Self {
        Self::start(Web::plain(), 0)
    }

    /// With an exposition that has so many series more.
    pub fn with_series(series: usize) -> Self {
        Self::start(Web::plain(), series)
    }

    /// With this web configuration.
    pub fn with_file(file: &Path) -> Self {
        Self::start(Web::load(Some(file)).unwrap(), 0)
    }

    fn start(web: Web, series: usize) -> Self {
        let metrics = Arc::new(Metrics::new(BuildInfo::THIS));
        metrics.add(Arc::new(Services(series)));
        let shown = Shown {
            metrics,
            status: SharedStatus::default(),
        };
        let server = Server::start("127.0.0.1:0".parse().unwrap(), shown, web).unwrap();
        Self {
            address: server.address(),
            _server: server,
        }
    }
}
