//! Cgroups of our own to run known loops in.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vigia_agent::probe::{Hierarchy, HierarchyKind};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A folder of our own in one hierarchy; removed when dropped.
pub struct Ground {
    pub kind: HierarchyKind,
    /// What an agent is told as the root of cgroups.
    pub cgroup_root: PathBuf,
    root: PathBuf,
    _alone: Rc<MutexGuard<'static, ()>>,
}

/// A process that another test forks holds our probe's links until it executes a program; a probe that is attached
/// again meanwhile would count twice. So tests that hold a ground take turns.
static ALONE: Mutex<()> = Mutex::new(());

/// One for each kind that this machine has.
pub fn grounds() -> Vec<Ground> {
    let alone = Rc::new(ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let found: Vec<Ground> = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .filter_map(|root| Some((root, Hierarchy::detect(root.as_ref()).ok()?)))
        .map(|(cgroup_root, hierarchy)| {
            let root = hierarchy
                .root
                .join(format!("vigia-test-{}-{number}", std::process::id()));
            fs::create_dir(&root).expect("a cgroup can be made: run as root");
            Ground {
                kind: hierarchy.kind,
                cgroup_root: cgroup_root.into(),
                root,
                _alone: alone.clone(),
            }
        })
        .collect();
    assert!(!found.is_empty(), "this machine has no cgroup hierarchy");
    found
}

impl Ground {
    /// Whether its kernel says that nothing runs in a cgroup any more.
    pub fn tells_the_end(&self) -> bool {
        self.kind == HierarchyKind::V2 || counted(&self.root).is_some()
    }

    pub fn cgroup(&self, name: &str) -> Cgroup {
        Cgroup::make(self.root.join(name))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        remove(&self.root);
        if let Some(counted) = counted(&self.root) {
            remove(&counted);
        }
    }
}

/// The place of a cgroup of the memory controller's hierarchy in the one that counts processes.
fn counted(folder: &Path) -> Option<PathBuf> {
    let path = folder.strip_prefix("/sys/fs/cgroup/memory").ok()?;
    let pids = Path::new("/sys/fs/cgroup/pids");
    pids.is_dir().then(|| pids.join(path))
}

fn remove(folder: &Path) {
    let children = fs::read_dir(folder).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&child.path());
    }
    // Left for the next boot where a process is still in it; the test has failed by then.
    let _ = fs::remove_dir(folder);
}

pub struct Cgroup(PathBuf);

impl Cgroup {
    fn make(folder: PathBuf) -> Self {
        fs::create_dir(&folder).expect("a cgroup can be made");
        Self(folder)
    }

    pub fn nested(&self, name: &str) -> Self {
        Self::make(self.0.join(name))
    }

    pub fn id(&self) -> u64 {
        Hierarchy::id(&self.0).expect("the cgroup exists")
    }

    pub fn remove(self) {
        remove(&self.0);
    }

    /// A process that is in it until it is told to end, and makes no call meanwhile. With cgroup v1 it is in the
    /// hierarchy that counts processes, too, as a runtime would have it.
    pub fn inhabit(&self) -> Child {
        let child = Command::new("sleep")
            .arg("3600")
            .spawn()
            .expect("sleep can be run");
        fs::write(self.procs(), child.id().to_string()).expect("it can be moved");
        if let Some(counted) = counted(&self.0) {
            fs::create_dir_all(&counted).expect("a cgroup can be made");
            fs::write(counted.join("cgroup.procs"), child.id().to_string()).expect("it can be moved");
        }
        child
    }

    /// What a process writes itself to, to be in it.
    pub fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Sets one of its files.
    pub fn write(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).expect("a file of the cgroup");
    }

    /// Runs a program in it and waits for its end.
    pub fn status(&self, mut command: Command) -> ExitStatus {
        let procs = self.procs();
        // SAFETY: between fork and exec the closure writes a file; it takes no lock that another thread could hold.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
        command.status().expect("a child can be run")
    }

    /// Runs a process in it that calls getppid and a failing fchdir so many times, and waits for its end.
    pub fn run(&self, getppid: u32, failing: u32) {
        let status = self
            .command(getppid, failing)
            .status()
            .expect("a child can be run");
        assert!(status.success());
    }

    /// Runs a process in it that makes one call of each of these numbers, and waits for its end.
    pub fn run_kinds(&self, numbers: std::ops::Range<i64>) {
        self.run_with(move || {
            for number in numbers.clone() {
                // SAFETY: callers name numbers of no system call; it only fails.
                unsafe { libc::syscall(number) };
            }
        });
    }

    /// Runs a process in it that makes one call of each of these numbers by the 32-bit ABI, of which children end at
    /// once, and waits for its end.
    #[cfg(target_arch = "x86_64")]
    pub fn run_ia32(&self, numbers: &'static [u32]) {
        self.run_with(move || {
            for number in numbers {
                // SAFETY: callers name numbers of no system call, or calls that take nothing and write to no memory.
                let returned = unsafe { ia32(*number) };
                if *number == 2 && returned == 0 {
                    // SAFETY: the forked child has nothing to do.
                    unsafe { libc::_exit(0) };
                }
            }
        });
    }

    /// Runs a process in it, on one CPU, that makes one call of each of these numbers by both ABIs, and waits for its end.
    #[cfg(target_arch = "x86_64")]
    pub fn run_both(&self, native: std::ops::Range<i64>, by_ia32: std::ops::Range<u32>) {
        let cpu = one_cpu();
        self.run_with(move || {
            // SAFETY: the set outlives the call; callers name numbers of no system call, which only fail.
            unsafe {
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cpu);
                for number in native.clone() {
                    libc::syscall(number);
                }
                for number in by_ia32.clone() {
                    ia32(number);
                }
            }
        });
    }

    fn run_with(&self, make: impl Fn() + Send + Sync + 'static) {
        let mut command = Command::new("/bin/true");
        let procs = self.procs();
        let join = move || {
            fs::write(&procs, "0")?;
            make();
            Ok(())
        };
        // SAFETY: as in `command`: system calls alone.
        unsafe { command.pre_exec(join) };
        assert!(command.status().expect("a child can be run").success());
    }

    fn command(&self, getppid: u32, failing: u32) -> Command {
        let procs = self.procs();
        let mut command = Command::new("/bin/true");
        let join = move || {
            fs::write(&procs, "0")?;
            for _ in 0..getppid {
                // SAFETY: getppid takes nothing and changes nothing.
                unsafe { libc::syscall(libc::SYS_getppid) };
            }
            for _ in 0..failing {
                // SAFETY: descriptor -1 is never open, so this only fails.
                unsafe { libc::syscall(libc::SYS_fchdir, -1) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure writes a file and makes system calls; it takes no lock that
        // another thread of the parent could hold.
        unsafe { command.pre_exec(join) };
        command
    }
}

/// The first CPU that we may run on.
#[cfg(target_arch = "x86_64")]
fn one_cpu() -> libc::cpu_set_t {
    // SAFETY: a set is plain words, for which zeros are good; the calls read and write within it.
    unsafe {
        let (mut all, mut one): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
        let got = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all);
        assert_eq!(got, 0, "the CPUs that we may run on");
        let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &all));
        libc::CPU_SET(first.expect("we run on one"), &mut one);
        one
    }
}

/// A call by the 32-bit ABI, without arguments of ours.
#[cfg(target_arch = "x86_64")]
unsafe fn ia32(number: u32) -> i32 {
    let returned: u32;
    // SAFETY: the kernel keeps all registers but these; what the call does is for the caller to know.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") number => returned,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    returned.cast_signed()
}
