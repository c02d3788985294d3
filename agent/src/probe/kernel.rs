//! What the probe needs to know of the running kernel and of its own process.

use std::fs;
use std::io;

use aya::Btf;

use super::ProbeError;

const BTF: &str = "/sys/kernel/btf/vmlinux";
const CAP_SYS_ADMIN: u32 = 21;
const NEEDED: [(u32, &str); 2] = [(39, "CAP_BPF"), (38, "CAP_PERFMON")];

pub(super) fn btf() -> Result<Btf, ProbeError> {
    // Reading it first tells a kernel without BTF from one whose BTF we cannot parse.
    fs::File::open(BTF).map_err(|source| ProbeError::NoBtf { path: BTF, source })?;
    Btf::from_sys_fs().map_err(ProbeError::BadBtf)
}

pub(super) fn check_capabilities() -> Result<(), ProbeError> {
    let status = fs::read_to_string("/proc/self/status").map_err(|source| ProbeError::System {
        what: "/proc/self/status",
        source,
    })?;
    match missing_capabilities(&status) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(ProbeError::Capability { missing }),
    }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED
        .iter()
        .filter(|(bit, _)| !has(*bit))
        .map(|(_, name)| *name)
        .collect()
}

/// How many values a per-CPU map holds for each key: CPUs that may ever come, not those online.
pub(super) fn possible_cpus() -> Result<usize, ProbeError> {
    aya::util::nr_cpus().map_err(|(what, source)| ProbeError::System { what, source })
}

/// Gives what is free in the allocator back to the system; glibc only, as others do so by themselves.
pub(super) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions; it locks the allocator's own arenas.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Error of the last system call.
pub(super) fn last_error() -> io::Error {
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(mask: &str) -> String {
        format!("Name:\tagent\nCapInh:\t0000000000000000\nCapEff:\t{mask}\n")
    }

    #[test]
    fn capabilities_that_are_missing_are_named() {
        assert_eq!(
            missing_capabilities(&status("0000000000000000")),
            ["CAP_BPF", "CAP_PERFMON"]
        );
        assert_eq!(missing_capabilities(&status("0000008000000000")), ["CAP_PERFMON"]);
        assert_eq!(missing_capabilities(&status("000000c000000000")), [""; 0]);
        assert_eq!(missing_capabilities(&status("0000000000200000")), [""; 0]);
        assert_eq!(missing_capabilities("nothing of use"), ["CAP_BPF", "CAP_PERFMON"]);
    }
}
