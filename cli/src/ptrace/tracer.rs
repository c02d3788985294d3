//! Follows tasks from stop to stop: which are traced, which call each is in, and who lets them go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::sys::{self, Edge, Waited, event};
use super::watch::{Call, End, Watch};

/// Number of exit_group, as an entry has it.
const EXIT_GROUP: u64 = libc::SYS_exit_group as u64;
/// How long tasks may take to stop when they are to be let go.
const PATIENCE: Duration = Duration::from_secs(2);

/// A traced task.
#[derive(Debug)]
struct Task {
    /// Its process.
    process: i32,
    /// The call that it is in.
    call: Option<(Call, Instant)>,
}

/// See the module's head.
pub struct Tracer {
    tasks: BTreeMap<i32, Task>,
    /// Processes that were traced from the start.
    processes: BTreeSet<i32>,
    /// Processes of another ABI, which are left alone.
    foreign: BTreeSet<i32>,
    follow: bool,
    command: Option<Command>,
    watch: Watch,
    stop: Arc<AtomicBool>,
    leaving: Option<Instant>,
}

/// The command that was started, as opposed to processes that ran before.
#[derive(Debug)]
struct Command {
    process: i32,
    started: bool,
    refused: Option<i32>,
    status: Option<i32>,
}

/// How it ended.
pub struct Ending {
    /// Status of the command, as wait(2) has it.
    pub status: Option<i32>,
    /// Why the command could not be run.
    pub refused: Option<io::Error>,
}

impl Tracer {
    /// A tracer of tasks that are attached already and about to stop.
    pub fn new(watch: Watch, follow: bool, stop: Arc<AtomicBool>) -> Self {
        Self {
            tasks: BTreeMap::new(),
            processes: BTreeSet::new(),
            foreign: BTreeSet::new(),
            follow,
            command: None,
            watch,
            stop,
            leaving: None,
        }
    }

    /// Adds a task of a process.
    pub fn add(&mut self, task: i32, process: i32) {
        self.processes.insert(process);
        self.tasks.insert(task, Task { process, call: None });
    }

    /// Adds the command, which has not run its execve yet.
    pub fn add_command(&mut self, process: i32) {
        self.add(process, process);
        self.command = Some(Command {
            process,
            started: false,
            refused: None,
            status: None,
        });
    }

    /// Until every task has ended or was let go. A command that cannot be traced any more is told to terminate: it was
    /// started for that, and nobody waits for it.
    pub fn run(mut self) -> io::Result<Ending> {
        let outcome = self.follow_all();
        let command = self.command.as_ref().filter(|c| c.status.is_none());
        if let (Err(_), Some(command)) = (&outcome, command) {
            sys::terminate(command.process);
        }
        outcome
    }

    fn follow_all(&mut self) -> io::Result<Ending> {
        for _ in 1..self.tasks.len() {
            self.watch.began();
        }
        loop {
            if self.stop.load(Ordering::Acquire) && self.leaving.is_none() {
                self.leave();
            }
            match sys::wait_any()? {
                Waited::Task(task, status) => self.changed(task, status)?,
                Waited::Nobody => break,
                Waited::Nothing if self.is_over() => break,
                Waited::Nothing => sys::await_change(PATIENCE),
            }
        }
        self.watch.finish();
        Ok(match &self.command {
            Some(Command {
                started: false,
                refused: Some(errno),
                ..
            }) => Ending {
                status: None,
                refused: Some(io::Error::from_raw_os_error(*errno)),
            },
            command => Ending {
                status: command.as_ref().and_then(|command| command.status),
                refused: None,
            },
        })
    }

    fn is_over(&self) -> bool {
        if self.leaving.is_some_and(|since| since.elapsed() >= PATIENCE) {
            // The kernel lets go of the rest when this thread ends.
            return true;
        }
        // A command that was let go is waited for all the same: its exit code is ours.
        let waits = self.leaving.is_none() && self.command.as_ref().is_some_and(|c| c.status.is_none());
        self.tasks.is_empty() && !waits
    }

    fn leave(&mut self) {
        self.leaving = Some(Instant::now());
        for task in self.tasks.keys() {
            // One that has just died says so by itself.
            let _ = sys::interrupt(*task);
        }
    }

    fn changed(&mut self, task: i32, status: i32) -> io::Result<()> {
        if libc::WIFSTOPPED(status) {
            let result = if self.leaving.is_some() {
                self.let_go(task, status)
            } else {
                self.stopped(task, status)
            };
            return match result {
                // It was killed while it was stopped; its end is reported next.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                other => other,
            };
        }
        let end = if libc::WIFSIGNALED(status) {
            End::Killed {
                signal: libc::WTERMSIG(status),
                core: libc::WCOREDUMP(status),
            }
        } else {
            End::Exited(libc::WEXITSTATUS(status))
        };
        if let Some(command) = self.command.as_mut().filter(|c| c.process == task) {
            command.status = Some(status);
        }
        if let Some(gone) = self.tasks.remove(&task)
            && !self.is_unstarted(task)
        {
            self.watch.ended(task, gone.call.map(|(call, _)| call), end);
        }
        Ok(())
    }

    /// The command before its execve, whose end without one is ours to report.
    fn is_unstarted(&self, task: i32) -> bool {
        self.command
            .as_ref()
            .is_some_and(|command| command.process == task && !command.started && command.refused.is_some())
    }

    fn stopped(&mut self, task: i32, status: i32) -> io::Result<()> {
        let signal = libc::WSTOPSIG(status);
        if !self.is_ours(task) {
            return sys::detach(task, 0);
        }
        if signal == libc::SIGTRAP | 0x80 {
            return self.at_edge(task);
        }
        match status >> 16 {
            0 => {
                let info = sys::signal_info(task)?;
                self.watch.signalled(task, &info);
                sys::resume(task, signal)
            }
            event::STOP if is_stop_signal(signal) => {
                self.watch.paused(task, signal);
                sys::listen(task)
            }
            event::FORK | event::VFORK | event::CLONE => {
                let new = sys::event_message(task)?;
                self.is_ours(new);
                sys::resume(task, 0)
            }
            event::EXEC => {
                self.executed(task, sys::event_message(task)?);
                sys::resume(task, 0)
            }
            _ => sys::resume(task, 0),
        }
    }

    /// Whether a task is to be traced. One that is new may stop before the task that made it tells of it.
    fn is_ours(&mut self, task: i32) -> bool {
        if self.tasks.contains_key(&task) {
            return true;
        }
        // Threads come along; another process only if it is to be followed.
        let process = process_of(task).unwrap_or(task);
        if !self.follow && !self.processes.contains(&process) {
            return false;
        }
        self.tasks.insert(task, Task { process, call: None });
        self.watch.began();
        true
    }

    fn at_edge(&mut self, task: i32) -> io::Result<()> {
        let edge = sys::edge(task)?;
        // How it ends that could not become the command is none of the command's calls; that it tries again is one.
        if matches!(&edge, Edge::Entry { number, .. } if *number == EXIT_GROUP) && self.is_unstarted(task) {
            return sys::resume(task, 0);
        }
        let Some(traced) = self.tasks.get_mut(&task) else {
            return sys::resume(task, 0);
        };
        match edge {
            Edge::Entry { number, args, stack } => {
                let call = Call { number, args, stack };
                self.watch.entered(task, &call);
                // Last, so that our own work is not in its time.
                traced.call = Some((call, Instant::now()));
                sys::resume(task, 0)
            }
            Edge::Exit { value, error } => {
                if let Some((call, since)) = traced.call.take() {
                    self.watch.left(task, &call, value, since.elapsed());
                    if let Some(command) = self.command.as_mut().filter(|c| c.process == task && error) {
                        command.refused = i32::try_from(-value).ok();
                    }
                }
                sys::resume(task, 0)
            }
            Edge::Foreign => {
                let process = traced.process;
                self.tasks.remove(&task);
                if self.foreign.insert(process) {
                    self.watch.note(&format!(
                        "process {process} makes 32-bit system calls, whose numbers mean others: it is left alone from here on"
                    ));
                }
                sys::detach(task, 0)
            }
            Edge::Unknown => sys::resume(task, 0),
        }
    }

    /// After an execve the process has one thread left, which bears the process's id whatever its own was.
    fn executed(&mut self, task: i32, before: i32) {
        if let Some(command) = self.command.as_mut().filter(|c| c.process == task) {
            command.started = true;
        }
        if before != task {
            let call = self.tasks.remove(&before).and_then(|task| task.call);
            self.watch.superseded(task, before);
            self.tasks.insert(task, Task { process: task, call });
        }
    }

    fn let_go(&mut self, task: i32, status: i32) -> io::Result<()> {
        let signal = libc::WSTOPSIG(status);
        // A signal that was on its way must still arrive.
        let pending = status >> 16 == 0 && signal != libc::SIGTRAP | 0x80;
        let result = sys::detach(task, if pending { signal } else { 0 });
        if let Some(gone) = self.tasks.remove(&task) {
            self.watch.released(task, gone.call.map(|(call, _)| call));
        }
        result
    }
}

fn is_stop_signal(signal: i32) -> bool {
    [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// The process that a task is a thread of.
pub fn process_of(task: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{task}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = std::process::id().cast_signed();
        let thread = std::thread::spawn(|| {
            // SAFETY: gettid takes and changes nothing.
            process_of(unsafe { libc::gettid() })
        });
        assert_eq!(thread.join().expect("ends"), Some(own));
        assert_eq!(process_of(-1), None);
    }
}
