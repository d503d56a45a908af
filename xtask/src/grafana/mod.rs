//! The Grafana dashboards: said in few words in [`boards`], written out by [`json`].

mod boards;
mod json;
#[cfg(test)]
mod lint;
pub mod published;

use std::path::PathBuf;

use crate::paths::Paths;

pub use boards::BOARDS;

/// Where the files go.
const DIR: &str = "dashboards/grafana";

/// Tag of every dashboard, which their links go by.
const TAG: &str = "ipvs-lens";

/// A dashboard.
#[derive(Debug)]
pub struct Board {
    /// In its address, and the name of its file.
    pub uid: &'static str,
    /// Shown on top.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// Selectors of its variables, in addition to those of [`Scope::Node`].
    pub scope: Scope,
    /// From the top.
    pub rows: &'static [Row],
}

/// Panels under a heading.
#[derive(Debug)]
pub struct Row {
    /// A question, or what the panels share.
    pub title: &'static str,
    /// From the left.
    pub panels: &'static [Panel],
}

/// One panel.
#[derive(Debug)]
pub struct Panel {
    /// Shown on top.
    pub title: &'static str,
    /// What it shows and what to think of it.
    pub description: &'static str,
    /// How it is drawn.
    pub kind: Kind,
    /// An id of Grafana's registry of units.
    pub unit: &'static str,
    /// Of 24 columns.
    pub width: u32,
    /// What is drawn.
    pub queries: &'static [Query],
}

/// How a panel is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The latest value, large.
    Stat,
    /// Lines over time.
    Lines,
    /// Areas over time, one upon the other.
    Areas,
    /// Buckets over time.
    Heatmap,
    /// States over time, one line for each series.
    States(&'static [State]),
    /// The latest values, one line for each series.
    Table,
}

/// What a value of a state is called, and its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The value.
    pub value: u32,
    /// Its name.
    pub text: &'static str,
    /// One of Grafana's palette.
    pub color: &'static str,
}

/// A query and the name of its series.
///
/// `<agent>`, `<node>`, `<service>` and `<real_server>` in a query stand for the selectors of that
/// [`Scope`].
#[derive(Debug)]
pub struct Query {
    /// PromQL.
    pub expr: &'static str,
    /// Legend, with `{{label}}`.
    pub legend: &'static str,
    /// Why it may have no result in the end-to-end test; `None` where that is a fault.
    pub may_be_empty: Option<&'static str>,
}

/// Which variables select series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Of the agent itself.
    Agent,
    /// With a network namespace.
    Node,
    /// Of a virtual service.
    Service,
    /// Of a real server.
    RealServer,
}

/// A variable of dashboards.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name, and that of the label.
    pub label: &'static str,
    /// Shown next to its box.
    pub title: &'static str,
    /// The series whose label it lists.
    pub metric: &'static str,
    /// What "all" stands for; `.*` where series may lack the label.
    pub all: &'static str,
    /// The narrowest scope that does without it.
    pub from: Scope,
}

/// Variables in their order: each choice narrows those behind it.
pub const VARIABLES: &[Variable] = &[
    Variable {
        label: "cluster",
        title: "Cluster",
        metric: "ipvs_lens_build_info",
        all: ".*",
        from: Scope::Agent,
    },
    Variable {
        label: "job",
        title: "Job",
        metric: "ipvs_lens_build_info",
        all: ".+",
        from: Scope::Agent,
    },
    Variable {
        label: "instance",
        title: "Instance",
        metric: "ipvs_lens_build_info",
        all: ".+",
        from: Scope::Agent,
    },
    Variable {
        label: "netns",
        title: "Network namespace",
        metric: "ipvs_lens_connections_total",
        all: ".*",
        from: Scope::Node,
    },
    Variable {
        label: "proto",
        title: "Protocol",
        metric: "ipvs_lens_connections_total",
        all: ".*",
        from: Scope::Service,
    },
    Variable {
        label: "local_address",
        title: "Service address",
        metric: "ipvs_lens_connections_total",
        all: ".*",
        from: Scope::Service,
    },
    Variable {
        label: "local_port",
        title: "Service port",
        metric: "ipvs_lens_connections_total",
        all: ".*",
        from: Scope::Service,
    },
    Variable {
        label: "remote_address",
        title: "Real server",
        metric: "ipvs_lens_new_connections_total",
        all: ".*",
        from: Scope::RealServer,
    },
];

/// Variables that series of `scope` have a label for.
pub fn variables(scope: Scope) -> impl Iterator<Item = &'static Variable> {
    VARIABLES
        .iter()
        .filter(move |variable| variable.from <= scope)
}

/// Matchers of every variable of `scope`, without braces.
fn selectors(scope: Scope) -> String {
    let matchers: Vec<_> = variables(scope)
        .map(|variable| format!("{0}=~\"${0}\"", variable.label))
        .collect();
    matchers.join(",")
}

impl Query {
    /// The query as Grafana gets it, its variables still in it.
    pub fn with_selectors(&self) -> String {
        [
            ("<agent>", Scope::Agent),
            ("<node>", Scope::Node),
            ("<service>", Scope::Service),
            ("<real_server>", Scope::RealServer),
        ]
        .into_iter()
        .fold(self.expr.to_owned(), |expr, (mark, scope)| {
            expr.replace(mark, &selectors(scope))
        })
    }

    /// The query with every variable set to "all", over windows of `window`.
    pub fn for_all(&self, window: &str) -> String {
        let expr = self
            .with_selectors()
            .replace("$__rate_interval", window)
            .replace("$__range", window);
        VARIABLES.iter().fold(expr, |expr, variable| {
            expr.replace(
                &format!("\"${}\"", variable.label),
                &format!("\"{}\"", variable.all),
            )
        })
    }
}

impl Board {
    /// Its panels, over all rows.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| row.panels)
    }
}

/// Every dashboard's file, and what belongs into it.
pub fn files(paths: &Paths) -> Vec<(PathBuf, String)> {
    let dir = paths.root.join(DIR);
    BOARDS
        .iter()
        .map(|board| {
            let text = format!("{:#}\n", json::dashboard(board));
            (dir.join(format!("{}.json", board.uid)), text)
        })
        .collect()
}
