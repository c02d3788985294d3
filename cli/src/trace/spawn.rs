//! Starts a command so that its first counted system call is its own execve.
//!
//! Between fork and exec the child says its id in shared memory and waits there until it is bound to a slot. It
//! waits without a system call: one that it left after the binding would be counted as the command's.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How long the child waits to be bound.
const PATIENCE: Duration = Duration::from_secs(10);
const WAIT: u32 = 0;
const GO: u32 = 1;
const STOP: u32 = 2;

/// One page that parent and child share.
#[repr(C)]
struct Words {
    child: AtomicU32,
    word: AtomicU32,
}

/// See [`Words`].
#[derive(Clone, Copy)]
pub struct Page(NonNull<Words>);

// SAFETY: what it points to is made of atomics and is never unmapped while a copy is used.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// A new one.
    pub fn map() -> io::Result<Self> {
        // SAFETY: a new anonymous mapping touches no memory that is in use.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Words>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Zeroed pages are valid atomics.
        NonNull::new(page.cast())
            .map(Self)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn words(&self) -> &Words {
        // SAFETY: mapped by `map`, unmapped only by `unmap`, which takes the last use.
        unsafe { self.0.as_ref() }
    }

    /// In the parent: lets the child go on, or not.
    pub fn answer(&self, go: bool) {
        let word = if go { GO } else { STOP };
        self.words().word.store(word, Ordering::Release);
    }

    /// In the child: says that it is ready to be traced.
    pub fn announce(&self) {
        // SAFETY: getpid cannot fail and changes nothing.
        let id = unsafe { libc::getpid() };
        self.words().child.store(id.cast_unsigned(), Ordering::Release);
    }

    /// In the parent: waits until the child says so.
    pub fn await_child(&self) -> bool {
        let started = Instant::now();
        while self.words().child.load(Ordering::Acquire) == 0 {
            if started.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        true
    }

    /// In the child: waits for the answer, which is no if it takes too long.
    pub fn await_answer(&self) -> bool {
        let started = Instant::now();
        loop {
            match self.words().word.load(Ordering::Acquire) {
                GO => return true,
                WAIT if started.elapsed() < PATIENCE => std::hint::spin_loop(),
                _ => return false,
            }
        }
    }

    /// Gives it back; nobody may use it any more.
    pub fn unmap(self) {
        // SAFETY: the address and size are those of `map`; no reference outlives this call.
        unsafe {
            libc::munmap(self.0.as_ptr().cast(), size_of::<Words>());
        }
    }
}

/// Starts `command`; `bind` is called with the child's id before the child runs anything of the command.
///
/// # Errors
/// The command cannot be started (outer), or `bind` failed (inner), and nothing runs then.
pub fn spawn_bound<E: Send>(
    mut command: Command,
    bind: impl FnOnce(u32) -> Result<(), E> + Send,
) -> io::Result<Result<Child, E>> {
    let page = Page::map()?;
    // SAFETY: between fork and exec the closure only touches the shared page and the clock, takes no lock and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || wait_to_be_bound(page));
    }
    let (child, bound) = std::thread::scope(|scope| {
        let spawner = scope.spawn(move || command.spawn());
        let started = Instant::now();
        loop {
            let id = page.words().child.load(Ordering::Acquire);
            if id != 0 {
                let bound = bind(id);
                page.answer(bound.is_ok());
                return (spawner.join(), Some(bound));
            }
            // The fork may have failed, in which case nobody will ever say an id.
            if spawner.is_finished() || started.elapsed() > PATIENCE {
                return (spawner.join(), None);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    page.unmap();
    let child = child.unwrap_or_else(|_| Err(io::Error::other("the thread that starts the command died")));
    match (child, bound) {
        (_, Some(Err(error))) => Ok(Err(error)),
        (Ok(mut child), None) => {
            child.kill()?;
            Err(io::Error::other("the command started without being traced"))
        }
        (child, _) => child.map(Ok),
    }
}

/// In the child: what ends a trace ends the command too, and is not caught as it is in us until it is another program.
pub fn heed_signals() {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // SAFETY: both calls are safe after a fork; the structure is ours and is filled before it is read.
        unsafe {
            let mut now = std::mem::zeroed::<libc::sigaction>();
            let is_known = libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0;
            if is_known && now.sa_sigaction != libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

fn wait_to_be_bound(page: Page) -> io::Result<()> {
    heed_signals();
    page.announce();
    if page.await_answer() {
        Ok(())
    } else {
        Err(io::ErrorKind::Interrupted.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn the_child_waits_for_its_binding() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 7"]);
        let mut bound = 0;
        let mut child = spawn_bound::<()>(command, |id| {
            bound = id;
            Ok(())
        })
        .expect("starts")
        .expect("binds");
        assert_eq!(bound, child.id());
        assert_eq!(child.wait().expect("ends").code(), Some(7));
    }

    #[test]
    fn a_binding_that_fails_runs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = folder.path().join("mark");
        let mut command = Command::new("/usr/bin/touch");
        command.arg(&mark);
        assert!(matches!(spawn_bound(command, |_| Err("no")), Ok(Err("no"))));
        assert!(!mark.exists());
    }

    #[test]
    fn a_signal_that_comes_before_the_command_runs_ends_it() {
        let caught = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, caught).expect("caught");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 7"]);
        let mut child = spawn_bound::<()>(command, |id| {
            // SAFETY: a signal to our own child.
            unsafe { libc::kill(id.cast_signed(), SIGTERM) };
            Ok(())
        })
        .expect("starts")
        .expect("binds");
        assert_eq!(child.wait().expect("ends").signal(), Some(SIGTERM));
    }

    #[test]
    fn a_command_that_is_not_there_is_an_error() {
        let error = spawn_bound::<()>(Command::new("/no/such/command"), |_| Ok(())).expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
