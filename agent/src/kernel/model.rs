//! Reads what says how the running kernel preempts its own code.

use std::fs;
use std::path::Path;

use agent_core::kernel::preemption::{COMMAND_LINE_FILE, Evidence, MODEL_FILE, VERSION_FILE};

/// Reads what there is to read below `root`, which is `/` but for tests.
pub fn gather(root: &Path, release: &str) -> Evidence {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    Evidence {
        model: read(MODEL_FILE),
        version: read(VERSION_FILE),
        command_line: read(COMMAND_LINE_FILE),
        config: read(&format!("boot/config-{release}"))
            .or_else(|| read(&format!("lib/modules/{release}/config"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read() {
        let root =
            std::env::temp_dir().join(format!("ipvs-lens-preemption-{}", std::process::id()));
        for (path, text) in [
            ("sys/kernel/debug/sched/preempt", "(full)"),
            ("proc/sys/kernel/version", "v"),
            ("lib/modules/7.2/config", "c"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let evidence = gather(&root, "7.2");
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            evidence,
            Evidence {
                model: Some("(full)".to_owned()),
                version: Some("v".to_owned()),
                command_line: None,
                config: Some("c".to_owned()),
            }
        );
    }
}
