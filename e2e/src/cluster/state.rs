//! What is known about a cluster between two commands, and who may change it.
//!
//! A cluster's folder holds `state.json`. Whoever dies half-way leaves a state whose process no longer lives,
//! which everyone else takes for what it is: rubbish to clear away.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::{CLUSTERS, DEATH, Layout, NAME_VARIABLE};
use super::space::{Process, Space};

/// A cluster's state on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// How many nodes it has.
    pub nodes: u8,
    /// The API server's port on this machine.
    pub port: u16,
    /// Who brings it up, until that is done.
    pub starter: Option<Process>,
    /// Process 1 of it, from when there is one.
    pub init: Option<Process>,
}

/// What there is of a cluster.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Someone who is alive brings it up.
    Starting,
    /// Remains of one that died or whose starter died.
    Remains,
    /// It runs.
    Running(State),
}

impl State {
    /// Writes the state so that a reader sees all of it or none.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        let new = layout.path("state.json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&new, layout.path("state.json")))
            .with_context(|| format!("writing {new}"))
    }

    fn read(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&fs::read(layout.path("state.json")).ok()?).ok()
    }
}

/// What there is of the cluster now.
pub fn find(layout: &Layout) -> Found {
    if !layout.dir().exists() {
        return Found::Nothing;
    }
    match State::read(layout) {
        Some(State {
            starter: Some(starter),
            ..
        }) if starter.alive() => Found::Starting,
        Some(
            state @ State {
                starter: None,
                init: Some(init),
                ..
            },
        ) if init.alive() => Found::Running(state),
        _ => Found::Remains,
    }
}

/// Clears away a cluster: its processes, its cgroups, its folder. Safe to repeat.
pub fn clear(layout: &Layout) -> Result<()> {
    if let Some(init) = State::read(layout)
        .and_then(|state| state.init)
        .or_else(|| init_of_a_starting_one(layout))
    {
        Space::open(layout, init).kill(DEATH)?;
    }
    remove_cgroups(&layout.cgroup())?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fs::remove_dir_all(layout.dir()) {
        // The kernel lets go of the namespaces' mounts a moment after their last process.
        let passing = matches!(
            error.kind(),
            ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty
        );
        match error.kind() {
            ErrorKind::NotFound => break,
            _ if passing && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            _ => return Err(error).with_context(|| format!("cannot remove {}", layout.dir().display())),
        }
    }
    // Empty only when this was the last cluster.
    let _ = fs::remove_dir(CLUSTERS);
    Ok(())
}

/// A starter that died between starting process 1 and noting it has left its number in a file.
fn init_of_a_starting_one(layout: &Layout) -> Option<Process> {
    let pid = fs::read_to_string(layout.path("run/init.pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let command = fs::read(format!("/proc/{pid}/environ")).ok()?;
    // Another process may have the number by now; this one was given the cluster's name.
    let mark = format!("{NAME_VARIABLE}={}", layout.name());
    let marked = command
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes());
    marked.then(|| Process::of(pid).ok()).flatten()
}

/// Clears away the remains of all clusters, and claims this one for this process to bring up.
pub fn claim(layout: &Layout, state: &State) -> Result<Claim> {
    let lock = lock_clusters()?;
    for entry in fs::read_dir(CLUSTERS)?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| Layout::new(name).ok()) else {
            continue;
        };
        if matches!(find(&other), Found::Remains) {
            eprintln!("cluster: clearing away what is left of '{}'", other.name());
            clear(&other)?;
        }
    }
    let claim = match find(layout) {
        Found::Running(state) => Claim::Running(state),
        Found::Starting => Claim::Starting,
        Found::Nothing | Found::Remains => {
            for folder in ["logs", "run", "images"].map(|name| layout.dir().join(name)) {
                fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            }
            state.write(layout)?;
            Claim::Ours
        }
    };
    drop(lock);
    Ok(claim)
}

/// Who has a cluster that was claimed.
pub enum Claim {
    /// This process, which has to bring it up.
    Ours,
    /// Nobody needs to: it runs.
    Running(State),
    /// Another process is bringing it up.
    Starting,
}

/// The clusters' folder itself is the lock, so that no lock file stays behind.
fn lock_clusters() -> Result<File> {
    for _ in 0..1000 {
        fs::create_dir_all(CLUSTERS).with_context(|| format!("cannot make {CLUSTERS} (are you root?)"))?;
        let Ok(folder) = File::open(CLUSTERS) else {
            continue;
        };
        folder.lock()?;
        // The last cluster's end removes the folder, maybe while we waited for it.
        if fs::metadata(CLUSTERS).is_ok_and(|now| folder.metadata().is_ok_and(|ours| ours.ino() == now.ino()))
        {
            return Ok(folder);
        }
    }
    bail!("cannot lock {CLUSTERS}");
}

/// The hierarchies of cgroups on this machine: v1's, and v2 where it is mounted.
fn hierarchies() -> Vec<std::path::PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut all: Vec<_> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    all.retain(|path| path.join("cgroup.procs").exists() && !path.is_symlink());
    if root.join("cgroup.procs").exists() {
        all = vec![root.to_owned()];
    }
    all
}

fn remove_cgroups(cgroup: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    for hierarchy in hierarchies() {
        let path = hierarchy.join(cgroup.trim_start_matches('/'));
        // The last processes leave their cgroups a moment after they were killed.
        while path.exists() && remove_tree(&path).is_err() {
            if Instant::now() > deadline {
                bail!(
                    "the cgroup {} cannot be removed: something still runs in it",
                    path.display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(parent) = path.parent().filter(|parent| *parent != hierarchy) {
            let _ = fs::remove_dir(parent);
        }
    }
    Ok(())
}

/// cgroupfs allows `rmdir` of a group without groups below; its files cannot be removed and need not be.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Everything of a cluster that can still be found on this machine; empty after a clean end.
pub fn remains(layout: &Layout) -> Vec<String> {
    let mut all = Vec::new();
    if layout.dir().exists() {
        all.push(format!("folder {}", layout.dir().display()));
    }
    for hierarchy in hierarchies() {
        let path = hierarchy.join(layout.cgroup().trim_start_matches('/'));
        if path.exists() {
            all.push(format!("cgroup {}", path.display()));
        }
    }
    let mark = format!("{NAME_VARIABLE}={}", layout.name()).into_bytes();
    let dir = layout.dir().display().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark)
        {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            all.push(format!(
                "process {pid}: {}",
                String::from_utf8_lossy(&command).replace('\0', " ")
            ));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    all.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&dir))
            .map(|line| format!("mount {line}")),
    );
    all
}
