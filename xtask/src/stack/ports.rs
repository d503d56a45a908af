//! Ports of the loopback address: the ones people expect, checked before anything starts, or any
//! that are free.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};

/// Who listens where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The agent in the guest.
    pub agent: u16,
    /// The guest's ear for what happens next.
    pub control: u16,
    /// The receiver of pages.
    pub webhook: u16,
    /// Prometheus.
    pub prometheus: u16,
    /// Alertmanager.
    pub alertmanager: u16,
}

/// The ports people know these programs by.
pub const USUAL: Ports = Ports {
    agent: 9_742,
    control: 9_743,
    webhook: 9_099,
    prometheus: 9_090,
    alertmanager: 9_093,
};

impl Ports {
    /// Checks that the ports have no listener yet.
    ///
    /// # Errors
    /// Names every port that is taken, and for what it is wanted.
    pub fn check(self) -> Result<()> {
        let wanted = [
            (self.agent, "the agent"),
            (self.control, "the guest's control"),
            (self.webhook, "the webhook receiver"),
            (self.prometheus, "Prometheus"),
            (self.alertmanager, "Alertmanager"),
        ];
        let taken: Vec<_> = wanted
            .into_iter()
            .filter(|(port, _)| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err())
            .map(|(port, who)| format!("{port}, expected for {who}"))
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        bail!(
            "these ports of 127.0.0.1 are taken: {}; end what listens there (`ss -ltnp` names it), or pass --any-port",
            taken.join("; ")
        )
    }

    /// Ports that are free now.
    ///
    /// # Errors
    /// When the system has none.
    pub fn any() -> Result<Self> {
        let [agent, control, webhook, prometheus, alertmanager] = free()?;
        Ok(Self {
            agent,
            control,
            webhook,
            prometheus,
            alertmanager,
        })
    }
}

/// Ports of the loopback address that have no listener now.
///
/// # Errors
/// When the system has none.
pub fn free<const COUNT: usize>() -> Result<[u16; COUNT]> {
    // Held together, so that none is handed out twice.
    let mut held = Vec::with_capacity(COUNT);
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::{Ports, free};
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let ports = Ports::any().expect("ports are free");
        assert!(ports.check().is_ok());
        let _holder =
            TcpListener::bind((Ipv4Addr::LOCALHOST, ports.prometheus)).expect("the port was free");
        let error = ports.check().expect_err("one port is taken").to_string();
        assert!(
            error.contains(&format!("{}, expected for Prometheus", ports.prometheus)),
            "{error}"
        );
        assert!(!error.contains("Alertmanager"), "{error}");
    }

    #[test]
    fn free_ports_differ() {
        let [a, b, c] = free().expect("ports are free");
        assert!(a != b && b != c && a != c);
    }
}
