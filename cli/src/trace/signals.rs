//! Signals that end a trace, also where what is written is not read.
//!
//! Whoever writes to a reader that does not read waits for as long as that one likes, and looks at no signal meanwhile. So a
//! second one is heeded here if nobody else does, and so is the end of the time that a trace may take.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
use signal_hook::iterator::Signals;

use super::ECHO;
use crate::error::{Failure, OUTPUT};

/// How long the first of two signals may stay without an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Since when a signal awaits that something is done.
#[derive(Debug, Clone, Default)]
pub struct Pending(Arc<Mutex<Option<Instant>>>);

impl Pending {
    /// What came was heeded, and the trace goes on.
    pub fn answered(&self) {
        *self.lock() = None;
    }

    /// A signal came; if it is a second one, since when the first awaits its answer.
    fn came(&self, now: Instant) -> Option<Instant> {
        let since = *self.lock().get_or_insert(now);
        (now.saturating_duration_since(since) > ECHO).then_some(since)
    }

    fn awaits(&self, since: Instant) -> bool {
        *self.lock() == Some(since)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of signals from a thread of its own.
pub fn watch(tell: impl Fn(i32) + Send + 'static) -> Result<Pending, Failure> {
    let mut wanted = vec![SIGINT, SIGTERM];
    // nohup(1) has said that the end of the terminal is not ours.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).map_err(Failure::tracing)?;
    let pending = Pending::default();
    let waiting = pending.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if let Some(since) = waiting.came(Instant::now()) {
                let waiting = waiting.clone();
                std::thread::spawn(move || leave(signal, since, &waiting));
            }
            tell(signal);
        }
    });
    Ok(pending)
}

/// How far the end of a trace has come whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// The command was told to terminate.
    Told = 1,
    /// It was killed.
    Killed,
    /// Nobody is traced any more.
    Over,
}

/// Which stage was reached, for who looks after it.
#[derive(Debug, Clone, Default)]
pub struct Reached(Arc<AtomicU8>);

impl Reached {
    /// This stage was reached.
    pub fn is(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Release);
    }

    fn has(&self, stage: Stage) -> bool {
        self.0.load(Ordering::Acquire) >= stage as u8
    }
}

/// Holds a trace to its time, from a thread of its own: does late what is not done in time, and at last ends this process.
pub fn hold_to(time: Duration, grace: Duration, reached: Reached, tell: impl Fn(i32) + Send + 'static) {
    let steps = [
        (time + PATIENCE, Stage::Told, Some(SIGTERM)),
        (grace, Stage::Killed, Some(SIGKILL)),
        (grace, Stage::Over, None),
    ];
    std::thread::spawn(move || {
        for (wait, stage, signal) in steps {
            std::thread::sleep(wait);
            match signal {
                _ if reached.has(stage) => {}
                Some(signal) => tell(signal),
                // SAFETY: ends the process at once: what runs at an exit might wait for the same reader.
                None => unsafe { libc::_exit(OUTPUT.into()) },
            }
        }
    });
}

/// Ends this process if the first signal stays without an answer. The kernel lets go of what is traced.
fn leave(signal: i32, since: Instant, pending: &Pending) {
    std::thread::sleep(PATIENCE.saturating_sub(since.elapsed()));
    if pending.awaits(since) {
        // SAFETY: ends the process at once: what runs at an exit might wait for the same reader.
        unsafe { libc::_exit(128 + signal) }
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: zeroes are a valid sigaction; nothing is set, and what is written outlives the call.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_finds_the_first_without_an_answer() {
        let pending = Pending::default();
        let (first, ms) = (Instant::now(), Duration::from_millis);
        assert_eq!(pending.came(first), None);
        assert_eq!(pending.came(first + ms(100)), None, "the same again");
        assert_eq!(pending.came(first + ms(400)), Some(first));
        assert!(pending.awaits(first));
        pending.answered();
        assert!(!pending.awaits(first));
        let later = first + ms(900);
        assert_eq!(pending.came(later), None);
        assert!(!pending.awaits(first), "what was answered is not asked again");
    }
}
