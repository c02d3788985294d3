//! What is done with what the tracer sees: lines, counts, anomalies as they happen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vigia_model::syscalls::Arch;

use super::lines::Lines;
use crate::analysis::realtime::Realtime;
use crate::filter::Filter;
use crate::record::name_of;
use crate::times::Times;

/// A system call as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number; more than 32 bits are nobody's.
    pub number: u64,
    /// Its registers.
    pub args: [u64; 6],
}

impl Call {
    /// Its number, as windows have it.
    pub fn nr(&self) -> u32 {
        u32::try_from(self.number).unwrap_or(u32::MAX)
    }
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Killed {
        /// Which.
        signal: i32,
        /// A core was dumped.
        core: bool,
    },
}

/// Totals since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls, and those that failed, by number.
    pub calls: BTreeMap<u32, (u64, u64)>,
    /// How long they took.
    pub times: Times,
}

/// Counts that the tracer writes and others read.
pub type Shared = Arc<Mutex<Counts>>;

/// See the module's head.
pub struct Watch {
    filter: Filter,
    counts: Shared,
    realtime: Option<Realtime>,
    lines: Lines,
}

impl Watch {
    /// Looks at the calls in `filter`; counts them; says what `lines` are for.
    pub fn new(filter: Filter, counts: Shared, realtime: bool, lines: Lines) -> Self {
        Self {
            filter,
            counts,
            realtime: realtime.then(Realtime::default),
            lines,
        }
    }

    /// Another task is traced.
    pub fn began(&mut self) {
        self.lines.began();
    }

    /// A call begins.
    pub fn entered(&mut self, task: i32, call: &Call) {
        if self.filter.has(call.nr()) {
            self.lines.entered(task, call);
        }
    }

    /// A call returns.
    pub fn left(&mut self, task: i32, call: &Call, value: i64, took: Duration) {
        let nr = call.nr();
        if !self.filter.has(nr) {
            return;
        }
        self.lines.left(task, call, value, took);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = counts.calls.entry(nr).or_default();
        sums.0 += 1;
        sums.1 += u64::from((-4095..0).contains(&value));
        let time = counts.times.entry(nr).or_default();
        time.calls += 1;
        time.ns = time
            .ns
            .saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        drop(counts);
        if let Some(realtime) = &mut self.realtime {
            let us = took.as_secs_f64() * 1e6;
            if let Some(odd) = realtime.take(nr, us, || name_of(Arch::NATIVE, nr)) {
                self.lines.odd(&odd);
            }
        }
    }

    /// A task gets a signal.
    pub fn signalled(&mut self, task: i32, info: &libc::siginfo_t) {
        self.lines.signalled(task, info);
    }

    /// A task was stopped by a signal.
    pub fn paused(&mut self, task: i32, signal: i32) {
        self.lines.paused(task, signal);
    }

    /// A task has ended, maybe within a call.
    pub fn ended(&mut self, task: i32, call: Option<Call>, end: End) {
        self.lines
            .ended(task, call.filter(|call| self.filter.has(call.nr())), end);
    }

    /// A thread has taken the place of its process's first one by an execve.
    pub fn superseded(&mut self, task: i32, by: i32) {
        self.lines.superseded(task, by);
    }

    /// A task is no longer traced.
    pub fn released(&mut self, task: i32, call: Option<Call>) {
        self.lines
            .released(task, call.filter(|call| self.filter.has(call.nr())));
    }

    /// Something that people should know.
    pub fn note(&mut self, text: &str) {
        self.lines.note(text);
    }

    /// Nothing more will come.
    pub fn finish(&mut self) {
        self.lines.finish();
    }
}
