//! Reads the facts from procfs and sysfs. The only IO of the doctor; changes nothing.

use std::fs;
use std::path::Path;

use super::facts::{Facts, IpVs, SYSCTLS};

/// Facts below `root`, which is `/` but for tests.
#[must_use]
pub fn gather(root: &Path) -> Facts {
    let btf = |name: &str| present(root, "sys/kernel", &format!("btf/{name}"));
    Facts {
        release: line(root, "proc/sys/kernel/osrelease"),
        capabilities: capabilities(root),
        btf_kernel: btf("vmlinux"),
        btf_ip_vs: btf("ip_vs"),
        kprobes: present(root, "sys/bus/event_source/devices", "kprobe"),
        ip_vs: ip_vs(root),
        nf_conntrack: present(root, "proc/sys/net", "netfilter/nf_conntrack_max"),
        sysctls: SYSCTLS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), sysctl(root, name)?)))
            .collect(),
    }
}

/// Whether `path` is below `directory`; unknown when that directory is not there either.
fn present(root: &Path, directory: &str, path: &str) -> Option<bool> {
    let directory = root.join(directory);
    if !directory.is_dir() {
        return None;
    }
    directory.join(path).try_exists().ok()
}

fn line(root: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(text.trim().to_owned())
}

fn capabilities(root: &Path) -> Option<u64> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn ip_vs(root: &Path) -> Option<IpVs> {
    // A module has a state; what is built in has parameters only.
    if present(root, "sys/module", "ip_vs/initstate")? {
        return Some(IpVs::Module);
    }
    let built_in = present(root, "sys/module", "ip_vs")? || present(root, "proc/net", "ip_vs")?;
    Some(if built_in {
        IpVs::BuiltIn
    } else {
        IpVs::Absent
    })
}

fn sysctl(root: &Path, name: &str) -> Option<i64> {
    line(root, &format!("proc/sys/net/ipv4/vs/{name}"))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    /// A directory of this test's own, removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("ipvs-lens-{name}-{}", std::process::id());
            let tree = Self(std::env::temp_dir().join(name));
            for (path, text) in files {
                let path = tree.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_node_with_ipvs() {
        let tree = Tree::new(
            "full",
            &[
                ("proc/sys/kernel/osrelease", "6.12.1-amd64\n"),
                ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
                ("sys/kernel/btf/vmlinux", ""),
                ("sys/kernel/btf/ip_vs", ""),
                ("sys/bus/event_source/devices/kprobe/type", "8\n"),
                ("sys/module/ip_vs/initstate", "live\n"),
                ("proc/net/ip_vs", ""),
                ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
                ("proc/sys/net/ipv4/vs/conn_reuse_mode", "0\n"),
                ("proc/sys/net/ipv4/vs/conntrack", "1\n"),
            ],
        );
        let expected = Facts {
            release: Some("6.12.1-amd64".to_owned()),
            capabilities: Some(0x1ff_ffff_ffff),
            btf_kernel: Some(true),
            btf_ip_vs: Some(true),
            kprobes: Some(true),
            ip_vs: Some(IpVs::Module),
            nf_conntrack: Some(true),
            sysctls: BTreeMap::from([
                ("conn_reuse_mode".to_owned(), 0),
                ("conntrack".to_owned(), 1),
            ]),
        };
        assert_eq!(gather(&tree.0), expected);
    }

    #[test]
    fn absent_is_told_apart_from_unreadable() {
        let tree = Tree::new(
            "bare",
            &[
                ("sys/kernel/notes", ""),
                ("sys/bus/event_source/devices/software/type", "1\n"),
                ("sys/module/kernel/parameters/x", ""),
                ("proc/net/dev", ""),
            ],
        );
        let bare = gather(&tree.0);
        assert_eq!((bare.btf_kernel, bare.kprobes), (Some(false), Some(false)));
        assert_eq!(bare.ip_vs, Some(IpVs::Absent));
        assert_eq!((bare.release, bare.nf_conntrack), (None, None));
        let nothing = gather(&tree.0.join("nowhere"));
        assert_eq!(nothing, Facts::default());
    }
}
