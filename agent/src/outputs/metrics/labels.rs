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
