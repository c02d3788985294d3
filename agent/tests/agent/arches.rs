//! The kernel side compiles for every architecture that it has registers of, also on a machine of another one.

use std::path::Path;
use std::process::Command;

#[test]
fn the_probe_compiles_for_both_architectures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a folder");
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    for arch in ["x86_64", "aarch64"] {
        let compiled = Command::new(&clang)
            .current_dir(folder)
            .args([
                "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Ibpf",
            ])
            .arg(format!("-DVIGIA_ARCH_{arch}"))
            .args(["-c", "bpf/probe.bpf.c", "-o"])
            .arg(out.path().join("probe.bpf.o"))
            .output()
            .expect("clang runs");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{arch}: {said}");
    }
}
