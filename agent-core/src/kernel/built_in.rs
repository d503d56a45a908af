//! Whether ip_vs is part of the kernel's image, by the kernel's symbol table. Pure.
//!
//! A module without parameters has no directory in sysfs when it is built in, and asking for the
//! generic netlink family would load the module (`MODULE_ALIAS_GENL_FAMILY`,
//! net/netfilter/ipvs/ip_vs_ctl.c), which would change the node. Symbols do neither.

/// A function every ip_vs has, exported or not, and nothing else.
const FUNCTION: &str = "ip_vs_conn_in_get_proto";

/// Whether a line of `/proc/kallsyms` lists ip_vs's code outside a module.
///
/// A line is `address type name`, and `[module]` where the symbol belongs to one.
#[must_use]
pub fn is_built_in_symbol(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    let is_code = matches!(fields.nth(1), Some("t" | "T"));
    is_code && fields.next() == Some(FUNCTION) && fields.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::is_built_in_symbol;

    #[test]
    fn only_code_of_the_image_counts() {
        assert!(is_built_in_symbol(
            "ffffffff81a3f1c0 t ip_vs_conn_in_get_proto"
        ));
        // Addresses are zeros to a process without the right to see them.
        assert!(is_built_in_symbol(
            "0000000000000000 T ip_vs_conn_in_get_proto"
        ));
        assert!(!is_built_in_symbol(
            "ffffffffc0000000 t ip_vs_conn_in_get_proto\t[ip_vs]"
        ));
        assert!(!is_built_in_symbol(
            "ffffffff81a3f1c0 t ip_vs_conn_in_get_proto.part.0"
        ));
        assert!(!is_built_in_symbol(
            "ffffffff81a3f1c0 r ip_vs_conn_in_get_proto"
        ));
        assert!(!is_built_in_symbol(""));
    }
}
