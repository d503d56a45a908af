//! Label sets, in the words of node_exporter.

use std::net::SocketAddr;

use crate::event::{NetnsId, RealServer, Service};

/// Names and values, in order.
pub type Labels = Vec<(&'static str, String)>;

/// Labels of a service, with its network namespace where more than one is watched.
pub fn service(service: &Service, with_netns: bool) -> Labels {
    let port = service.local_port().map(|port| port.to_string());
    let mut labels = vec![
        ("proto", service.proto_word().to_owned()),
        ("local_address", service.local_address()),
        ("local_port", port.unwrap_or_default()),
        ("local_mark", service.local_mark()),
    ];
    if with_netns && service.is_known() {
        labels.push(("netns", service.netns.to_string()));
    }
    labels
}

/// Labels of a real server under its service.
pub fn real_server(of: &Service, server: Option<RealServer>, with_netns: bool) -> Labels {
    let address = server.map(|server| server.0.ip().to_string());
    let port = server.map(|server| server.0.port().to_string());
    let mut labels = service(of, with_netns);
    labels.push(("remote_address", address.unwrap_or_default()));
    labels.push(("remote_port", port.unwrap_or_default()));
    labels
}

/// Labels of an exemplar: the client, and the real server it was given, where there is one; at most
/// 121 of the 128 characters OpenMetrics allows. The service is among the labels of the series.
pub fn exemplar(client: SocketAddr, netns: NetnsId, server: Option<RealServer>) -> Labels {
    let mut labels = vec![("client", client.to_string()), ("netns", netns.to_string())];
    if let Some(server) = server {
        labels.push(("remote", server.to_string()));
    }
    labels
}

/// One more label.
pub fn and(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}

/// Stands for the address in series of everything that has none of its own.
pub const OTHER: &str = "other";

/// The same in series of what ended series had reached.
pub const ENDED: &str = "ended";

/// Labels of a series of what ended series had reached, the last of them at `until` (Unix seconds).
///
/// Its number never rises: with a higher one it is another series, in which a scraper sees no
/// increase.
pub fn until(labels: Labels, until: u64) -> Labels {
    and(labels, "until", &until.to_string())
}

/// Labels of a service that stands for others.
pub fn service_standing_for(address: &str) -> Labels {
    vec![
        ("proto", String::new()),
        ("local_address", address.to_owned()),
        ("local_port", String::new()),
        ("local_mark", String::new()),
    ]
}

/// Labels of a real server that stands for others, of all services.
pub fn real_server_standing_for(address: &str) -> Labels {
    let mut labels = service_standing_for(address);
    labels.push(("remote_address", address.to_owned()));
    labels.push(("remote_port", String::new()));
    labels
}
