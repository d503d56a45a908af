//! The rooms that docs/ARCHITECTURE.md calls pure touch no file, socket, clock or kernel.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of a test, outside its functions"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// What a pure room may not name.
const BANNED: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::Read",
    "std::io::Write",
    "std::process",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
    "aya::",
    "libc::",
    "tokio::",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Names in backticks of the invariant's first sentence: `a`, `b::c`, `d::{e,f}`.
fn pure_rooms() -> Vec<String> {
    let page = fs::read_to_string(root().join("../docs/ARCHITECTURE.md")).unwrap();
    let sentence = page
        .lines()
        .find_map(|line| line.split_once("**Pure rooms are pure.**"))
        .and_then(|(_, rest)| rest.split_once(" read no "))
        .map(|(rooms, _)| rooms.to_owned())
        .expect("the invariant names the rooms and what they do not read");
    let names = sentence.split('`').skip(1).step_by(2);
    names.flat_map(each_of).collect()
}

/// `d::{e,f}` is `d::e` and `d::f`.
fn each_of(name: &str) -> Vec<String> {
    match name.split_once("::{") {
        Some((outer, inner)) => inner
            .trim_end_matches('}')
            .split(',')
            .map(|inner| format!("{outer}::{}", inner.trim()))
            .collect(),
        None => vec![name.to_owned()],
    }
}

/// The files of a module: one, or all of a directory.
fn files(room: &str) -> Vec<PathBuf> {
    let path = root().join("src").join(room.replace("::", "/"));
    let file = path.with_extension("rs");
    if file.is_file() {
        return vec![file];
    }
    let mut found = Vec::new();
    let mut directories = vec![path];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{room}: {}: {error}", directory.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// What a file says before its tests begin; comments may name anything.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn pure_rooms_are_pure() {
    let rooms = pure_rooms();
    assert!(rooms.contains(&"correlate".to_owned()), "{rooms:?}");
    let mut found = Vec::new();
    for file in rooms.iter().flat_map(|room| files(room)) {
        // Tests of a room may read what they like.
        if file.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in code(&text) {
            if let Some(banned) = BANNED.iter().find(|banned| line.contains(**banned)) {
                found.push(format!("{}:{number}: {banned}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
