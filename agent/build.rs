//! Builds the kernel programs and notes what this binary was built from.

use std::{env, error::Error, fs, path::Path, process::Command};

use aya_build::{Package, Toolchain};
use object::build::elf::{Builder, SectionData};

/// The kernel programs, one for each way records leave the kernel.
const OBJECTS: [&str; 2] = ["ipvs-lens-ring", "ipvs-lens-perf"];

fn main() -> Result<(), Box<dyn Error>> {
    note(
        "IPVS_LENS_REVISION",
        "git",
        &["rev-parse", "--short=12", "HEAD"],
    );
    note("IPVS_LENS_RUSTC", &env::var("RUSTC")?, &["--version"]);
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../agent-common");
    if env::var_os("CARGO_CFG_FUZZING").is_some() {
        // The fuzz targets never load the programs; do not make every run build them.
        let directory = env::var("OUT_DIR")?;
        for object in OBJECTS {
            fs::write(Path::new(&directory).join(object), [])?;
        }
        return Ok(());
    }
    build_kernel_programs()?;
    let directory = env::var("OUT_DIR")?;
    for object in OBJECTS {
        strip(&Path::new(&directory).join(object))?;
    }
    Ok(())
}

/// Removes what only debuggers read: most of the file, and twice in the binary.
fn strip(file: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(file)?;
    let mut object = Builder::read(&*bytes)?;
    for section in &mut object.sections {
        section.delete =
            section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    object.delete_orphans();
    // The linker keeps names of sections and of symbols in one table, this writer wants two.
    let names = object.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(fs::write(file, stripped)?)
}

/// Hands the first line a command prints to the crate, `unknown` if it cannot run.
fn note(variable: &str, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().ok();
    let line = output
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={variable}={line}");
}

fn build_kernel_programs() -> Result<(), Box<dyn Error>> {
    // The toolchain this crate is being built with: rustup names it to its children.
    let toolchain = env::var("RUSTUP_TOOLCHAIN")
        .map_err(|_| "RUSTUP_TOOLCHAIN is not set: build through rustup, or `cargo xtask build`")?;
    // The BPF target has no prebuilt `core`; this lets the stable compiler build it. Set here, so
    // that it reaches only the nested build.
    // SAFETY: a build script has one thread.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    // Its progress would arrive as warnings of this crate.
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    let root = env::var("CARGO_MANIFEST_DIR")? + "/../agent-ebpf";
    aya_build::build_ebpf(
        [Package {
            name: "agent-ebpf",
            root_dir: &root,
            ..Package::default()
        }],
        Toolchain::Custom(&toolchain),
    )
    .map_err(|error| {
        format!("{error:#}; `cargo xtask setup` installs bpf-linker, `cargo xtask build` uses it")
            .into()
    })
}
