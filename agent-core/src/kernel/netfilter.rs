//! Functions that pass packets to netfilter's hooks: who calls `nf_hook_slow` shows the hook.

use agent_common::netfilter::HookPoint;

/// What runs the rules of a hook.
pub const LOOP: &str = "nf_hook_slow";

/// Every caller that a SYN can come by; kernels lack some of them.
pub const CALLERS: &[(&str, HookPoint)] = &[
    ("ip_rcv", HookPoint::Prerouting),
    ("ipv6_rcv", HookPoint::Prerouting),
    // Packets that came in together.
    ("nf_hook_slow_list", HookPoint::Prerouting),
    ("ip_local_deliver", HookPoint::Input),
    ("ip6_input", HookPoint::Input),
    ("ip_forward", HookPoint::Forward),
    ("ip6_forward", HookPoint::Forward),
    ("__ip_local_out", HookPoint::Output),
    ("__ip6_local_out", HookPoint::Output),
    ("ip6_xmit", HookPoint::Output),
    // Compilers inline these two, or not.
    ("ip_vs_nat_send_or_cont", HookPoint::Output),
    ("ip_vs_send_or_cont", HookPoint::Output),
    ("ip_vs_nat_xmit", HookPoint::Output),
    ("ip_vs_nat_xmit_v6", HookPoint::Output),
    ("ip_vs_dr_xmit", HookPoint::Output),
    ("ip_vs_dr_xmit_v6", HookPoint::Output),
    ("ip_vs_tunnel_xmit", HookPoint::Output),
    ("ip_vs_tunnel_xmit_v6", HookPoint::Output),
    ("ip_output", HookPoint::Postrouting),
    ("ip6_output", HookPoint::Postrouting),
];
