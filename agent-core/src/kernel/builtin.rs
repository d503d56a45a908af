//! Offsets this build knows by heart, for kernels that publish no BTF for modules. Pure.
//!
//! Only structures of ip_vs itself; the kernel's own come from its BTF. A built-in layout is not
//! trusted: the kernel programs prove it on every SYN (`agent-ebpf/src/proof.rs`), and the first
//! contradiction stops the agent.

/// A layout, and where it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// Kernels it is for.
    pub name: &'static str,
    /// How a release of such a kernel begins.
    release_prefix: &'static str,
    /// Structure, path and byte offset of every field.
    fields: &'static [(&'static str, &'static str, u16)],
}

impl BuiltIn {
    /// Byte offset of a field, `None` where these kernels do not have it.
    pub fn offset(&self, structure: &str, path: &str) -> Option<u16> {
        let found = self
            .fields
            .iter()
            .find(|field| field.0 == structure && field.1 == path);
        found.map(|field| field.2)
    }
}

/// The layout for a kernel release (`uname -r`), if there is one.
pub fn of_release(release: &str) -> Option<&'static BuiltIn> {
    LAYOUTS
        .iter()
        .find(|layout| release.starts_with(layout.release_prefix))
}

/// Every built-in layout.
const LAYOUTS: &[BuiltIn] = &[BuiltIn {
    name: "Linux 5.10",
    release_prefix: "5.10.",
    // Debian 5.10.262 amd64: ip_vs.ko built from its sources with its configuration, read by pahole.
    fields: &[
        ("ip_vs_iphdr", "hdr_flags", 0),
        ("ip_vs_iphdr", "len", 8),
        ("ip_vs_iphdr", "fragoffs", 12),
        ("ip_vs_iphdr", "protocol", 14),
        ("ip_vs_iphdr", "saddr", 20),
        ("ip_vs_iphdr", "daddr", 36),
        ("ip_vs_conn", "cport", 16),
        ("ip_vs_conn", "dport", 18),
        ("ip_vs_conn", "vport", 20),
        ("ip_vs_conn", "caddr", 24),
        ("ip_vs_conn", "vaddr", 40),
        ("ip_vs_conn", "daddr", 56),
        ("ip_vs_conn", "protocol", 76),
        ("ip_vs_conn", "state", 148),
        ("ip_vs_conn", "fwmark", 152),
        ("ip_vs_conn", "control", 168),
        ("ip_vs_conn", "dest", 184),
        ("ip_vs_dest", "af", 32),
        ("ip_vs_dest", "port", 34),
        ("ip_vs_dest", "addr", 36),
        ("ip_vs_dest", "flags", 52),
        ("ip_vs_dest", "weight", 60),
        ("ip_vs_dest", "svc", 392),
        ("ip_vs_dest", "protocol", 400),
        ("ip_vs_dest", "vport", 402),
        ("ip_vs_dest", "vaddr", 404),
        ("ip_vs_dest", "vfwmark", 420),
        ("ip_vs_service", "af", 36),
        ("ip_vs_service", "protocol", 38),
        ("ip_vs_service", "addr", 40),
        ("ip_vs_service", "port", 56),
        ("ip_vs_service", "fwmark", 60),
        ("ip_vs_service", "ipvs", 80),
        ("netns_ipvs", "net", 2160),
    ],
}];

/// Whether a structure belongs to ip_vs and not to the kernel proper.
pub fn is_of_module(structure: &str) -> bool {
    structure.starts_with("ip_vs_") || structure == "netns_ipvs"
}

#[cfg(test)]
mod tests {
    use agent_common::layout::FIELDS;

    use super::*;

    #[test]
    fn a_release_gets_the_layout_of_its_series_and_no_other() {
        assert_eq!(
            of_release("5.10.0-46-cloud-amd64").map(|it| it.name),
            Some("Linux 5.10")
        );
        assert_eq!(of_release("5.100.1"), None);
        assert_eq!(of_release("5.4.0-1"), None);
    }

    #[test]
    fn every_required_field_of_the_module_is_there() {
        for layout in LAYOUTS {
            let missing: Vec<_> = FIELDS
                .iter()
                .filter(|field| field.required && is_of_module(field.structure))
                .filter(|field| layout.offset(field.structure, field.path).is_none())
                .map(|field| field.name)
                .collect();
            assert_eq!(missing, Vec::<&str>::new(), "{}", layout.name);
        }
    }
}
