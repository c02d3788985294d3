//! Counting of system calls in the kernel, behind one small type.
//!
//! A [`Probe`] counts for *targets* only: each is a [`Slot`], to which cgroups
//! or processes are bound, and what those create is bound to the same slot by
//! the kernel side before it runs. Nothing is attached while there is no target.
//! Counters only grow, so that a drain that comes late or is missed loses nothing;
//! taking differences is the window's work.

mod batch;
mod config;
mod error;
mod hierarchy;
mod kernel;
mod object;
mod sequence;
mod signal;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use aya::programs::tp_btf::BtfTracePointLink;

pub use config::{Mode, ProbeConfig, ProbeStats, ProgramCost};
pub use error::ProbeError;
pub use hierarchy::{Hierarchy, HierarchyKind};
use object::{DETAIL, GROUPS, Object, hooks};
pub use sequence::{Gram, Sequence};
pub use signal::{Signal, SignalCounts, Used};
pub use tally::{Latency, Slot, Tally};

/// The kernel's programs and maps, and who is counted.
pub struct Probe {
    object: Object,
    config: ProbeConfig,
    reader: batch::PerCpuReader,
    attached: Vec<BtfTracePointLink>,
    /// The entry hook, while a target is in a phase.
    detail: Option<BtfTracePointLink>,
    /// Programs of the signals that are wanted.
    signals: BTreeMap<Signal, Vec<BtfTracePointLink>>,
    signals_wanted: BTreeSet<Signal>,
    /// Active phases so far.
    phases: u32,
    /// In one now.
    active: bool,
    /// Changes of the targets so far.
    generation: u32,
    /// The half of the places for sequences that is in use.
    half: u32,
    next_slot: u32,
    targets: BTreeMap<Slot, Bound>,
}

/// What user space has bound to a slot. What the kernel side bound by itself goes when it dies.
#[derive(Default)]
struct Bound {
    mode: Mode,
    cgroups: BTreeSet<u64>,
    processes: BTreeSet<u32>,
}

impl Probe {
    /// Loads the programs and maps; attaches nothing yet.
    ///
    /// # Errors
    ///
    /// Says which of BTF, a capability, a tracepoint or the verifier's consent is missing.
    pub fn load(config: ProbeConfig) -> Result<Self, ProbeError> {
        Ok(Self {
            object: Object::load(&config)?,
            config,
            reader: batch::PerCpuReader::new(kernel::possible_cpus()?),
            attached: Vec::new(),
            detail: None,
            signals: BTreeMap::new(),
            signals_wanted: BTreeSet::new(),
            phases: 0,
            active: false,
            generation: 0,
            half: 0,
            next_slot: 1,
            targets: BTreeMap::new(),
        })
    }

    /// Makes a target of a cgroup, by its id (the inode of its folder). The first target attaches the programs.
    ///
    /// Cgroups made inside it from now on are counted with it; for those that exist already see [`Self::bind_cgroup`].
    ///
    /// # Errors
    ///
    /// When the table of cgroups is full or the programs cannot be attached; there is no target then.
    pub fn add_target(&mut self, cgroup: u64) -> Result<Slot, ProbeError> {
        let slot = self.new_slot()?;
        self.undo_on_error(slot, |probe| probe.bind_cgroup(slot, cgroup))
    }

    /// Makes a target of a process and, with [`ProbeConfig::children`], what it forks from now on. The first target attaches the programs.
    ///
    /// # Errors
    ///
    /// When the table of processes is full or the programs cannot be attached; there is no target then.
    pub fn add_process(&mut self, process: u32) -> Result<Slot, ProbeError> {
        let slot = self.new_slot()?;
        self.undo_on_error(slot, |probe| probe.bind_process(slot, process))
    }

    /// Counts a further cgroup under a target's slot: one nested in it that existed before.
    ///
    /// # Errors
    ///
    /// When the table of cgroups is full.
    pub fn bind_cgroup(&mut self, slot: Slot, cgroup: u64) -> Result<(), ProbeError> {
        batch::update(
            self.object.cgroups.fd().as_fd(),
            &cgroup.to_ne_bytes(),
            &slot.0.to_ne_bytes(),
        )
        .map_err(|source| ProbeError::Map {
            what: "bind a cgroup",
            source,
        })?;
        self.targets.entry(slot).or_default().cgroups.insert(cgroup);
        self.targets_changed()
    }

    /// Counts a further process under a target's slot: a child that existed before.
    ///
    /// # Errors
    ///
    /// When the table of processes is full.
    pub fn bind_process(&mut self, slot: Slot, process: u32) -> Result<(), ProbeError> {
        batch::update(
            self.object.processes.fd().as_fd(),
            &process.to_ne_bytes(),
            &slot.0.to_ne_bytes(),
        )
        .map_err(|source| ProbeError::Map {
            what: "bind a process",
            source,
        })?;
        self.targets.entry(slot).or_default().processes.insert(process);
        Ok(())
    }

    /// Whether a process of a target has not ended: one that was bound, or that those have started.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn has_processes(&self, slot: Slot) -> Result<bool, ProbeError> {
        let mut found = false;
        let each = |_: &[u8], value: &[u8]| found |= value == slot.0.to_ne_bytes();
        batch::read(self.object.processes.fd().as_fd(), 4, 4, each).map_err(|source| ProbeError::Map {
            what: "read which processes are bound",
            source,
        })?;
        Ok(found)
    }

    /// Ends a target and forgets its counters. The last one detaches the programs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map operation other than for an entry that is gone already.
    pub fn remove_target(&mut self, slot: Slot) -> Result<(), ProbeError> {
        let Some(bound) = self.targets.remove(&slot) else {
            return Ok(());
        };
        let unbind = |source| ProbeError::Map {
            what: "unbind a target",
            source,
        };
        if self.targets.is_empty() {
            self.detail = None;
            self.signals.clear();
            self.attached.clear();
        }
        for map in [&self.object.slots, &self.object.used] {
            batch::delete(map.fd().as_fd(), &slot.0.to_ne_bytes()).map_err(unbind)?;
        }
        for id in &bound.cgroups {
            batch::delete(self.object.cgroups.fd().as_fd(), &id.to_ne_bytes()).map_err(unbind)?;
        }
        for id in &bound.processes {
            batch::delete(self.object.processes.fd().as_fd(), &id.to_ne_bytes()).map_err(unbind)?;
        }
        // What the kernel side bound to this slot is found by its value, and counters by their slot.
        for (map, key_size) in [(&self.object.cgroups, 8), (&self.object.processes, 4)] {
            batch::retain(map.fd().as_fd(), key_size, |_, value| {
                value != slot.0.to_ne_bytes()
            })
            .map_err(unbind)?;
        }
        self.targets_changed()?;
        self.forget_counters()
    }

    /// Whether it was loaded for latencies and sequences.
    #[must_use]
    pub fn has_detail(&self) -> bool {
        self.config.detail
    }

    /// Appends every counter of every target, summed over the CPUs, sorted by slot and call.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read. What was appended before stays valid: counters are totals.
    pub fn drain(&mut self, into: &mut Vec<Tally>) -> Result<(), ProbeError> {
        if self.targets.is_empty() {
            return Ok(());
        }
        let from = into.len();
        let mut take = |key: &[u8], cpus: &[u8]| {
            let read = Tally::read(key, cpus);
            if !into[from..].last_mut().is_some_and(|last| last.merge(&read)) {
                into.push(read);
            }
        };
        let refused = |source| ProbeError::Map {
            what: "read the counters",
            source,
        };
        let (reader, object) = (&mut self.reader, &self.object);
        let seen = reader.element(object.seen.fd().as_fd(), 0, tally::SEEN_SIZE);
        tally::near(seen.map_err(refused)?, &mut take);
        reader
            .read_all(&object.tallies, &object.tally_places, GROUPS, Tally::SIZE, take)
            .map_err(refused)?;
        let targets = &self.targets;
        tally::unite(into, from, Tally::order, Tally::merge);
        tally::keep(into, from, |one| one.slot, |slot| targets.contains_key(&slot));
        Ok(())
    }

    /// Sets what is kept of a target beside its counts. One that is gone is left alone.
    ///
    /// # Errors
    ///
    /// When the probe was loaded without [`ProbeConfig::detail`], or the kernel refuses.
    pub fn set_mode(&mut self, slot: Slot, mode: Mode) -> Result<(), ProbeError> {
        let Some(bound) = self.targets.get_mut(&slot) else {
            return Ok(());
        };
        if bound.mode == mode {
            return Ok(());
        }
        bound.mode = mode;
        self.write_slot(slot, mode)?;
        self.targets_changed()
    }

    /// Begins or ends an active phase of the duty cycle: while it lasts, how long calls take and which follows which
    /// is kept of [`Mode::Sampled`] targets, at about the cost of counting again.
    ///
    /// Calls that are under way when a phase begins have no latency, and the first call of a thread in a phase has
    /// no predecessor, so that phases do not mix.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_phase(&mut self, active: bool) -> Result<(), ProbeError> {
        if active && !self.active {
            // 0 is no phase, and the last number stands for targets that are in one all the time.
            self.phases = self.phases % (u32::MAX - 1) + 1;
        }
        self.active = active;
        // Nobody hears of it while there is no target; the next one is told with its binding.
        if self.targets.is_empty() {
            return Ok(());
        }
        self.targets_changed()
    }

    fn entry_wanted(&self) -> bool {
        self.targets.values().any(|bound| match bound.mode {
            Mode::Counts => false,
            Mode::Sampled => self.active,
            Mode::Full => true,
        })
    }

    fn write_slot(&self, slot: Slot, mode: Mode) -> Result<(), ProbeError> {
        batch::update(
            self.object.slots.fd().as_fd(),
            &slot.0.to_ne_bytes(),
            &mode.word(),
        )
        .map_err(|source| ProbeError::Map {
            what: "tell the kernel side of a target",
            source,
        })
    }

    /// Tells the kernel side the phase, and that the targets have changed; the entry hook comes last and goes first.
    fn targets_changed(&mut self) -> Result<(), ProbeError> {
        let wanted = self.entry_wanted();
        if !wanted {
            self.detail = None;
        }
        self.generation = self.generation.wrapping_add(1);
        self.write_control()?;
        if wanted && self.detail.is_none() {
            self.detail = Some(self.object.attach(&DETAIL)?);
        }
        Ok(())
    }

    fn write_control(&self) -> Result<(), ProbeError> {
        let phase = if self.active { self.phases } else { 0 };
        let mut control = [0; 16];
        for (field, value) in control
            .chunks_exact_mut(4)
            .zip([phase, self.generation, self.half])
        {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        batch::update(self.object.control.fd().as_fd(), &0u32.to_ne_bytes(), &control).map_err(|source| {
            ProbeError::Map {
                what: "tell the kernel side of a change",
                source,
            }
        })
    }

    /// Appends every latency of every target, summed over the CPUs, sorted by slot and call.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn drain_latencies(&mut self, latencies: &mut Vec<Latency>) -> Result<(), ProbeError> {
        if !self.config.detail || self.targets.is_empty() {
            return Ok(());
        }
        let targets = &self.targets;
        let from = latencies.len();
        let take = |key: &[u8], cpus: &[u8]| {
            if targets.contains_key(&tally::slot(key)) {
                let read = Latency::read(key, cpus);
                if !latencies[from..].last_mut().is_some_and(|last| last.merge(&read)) {
                    latencies.push(read);
                }
            }
        };
        self.reader
            .read_all(
                &self.object.latencies,
                &self.object.latency_places,
                GROUPS,
                Latency::SIZE,
                take,
            )
            .map_err(|source| ProbeError::Map {
                what: "read latencies",
                source,
            })?;
        tally::unite(latencies, from, |one| (one.slot, one.syscall), Latency::merge);
        Ok(())
    }

    /// Takes the sequences that came since they were taken last: appends those of every target, summed over the CPUs,
    /// sorted by slot. Take them often, since their room is small: what finds none counts in [`ProbeStats::lost_detail`].
    ///
    /// A call that is being counted on another CPU while the halves change hands may be missed, or be in what is taken
    /// next.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; what was not taken then may come with the next ones.
    pub fn take_grams(&mut self, grams: &mut Vec<Gram>) -> Result<(), ProbeError> {
        if !self.config.sequences || self.targets.is_empty() {
            return Ok(());
        }
        let full = self.half;
        self.half = 1 - full;
        self.write_control()?;
        let from = grams.len();
        let (reader, object, targets) = (&mut self.reader, &self.object, &self.targets);
        let mut take = || {
            let (places, shares) = (object.grams.fd().as_fd(), object.gram_shares.fd().as_fd());
            let taken = reader.element(shares, full, tally::GRAM_SHARES)?;
            let groups: Vec<u32> = (0..GROUPS).filter(|&g| tally::is_taken(taken, g)).collect();
            for &group in &groups {
                let index = full * GROUPS + group;
                let element = reader.element(places, index, tally::GRAM_GROUP)?;
                tally::grams(element, |gram| {
                    if targets.contains_key(&gram.slot) {
                        grams.push(gram);
                    }
                });
                reader.clear(places, index, tally::GRAM_GROUP)?;
            }
            match groups.is_empty() {
                true => Ok(()),
                false => reader.clear(shares, full, tally::GRAM_SHARES),
            }
        };
        take().map_err(|source| ProbeError::Map {
            what: "take sequences",
            source,
        })?;
        tally::unite(grams, from, |one| (one.slot, one.sequence), Gram::merge);
        Ok(())
    }

    /// What the probe is doing, and what was lost since it was loaded.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn stats(&mut self) -> Result<ProbeStats, ProbeError> {
        let refused = |source| ProbeError::Map {
            what: "read what was lost",
            source,
        };
        let (reader, lost) = (&mut self.reader, self.object.lost.fd().as_fd());
        let mut read = |cause: u32| reader.sum(lost, cause).map_err(refused);
        let (lost_calls, lost_bindings, lost_detail) = (read(0)?, read(1)?, read(2)?);
        let [exit, enter, measure] = reader
            .element(self.object.seen.fd().as_fd(), 0, tally::SEEN_SIZE)
            .map(tally::costs)
            .map_err(refused)?;
        Ok(ProbeStats {
            targets: self.targets.len(),
            attached: self.attached.len()
                + usize::from(self.detail.is_some())
                + self.signals.values().map(Vec::len).sum::<usize>(),
            lost_calls,
            lost_bindings,
            lost_detail,
            exit,
            measure,
            enter,
        })
    }

    fn new_slot(&mut self) -> Result<Slot, ProbeError> {
        if self.attached.is_empty() {
            self.attach()?;
        }
        let slot = Slot(self.next_slot);
        self.next_slot = self.next_slot.checked_add(1).ok_or(ProbeError::OutOfSlots)?;
        batch::update(
            self.object.used.fd().as_fd(),
            &slot.0.to_ne_bytes(),
            &[0; Used::SIZE],
        )
        .map_err(|source| ProbeError::Map {
            what: "make room for a target",
            source,
        })?;
        self.write_slot(slot, self.config.mode)?;
        let bound = Bound {
            mode: self.config.mode,
            ..Bound::default()
        };
        self.targets.insert(slot, bound);
        self.undo_on_error(slot, Self::targets_changed)
    }

    fn undo_on_error(
        &mut self,
        slot: Slot,
        bind: impl FnOnce(&mut Self) -> Result<(), ProbeError>,
    ) -> Result<Slot, ProbeError> {
        match bind(self) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.remove_target(slot)?;
                Err(error)
            }
        }
    }

    /// Inheritance first, so that nothing can slip between a binding and it; counting last.
    fn attach(&mut self) -> Result<(), ProbeError> {
        let links = hooks(&self.config)
            .map(|hook| self.object.attach(hook))
            .collect::<Result<_, _>>();
        self.attached = links?;
        self.attach_signals();
        Ok(())
    }

    /// Whether it was loaded for signals.
    #[must_use]
    pub fn has_signals(&self) -> bool {
        self.config.signals
    }

    /// Which signals are counted; for that, their programs are attached while there is a target. Those that this kernel
    /// lacks are left out, see [`Self::missing_signals`].
    pub fn set_signals(&mut self, wanted: &BTreeSet<Signal>) {
        if self.signals_wanted != *wanted {
            self.signals_wanted.clone_from(wanted);
            if !self.targets.is_empty() {
                self.attach_signals();
            }
        }
    }

    /// What this kernel lacks for signals, as sentences.
    #[must_use]
    pub fn missing_signals(&self) -> &BTreeMap<Signal, String> {
        &self.object.missing
    }

    fn attach_signals(&mut self) {
        let wanted = &self.signals_wanted;
        self.signals.retain(|signal, _| wanted.contains(signal));
        for signal in wanted {
            if self.signals.contains_key(signal) || self.object.missing.contains_key(signal) {
                continue;
            }
            let links: Result<Vec<_>, _> = signal
                .hooks()
                .iter()
                .map(|hook| self.object.attach(hook))
                .collect();
            match links {
                Ok(links) => {
                    self.signals.insert(*signal, links);
                }
                Err(error) => {
                    self.object.missing.insert(*signal, error.to_string());
                }
            }
        }
    }

    /// What is rare of every target.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn drain_used(&mut self) -> Result<BTreeMap<Slot, Used>, ProbeError> {
        let mut all = BTreeMap::new();
        let targets = &self.targets;
        batch::read(self.object.used.fd().as_fd(), 4, Used::SIZE, |key, value| {
            let slot = tally::slot(key);
            if targets.contains_key(&slot) {
                all.insert(slot, Used::read(value));
            }
        })
        .map_err(|source| ProbeError::Map {
            what: "read what is lost and signals",
            source,
        })?;
        Ok(all)
    }

    /// Deletes counters whose target is gone, also those that a CPU made just after the target was unbound. Places in
    /// arrays are left: the kernel side gives them to the next who asks.
    fn forget_counters(&mut self) -> Result<(), ProbeError> {
        let targets = &self.targets;
        let forget = |source| ProbeError::Map {
            what: "forget a target's counters",
            source,
        };
        let latencies = self
            .config
            .detail
            .then_some((&self.object.latencies, Latency::SIZE));
        let tallies = std::iter::once((&self.object.tallies, Tally::SIZE));
        for (map, size) in tallies.chain(latencies) {
            let mut stale: Vec<u8> = Vec::new();
            self.reader
                .read(map.fd().as_fd(), size, |key, _| {
                    if !targets.contains_key(&tally::slot(key)) {
                        stale.extend_from_slice(key);
                    }
                })
                .map_err(forget)?;
            for key in stale.chunks_exact(8) {
                batch::delete(map.fd().as_fd(), key).map_err(forget)?;
            }
        }
        Ok(())
    }
}
