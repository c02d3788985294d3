//! What cgroupfs says of a container: processor, memory, disk, page faults, kills, pressure.
//!
//! With cgroup v2 all of it is in the container's folder. With v1 each controller has a hierarchy of its own, in which
//! the container has the same path. A file that is not there leaves its figures out; which, is told by name.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::probe::HierarchyKind;

/// Longest file that is read: io.stat has a line for each disk.
const LONGEST: u64 = 64 << 10;

/// Totals since the container began, apart from memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Processor time, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory used now, in bytes.
    pub memory_bytes: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Those of them that had to wait for a disk.
    pub major_faults: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Bytes read from disks.
    pub read_bytes: Option<u64>,
    /// Bytes written to disks.
    pub written_bytes: Option<u64>,
    /// Microseconds in which something waited for processor, memory and disk.
    pub pressure_us: [Option<u64>; 3],
}

/// Resources whose pressure is known, in the order of [`Resources::pressure_us`].
pub const PRESSURES: [&str; 3] = ["cpu", "memory", "io"];

impl Resources {
    /// What the files of a container's cgroup say; `root` is that of the hierarchy of this kind.
    #[must_use]
    pub fn read(kind: HierarchyKind, root: &Path, folder: &Path) -> Self {
        match kind {
            HierarchyKind::V2 => Self::parse_v2(|file| read(&folder.join(file))),
            HierarchyKind::V1 => Self::parse_v1(|controller, file| {
                let path = folder.strip_prefix(root).ok()?;
                read(&beside(root, controller)?.join(path).join(file))
            }),
        }
    }

    fn parse_v2(text: impl Fn(&str) -> Option<String>) -> Self {
        let stat = text("memory.stat").unwrap_or_default();
        let io = text("io.stat");
        let sum = |key: &str| {
            let words = io.as_deref()?.split_whitespace();
            let values =
                words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
            Some(values.fold(0, u64::saturating_add))
        };
        Self {
            cpu_ns: text("cpu.stat")
                .and_then(|text| field(&text, "usage_usec"))
                .map(|us| us.saturating_mul(1000)),
            memory_bytes: text("memory.current").and_then(|text| text.trim().parse().ok()),
            page_faults: field(&stat, "pgfault"),
            major_faults: field(&stat, "pgmajfault"),
            oom_kills: text("memory.events").and_then(|text| field(&text, "oom_kill")),
            read_bytes: sum("rbytes"),
            written_bytes: sum("wbytes"),
            pressure_us: PRESSURES.map(|name| pressure(&text(&format!("{name}.pressure"))?)),
        }
    }

    fn parse_v1(text: impl Fn(&str, &str) -> Option<String>) -> Self {
        let stat = text("memory", "memory.stat").unwrap_or_default();
        let io = text("blkio", "blkio.throttle.io_service_bytes");
        let sum = |what: &str| {
            let values = io.as_deref()?.lines().filter_map(|line| {
                let mut words = line.split_whitespace().skip(1);
                (words.next()? == what).then(|| words.next()?.parse::<u64>().ok())?
            });
            Some(values.fold(0, u64::saturating_add))
        };
        Self {
            cpu_ns: text("cpuacct", "cpuacct.usage").and_then(|text| text.trim().parse().ok()),
            memory_bytes: text("memory", "memory.usage_in_bytes").and_then(|text| text.trim().parse().ok()),
            page_faults: field(&stat, "total_pgfault"),
            major_faults: field(&stat, "total_pgmajfault"),
            oom_kills: text("memory", "memory.oom_control").and_then(|text| field(&text, "oom_kill")),
            read_bytes: sum("Read"),
            written_bytes: sum("Write"),
            // Version 1 has no pressure of a cgroup.
            pressure_us: [None; 3],
        }
    }

    /// The same where the kernel itself told of so many kills: of the one that ended the container, no file is left.
    #[must_use]
    pub fn killed(mut self, told: u64) -> Self {
        self.oom_kills = self.oom_kills.max((told > 0).then_some(told));
        self
    }

    /// What is missing, in words of the kernel.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            (self.cpu_ns.is_some(), "processor time of cgroups"),
            (self.memory_bytes.is_some(), "memory of cgroups"),
            (self.page_faults.is_some(), "page faults of cgroups"),
            (self.oom_kills.is_some(), "out-of-memory kills of cgroups"),
            (self.read_bytes.is_some(), "disk traffic of cgroups"),
            (
                self.pressure_us.iter().any(Option::is_some),
                "pressure of cgroups (cgroup v2 and CONFIG_PSI)",
            ),
        ];
        all.into_iter()
            .filter(|(there, _)| !there)
            .map(|(_, what)| what)
            .collect()
    }
}

/// The root of another controller's hierarchy of v1.
pub(super) fn beside(root: &Path, controller: &str) -> Option<PathBuf> {
    Some(root.parent()?.join(controller))
}

fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(file)
        .ok()?
        .take(LONGEST)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// The number behind a word at the begin of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`.
fn pressure(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(name: &str) -> Option<String> {
        let text = match name {
            "cpu.stat" => "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
            "memory.current" => "4096\n",
            "memory.stat" => "anon 1\npgfault 7\npgmajfault 2\n",
            "memory.events" => "low 0\noom 1\noom_kill 3\n",
            "io.stat" => "8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n",
            "cpu.pressure" => "some avg10=0.00 avg60=0.00 avg300=0.00 total=99\nfull avg10=0.00 total=0\n",
            _ => return None,
        };
        Some(text.to_owned())
    }

    #[test]
    fn version_2_has_all_in_one_folder() {
        let read = Resources::parse_v2(v2);
        let wanted = Resources {
            cpu_ns: Some(1_500_000),
            memory_bytes: Some(4096),
            page_faults: Some(7),
            major_faults: Some(2),
            oom_kills: Some(3),
            read_bytes: Some(15),
            written_bytes: Some(20),
            pressure_us: [Some(99), None, None],
        };
        assert_eq!((read, read.missing()), (wanted, vec![]));
    }

    #[test]
    fn version_1_has_a_folder_for_each_controller_and_no_pressure() {
        let read = Resources::parse_v1(|controller, file| {
            let text = match (controller, file) {
                ("cpuacct", "cpuacct.usage") => "77\n",
                ("memory", "memory.usage_in_bytes") => "10\n",
                ("memory", "memory.stat") => "pgfault 1\ntotal_pgfault 8\ntotal_pgmajfault 0\n",
                ("memory", "memory.oom_control") => "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
                ("blkio", _) => "8:0 Read 100\n8:0 Write 50\n8:0 Total 150\nTotal 150\n",
                _ => return None,
            };
            Some(text.to_owned())
        });
        assert_eq!(
            (read.cpu_ns, read.page_faults, read.oom_kills),
            (Some(77), Some(8), Some(4))
        );
        assert_eq!((read.read_bytes, read.written_bytes), (Some(100), Some(50)));
        assert_eq!(read.missing(), ["pressure of cgroups (cgroup v2 and CONFIG_PSI)"]);
    }

    #[test]
    fn a_folder_that_is_gone_has_nothing() {
        let root = tempfile::tempdir().expect("a temporary folder");
        for kind in [HierarchyKind::V1, HierarchyKind::V2] {
            let read = Resources::read(kind, root.path(), &root.path().join("gone"));
            assert_eq!(read, Resources::default());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,200}") {
            let _ = Resources::parse_v2(|_| Some(text.clone()));
            let _ = Resources::parse_v1(|_, _| Some(text.clone()));
        }
    }
}
