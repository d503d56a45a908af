//! Kernel modules: which files a list of names needs. Pure text in, names out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// The module lists of one kernel.
#[derive(Debug, Default)]
pub struct ModuleLists {
    /// Path of each module by its normalised name.
    paths: BTreeMap<String, String>,
    /// Paths each path needs, as `depmod` found them.
    needs: BTreeMap<String, Vec<String>>,
    /// Normalised names of what is part of the kernel image.
    builtin: BTreeSet<String>,
}

impl ModuleLists {
    /// Reads the contents of `modules.dep` and `modules.builtin`.
    pub fn parse(dep: &str, builtin: &str) -> Self {
        let mut lists = Self::default();
        for (path, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            lists.paths.insert(module_name(path), path.to_owned());
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            lists.needs.insert(path.to_owned(), needs);
        }
        lists.builtin = builtin.lines().map(module_name).collect();
        lists
    }

    /// Files that `required` and, as far as this kernel has them, `optional` need.
    ///
    /// # Errors
    /// When a required module is neither a file nor built in.
    pub fn resolve(&self, required: &[&str], optional: &[&str]) -> Result<BTreeSet<&str>> {
        let mut files = BTreeSet::new();
        for name in required {
            let name = module_name(name);
            if let Some(path) = self.paths.get(&name) {
                self.add(path, &mut files);
            } else if !self.builtin.contains(&name) {
                bail!("this kernel has no module {name}, loadable or built in");
            }
        }
        for name in optional {
            if let Some(path) = self.paths.get(&module_name(name)) {
                self.add(path, &mut files);
            }
        }
        Ok(files)
    }

    /// Adds a file and what it needs; `depmod` lists needs of needs too, so one level is all.
    fn add<'a>(&'a self, path: &'a str, files: &mut BTreeSet<&'a str>) {
        files.insert(path);
        files.extend(
            self.needs
                .get(path)
                .into_iter()
                .flatten()
                .map(String::as_str),
        );
    }
}

/// `kernel/net/xt-mark.ko.xz` and `xt_mark` are the same module.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::ModuleLists;

    const DEP: &str = "\
kernel/net/ipvs/ip_vs.ko.xz: kernel/net/nf_conntrack.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/net/ipvs/ip_vs_rr.ko.xz: kernel/net/ipvs/ip_vs.ko.xz kernel/net/nf_conntrack.ko.xz kernel/lib/libcrc32c.ko.xz
kernel/net/nf_conntrack.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/drivers/virtio-rng.ko:
";
    const BUILTIN: &str = "kernel/drivers/net/veth.ko\n";

    #[test]
    fn needs_come_along_and_nothing_else() {
        let lists = ModuleLists::parse(DEP, BUILTIN);
        let files = lists
            .resolve(&["ip_vs"], &[])
            .expect("the module is listed");
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            [
                "kernel/lib/libcrc32c.ko.xz",
                "kernel/net/ipvs/ip_vs.ko.xz",
                "kernel/net/nf_conntrack.ko.xz"
            ]
        );
    }

    #[test]
    fn dash_and_underscore_are_the_same() {
        let lists = ModuleLists::parse(DEP, BUILTIN);
        let files = lists
            .resolve(&["virtio_rng"], &[])
            .expect("the module is listed");
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            ["kernel/drivers/virtio-rng.ko"]
        );
    }

    #[test]
    fn builtin_and_absent_optional_modules_need_no_file() {
        let lists = ModuleLists::parse(DEP, BUILTIN);
        let files = lists
            .resolve(&["veth"], &["no_such"])
            .expect("veth is built in");
        assert!(files.is_empty());
    }

    #[test]
    fn absent_required_module_is_named() {
        let lists = ModuleLists::parse(DEP, BUILTIN);
        let error = lists.resolve(&["ip_vs_zz"], &[]);
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err("this kernel has no module ip_vs_zz, loadable or built in".to_owned())
        );
    }
}
