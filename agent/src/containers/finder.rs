//! Finds the folders of wanted containers, and notices when one is gone or another has its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::path::{container_id, may_hold_pods, pod_uid};
use super::resources::beside;
use crate::probe::{Hierarchy, HierarchyKind};

/// Folders above a pod's, at most: a root of the kubelet's own, `kubepods`, the QoS class, and room.
const DEPTH: usize = 8;
/// Cgroups nested in one container that are looked at; those made later are found by the kernel side.
const NESTED: usize = 1024;

/// A container as a plan and a path both know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId {
    /// UID of the pod.
    pub pod_uid: String,
    /// Id as the runtime names it.
    pub id: String,
}

/// A container's place in cgroupfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its folder.
    pub folder: PathBuf,
    /// The folder's inode: the id that the kernel counts by.
    pub cgroup: u64,
}

/// Cgroups nested in a container's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nested {
    /// Their ids, outer ones first.
    pub ids: Vec<u64>,
    /// There are more than are looked at.
    pub more: bool,
}

/// Looks for containers under one hierarchy, and remembers where they are.
#[derive(Debug)]
pub struct Finder {
    root: PathBuf,
    known: BTreeMap<ContainerId, Found>,
}

impl Finder {
    /// A finder that knows nothing yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: BTreeMap::new(),
        }
    }

    /// Where the wanted containers are now. One that is not there is left out; one whose folder was made anew has
    /// its new id.
    pub fn refresh(&mut self, wanted: &BTreeSet<ContainerId>) -> &BTreeMap<ContainerId, Found> {
        self.known
            .retain(|id, found| wanted.contains(id) && still_there(found));
        if wanted.iter().any(|id| !self.known.contains_key(id)) {
            let pods = wanted.iter().map(|id| id.pod_uid.as_str()).collect();
            walk(&self.root, DEPTH, &pods, &mut |id, found| {
                if wanted.contains(&id) {
                    self.known.insert(id, found);
                }
            });
        }
        &self.known
    }

    /// The cgroups nested in a container's that exist already, at most 1,024.
    #[must_use]
    pub fn nested(found: &Found) -> Nested {
        let mut nested = Nested::default();
        let mut open = vec![found.folder.clone()];
        while let Some(folder) = open.pop() {
            for child in folders(&folder) {
                if nested.ids.len() >= NESTED {
                    nested.more = true;
                    return nested;
                }
                if let Ok(id) = Hierarchy::id(&child) {
                    nested.ids.push(id);
                    open.push(child);
                }
            }
        }
        nested
    }
}

/// Whether a process is in a container's cgroup or in any below; none where that is not known.
///
/// Version 2 says so itself. Version 1 does not, and its `cgroup.procs` leaves out the processes that the reader's PID
/// namespace does not know, which for an agent are all of them. But its controller of numbers of processes counts them
/// whoever asks, under the same path in a hierarchy of its own.
#[must_use]
pub fn is_inhabited(hierarchy: &Hierarchy, folder: &Path) -> Option<bool> {
    match hierarchy.kind {
        HierarchyKind::V2 => {
            let events = fs::read_to_string(folder.join("cgroup.events")).ok()?;
            let populated = events.lines().find_map(|line| line.strip_prefix("populated "))?;
            Some(populated != "0")
        }
        HierarchyKind::V1 => {
            let path = folder.strip_prefix(&hierarchy.root).ok()?;
            let file = beside(&hierarchy.root, "pids")?.join(path).join("pids.current");
            let count: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
            Some(count != 0)
        }
    }
}

fn still_there(found: &Found) -> bool {
    Hierarchy::id(&found.folder).is_ok_and(|id| id == found.cgroup)
}

fn walk(folder: &Path, depth: usize, pods: &BTreeSet<&str>, each: &mut impl FnMut(ContainerId, Found)) {
    for child in folders(folder) {
        let Some(name) = child.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        match pod_uid(name) {
            Some(uid) if pods.contains(uid.as_str()) => containers_of(&child, &uid, each),
            Some(_) => {}
            None if depth > 0 && may_hold_pods(name) => walk(&child, depth - 1, pods, each),
            None => {}
        }
    }
}

fn containers_of(pod: &Path, uid: &str, each: &mut impl FnMut(ContainerId, Found)) {
    for folder in folders(pod) {
        let Some(id) = folder
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(container_id)
        else {
            continue;
        };
        let id = ContainerId {
            pod_uid: uid.to_owned(),
            id: id.to_owned(),
        };
        if let Ok(cgroup) = Hierarchy::id(&folder) {
            each(id, Found { folder, cgroup });
        }
    }
}

/// Folders in a folder; none where it has gone meanwhile.
fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3c2b1a-90ab-4cde-8f01-23456789abcd";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn wanted(ids: &[char]) -> BTreeSet<ContainerId> {
        ids.iter()
            .map(|digit| ContainerId {
                pod_uid: UID.to_owned(),
                id: id(*digit),
            })
            .collect()
    }

    #[test]
    fn containers_are_found_under_any_root_and_with_either_driver() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let cgroupfs = root
            .path()
            .join(format!("own/node-2/kubepods/burstable/pod{UID}"))
            .join(id('a'));
        let systemd = root
            .path()
            .join("kubepods.slice/kubepods-burstable.slice")
            .join(format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_")))
            .join(format!("cri-containerd-{}.scope", id('b')));
        for folder in [&cgroupfs, &systemd] {
            fs::create_dir_all(folder).expect("folders");
        }
        // Another pod's, and one that nobody wants.
        fs::create_dir_all(
            root.path()
                .join(format!("kubepods/pod{}", UID.replace('0', "1")))
                .join(id('a')),
        )
        .expect("folders");
        fs::create_dir_all(cgroupfs.with_file_name(id('f'))).expect("folders");

        let mut finder = Finder::new(root.path());
        let found = finder.refresh(&wanted(&['a', 'b', 'c']));
        let folders: Vec<&Path> = found.values().map(|found| found.folder.as_path()).collect();
        assert_eq!(folders, [&cgroupfs, &systemd]);
    }

    #[test]
    fn one_that_goes_is_gone_and_one_made_anew_has_a_new_id() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join(format!("kubepods/pod{UID}")).join(id('a'));
        fs::create_dir_all(&folder).expect("folders");
        let mut finder = Finder::new(root.path());
        let first = finder
            .refresh(&wanted(&['a']))
            .values()
            .next()
            .expect("found")
            .cgroup;

        // Renamed, not removed, so that its inode cannot be given to the next one.
        fs::rename(&folder, root.path().join("old")).expect("renamed");
        assert!(finder.refresh(&wanted(&['a'])).is_empty());
        fs::create_dir(&folder).expect("a folder");
        let second = finder
            .refresh(&wanted(&['a']))
            .values()
            .next()
            .expect("found again")
            .cgroup;
        assert_ne!(first, second);
        assert!(finder.refresh(&wanted(&[])).is_empty());
    }

    #[test]
    fn the_kernel_says_whether_anything_runs_in_one() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("x");
        fs::create_dir(&folder).expect("a folder");
        let v2 = Hierarchy {
            kind: HierarchyKind::V2,
            root: root.path().to_owned(),
        };
        assert_eq!(is_inhabited(&v2, &folder), None, "there is no such file");
        let said = [
            ("populated 1\nfrozen 0\n", Some(true)),
            ("populated 0\nfrozen 0\n", Some(false)),
            ("frozen 0\n", None),
        ];
        for (events, inhabited) in said {
            fs::write(folder.join("cgroup.events"), events).expect("a file");
            assert_eq!(is_inhabited(&v2, &folder), inhabited);
        }
    }

    #[test]
    fn of_version_1_the_count_of_processes_says_so() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let v1 = Hierarchy {
            kind: HierarchyKind::V1,
            root: root.path().join("memory"),
        };
        let (folder, counted) = (v1.root.join("pod/x"), root.path().join("pids/pod/x"));
        for folder in [&folder, &counted] {
            fs::create_dir_all(folder).expect("folders");
        }
        // Empty, since the reader's namespace knows none of them: nothing to go by.
        fs::write(folder.join("cgroup.procs"), "").expect("a file");
        assert_eq!(is_inhabited(&v1, &folder), None, "nobody counts them");
        for (count, inhabited) in [("2\n", Some(true)), ("0\n", Some(false)), ("", None)] {
            fs::write(counted.join("pids.current"), count).expect("a file");
            assert_eq!(is_inhabited(&v1, &folder), inhabited);
        }
    }

    #[test]
    fn nested_cgroups_are_listed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join(id('a'));
        for nested in ["x/y", "z"] {
            fs::create_dir_all(folder.join(nested)).expect("folders");
        }
        let found = Found {
            cgroup: Hierarchy::id(&folder).expect("an inode"),
            folder,
        };
        let nested = Finder::nested(&found);
        assert_eq!((nested.ids.len(), nested.more), (3, false));
        for number in 0..NESTED {
            fs::create_dir(found.folder.join(format!("many-{number}"))).expect("a folder");
        }
        let nested = Finder::nested(&found);
        assert_eq!((nested.ids.len(), nested.more), (NESTED, true));
    }
}
