//! Starts a command under the tracer, or attaches to processes that run; and lets them go.
//!
//! Only the thread that attached may speak to a task, so all of it happens on one thread.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::sys::{self, Waited, options};
use super::tracer::{Ending, Tracer};
use super::watch::Watch;
use crate::trace::spawn::{Page, heed_signals};

/// Exit code of a command that could not be run, as shells have it.
const NOT_RUN: i32 = 127;
/// How long letting go may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who is to be traced.
pub enum Target {
    /// A command.
    Command {
        /// Its file.
        program: PathBuf,
        /// What it is told, its own name first.
        args: Vec<String>,
        /// What it prints goes to standard error.
        to_stderr: bool,
    },
    /// Processes that run.
    Processes(Vec<i32>),
}

/// Tracing that is under way.
pub struct Session {
    /// The command's process.
    pub command: Option<i32>,
    stop: Arc<AtomicBool>,
    done: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Begins, and returns once the tasks are attached; `ended` is told on the tracer's thread when it is over.
///
/// # Errors
/// The kernel does not let us trace them, or they cannot be started.
pub fn begin(
    target: Target,
    follow: bool,
    watch: Watch,
    ended: impl FnOnce(io::Result<Ending>) + Send + 'static,
) -> io::Result<Session> {
    // What changes is heard of on the tracer's thread, and must not be swallowed on another.
    sys::hold_changes();
    let stop = Arc::new(AtomicBool::new(false));
    let (attached, when_attached) = mpsc::channel();
    let (finished, done) = mpsc::channel();
    let tracer = Tracer::new(watch, follow, Arc::clone(&stop));
    let thread = std::thread::Builder::new()
        .name("tracer".to_owned())
        .spawn(move || {
            let started = start(&target, follow, tracer);
            let (tracer, command) = match started {
                Ok(started) => started,
                Err(error) => {
                    let _ = attached.send(Err(error));
                    return;
                }
            };
            let _ = attached.send(Ok(command));
            ended(tracer.run());
            let _ = finished.send(());
        })?;
    let command = when_attached
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the tracer's thread died")))?;
    Ok(Session {
        command,
        stop,
        done,
        thread,
    })
}

impl Session {
    /// Whether the tracer's thread runs.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Lets every task go, as it was before. False where that takes too long, and our end does it.
    pub fn release(self) -> bool {
        self.stop.store(true, Ordering::Release);
        sys::announce_change();
        // A task cannot be stopped, such as one that waits for a dead disk, or nobody reads what is written of it.
        let is_done = self.done.recv_timeout(PATIENCE).is_ok();
        if is_done {
            let _ = self.thread.join();
        }
        is_done
    }
}

fn start(target: &Target, follow: bool, mut tracer: Tracer) -> io::Result<(Tracer, Option<i32>)> {
    match target {
        Target::Command {
            program,
            args,
            to_stderr,
        } => {
            let process = spawn(program, args, *to_stderr, wanted(follow))?;
            tracer.add_command(process);
            Ok((tracer, Some(process)))
        }
        Target::Processes(processes) => {
            for process in processes {
                attach(*process, wanted(follow), &mut tracer)?;
            }
            Ok((tracer, None))
        }
    }
}

fn wanted(follow: bool) -> u64 {
    let children = if follow { options::FORK | options::VFORK } else { 0 };
    options::SYSGOOD | options::EXEC | options::CLONE | children
}

/// Attaches to every thread of a process. Those that a thread makes meanwhile come with it if it is attached already,
/// and are found by looking again if it is not.
fn attach(process: i32, options: u64, tracer: &mut Tracer) -> io::Result<()> {
    let mut known = std::collections::BTreeSet::new();
    loop {
        let threads: Vec<i32> = fs::read_dir(format!("/proc/{process}/task"))?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|thread| !known.contains(thread))
            .collect();
        if threads.is_empty() {
            return Ok(());
        }
        for thread in threads {
            known.insert(thread);
            match sys::seize(thread, options) {
                Ok(()) => {
                    tracer.add(thread, process);
                    let _ = sys::interrupt(thread);
                }
                // It has ended, or came with the thread that made it.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) if is_ours_already(thread, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_ours_already(thread: i32, error: &io::Error) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    // The thread of ours that traces; other processes have other ids.
    // SAFETY: gettid takes and changes nothing.
    let own = unsafe { libc::gettid() };
    error.raw_os_error() == Some(libc::EPERM) && tracer.is_some_and(|t| t.trim().parse() == Ok(own))
}

/// Forks, attaches to the child, and lets it run its execve as its first call that is seen.
fn spawn(program: &std::path::Path, args: &[String], to_stderr: bool, options: u64) -> io::Result<i32> {
    use std::os::unix::ffi::OsStrExt;
    let program = CString::new(program.as_os_str().as_bytes())?;
    let args: Vec<CString> = args
        .iter()
        .map(|arg| CString::new(arg.as_bytes()))
        .collect::<Result<_, _>>()?;
    let mut words: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    words.push(std::ptr::null());
    let page = Page::map()?;
    // SAFETY: the child calls only what is safe after a fork of a process with threads: it allocates nothing and
    // takes no lock. All it reads was made before.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe { run(&program, &words, to_stderr, &page) }
    }
    let attached = if child < 0 {
        Err(io::Error::last_os_error())
    } else {
        hold(child, options, &page)
    };
    page.answer(attached.is_ok());
    if attached.is_err() && child > 0 {
        // SAFETY: a signal to our own child, whose end nobody has been told of.
        unsafe {
            libc::kill(child, libc::SIGKILL);
        }
        let _ = sys::wait_for(child);
    }
    page.unmap();
    attached.map(|()| child)
}

fn hold(child: i32, options: u64, page: &Page) -> io::Result<()> {
    // What the C library does after a fork is not the command's.
    if !page.await_child() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    sys::seize(child, options)?;
    sys::interrupt(child)?;
    match sys::wait_for(child)? {
        Waited::Task(_, status) if libc::WIFSTOPPED(status) => sys::resume(child, 0),
        _ => Err(io::Error::other("the command died before it was run")),
    }
}

/// In the child: waits to be attached, without a system call, and becomes the command.
///
/// # Safety
/// In a forked child only; `words` ends with a null and points to strings that live.
unsafe fn run(program: &CString, words: &[*const libc::c_char], to_stderr: bool, page: &Page) -> ! {
    // SAFETY: the caller's promise; the signal mask is on the stack.
    unsafe {
        heed_signals();
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if to_stderr {
            libc::dup2(2, 1);
        }
        // A program with capabilities of its file is closed to other processes of its user, and so is its child, until
        // it is another program. This process may look into it all the same: it has every capability that it has.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        page.announce();
        if page.await_answer() {
            libc::execvp(program.as_ptr(), words.as_ptr());
        }
        libc::_exit(NOT_RUN)
    }
}
