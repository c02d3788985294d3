//! Says which versions of the crates that decide an artifact's numbers and bytes are built in: those of Cargo.lock, so that
//! what an artifact says of itself is what made it.

use std::path::Path;

/// Crates whose code a model's numbers or bytes are of, with who asks for them.
const NAMED: [(&str, &str); 5] = [
    ("vigia-trainer", "vigia-model"),
    ("vigia-trainer", "nalgebra"),
    ("vigia-trainer", "rand_chacha"),
    ("vigia-model", "bincode"),
    ("vigia-model", "zstd"),
];

fn main() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(&lock).unwrap_or_else(|error| panic!("{}: {error}", lock.display()));
    let versions: Vec<String> = NAMED
        .iter()
        .map(|(of, name)| {
            let version =
                version(&text, of, name).unwrap_or_else(|| panic!("Cargo.lock has no {name} of {of}"));
            format!("{name}/{version}")
        })
        .collect();
    println!("cargo::rustc-env=VIGIA_CRATES={}", versions.join(" "));
}

/// The version of a crate that another one is built with. Where there are several, the dependency says which.
fn version<'a>(lock: &'a str, of: &str, name: &str) -> Option<&'a str> {
    let packages = || lock.split("[[package]]").skip(1);
    let value = |package: &'a str, key: &str| {
        let line = package
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        line.strip_suffix('"')
    };
    let asker = packages().find(|package| value(package, "name") == Some(of))?;
    let mut asked = asker.lines().filter_map(|line| {
        line.trim()
            .trim_end_matches(',')
            .trim_matches('"')
            .split_once(' ')
    });
    if let Some((_, version)) = asked.find(|(dependency, _)| *dependency == name) {
        return Some(version);
    }
    let package = packages().find(|package| value(package, "name") == Some(name))?;
    value(package, "version")
}
