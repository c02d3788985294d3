//! What is done with what the tracer sees: lines, counts, anomalies as they happen.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vigia_agent::probe::Sequence;
use vigia_agent::window::Sequences;
use vigia_model::syscalls::{self, Arch};

use super::lines::Lines;
use crate::analysis::realtime::Realtime;
use crate::filter::Filter;
use crate::record::{UNKNOWN, name_of};
use crate::times::Times;

/// A system call as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number; more than 32 bits are nobody's.
    pub number: u64,
    /// Its registers.
    pub args: [u64; 6],
    /// Where its task's stack ended.
    pub stack: u64,
}

impl Call {
    /// Its number, as filters have it: with the flag of its ABI.
    fn raw(&self) -> u32 {
        u32::try_from(self.number).unwrap_or(UNKNOWN)
    }

    /// The number of the native call that does the same.
    pub fn nr(&self) -> u32 {
        syscalls::native(Arch::NATIVE, self.raw())
    }

    /// Whether it came by another ABI, whose pointers lead to other layouts.
    pub fn is_compat(&self) -> bool {
        u32::try_from(self.number).is_ok_and(|number| number != UNKNOWN && number & syscalls::IA32 != 0)
    }

    /// Its name, with a word on the ABI where that is not the native one.
    pub fn name(&self) -> String {
        let name = name_of(Arch::NATIVE, self.nr());
        if self.is_compat() { name + "@ia32" } else { name }
    }

    /// What it is counted as. A traced program may make up numbers: all without a name are one.
    pub fn kind(&self) -> u32 {
        let nr = self.nr();
        syscalls::name(Arch::NATIVE, nr).map_or(UNKNOWN, |_| nr)
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
    /// What came after what in a thread, as the probe has it, since it was taken the last time.
    pub sequences: Sequences,
    /// Calls in sequences that found no room.
    pub unfollowed: u64,
}

/// Sequences that are told apart between two times that they are taken, about as many as the probe has room for.
const SEQUENCES: usize = 4096;

/// Counts that the tracer writes and others read.
pub type Shared = Arc<Mutex<Counts>>;

/// See the module's head.
pub struct Watch {
    filter: Filter,
    counts: Shared,
    realtime: Option<Realtime>,
    lines: Lines,
    /// What a thread called last, where that is counted.
    last: Option<HashMap<i32, Sequence>>,
}

impl Watch {
    /// Looks at the calls in `filter`; counts them; says what `lines` are for.
    pub fn new(filter: Filter, counts: Shared, realtime: bool, lines: Lines) -> Self {
        Self {
            filter,
            counts,
            realtime: realtime.then(Realtime::default),
            lines,
            last: None,
        }
    }

    /// Counts also what comes after what, if that is wanted.
    #[must_use]
    pub fn with_sequences(self, wanted: bool) -> Self {
        Self {
            last: wanted.then(HashMap::new),
            ..self
        }
    }

    /// Another task is traced.
    pub fn began(&mut self) {
        self.lines.began();
    }

    /// A call begins.
    pub fn entered(&mut self, task: i32, call: &Call) {
        if self.filter.has(call.raw()) {
            self.lines.entered(task, call);
        }
    }

    /// A call returns.
    pub fn left(&mut self, task: i32, call: &Call, value: i64, took: Duration) {
        let nr = call.kind();
        self.follow(task, nr);
        if !self.filter.has(call.raw()) {
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

    /// Counts what comes after what. Like the probe, of all calls, so that a filter makes no sequences of what it leaves.
    fn follow(&mut self, task: i32, nr: u32) {
        let Some(last) = self.last.as_mut().map(|last| last.entry(task).or_default()) else {
            return;
        };
        *last = last.then(nr);
        let sequence = *last;
        if sequence.pair().is_none() {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        let full = counts.sequences.len() >= SEQUENCES;
        match counts.sequences.entry(sequence) {
            Entry::Vacant(_) if full => counts.unfollowed = counts.unfollowed.saturating_add(1),
            entry => *entry.or_default() += 1,
        }
    }

    fn forget(&mut self, task: i32) {
        if let Some(last) = &mut self.last {
            last.remove(&task);
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
        self.forget(task);
        self.lines
            .ended(task, call.filter(|call| self.filter.has(call.raw())), end);
    }

    /// A thread has taken the place of its process's first one by an execve.
    pub fn superseded(&mut self, task: i32, by: i32) {
        self.forget(by);
        self.forget(task);
        self.lines.superseded(task, by);
    }

    /// A task is no longer traced.
    pub fn released(&mut self, task: i32, call: Option<Call>) {
        self.forget(task);
        self.lines
            .released(task, call.filter(|call| self.filter.has(call.raw())));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use crate::say::Out;

    #[test]
    fn numbers_that_a_program_makes_up_are_one_entry() {
        let counts = Shared::default();
        let lines = Lines::new(Out::Stderr, Format::Text, None);
        let mut watch = Watch::new(Filter::default(), Arc::clone(&counts), true, lines).with_sequences(true);
        let made_up = (100_000..140_000).chain([1 << 40, u64::MAX]);
        for number in made_up.clone().chain([0]) {
            let call = Call {
                number,
                args: [0; 6],
                stack: 0,
            };
            watch.entered(1, &call);
            watch.left(1, &call, -38, Duration::from_nanos(10));
        }
        let counts = counts.lock().expect("not poisoned");
        let many = made_up.count() as u64;
        let sums = counts.sequences.values().copied().collect::<Vec<_>>();
        assert_eq!(
            sums,
            [1, 1, 1, 1, 1, many - 5],
            "two to six unknown ones, and one that is not"
        );
        let known = |sequence: &Sequence| sequence.numbers().last() == Some(0);
        assert_eq!(counts.sequences.keys().filter(|s| known(s)).count(), 1);
        assert_eq!(
            counts.calls,
            BTreeMap::from([(0, (1, 1)), (UNKNOWN, (many, many))])
        );
        assert_eq!(counts.times.len(), 2);
    }

    #[test]
    fn sequences_that_find_no_room_are_counted() {
        let counts = Shared::default();
        let lines = Lines::new(Out::Stderr, Format::Text, None);
        let mut watch = Watch::new(Filter::default(), Arc::clone(&counts), false, lines).with_sequences(true);
        for (task, pair) in (0..SEQUENCES as u64 + 5).enumerate() {
            for number in [pair / 100, pair % 100] {
                let call = Call {
                    number,
                    args: [0; 6],
                    stack: 0,
                };
                watch.left(task as i32, &call, 0, Duration::from_nanos(10));
            }
        }
        let counts = counts.lock().expect("not poisoned");
        assert_eq!((counts.sequences.len(), counts.unfollowed), (SEQUENCES, 5));
    }

    #[test]
    fn sequences_that_nobody_asked_for_are_not_counted() {
        let counts = Shared::default();
        let lines = Lines::new(Out::Stderr, Format::Text, None);
        let mut watch = Watch::new(Filter::default(), Arc::clone(&counts), false, lines);
        for number in [0, 1, 0] {
            let call = Call {
                number,
                args: [0; 6],
                stack: 0,
            };
            watch.left(1, &call, 0, Duration::from_nanos(10));
        }
        let counts = counts.lock().expect("not poisoned");
        assert_eq!((counts.calls.len(), counts.sequences.len()), (2, 0));
    }
}
