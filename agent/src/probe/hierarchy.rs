//! Which cgroup hierarchy tells containers apart on this machine.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ProbeError;

/// Kind of a cgroup hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HierarchyKind {
    /// The unified hierarchy.
    V2,
    /// The memory controller's own hierarchy.
    V1,
}

/// The hierarchy that containers are told apart by, and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its kind.
    pub kind: HierarchyKind,
    /// Its root folder.
    pub root: PathBuf,
}

impl Hierarchy {
    /// Finds it under `/sys/fs/cgroup` or wherever that is mounted.
    ///
    /// Where cgroup v2 is the whole of it, `<root>/cgroup.controllers` exists. Where the memory controller has a
    /// hierarchy of its own (v1, or hybrid with v2 aside), runtimes make their containers' cgroups there, and
    /// everything is in the root of the v2 one: so it goes first.
    ///
    /// # Errors
    ///
    /// When there is neither.
    pub fn detect(root: &Path) -> Result<Self, ProbeError> {
        let found = |kind, root: PathBuf| Ok(Self { kind, root });
        if root.join("memory/cgroup.procs").exists() {
            found(HierarchyKind::V1, root.join("memory"))
        } else if root.join("cgroup.controllers").exists() {
            found(HierarchyKind::V2, root.to_owned())
        } else if root.join("unified/cgroup.controllers").exists() {
            found(HierarchyKind::V2, root.join("unified"))
        } else {
            Err(ProbeError::NoCgroups {
                root: root.display().to_string(),
            })
        }
    }

    /// The id of a cgroup: its folder's inode, which is what the kernel side sees as its kernfs id.
    ///
    /// # Errors
    ///
    /// When there is no such folder.
    pub fn id(folder: &Path) -> std::io::Result<u64> {
        fs::metadata(folder).map(|meta| meta.st_ino())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(files: &[&str]) -> Result<HierarchyKind, ProbeError> {
        let root = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().expect("has a parent")).expect("a folder");
            fs::write(file, "").expect("a file");
        }
        Hierarchy::detect(root.path()).map(|found| found.kind)
    }

    #[test]
    fn the_memory_controllers_own_hierarchy_goes_first() {
        assert_eq!(detect(&["cgroup.controllers"]).expect("v2"), HierarchyKind::V2);
        assert_eq!(
            detect(&["memory/cgroup.procs", "unified/cgroup.controllers"]).expect("v1"),
            HierarchyKind::V1
        );
        assert_eq!(
            detect(&["unified/cgroup.controllers"]).expect("v2 aside"),
            HierarchyKind::V2
        );
        assert!(matches!(
            detect(&["cpu/cgroup.procs"]),
            Err(ProbeError::NoCgroups { .. })
        ));
    }
}
