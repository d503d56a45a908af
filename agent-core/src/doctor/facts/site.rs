//! Who programs IPVS on this node, and how that was found out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Fact;

/// A program that manages virtual services, and sets their sysctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ControllerKind {
    /// Kubernetes' own, in IPVS mode or not.
    KubeProxy,
    /// kube-router's service proxy.
    KubeRouter,
    /// keepalived.
    Keepalived,
    /// Docker Swarm's routing mesh.
    DockerSwarm,
}

impl ControllerKind {
    /// Its name, as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::KubeRouter => "kube-router",
            Self::Keepalived => "keepalived",
            Self::DockerSwarm => "Docker Swarm",
        }
    }
}

/// One controller, and what gave it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// Which.
    pub kind: ControllerKind,
    /// What was found, for people: a process, a device, a file.
    pub evidence: Vec<String>,
}

/// A program looked for: where it is, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    /// Its path.
    At(String),
    /// In none of the directories looked into.
    Missing,
}

/// What is known of a running kube-proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KubeProxy {
    /// The mode it was asked for, empty where nothing was: command line, then configuration file.
    pub asked_mode: Fact<String>,
    /// The mode it says it is in (`/proxyMode` on its metrics address).
    pub actual_mode: Fact<String>,
    /// `conntrack` and `ipset`, in its own root file system.
    pub tools: Fact<BTreeMap<String, Tool>>,
}
