//! Files that documents name are there. Only tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose files a document may name by their path from the root of the checkout.
const FOLDERS: &[&str] = &[
    "agent/",
    "agent-common/",
    "agent-core/",
    "agent-ebpf/",
    "dashboards/",
    "deploy/",
    "docs/",
    "tests/",
    "xtask/",
];

/// Paths between backticks in `text` that begin with one of [`FOLDERS`] and have no placeholder.
fn paths_in(text: &str) -> Vec<&str> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter(|code| FOLDERS.iter().any(|folder| code.starts_with(folder)))
        .filter(|code| !code.contains(char::is_whitespace))
        .filter(|code| !code.contains("NAME") && !code.contains("ALERT") && !code.contains('*'))
        .collect()
}

/// Targets of links in `text` that lead to a file, without the part behind `#`.
fn links_in(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split_once('#').map_or(target, |(file, _)| file))
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

/// What `document`, below `root`, names and is not there.
fn missing(root: &Path, document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).expect("a document can be read");
    let folder = document.parent().expect("a document is in a folder");
    let paths = paths_in(&text).into_iter().map(|path| root.join(path));
    let links = links_in(&text).into_iter().map(|link| folder.join(link));
    let wanting = paths.chain(links).filter(|path| !path.exists());
    wanting
        .map(|path| format!("{} names {}", document.display(), path.display()))
        .collect()
}

/// Every Markdown file of the project's own.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            documents(&path, found);
        } else if name.ends_with(".md") && name != "CHANGELOG.md" {
            found.push(path.clone());
        }
    }
}

#[test]
fn what_documents_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    documents(&root, &mut found);
    assert!(found.len() > 20, "documents were found: {}", found.len());
    let missing: Vec<String> = found.iter().flat_map(|one| missing(&root, one)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn a_missing_file_is_named() {
    let dir = std::env::temp_dir().join(format!("xtask-documents-{}", std::process::id()));
    fs::create_dir_all(dir.join("docs")).expect("a temporary directory can be created");
    fs::write(dir.join("docs/there.md"), "").expect("the directory was made here");
    let text = "`docs/there.md`, `docs/gone.md`, `docs/NAME.md`, [a](there.md#x), [b](lost.md), [c](https://x/y)";
    fs::write(dir.join("docs/page.md"), text).expect("the directory was made here");
    let missing = missing(&dir, &dir.join("docs/page.md"));
    fs::remove_dir_all(&dir).expect("the directory was made here");
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing[0].ends_with("docs/gone.md") && missing[1].ends_with("lost.md"));
}
