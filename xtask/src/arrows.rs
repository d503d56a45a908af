//! Imports as arrows between files: which crates' files import each other in a circle, and which
//! imports run against the direction in which data flows.
//!
//! Read as text from the `use` lines; what tests import does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Crates whose files may not import each other in a circle.
const CRATES: &[&str] = &["agent", "agent-common", "agent-core", "agent-ebpf", "xtask"];

/// Crate, and two places in it of which the first may not import the second: a file without its
/// extension, or a directory with everything in it.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("agent", "source", "outputs"),
    ("agent", "source", "probes"),
    ("agent", "probes", "outputs"),
    ("agent", "settings", "outputs"),
    ("agent", "settings", "probes"),
    ("agent", "settings", "top"),
    ("agent", "outputs", "doctor/gather"),
    ("agent", "outputs", "observer"),
    ("agent-core", "event", "decode"),
    ("agent-core", "decode", "correlate"),
    ("agent-core", "correlate", "doctor"),
    ("agent-core", "table", "finding"),
];

/// Files by name without extension (`a/mod.rs` is `a`), each with those it imports.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The imports of the crate whose sources are in `root`.
fn arrows(root: &Path) -> Result<Arrows> {
    let mut texts = BTreeMap::new();
    read(root, "", &mut texts)?;
    Ok(texts
        .iter()
        .map(|(file, text)| (file.clone(), imports(file, text, &texts)))
        .collect())
}

/// Every file of product code below `directory`.
fn read(directory: &Path, module: &str, texts: &mut BTreeMap<String, String>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let child = match (module, stem.as_ref()) {
            (_, "tests" | "testing") => continue,
            ("", "lib" | "main") => "lib".to_owned(),
            (_, "mod") => module.to_owned(),
            ("", stem) => stem.to_owned(),
            (module, stem) => format!("{module}/{stem}"),
        };
        if path.is_dir() {
            read(&path, &child, texts)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            texts.insert(child, text);
        }
    }
    Ok(())
}

/// The files that `text`, which is `file`, imports.
fn imports(file: &str, text: &str, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for statement in statements(text) {
        for path in expand(&statement) {
            found.extend(target(file, &path, files));
        }
    }
    found.remove(file);
    found
}

/// What stands between `use` and `;` in product code.
fn statements(text: &str) -> Vec<String> {
    let product = text.split("\nmod tests {").next().unwrap_or_default();
    let mut all = Vec::new();
    let mut open: Option<String> = None;
    for line in product.lines().map(str::trim) {
        if line.starts_with("//") {
            continue;
        }
        let begins = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
        let rest = begins.iter().find_map(|word| line.strip_prefix(word));
        let mut statement = match (open.take(), rest) {
            (Some(begun), _) => begun + line,
            (None, Some(rest)) => rest.to_owned(),
            (None, None) => continue,
        };
        if statement.ends_with(';') {
            statement.pop();
            all.push(statement);
        } else {
            open = Some(statement);
        }
    }
    all
}

/// Every path of a `use` statement, groups in braces taken apart.
fn expand(statement: &str) -> Vec<String> {
    let Some((before, rest)) = statement.split_once('{') else {
        return vec![statement.trim().to_owned()];
    };
    let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
    let mut depth = 0_i32;
    let parts = inside.split(|letter| {
        depth += match letter {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        letter == ',' && depth == 0
    });
    parts
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(part.trim()))
        .map(|path| format!("{}{path}", before.trim()))
        .collect()
}

/// The file of this crate that `path` leads to from `file`; the longest part of it that is one.
fn target(file: &str, path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let path = path.split(" as ").next().unwrap_or_default();
    let mut at: Vec<&str> = match path.split("::").next() {
        Some("crate") => Vec::new(),
        Some("super" | "self") => file.split('/').collect(),
        _ => return None,
    };
    for name in path.split("::") {
        match name {
            "crate" | "self" => {}
            "super" => {
                at.pop();
            }
            name => at.push(name.trim()),
        }
    }
    while !at.is_empty() {
        if files.contains_key(&at.join("/")) {
            return Some(at.join("/"));
        }
        at.pop();
    }
    None
}

/// The files that lead back to themselves, each with those it shares a circle with.
fn circles(arrows: &Arrows) -> BTreeSet<BTreeSet<String>> {
    let reach = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            for target in arrows.get(file).into_iter().flatten() {
                if reached.insert(target.clone()) {
                    next.push(target);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = arrows.keys().map(|file| (file, reach(file))).collect();
    let leads = |from: &String, to: &String| reached.get(from).is_some_and(|all| all.contains(to));
    arrows
        .keys()
        .filter(|file| leads(file, file))
        .map(|file| {
            let all = arrows.keys();
            all.filter(|other| leads(file, other) && leads(other, file))
                .cloned()
                .collect()
        })
        .collect()
}

/// Imports from `from` to `to`, as `file -> file`.
fn between(arrows: &Arrows, from: &str, to: &str) -> Vec<String> {
    let is_in = |file: &str, place: &str| {
        file.strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    arrows
        .iter()
        .filter(|(file, _)| is_in(file, from))
        .flat_map(|(file, targets)| targets.iter().map(move |target| (file, target)))
        .filter(|(_, target)| is_in(target, to))
        .map(|(file, target)| format!("{file} -> {target}"))
        .collect()
}

mod tests {
    use super::{Arrows, CRATES, FORBIDDEN, arrows, between, circles, expand, statements};
    use crate::paths::Paths;
    use std::fs;

    fn of(package: &str) -> Arrows {
        let root = Paths::find().expect("the tests run in a checkout").root;
        arrows(&root.join(package).join("src")).expect("the sources can be read")
    }

    #[test]
    fn no_files_import_each_other_in_a_circle() {
        for package in CRATES {
            let arrows = of(package);
            assert!(
                arrows
                    .values()
                    .map(std::collections::BTreeSet::len)
                    .sum::<usize>()
                    > 4
            );
            let circles = circles(&arrows);
            assert!(circles.is_empty(), "{package}: {circles:#?}");
        }
    }

    #[test]
    fn no_import_runs_back_up() {
        for (package, from, to) in FORBIDDEN {
            let found = between(&of(package), from, to);
            assert!(found.is_empty(), "{package}: {found:#?}");
        }
    }

    #[test]
    fn the_places_that_may_not_import_others_exist() {
        for (package, from, to) in FORBIDDEN {
            let arrows = of(package);
            for place in [from, to] {
                let exists = arrows.keys().any(|file| file.starts_with(place));
                assert!(exists, "{package}: {place}");
            }
        }
    }

    /// What the tests above look for is found where it is.
    #[test]
    fn an_injected_circle_and_an_injected_arrow_are_found() {
        let root = std::env::temp_dir().join(format!("xtask-arrows-{}", std::process::id()));
        fs::create_dir_all(root.join("outputs")).expect("a directory can be created");
        for (file, text) in [
            ("lib.rs", "pub mod outputs;\npub mod source;\n"),
            (
                "source.rs",
                "use std::io;\n\npub use crate::outputs::{\n    self,\n    log::{Level, Line as L},\n};\n",
            ),
            ("outputs/mod.rs", "pub mod log;\n"),
            (
                "outputs/log.rs",
                "//! use crate::lib;\nuse super::super::source::X;\n\n#[cfg(test)]\nmod tests {\n    use crate::source::Y;\n}\n",
            ),
        ] {
            fs::write(root.join(file), text).expect("a file can be written");
        }
        let found = arrows(&root).expect("the sources can be read");
        fs::remove_dir_all(&root).expect("the copy can be removed");
        assert_eq!(
            between(&found, "source", "outputs"),
            ["source -> outputs", "source -> outputs/log"]
        );
        let circles: Vec<Vec<String>> = circles(&found)
            .into_iter()
            .map(|circle| circle.into_iter().collect())
            .collect();
        assert_eq!(circles, [["outputs/log", "source"]]);
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            expand("crate::{a, b::{self, C}, d::E as F}"),
            [
                "crate::a",
                "crate::b::self",
                "crate::b::C",
                "crate::d::E as F"
            ]
        );
        assert_eq!(
            statements("use a::b;\n// use c;\npub use d::{\n    e,\n};\nlet used = 1;\n"),
            ["a::b", "d::{e,}"]
        );
    }
}
