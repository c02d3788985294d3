//! Who is traced: finds it, binds it to one slot of the probe, and notices its end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use vigia_agent::probe::{Hierarchy, HierarchyKind, Mode, Probe, ProbeConfig, ProbeError, Slot};
use vigia_agent::window::Now;

use super::engine::{Kernel, Reader};
use super::{Clock, Event, by_ptrace, cannot, spawn};
use crate::args::{Format, Trace};
use crate::error::Failure;
use crate::ptrace::Session;
use crate::say::Out;

const CGROUPS: &str = "/sys/fs/cgroup";
/// The inode of the machine's first pid namespace (PROC_PID_INIT_INO of the kernel).
const INITIAL_PIDS: &str = "pid:[4026531836]";

/// See [`Traced`].
pub(super) enum Who {
    Command { id: u32, child: Mutex<Option<Child>> },
    Processes(Vec<OwnedFd>),
    Cgroup(PathBuf),
    Ptrace(Session),
}

/// A target that is being counted.
pub struct Traced {
    /// Where its counters are.
    pub slot: Slot,
    /// Since when.
    pub since: Now,
    /// What it is.
    pub(super) who: Who,
}

/// What the target is called in a report.
pub fn name(args: &Trace) -> String {
    if let Some(cgroup) = &args.cgroup {
        return cgroup.display().to_string();
    }
    match args.command.first() {
        Some(command) => Path::new(command)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        None => args
            .pids
            .iter()
            .map(|pid| format!("pid:{pid}"))
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// What is kept of calls beside how many there are, from the first one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How long they take.
    pub times: bool,
    /// Which come after which.
    pub sequences: bool,
}

impl Keep {
    const fn is_more(self) -> bool {
        self.times || self.sequences
    }

    const fn mode(self) -> Mode {
        if self.is_more() { Mode::Full } else { Mode::Counts }
    }
}

/// Binds the target, and starts it if it is a command.
pub fn start(
    args: &Trace,
    keep: Keep,
    clock: &Clock,
    events: &Sender<Event>,
) -> Result<(Reader, Traced), Failure> {
    let program = args.command.first().map(|name| found(name)).transpose()?;
    if args.prints_lines() {
        return by_ptrace::start(args, keep, program, clock, events);
    }
    let kernel = |probe| {
        let filter = args.filter.clone().unwrap_or_default();
        Reader::Kernel(Box::new(Kernel::new(probe, filter, keep.is_more())))
    };
    if let Some(path) = &args.cgroup {
        let (probe, traced) = cgroup(path, keep, clock)?;
        return Ok((kernel(probe), traced));
    }
    let mut probe = match process_probe(args, keep) {
        Ok(probe) => probe,
        Err(why) => {
            Out::Stderr.line(&format!(
                "vigia: counting by ptrace, which slows the target down, because eBPF cannot be used: {}",
                why.what()
            ));
            if let Some(next) = why.way_out() {
                Out::Stderr.line(&format!(" next: {next}"));
            }
            return by_ptrace::start(args, keep, program, clock, events);
        }
    };
    let traced = match program {
        Some(program) => command(&mut probe, args, program, clock)?,
        None => {
            let since = clock.now();
            let (slot, who) = processes(&mut probe, args)?;
            Traced { slot, since, who }
        }
    };
    Ok((kernel(probe), traced))
}

fn process_probe(args: &Trace, keep: Keep) -> Result<Probe, Failure> {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if namespace != Path::new(INITIAL_PIDS) {
        return Err(Failure::tracing(
            "process ids here are not the kernel's: this is a pid namespace of its own",
        ));
    }
    load(ProbeConfig {
        cgroups: None,
        processes: true,
        children: args.follow,
        detail: keep.is_more(),
        sequences: keep.sequences,
        mode: keep.mode(),
        ..ProbeConfig::default()
    })
}

fn load(config: ProbeConfig) -> Result<Probe, Failure> {
    Probe::load(config).map_err(|error| cannot(&error))
}

fn found(name: &str) -> Result<PathBuf, Failure> {
    find(name, std::env::var_os("PATH").as_deref())
        .ok_or_else(|| Failure::input(format!("{name}: no such command")).next("check its name"))
}

/// Holds a process by a descriptor, so that its id cannot come to mean another unnoticed.
pub(super) fn there(pid: u32) -> Result<OwnedFd, Failure> {
    pidfd(pid).map_err(|error| {
        Failure::input(format!("no process {pid}: {error}")).next("see `ps -e` for what runs")
    })
}

fn command(probe: &mut Probe, args: &Trace, program: PathBuf, clock: &Clock) -> Result<Traced, Failure> {
    let mut command = Command::new(program);
    command.arg0(&args.command[0]).args(&args.command[1..]);
    if args.format == Format::Json {
        let stderr = io::stderr();
        let copy = std::os::fd::AsFd::as_fd(&stderr)
            .try_clone_to_owned()
            .map_err(Failure::tracing)?;
        command.stdout(Stdio::from(copy));
    }
    let mut bound = None;
    let bind = |id| -> Result<(), ProbeError> {
        // That it is forked, which takes its time on a busy machine, is none of its own.
        bound = Some((probe.add_process(id)?, clock.now()));
        Ok(())
    };
    let child = spawn::spawn_bound(command, bind)
        .map_err(|error| Failure::input(format!("{}: {error}", args.command[0])))?
        .map_err(|error| cannot(&error))?;
    let (slot, since) = bound.ok_or_else(|| Failure::tracing("the command was not bound"))?;
    let who = Who::Command {
        id: child.id(),
        child: Mutex::new(Some(child)),
    };
    Ok(Traced { slot, since, who })
}

/// The program that a shell would run. Found before the start, so that looking for it is not counted as the command's.
fn find(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        // Whether it runs is for execve to say, with its reason.
        return Some(PathBuf::from(name));
    }
    std::env::split_paths(path?)
        .map(|folder| folder.join(name))
        .find(runs)
}

fn processes(probe: &mut Probe, args: &Trace) -> Result<(Slot, Who), Failure> {
    let pids = &args.pids;
    // Held from here on, an id cannot come to mean another process unnoticed.
    let handles = pids
        .iter()
        .map(|pid| there(*pid))
        .collect::<Result<Vec<_>, _>>()?;
    let slot = probe.add_process(pids[0]).map_err(|error| cannot(&error))?;
    let mut bound = BTreeSet::from([pids[0]]);
    let mut new: Vec<u32> = pids[1..].to_vec();
    // What a bound process starts is bound by the kernel side; what it had started before is found here. A child
    // that a child started meanwhile is found by looking again.
    loop {
        new.retain(|pid| bound.insert(*pid));
        for pid in &new {
            probe.bind_process(slot, *pid).map_err(|error| cannot(&error))?;
        }
        if args.follow {
            new = children_of(&bound).map_err(|error| Failure::tracing(format!("/proc: {error}")))?;
        } else {
            new.clear();
        }
        if new.is_empty() {
            return Ok((slot, Who::Processes(handles)));
        }
    }
}

/// Processes whose parent is in `known` and that are not in it themselves.
pub(super) fn children_of(known: &BTreeSet<u32>) -> io::Result<Vec<u32>> {
    let pids = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        !known.contains(pid)
            && fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| parent(&stat).is_some_and(|parent| known.contains(&parent)))
    };
    Ok(pids.filter(is_child).collect())
}

/// The parent's id in a line of /proc/<pid>/stat; the name before it may hold anything, parentheses included.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The folder of a cgroup in the hierarchy that is read here.
fn folder_in(hierarchy: &Hierarchy, path: &Path) -> Result<PathBuf, Failure> {
    let root = &hierarchy.root;
    if let Ok(below) = path.strip_prefix(root) {
        return Ok(root.join(below));
    }
    if path.starts_with(CGROUPS) {
        return Err(Failure::input(format!(
            "--cgroup {}: is not in {}, the hierarchy that is read here",
            path.display(),
            root.display()
        ))
        .next(below(hierarchy)));
    }
    Ok(root.join(path.strip_prefix("/").unwrap_or(path)))
}

/// Which path of a cgroup would do.
fn below(hierarchy: &Hierarchy) -> String {
    let root = hierarchy.root.display();
    match hierarchy.kind {
        HierarchyKind::V1 => format!(
            "give a folder below {root}, the memory controller's: for a process of the cgroup, what comes after :memory: \
             in /proc/PID/cgroup"
        ),
        HierarchyKind::V2 => {
            format!(
                "give a folder below {root}: for a process of the cgroup, what comes after 0:: in /proc/PID/cgroup"
            )
        }
    }
}

fn cgroup(path: &Path, keep: Keep, clock: &Clock) -> Result<(Probe, Traced), Failure> {
    let hierarchy = Hierarchy::detect(Path::new(CGROUPS)).map_err(|error| cannot(&error))?;
    let folder = folder_in(&hierarchy, path)?;
    let id = Hierarchy::id(&folder).map_err(|error| {
        Failure::input(format!(
            "--cgroup {}: {}: {error}",
            path.display(),
            folder.display()
        ))
        .next(below(&hierarchy))
    })?;
    let config = ProbeConfig {
        cgroups: Some(hierarchy.kind),
        detail: keep.is_more(),
        sequences: keep.sequences,
        mode: keep.mode(),
        ..ProbeConfig::default()
    };
    let mut probe = load(config)?;
    let since = clock.now();
    let slot = probe.add_target(id).map_err(|error| cannot(&error))?;
    let mut open = vec![folder.clone()];
    while let Some(next) = open.pop() {
        for nested in fs::read_dir(&next).into_iter().flatten().flatten() {
            if nested.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(id) = Hierarchy::id(&nested.path())
            {
                probe.bind_cgroup(slot, id).map_err(|error| cannot(&error))?;
                open.push(nested.path());
            }
        }
    }
    let who = Who::Cgroup(folder);
    Ok((probe, Traced { slot, since, who }))
}

impl Traced {
    /// A command of ours, whose end and exit code are ours too.
    pub fn is_command(&self) -> bool {
        match &self.who {
            Who::Command { .. } => true,
            Who::Ptrace(session) => session.command.is_some(),
            Who::Processes(_) | Who::Cgroup(_) => false,
        }
    }

    /// False once a cgroup is removed or nobody traces any more; the end of processes is an event.
    pub fn is_there(&self) -> bool {
        match &self.who {
            Who::Cgroup(folder) => folder.exists(),
            Who::Ptrace(session) => session.is_alive(),
            _ => true,
        }
    }

    fn command(&self) -> Option<i32> {
        match &self.who {
            Who::Command { id, .. } => Some(id.cast_signed()),
            Who::Ptrace(session) => session.command,
            Who::Processes(_) | Who::Cgroup(_) => None,
        }
    }

    /// What sends the command a signal from elsewhere, whether or not its end was heard of.
    pub fn teller(&self) -> impl Fn(i32) + Send + 'static {
        let handle = self.command().and_then(|id| pidfd(id.cast_unsigned()).ok());
        move |signal| {
            if let Some(handle) = &handle {
                // SAFETY: takes a descriptor that is open, integers, and no information.
                unsafe {
                    libc::syscall(
                        libc::SYS_pidfd_send_signal,
                        handle.as_raw_fd(),
                        signal,
                        std::ptr::null::<libc::siginfo_t>(),
                        0,
                    );
                }
            }
        }
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: i32) {
        if let Some(id) = self.command() {
            // SAFETY: kill has no memory effects; the id is our child's, whose end we have not been told of.
            unsafe {
                libc::kill(id, signal);
            }
        }
    }

    /// Tells of the target's end, from a thread of its own.
    pub fn watch(&self, events: Sender<Event>) -> Result<(), Failure> {
        match &self.who {
            Who::Command { child, .. } => {
                let child = child.lock().ok().and_then(|mut child| child.take());
                let mut child = child.ok_or_else(|| Failure::tracing("the command is watched already"))?;
                std::thread::spawn(move || {
                    let _ = events.send(Event::Ended(child.wait().ok()));
                });
            }
            Who::Processes(handles) => {
                let handles: Vec<OwnedFd> = handles
                    .iter()
                    .map(OwnedFd::try_clone)
                    .collect::<Result<_, _>>()
                    .map_err(Failure::tracing)?;
                std::thread::spawn(move || {
                    handles.iter().for_each(await_end);
                    let _ = events.send(Event::Ended(None));
                });
            }
            // The tracer tells of it itself.
            Who::Cgroup(_) | Who::Ptrace(_) => {}
        }
        Ok(())
    }

    /// Ends the tracing; who is traced goes on as before. False where the tracer is held up: whoever reads its lines may
    /// read no more of them.
    pub fn release(self) -> bool {
        match self.who {
            Who::Ptrace(session) => session.release(),
            _ => true,
        }
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the descriptor is new and nobody else's.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A pidfd is readable once its process has ended.
fn await_end(handle: &OwnedFd) {
    let mut poll = libc::pollfd {
        fd: handle.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: one pollfd is passed, which lives as long as the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, -1) };
        if ready > 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_hide_no_parent() {
        assert_eq!(parent("4711 (a) b) (c) S 17 4711 4711 0"), Some(17));
        assert_eq!(parent("no stat"), None);
        let own = fs::read_to_string("/proc/self/stat").expect("proc");
        assert_eq!(parent(&own), Some(std::os::unix::process::parent_id()));
    }

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        let path = Some(OsStr::new("/no/such/folder:/bin"));
        assert_eq!(find("sh", path), Some("/bin/sh".into()));
        assert_eq!(find("./sh", path), Some("./sh".into()));
        assert_eq!(find("no-such-command", path), None);
        assert_eq!(find("sh", None), None);
    }

    #[test]
    fn a_cgroup_of_another_hierarchy_is_told_as_it_was_given() {
        let v1 = Hierarchy {
            kind: HierarchyKind::V1,
            root: "/sys/fs/cgroup/memory".into(),
        };
        let found = |path: &str| folder_in(&v1, Path::new(path));
        for path in ["/sys/fs/cgroup/memory/a/b", "/a/b", "a/b"] {
            assert_eq!(found(path), Ok("/sys/fs/cgroup/memory/a/b".into()), "{path}");
        }
        let refused = found("/sys/fs/cgroup/unified/a").expect_err("another");
        assert!(
            refused
                .what()
                .contains("--cgroup /sys/fs/cgroup/unified/a: is not in /sys/fs/cgroup/memory,"),
            "{refused:?}"
        );
        assert!(
            refused.way_out().is_some_and(|next| next.contains(":memory:")),
            "{refused:?}"
        );
        let v2 = Hierarchy {
            kind: HierarchyKind::V2,
            root: CGROUPS.into(),
        };
        assert_eq!(
            folder_in(&v2, Path::new("/sys/fs/cgroup/a")),
            Ok("/sys/fs/cgroup/a".into())
        );
    }

    #[test]
    fn our_own_children_are_found() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("starts");
        let found = children_of(&BTreeSet::from([std::process::id()])).expect("proc");
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(found.contains(&child.id()));
    }
}
