//! The few system calls of a tracer, each behind a function that cannot be called wrongly.
//!
//! See ptrace(2). All of these must be called from the one thread that attached.

use std::ffi::c_void;
use std::io;
use std::time::Duration;

#[cfg(target_arch = "x86_64")]
use vigia_model::syscalls::IA32;

/// Options that are set with [`seize`].
pub mod options {
    pub const SYSGOOD: u64 = 1;
    pub const FORK: u64 = 1 << 1;
    pub const VFORK: u64 = 1 << 2;
    pub const CLONE: u64 = 1 << 3;
    pub const EXEC: u64 = 1 << 4;
}

/// What a task that stopped says about why; the high half of its status.
pub mod event {
    pub const FORK: i32 = 1;
    pub const VFORK: i32 = 2;
    pub const CLONE: i32 = 3;
    pub const EXEC: i32 = 4;
    pub const STOP: i32 = 128;
}

// Not all of these are known to the libc crate for every C library.
const CONT_SYSCALL: u32 = 24;
const DETACH: u32 = 17;
const GETEVENTMSG: u32 = 0x4201;
const GETSIGINFO: u32 = 0x4202;
const SEIZE: u32 = 0x4206;
const INTERRUPT: u32 = 0x4207;
const LISTEN: u32 = 0x4208;
const GET_SYSCALL_INFO: u32 = 0x420e;
/// Words of the kernel's `struct ptrace_syscall_info`.
const INFO_WORDS: usize = 11;

#[cfg(target_arch = "x86_64")]
pub const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const AUDIT_ARCH: u32 = 0xc000_00b7;

/// AUDIT_ARCH_I386: the calls of 32-bit programs, and `int 0x80` of any.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH_IA32: u32 = 0x4000_0003;

/// One end of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// It begins.
    Entry { number: u64, args: [u64; 6], stack: u64 },
    /// It has returned.
    Exit { value: i64, error: bool },
    /// It is one of another architecture's ABI, such as those of 32-bit programs on aarch64.
    Foreign,
    /// The kernel does not say.
    Unknown,
}

/// What waiting found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// A task changed.
    Task(i32, i32),
    /// Nothing has.
    Nothing,
    /// There is none to wait for.
    Nobody,
}

fn request(what: u32, task: i32, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: every caller passes for `data` an integer, or the address of a buffer as large as the request writes,
    // which outlives the call.
    let result = unsafe { libc::ptrace(what as _, task, address as *mut c_void, data as *mut c_void) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Attaches to a task without stopping it.
pub fn seize(task: i32, options: u64) -> io::Result<()> {
    request(SEIZE, task, 0, options as usize).map(drop)
}

/// Tells a child that was not waited for to terminate.
pub fn terminate(process: i32) {
    // SAFETY: kill has no memory effects.
    unsafe {
        libc::kill(process, libc::SIGTERM);
    }
}

/// Makes a running task stop.
pub fn interrupt(task: i32) -> io::Result<()> {
    request(INTERRUPT, task, 0, 0).map(drop)
}

/// Lets a stopped task run to its next system call's edge, with a signal or with none (0).
pub fn resume(task: i32, signal: i32) -> io::Result<()> {
    request(CONT_SYSCALL, task, 0, signal as usize).map(drop)
}

/// Leaves a task in the stop that a signal such as SIGSTOP put it into, but hears of it.
pub fn listen(task: i32) -> io::Result<()> {
    request(LISTEN, task, 0, 0).map(drop)
}

/// Lets a stopped task go for good.
pub fn detach(task: i32, signal: i32) -> io::Result<()> {
    request(DETACH, task, 0, signal as usize).map(drop)
}

/// Detail of an event: the new task's id, or the id that a task had before its execve.
pub fn event_message(task: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    request(GETEVENTMSG, task, 0, (&raw mut message) as usize)?;
    i32::try_from(message).map_err(io::Error::other)
}

/// The signal that a task is about to get.
pub fn signal_info(task: i32) -> io::Result<libc::siginfo_t> {
    // SAFETY: all zeros is a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    request(GETSIGINFO, task, 0, (&raw mut info) as usize)?;
    Ok(info)
}

/// Which edge of which system call a task has stopped at.
pub fn edge(task: i32) -> io::Result<Edge> {
    let mut words = [0u64; INFO_WORDS];
    let size = INFO_WORDS * size_of::<u64>();
    request(GET_SYSCALL_INFO, task, size, words.as_mut_ptr() as usize)?;
    Ok(read_edge(&words))
}

fn read_edge(words: &[u64; INFO_WORDS]) -> Edge {
    let head = words[0].to_ne_bytes();
    let arch = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    match head[0] {
        #[cfg(target_arch = "x86_64")]
        1 | 3 if arch == AUDIT_ARCH_IA32 => Edge::Entry {
            number: words[3] | u64::from(IA32),
            args: [words[4], words[5], words[6], words[7], words[8], words[9]],
            stack: words[2],
        },
        1 | 3 if arch != AUDIT_ARCH => Edge::Foreign,
        1 | 3 => Edge::Entry {
            number: words[3],
            args: [words[4], words[5], words[6], words[7], words[8], words[9]],
            stack: words[2],
        },
        2 => Edge::Exit {
            value: words[3].cast_signed(),
            error: words[4].to_ne_bytes()[0] != 0,
        },
        _ => Edge::Unknown,
    }
}

/// What has happened to any traced task or child, if anything has.
pub fn wait_any() -> io::Result<Waited> {
    wait(-1, libc::WNOHANG)
}

/// Waits for one task.
pub fn wait_for(task: i32) -> io::Result<Waited> {
    wait(task, 0)
}

fn wait(task: i32, options: i32) -> io::Result<Waited> {
    loop {
        let mut status = 0;
        // SAFETY: the status is ours and outlives the call.
        let found = unsafe { libc::waitpid(task, &raw mut status, libc::__WALL | options) };
        if found > 0 {
            return Ok(Waited::Task(found, status));
        }
        if found == 0 {
            return Ok(Waited::Nothing);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(Waited::Nobody),
            _ => return Err(error),
        }
    }
}

fn set_of(signal: i32) -> libc::sigset_t {
    // SAFETY: an empty set is made before it is read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        set
    }
}

/// Keeps SIGCHLD pending for [`await_change`] in this thread and those that it starts.
pub fn hold_changes() {
    let set = set_of(libc::SIGCHLD);
    // SAFETY: the set outlives the call.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Undoes [`hold_changes`] in this thread, for commands that it starts and that would inherit it.
pub fn let_changes_through() {
    let set = set_of(libc::SIGCHLD);
    // SAFETY: the set outlives the call.
    unsafe {
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits until some task may have changed, or for this long. What changed before the call is not missed, because its
/// signal is pending.
pub fn await_change(most: Duration) {
    let set = set_of(libc::SIGCHLD);
    let time = libc::timespec {
        tv_sec: most.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    // SAFETY: set and time outlive the call; no information is asked for.
    unsafe {
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time);
    }
}

/// Wakes [`await_change`].
pub fn announce_change() {
    // SAFETY: a signal to ourselves, which is blocked or ignored.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGCHLD);
    }
}

/// Reads from a task's memory as much as is there, up to the whole buffer.
pub fn read(task: i32, address: u64, buffer: &mut [u8]) -> usize {
    let here = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let there = libc::iovec {
        iov_base: address as *mut c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: `here` is the buffer, borrowed for the call; `there` is an address of another process, which the kernel
    // checks.
    let read = unsafe { libc::process_vm_readv(task, &raw const here, 1, &raw const there, 1, 0) };
    usize::try_from(read).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_told_apart() {
        let head = |op: u64, arch: u32| op | u64::from(arch) << 32;
        let mut words = [head(1, AUDIT_ARCH), 0, 16, 59, 1, 2, 3, 4, 5, 6, 0];
        let entry = Edge::Entry {
            number: 59,
            args: [1, 2, 3, 4, 5, 6],
            stack: 16,
        };
        assert_eq!(read_edge(&words), entry);
        words[0] = head(1, 0x4000_0028);
        assert_eq!(read_edge(&words), Edge::Foreign);
        #[cfg(target_arch = "x86_64")]
        {
            words[0] = head(1, AUDIT_ARCH_IA32);
            let number = 59 | u64::from(IA32);
            let args = [1, 2, 3, 4, 5, 6];
            assert_eq!(
                read_edge(&words),
                Edge::Entry {
                    number,
                    args,
                    stack: 16
                }
            );
        }
        let exit = [
            head(2, AUDIT_ARCH),
            0,
            0,
            (-2i64).cast_unsigned(),
            1,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        let failed = Edge::Exit {
            value: -2,
            error: true,
        };
        assert_eq!(read_edge(&exit), failed);
        assert_eq!(read_edge(&[0; INFO_WORDS]), Edge::Unknown);
    }

    #[test]
    fn memory_that_is_not_there_is_not_read() {
        let own = std::process::id().cast_signed();
        let text = *b"words";
        let mut buffer = [0; 5];
        assert_eq!(read(own, text.as_ptr() as u64, &mut buffer), 5);
        assert_eq!(buffer, text);
        assert_eq!(read(own, 8, &mut buffer), 0);
    }
}
