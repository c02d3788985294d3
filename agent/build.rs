//! Compiles the kernel side of the probe with clang.
//!
//! Only clang and libbpf's two header files are needed; the kernel's own types
//! are declared by hand in `bpf/kernel.h` and resolved when the probe is loaded.

use std::path::PathBuf;
use std::process::{Command, exit};

const SOURCE: &str = "bpf/probe.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target's architecture");
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());

    let compiled = Command::new(&clang)
        .args([
            "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Ibpf",
        ])
        .arg(format!("-DVIGIA_ARCH_{arch}"))
        .args(["-c", SOURCE, "-o"])
        .arg(out.join("probe.bpf.o"))
        .output();
    match compiled {
        Ok(done) if done.status.success() => {}
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            if said.contains("bpf/bpf_helpers.h") || said.contains("bpf/bpf_core_read.h") {
                fail(
                    "libbpf's headers are missing: install libbpf-dev (Debian, Ubuntu) or libbpf-devel (Fedora)",
                );
            }
            fail(&format!("clang could not compile {SOURCE}:\n{said}"));
        }
        Err(error) => fail(&format!(
            "{} could not be run ({error}): install clang 14 or later (package clang), or name one in CLANG",
            clang.to_string_lossy()
        )),
    }
}

fn fail(why: &str) -> ! {
    eprintln!("vigia-agent: {why}");
    exit(1)
}
