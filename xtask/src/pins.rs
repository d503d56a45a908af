//! Every version and hash this project pins, in one place.
//!
//! Nothing here names a host: packages are found through the machine's own apt sources.

/// Rust toolchain of the agent, the kernel programs and the lab; its LLVM (22) is the one
/// [`BPF_LINKER_FEATURE`] names.
pub const RUST: &str = "1.98.0";

/// Components of [`RUST`] beyond the minimal profile; `rust-src` builds `core` for the kernel.
pub const RUST_COMPONENTS: &[&str] = &["rust-src", "clippy", "rustfmt"];

/// Static target: one file that runs on any distribution and inside a guest.
pub const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";

/// Target without files, sockets, clocks and threads: agent-core compiles for it.
pub const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// Target of the host, spelled out where flags must not reach build scripts.
pub const HOST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Linker of the kernel programs.
pub const BPF_LINKER: &str = "0.13.0";

/// LLVM major version of [`RUST`], as bpf-linker's feature.
pub const BPF_LINKER_FEATURE: &str = "llvm-22";

/// Checker of licences, sources and duplicate dependencies.
pub const CARGO_DENY: &str = "0.20.2";

/// One pass over the scenarios, in one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Kernel to boot.
    pub kernel: &'static str,
    /// Which scenarios run.
    pub set: Set,
    /// Settings of the agent, as words of the kernel's command line: what the kernel does not know
    /// it hands to process 1 as an environment variable.
    pub settings: &'static [&'static str],
}

/// Which scenarios a pass runs; `tests/vm/src/scenarios/choice.rs` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// All.
    All,
    /// Those that rest on the kernel.
    Core,
    /// Those whose exact counts show that a way in and a way out lose nothing.
    Ways,
    /// Those that need systemd as process 1; the others run under it too.
    Systemd,
}

impl Pass {
    const fn all(kernel: &'static str, settings: &'static [&'static str]) -> Self {
        Self {
            kernel,
            set: Set::All,
            settings,
        }
    }

    const fn core(kernel: &'static str, settings: &'static [&'static str]) -> Self {
        Self {
            kernel,
            set: Set::Core,
            settings,
        }
    }

    const fn ways(kernel: &'static str, settings: &'static [&'static str]) -> Self {
        Self {
            kernel,
            set: Set::Ways,
            settings,
        }
    }

    const fn systemd(kernel: &'static str) -> Self {
        Self {
            kernel,
            set: Set::Systemd,
            settings: &[],
        }
    }

    /// The kernel, the settings and the set, for people.
    pub fn name(&self) -> String {
        let settings = self.settings.iter().map(|word| {
            // `IPVS_LENS_ATTACH=kprobe` is kprobe to people.
            word.split_once('=').map_or(*word, |(_, value)| value)
        });
        let set = match self.set {
            Set::All => None,
            Set::Core => Some("core"),
            Set::Ways => Some("ways"),
            Set::Systemd => Some("systemd"),
        };
        let words = [self.kernel].into_iter().chain(settings).chain(set);
        words.collect::<Vec<_>>().join(" ")
    }

    /// What the kernel's command line says of it.
    pub fn words(&self) -> Vec<String> {
        let set = match self.set {
            Set::All => "lab.set=all",
            Set::Core => "lab.set=core",
            Set::Ways => "lab.set=ways",
            Set::Systemd => "lab.set=systemd",
        };
        let words = [set].into_iter().chain(self.settings.iter().copied());
        words.map(str::to_owned).collect()
    }
}

/// Every way in and out that the agent can be configured for.
const WAYS: &[&[&str]] = &[
    &["IPVS_LENS_ATTACH=kprobe", "IPVS_LENS_EVENTS=perf"],
    &["IPVS_LENS_ATTACH=kprobe", "IPVS_LENS_EVENTS=ring"],
    &["IPVS_LENS_ATTACH=fexit", "IPVS_LENS_EVENTS=perf"],
    &["IPVS_LENS_ATTACH=fexit", "IPVS_LENS_EVENTS=ring"],
];

/// Every kernel: all scenarios as the agent picks for itself, the core by every way.
pub fn matrix() -> Vec<Pass> {
    let mut passes = Vec::new();
    for kernel in KERNELS {
        passes.push(Pass::all(kernel.name, &[]));
        passes.push(Pass::systemd(kernel.name));
        passes.extend(ways(kernel).map(|way| Pass::core(kernel.name, way)));
    }
    passes
}

/// The ways in and out that a kernel knows.
fn ways(kernel: &Kernel) -> impl Iterator<Item = &'static [&'static str]> {
    let can_fexit = kernel.source.is_none();
    let ways = WAYS.iter().copied();
    ways.filter(move |way| can_fexit || !way.contains(&"IPVS_LENS_ATTACH=fexit"))
}

/// What the test verb runs: the longest passes first, so that those that run at a time end
/// together; then every kernel by every way that no pass has taken.
pub fn test_passes() -> Vec<Pass> {
    let mut passes = TEST_PASSES.to_vec();
    for kernel in KERNELS {
        // What the agent picks for itself.
        let own = if kernel.source.is_none() {
            ["IPVS_LENS_ATTACH=fexit", "IPVS_LENS_EVENTS=ring"]
        } else {
            ["IPVS_LENS_ATTACH=kprobe", "IPVS_LENS_EVENTS=ring"]
        };
        for way in ways(kernel).filter(|way| *way != own) {
            if !TEST_PASSES.contains(&Pass::core(kernel.name, way)) {
                passes.push(Pass::ways(kernel.name, way));
            }
        }
    }
    passes
}

/// All scenarios on the newest kernel and on the oldest, the core on every other and by the ways
/// the agent picks last.
const TEST_PASSES: &[Pass] = &[
    Pass::all("7.2", &[]),
    Pass::all("5.10", &[]),
    Pass::core("6.12", &[]),
    Pass::core("6.1", &[]),
    Pass::core(
        "6.12",
        &["IPVS_LENS_ATTACH=kprobe", "IPVS_LENS_EVENTS=perf"],
    ),
    Pass::systemd("6.12"),
    Pass::core("5.10-old-drop", &[]),
    Pass::core("6.1.170", &[]),
    Pass::core("6.12.94", &[]),
];

/// Guests that run at a time: each is one busy thread, and the smallest machine the tests are
/// meant for has two CPUs.
pub const GUESTS_AT_A_TIME: usize = 2;

/// Kernel of the demonstration.
pub const DEMO_KERNEL: &str = "6.12";

/// Debian packages without which not even `cargo xtask` compiles: Rust's linker is the C compiler.
pub const BARE_PACKAGES: &[&str] = &["gcc", "libc6-dev"];

/// The emulator.
pub const QEMU_PROGRAM: &str = "qemu-system-x86_64";

/// Every program that is installed on the machine itself when it is missing, with the Debian
/// package that brings it. What else is fetched is unpacked in the cache.
pub const PROGRAMS: &[(&str, &str)] = &[
    (QEMU_PROGRAM, "qemu-system-x86"),
    // libFuzzer is C++.
    ("c++", "g++"),
    ("gcc", "gcc"),
    ("make", "make"),
    ("mmdebstrap", "mmdebstrap"),
    ("patch", "patch"),
    ("pip3", "python3-pip"),
    ("python3", "python3"),
    ("strip", "binutils"),
    ("systemd-analyze", "systemd"),
    ("xz", "xz-utils"),
];

/// Debian packages whose contents are the guest's userland: the programs, then every library
/// they are linked with.
pub const USERLAND_PACKAGES: &[&str] = &[
    "bash",
    "bpftool",
    "busybox-static",
    "iproute2",
    "iptables",
    "ipvsadm",
    "kmod",
    "nftables",
    "libbpf1",
    "libbsd0",
    "libc6",
    "libcap2",
    "libcom-err2",
    "libdb5.3",
    "libedit2",
    "libelf1",
    "libgcc-s1",
    "libgmp10",
    "libgssapi-krb5-2",
    "libip4tc2",
    "libip6tc2",
    "libjansson4",
    "libk5crypto3",
    "libkeyutils1",
    "libkmod2",
    "libkrb5-3",
    "libkrb5support0",
    "liblzma5",
    "libmd0",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftables1",
    "libnftnl11",
    "libnl-3-200",
    "libnl-genl-3-200",
    "libpcre2-8-0",
    "libpopt0",
    "libselinux1",
    "libssl3",
    "libtinfo6",
    "libtirpc3",
    "libxtables12",
    "libzstd1",
    "zlib1g",
];

/// Debian packages of systemd and the libraries the guest's userland lacks.
pub const SYSTEMD_PACKAGES: &[&str] = &[
    "mount",
    "systemd",
    "libacl1",
    "libapparmor1",
    "libargon2-1",
    "libaudit1",
    "libblkid1",
    "libcap-ng0",
    "libcrypt1",
    "libcryptsetup12",
    "libdevmapper1.02.1",
    "libfdisk1",
    "libffi8",
    "libgcrypt20",
    "libgpg-error0",
    "libjson-c5",
    "liblz4-1",
    "libmount1",
    "libp11-kit0",
    "libpam0g",
    "libseccomp2",
    "libsystemd-shared",
    "libsystemd0",
    "libudev1",
    "libuuid1",
];

/// Debian packages that unpack kernels and read debug information, with their libraries;
/// extracted into the cache, not installed.
pub const TYPE_TOOLS_PACKAGES: &[&str] = &[
    "lz4",
    "pahole",
    "xz-utils",
    "zstd",
    "libbpf1",
    "libbz2-1.0",
    "libc6",
    "libdw1",
    "libelf1",
    "libgcc-s1",
    "liblz4-1",
    "liblzma5",
    "libstdc++6",
    "libxxhash0",
    "zlib1g",
];

/// Kernel of the measurement: the one on which Debian's bpftrace works with offsets by hand.
pub const BENCH_KERNEL: &str = "6.1";

/// Debian packages of bpftrace and the libraries the guest's userland lacks.
pub const BPFTRACE_PACKAGES: &[&str] = &[
    "bpftrace",
    "libbpfcc",
    "libbz2-1.0",
    "libclang1-14",
    "libdw1",
    "libffi8",
    "libicu72",
    "libllvm14",
    "libstdc++6",
    "libxml2",
    "libz3-4",
];

/// Debian package of the exporter the agent's reading of the table is compared with; it needs
/// nothing the guest's userland lacks.
pub const NODE_EXPORTER_PACKAGES: &[&str] = &["prometheus-node-exporter"];

/// One of the two archives every Debian mirror carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// Ordinary suites.
    Debian,
    /// Security updates.
    Security,
}

/// One pinned package file.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Which archive carries it.
    pub archive: Archive,
    /// Path below the archive's base address.
    pub path: &'static str,
    /// Of the file, in hex.
    pub sha256: &'static str,
    /// Of the file.
    pub size_bytes: u64,
}

/// Where the packages come from.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// By name from the machine's own suite, under apt's signatures.
    Suite(&'static [&'static str]),
    /// By path and hash.
    Pinned(&'static [Package]),
}

/// A pair of Prometheus and Alertmanager that a distribution ships together.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// For people and for the directory's name.
    pub name: &'static str,
    /// Its packages.
    pub origin: Origin,
}

/// The oldest pair of Prometheus and Alertmanager that Debian ships: 2.42 and 0.25 in Debian 12.
/// Extracted into the cache, not installed, because an installation would start them.
pub const OLDEST_STACK: Release = Release {
    name: "oldest",
    origin: Origin::Suite(&[
        "prometheus",
        "prometheus-alertmanager",
        // What Prometheus's pages are drawn with.
        "fonts-glyphicons-halflings",
        "libjs-bootstrap4",
        "libjs-d3",
        "libjs-eonasdan-bootstrap-datetimepicker",
        "libjs-jquery",
        "libjs-jquery-hotkeys",
        "libjs-moment",
        "libjs-moment-timezone",
        "libjs-mustache",
        "libjs-popper.js",
        "libjs-rickshaw",
    ]),
};

/// The newest pair.
pub const NEWEST_STACK: Release = Release {
    name: "newest",
    origin: Origin::Pinned(&[
        Package {
            archive: Archive::Debian,
            path: "pool/main/p/prometheus/prometheus_3.5.3+ds1-6_amd64.deb",
            sha256: "593bcced02d8082688ea034dfc543848ad145c5f793aae5aad756c4dbdfa98da",
            size_bytes: 18_286_304,
        },
        Package {
            archive: Archive::Debian,
            path: "pool/main/p/prometheus/promtool_3.5.3+ds1-6_amd64.deb",
            sha256: "1fb8bad7b932e7a44bccb12517f0bd96d5d5d83f15d3a1c0e2aa705cbf93fe90",
            size_bytes: 17_389_512,
        },
        Package {
            archive: Archive::Debian,
            path: "pool/main/p/prometheus-alertmanager/prometheus-alertmanager_0.33.1-5_amd64.deb",
            sha256: "ec1be21dd7ffeec3d6f42dd1cc8e97b8a9e93888f1953b4fb4cb9234be70185f",
            size_bytes: 13_516_968,
        },
    ]),
};

/// Every pair.
pub const STACKS: &[Release] = &[OLDEST_STACK, NEWEST_STACK];

/// Programs each of [`STACKS`] must have.
pub const STACK_PROGRAMS: &[&str] = &[
    "prometheus",
    "promtool",
    "prometheus-alertmanager",
    "amtool",
];

/// One kernel a guest can boot.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What people type.
    pub name: &'static str,
    /// What `uname -r` prints in the guest.
    pub release: &'static str,
    /// Files that hold the image, the modules and their lists.
    pub packages: &'static [Package],
    /// Where ip_vs is built from, on kernels whose packaged module does not do.
    pub source: Option<Source>,
}

impl Kernel {
    /// Name of what is made for this kernel, below the cache: its release, and its own name where
    /// a patch makes another kernel of it.
    pub fn directory(&self) -> String {
        let patched = self.source.is_some_and(|source| source.patch.is_some());
        let own_name = patched.then(|| format!("-as-{}", self.name));
        format!("{}{}", self.release, own_name.unwrap_or_default())
    }
}

/// What ip_vs is built from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Headers of the kernel, its build programs and its source.
    pub packages: &'static [Package],
    /// Applied to the headers; the module built so takes the place of the packaged one. Without a
    /// patch the module only lends its types.
    pub patch: Option<&'static str>,
}

/// Image and modules of the oldest kernel.
const LINUX_5_10: &[Package] = &[Package {
    archive: Archive::Security,
    path: "pool/updates/main/l/linux-signed-amd64/linux-image-5.10.0-46-cloud-amd64_5.10.262-1_amd64.deb",
    sha256: "18d94781d1b3052e21967ac2262239e5f14fbf511d6c3e110629d7aa35340760",
    size_bytes: 21_521_796,
}];

/// What a module of [`LINUX_5_10`] is built from.
const LINUX_5_10_SOURCE: &[Package] = &[
    Package {
        archive: Archive::Security,
        path: "pool/updates/main/l/linux/linux-headers-5.10.0-46-cloud-amd64_5.10.262-1_amd64.deb",
        sha256: "ad2d8f6a4f901d1391cef0062326adb46e4fe0398817b79711ca144a71b352a8",
        size_bytes: 1_176_216,
    },
    Package {
        archive: Archive::Security,
        path: "pool/updates/main/l/linux/linux-headers-5.10.0-46-common_5.10.262-1_all.deb",
        sha256: "3b5bc361e77e67b122455a8cce26495ff5ce59fc147bb089f3cbedf6b4e2ec31",
        size_bytes: 9_444_432,
    },
    Package {
        archive: Archive::Security,
        path: "pool/updates/main/l/linux/linux-kbuild-5.10_5.10.262-1_amd64.deb",
        sha256: "ad6edb3f2c5e1a9fe5dd60081d5855275eba9b9566aa628c9263e341a11372d1",
        size_bytes: 1_151_028,
    },
    Package {
        archive: Archive::Security,
        path: "pool/updates/main/l/linux/linux-source-5.10_5.10.262-1_all.deb",
        sha256: "4f01148344ca9e5c1c9743ab4a084cf61c437548f803443ccc044602278b52bc",
        size_bytes: 121_947_504,
    },
];

/// Every kernel, oldest first. Debian's cloud flavour: small, with BTF and all of IPVS.
pub const KERNELS: &[Kernel] = &[
    // Its module carries no types: those of the same source, built alike, stand in.
    Kernel {
        name: "5.10",
        release: "5.10.0-46-cloud-amd64",
        packages: LINUX_5_10,
        source: Some(Source {
            packages: LINUX_5_10_SOURCE,
            patch: None,
        }),
    },
    // Drops the SYN of every reused port that has a conntrack, as kernels before 5.9 did; none of
    // those is to be had any more.
    Kernel {
        name: "5.10-old-drop",
        release: "5.10.0-46-cloud-amd64",
        packages: LINUX_5_10,
        source: Some(Source {
            packages: LINUX_5_10_SOURCE,
            patch: Some(include_str!("../patches/ip_vs-old-drop.patch")),
        }),
    },
    // Before a stable update put `cflags` into `ip_vs_dest` and moved what follows it.
    Kernel {
        name: "6.1.170",
        release: "6.1.0-47-cloud-amd64",
        packages: &[Package {
            archive: Archive::Debian,
            path: "pool/main/l/linux-signed-amd64/linux-image-6.1.0-47-cloud-amd64_6.1.170-3_amd64.deb",
            sha256: "139e51253b0d93db1ba3eb87707f76f3c5a7d83a50a5e5aacbda010ad21bd73a",
            size_bytes: 26_429_640,
        }],
        source: None,
    },
    Kernel {
        name: "6.1",
        release: "6.1.0-56-cloud-amd64",
        packages: &[Package {
            archive: Archive::Security,
            path: "pool/updates/main/l/linux-signed-amd64/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb",
            sha256: "e7d02b943971edcb8790e256c02cfab3bca6c3d37c1bf25392a57c71300615ee",
            size_bytes: 26_713_492,
        }],
        source: None,
    },
    // As 6.1.170: before `cflags`.
    Kernel {
        name: "6.12.94",
        release: "6.12.94+deb13-cloud-amd64",
        packages: &[Package {
            archive: Archive::Debian,
            path: "pool/main/l/linux-signed-amd64/linux-image-6.12.94+deb13-cloud-amd64_6.12.94-1_amd64.deb",
            sha256: "f82b346fdae89e52d80f5bb4576ae447ddca186dce38e1b6b00a9325e0ae6eaf",
            size_bytes: 34_283_892,
        }],
        source: None,
    },
    Kernel {
        name: "6.12",
        release: "6.12.117+deb12-cloud-amd64",
        packages: &[Package {
            archive: Archive::Security,
            path: "pool/updates/main/l/linux-signed-6.12-amd64/linux-image-6.12.117+deb12-cloud-amd64_6.12.117-1~deb12u1_amd64.deb",
            sha256: "5195b288dec79e2981d6b84457f38b7ce7310a2d702930ec7d07209c7f78ce37",
            size_bytes: 34_307_256,
        }],
        source: None,
    },
    Kernel {
        name: "7.2",
        release: "7.2.12+deb14-cloud-amd64",
        packages: &[
            Package {
                archive: Archive::Debian,
                path: "pool/main/l/linux/linux-base-7.2.12+deb14-cloud-amd64_7.2.12-1_amd64.deb",
                sha256: "ed2a648d5d7fd243750e203d51a52421fd61083de983f26cae10ce25ab9f8182",
                size_bytes: 412_100,
            },
            Package {
                archive: Archive::Debian,
                path: "pool/main/l/linux/linux-modules-7.2.12+deb14-cloud-amd64_7.2.12-1_amd64.deb",
                sha256: "12e77fcb84416569f8a81cb09c4535b187b8749047df2df2b1a39ad1c9250670",
                size_bytes: 23_458_760,
            },
            Package {
                archive: Archive::Debian,
                path: "pool/main/l/linux-signed-amd64/linux-binary-7.2.12+deb14-cloud-amd64_7.2.12-1_amd64.deb",
                sha256: "43451b88872589d518acba127482df16fab53e2a51e92811cbd6221ca92cb6bf",
                size_bytes: 13_710_360,
            },
        ],
        source: None,
    },
];

/// Modules a guest must have: without one of them the scenarios cannot run.
pub const REQUIRED_MODULES: &[&str] = &[
    "dummy",
    "ip_vs",
    "ip_vs_lc",
    "ip_vs_rr",
    "ip_vs_sh",
    "ip_vs_wlc",
    "ip_vs_wrr",
    "ip_tables",
    "iptable_filter",
    "iptable_nat",
    "iptable_raw",
    "nf_conntrack",
    "nf_nat",
    "nf_tables",
    "veth",
    "virtio_net",
    "xt_conntrack",
    "xt_mark",
    "xt_tcpudp",
];

/// Modules a guest gets where its kernel has them.
pub const OPTIONAL_MODULES: &[&str] = &[
    "bridge",
    "ip6_tables",
    "ip6_tunnel",
    "ip6table_filter",
    "ip6table_mangle",
    "ip6table_nat",
    "ip6table_raw",
    "ip_set",
    "ip_set_hash_ipport",
    "ip_vs_ftp",
    "ip_vs_mh",
    "ipip",
    "ipt_REJECT",
    "ipt_rpfilter",
    "iptable_mangle",
    "nf_conntrack_netlink",
    "nf_log_syslog",
    "nf_reject_ipv4",
    "nf_reject_ipv6",
    "nfnetlink",
    "nfnetlink_queue",
    "nft_chain_nat",
    "nft_compat",
    "nft_counter",
    "nft_ct",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_reject_inet",
    "sch_fq_codel",
    "sch_ingress",
    "sch_netem",
    "sctp",
    "sit",
    "tun",
    "xt_MASQUERADE",
    "xt_NFQUEUE",
    "xt_REDIRECT",
    "xt_addrtype",
    "xt_comment",
    "xt_connmark",
    "xt_ipvs",
    "xt_limit",
    "xt_multiport",
    "xt_nat",
    "xt_set",
    "xt_state",
    "xt_statistic",
    "xt_CT",
    "act_mirred",
    "cls_u32",
];

/// The kernel people call `name`.
pub fn kernel(name: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.name == name)
}

#[cfg(test)]
mod tests {
    use super::{DEMO_KERNEL, KERNELS, Pass, Set, TEST_PASSES, kernel, matrix, test_passes, ways};

    #[test]
    fn named_kernels_exist() {
        for name in TEST_PASSES
            .iter()
            .map(|pass| pass.kernel)
            .chain([DEMO_KERNEL])
        {
            assert_eq!(kernel(name).map(|found| found.name), Some(name));
        }
        assert!(kernel("4.4").is_none());
    }

    #[test]
    fn every_kernel_is_tested_and_the_oldest_and_the_newest_in_full() {
        for kernel in KERNELS {
            let passes = || TEST_PASSES.iter().filter(|pass| pass.kernel == kernel.name);
            assert!(passes().next().is_some(), "{}", kernel.name);
        }
        for kernel in [KERNELS.first(), KERNELS.last()].into_iter().flatten() {
            assert!(TEST_PASSES.contains(&Pass::all(kernel.name, &[])));
        }
    }

    #[test]
    fn every_kernel_is_tested_by_every_way() {
        let passes = test_passes();
        for kernel in KERNELS {
            let of_kernel = passes
                .iter()
                .filter(|pass| pass.kernel == kernel.name && pass.set != Set::Systemd);
            // What the agent picks for itself is one of the ways.
            assert_eq!(of_kernel.count(), ways(kernel).count(), "{}", kernel.name);
        }
    }

    #[test]
    fn passes_have_names_of_their_own() {
        let mut names: Vec<_> = matrix().iter().map(Pass::name).collect();
        assert!(
            names.contains(&"6.12 kprobe perf core".to_owned()),
            "{names:?}"
        );
        assert!(
            !names.contains(&"5.10 fexit ring core".to_owned()),
            "{names:?}"
        );
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_hash_is_a_sha256() {
        for package in KERNELS.iter().flat_map(|kernel| kernel.packages) {
            assert_eq!(package.sha256.len(), 64, "{}", package.path);
            assert!(package.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert!(package.path.starts_with("pool/"), "{}", package.path);
        }
    }
}
