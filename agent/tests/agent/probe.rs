//! The probe: exact counts.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::ground::{Ground, grounds};
use vigia_agent::probe::{
    Gram, HierarchyKind, Latency, Mode, Probe, ProbeConfig, Sequence, Signal, SignalCounts, Slot, Tally,
};

fn probe_for(ground: &Ground) -> Probe {
    Probe::load(ProbeConfig {
        cgroups: Some(ground.kind),
        ..ProbeConfig::default()
    })
    .expect("the probe loads")
}

fn counts(probe: &mut Probe, slot: Slot) -> BTreeMap<i64, (u64, u64)> {
    let mut tallies: Vec<Tally> = Vec::new();
    probe.drain(&mut tallies).expect("a drain");
    tallies
        .iter()
        .filter(|tally| tally.slot == slot)
        .map(|tally| (i64::from(tally.syscall), (tally.calls, tally.errors)))
        .collect()
}

#[test]
fn a_known_loop_is_counted_exactly_and_a_neighbour_is_not() {
    for ground in grounds() {
        let (target, neighbour) = (ground.cgroup("target"), ground.cgroup("neighbour"));
        let mut probe = probe_for(&ground);
        let slot = probe.add_target(target.id()).expect("a target");
        target.run(12_345, 77);
        neighbour.run(999, 9);
        let counts = counts(&mut probe, slot);
        assert_eq!(counts[&libc::SYS_getppid], (12_345, 0), "{:?}", ground.kind);
        assert_eq!(counts[&libc::SYS_fchdir], (77, 77), "{:?}", ground.kind);
        assert_eq!(probe.stats().expect("stats").lost_calls, 0);
    }
}

#[test]
fn counters_grow_from_drain_to_drain_and_a_new_target_starts_at_zero() {
    for ground in grounds() {
        let target = ground.cgroup("again");
        let mut probe = probe_for(&ground);
        let slot = probe.add_target(target.id()).expect("a target");
        target.run(100, 0);
        assert_eq!(counts(&mut probe, slot)[&libc::SYS_getppid].0, 100);
        target.run(50, 0);
        assert_eq!(counts(&mut probe, slot)[&libc::SYS_getppid].0, 150);
        probe.remove_target(slot).expect("removed");
        target.run(1_000, 0);
        let again = probe.add_target(target.id()).expect("a target again");
        assert_ne!(slot, again);
        target.run(7, 0);
        assert_eq!(counts(&mut probe, again)[&libc::SYS_getppid].0, 7);
        assert!(counts(&mut probe, slot).is_empty());
    }
}

#[test]
fn a_process_in_a_nested_cgroup_counts_for_its_container() {
    for ground in grounds() {
        let outer = ground.cgroup("outer");
        let before = outer.nested("before");
        let mut probe = probe_for(&ground);
        let slot = probe.add_target(outer.id()).expect("a target");
        probe.bind_cgroup(slot, before.id()).expect("bound");
        let after = outer.nested("after");
        let deep = after.nested("deep");
        before.run(10, 0);
        after.run(200, 0);
        deep.run(3_000, 0);
        outer.run(40_000, 0);
        assert_eq!(
            counts(&mut probe, slot)[&libc::SYS_getppid].0,
            43_210,
            "{:?}",
            ground.kind
        );
    }
}

#[test]
fn two_targets_are_counted_apart_and_one_may_go() {
    for ground in grounds() {
        let (one, two) = (ground.cgroup("one"), ground.cgroup("two"));
        let mut probe = probe_for(&ground);
        let slot_one = probe.add_target(one.id()).expect("a target");
        let slot_two = probe.add_target(two.id()).expect("a target");
        one.run(11, 0);
        two.run(22, 0);
        probe.remove_target(slot_one).expect("removed");
        one.run(33, 0);
        two.run(44, 0);
        assert!(counts(&mut probe, slot_one).is_empty());
        assert_eq!(counts(&mut probe, slot_two)[&libc::SYS_getppid].0, 66);
        assert_eq!(probe.stats().expect("stats").targets, 1);
    }
}

/// A shell that waits for a line before it starts two programs.
fn waiting_shell() -> (Child, ChildStdin) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "echo ready; read go; /bin/true; /bin/true; :"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell can be run");
    let stdin = child.stdin.take().expect("its input is piped");
    // Else its own start would be counted or not, as the scheduler has it.
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output is piped"))
        .read_line(&mut line)
        .expect("a line");
    assert_eq!(line, "ready\n");
    (child, stdin)
}

fn finish(mut child: Child, mut go: ChildStdin) {
    go.write_all(b"\n").expect("the shell reads");
    drop(go);
    assert!(child.wait().expect("the shell ends").success());
}

#[test]
fn a_process_and_what_it_forks_are_counted_without_a_cgroup() {
    let _alone = grounds();
    let mut probe = Probe::load(ProbeConfig {
        cgroups: None,
        processes: true,
        ..ProbeConfig::default()
    })
    .expect("the probe loads");
    let (child, go) = waiting_shell();
    let slot = probe.add_process(child.id()).expect("a target");
    finish(child, go);
    let counts = counts(&mut probe, slot);
    // The shell started /bin/true twice: itself forked, and the children executed.
    assert_eq!(counts[&libc::SYS_execve].0, 2, "{counts:?}");
    let forks: u64 = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_vfork, libc::SYS_fork]
        .iter()
        .filter_map(|nr| counts.get(nr))
        .map(|(calls, _)| calls)
        .sum();
    assert_eq!(forks, 2, "{counts:?}");
}

/// Keeps this thread, and the children that it makes from now on, on the CPU that it is on: places are each CPU's own.
fn stay_on_this_cpu() {
    // SAFETY: a cpu_set_t is a plain array of bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: both only read and write what they are given.
    let done = unsafe {
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).expect("a CPU"), &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    assert_eq!(done, 0);
}

#[test]
fn a_full_table_counts_what_it_loses() {
    stay_on_this_cpu();
    for ground in grounds() {
        let target = ground.cgroup("full");
        let mut probe = Probe::load(ProbeConfig {
            cgroups: Some(ground.kind),
            tallies: 1,
            ..ProbeConfig::default()
        })
        .expect("the probe loads");
        // More targets than there are places for; no kernel has such numbers.
        const TARGETS: u64 = 130;
        for _ in 0..TARGETS {
            probe.add_target(target.id()).expect("a target");
            target.run_kinds(470..512);
        }
        let mut tallies: Vec<Tally> = Vec::new();
        probe.drain(&mut tallies).expect("a drain");
        let kept = tallies.iter().filter(|tally| (470..512).contains(&tally.syscall));
        let kept: u64 = kept.map(|tally| tally.calls).sum();
        // Near by, elsewhere, and in the table.
        assert!(kept < 512 + 4096 + 1, "{kept} kept");
        let (lost, made) = (probe.stats().expect("stats").lost_calls, TARGETS * 42);
        assert!(kept + lost >= made, "{kept} kept and {lost} lost of {made}");
    }
}

#[test]
fn numbers_that_a_target_invents_are_one_number() {
    for ground in grounds() {
        let target = ground.cgroup("inventive");
        let mut probe = Probe::load(ProbeConfig {
            cgroups: Some(ground.kind),
            tallies: 1,
            ..ProbeConfig::default()
        })
        .expect("the probe loads");
        let slot = probe.add_target(target.id()).expect("a target");
        target.run_kinds(2000..40_000);
        let counts = counts(&mut probe, slot);
        assert_eq!(
            counts[&i64::from(Tally::UNKNOWN)],
            (38_000, 38_000),
            "{:?}",
            ground.kind
        );
        assert_eq!(probe.stats().expect("stats").lost_calls, 0);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_by_other_abis_are_told_apart_and_a_fork_is_one() {
    let compat = |nr: u32| i64::from(Tally::COMPAT | nr);
    for ground in grounds() {
        let target = ground.cgroup("other-abis");
        let mut probe = probe_for(&ground);
        let slot = probe.add_target(target.id()).expect("a target");
        // getppid, fork, and what no kernel has
        target.run_ia32(&[64, 64, 64, 2, 2, 600, 70_000, 0x7fff_ffff]);
        let x32 = i64::from(Tally::X32);
        // 512 is rt_sigaction, which without arguments fails, as do those that x32 has not.
        target.run_kinds(x32 + 512..x32 + 513);
        target.run_kinds(x32 + 548..x32 + 600);
        target.run_kinds(x32 + 500..x32 + 502);
        let counts = counts(&mut probe, slot);
        assert_eq!(counts[&compat(64)], (3, 0), "{counts:?}");
        assert_eq!(counts[&compat(2)], (2, 0), "{counts:?}");
        assert_eq!(counts[&compat(Tally::UNKNOWN)], (3, 3), "{counts:?}");
        assert_eq!(counts[&(x32 | 512)], (1, 1), "{counts:?}");
        assert_eq!(counts[&i64::from(Tally::UNKNOWN)].0, 52, "{counts:?}");
        assert_eq!((counts[&500].0, counts[&501].0), (1, 1), "{counts:?}");
    }
}

/// Calls of getppid that were measured so far, and since this was asked last times that one followed another, in a target.
fn detail(probe: &mut Probe, slot: Slot) -> (u64, u64) {
    let (mut latencies, mut grams): (Vec<Latency>, Vec<Gram>) = Default::default();
    probe.drain_latencies(&mut latencies).expect("a drain");
    probe.take_grams(&mut grams).expect("taken");
    assert!(latencies.iter().all(|one| one.slot == slot) && grams.iter().all(|one| one.slot == slot));
    let getppid = u32::try_from(libc::SYS_getppid).expect("small");
    let measured = latencies
        .iter()
        .filter(|one| one.syscall == getppid)
        .map(Latency::calls)
        .sum();
    let pairs = grams
        .iter()
        .filter(|one| one.sequence.pair() == Some(Sequence::default().then(getppid).then(getppid)));
    (measured, pairs.map(|one| one.count).sum())
}

#[test]
fn latencies_and_sequences_are_kept_as_the_target_wants() {
    for ground in grounds() {
        let (target, neighbour) = (ground.cgroup("target"), ground.cgroup("neighbour"));
        let mut probe = detailed(&ground);
        probe.set_phase(true).expect("a phase");
        assert_eq!(
            probe.stats().expect("stats").attached,
            0,
            "nothing is attached without a target"
        );
        let slot = probe.add_target(target.id()).expect("a target");
        let attached = probe.stats().expect("stats").attached;
        target.run(100, 0);
        assert_eq!(
            detail(&mut probe, slot),
            (0, 0),
            "one that wants counts has counts alone"
        );
        let beside = probe.add_target(neighbour.id()).expect("a target");
        probe.set_mode(slot, Mode::Sampled).expect("sampled");
        assert_eq!(
            probe.stats().expect("stats").attached,
            attached + 1,
            "the entry hook is there"
        );
        target.run(1000, 0);
        neighbour.run(50, 0);
        assert_eq!(detail(&mut probe, slot), (1000, 999), "{:?}", ground.kind);

        probe.set_phase(false).expect("the phase ends");
        assert_eq!(
            probe.stats().expect("stats").attached,
            attached,
            "no entry hook between phases"
        );
        target.run(500, 0);
        assert_eq!(detail(&mut probe, slot), (1000, 0));
        probe.set_phase(true).expect("another phase");
        target.run(10, 0);
        assert_eq!(detail(&mut probe, slot), (1010, 9));
        probe.set_phase(false).expect("the phase ends");
        probe.set_mode(slot, Mode::Full).expect("full");
        target.run(20, 0);
        assert_eq!(detail(&mut probe, slot), (1030, 19));
        assert_eq!(
            counts(&mut probe, slot)[&libc::SYS_getppid].0,
            1630,
            "counting goes on all the time"
        );
        assert_eq!(probe.stats().expect("stats").lost_detail, 0);

        probe.remove_target(slot).expect("removed");
        assert_eq!(detail(&mut probe, slot), (0, 0));
        assert_eq!(probe.stats().expect("stats").attached, attached);
        probe.remove_target(beside).expect("removed");
        assert_eq!(probe.stats().expect("stats").attached, 0);
    }
}

fn detailed(ground: &Ground) -> Probe {
    let config = ProbeConfig {
        cgroups: Some(ground.kind),
        detail: true,
        sequences: true,
        ..ProbeConfig::default()
    };
    Probe::load(config).expect("the probe loads")
}

#[test]
fn what_finds_its_place_taken_is_counted_as_well() {
    let ground = grounds().remove(0);
    // Slots that are four apart share their places; one call is enough to want the same one.
    let targets: Vec<_> = (0..24).map(|n| ground.cgroup(&format!("many-{n}"))).collect();
    let mut probe = detailed(&ground);
    let mut slots = Vec::new();
    for target in &targets {
        let slot = probe.add_target(target.id()).expect("a target");
        probe.set_mode(slot, Mode::Full).expect("full");
        slots.push(slot);
    }
    for target in &targets {
        target.run(300, 3);
    }
    for slot in &slots {
        let counts = counts(&mut probe, *slot);
        assert_eq!(
            (counts[&libc::SYS_getppid], counts[&libc::SYS_fchdir]),
            ((300, 0), (3, 3))
        );
        let mut latencies = Vec::new();
        probe.drain_latencies(&mut latencies).expect("a drain");
        let measured = latencies
            .iter()
            .filter(|one| one.slot == *slot && i64::from(one.syscall) == libc::SYS_getppid)
            .map(Latency::calls);
        assert_eq!(measured.collect::<Vec<_>>(), [300]);
    }
    // Their places are free for others, whose counters begin at zero.
    for slot in slots {
        probe.remove_target(slot).expect("removed");
    }
    let again = probe.add_target(targets[0].id()).expect("a target");
    targets[0].run(5, 0);
    assert_eq!(counts(&mut probe, again)[&libc::SYS_getppid].0, 5);
}

#[test]
fn the_probe_says_what_its_programs_take() {
    let ground = grounds().remove(0);
    let target = ground.cgroup("costs");
    let mut probe = detailed(&ground);
    let slot = probe.add_target(target.id()).expect("a target");
    probe.set_mode(slot, Mode::Full).expect("full");
    target.run(200_000, 0);
    probe.set_mode(slot, Mode::Counts).expect("counts");
    target.run(200_000, 0);
    let stats = probe.stats().expect("stats");
    assert!(
        stats.exit.runs >= 400_000 && stats.enter.runs >= 200_000,
        "{stats:?}"
    );
    for cost in [stats.exit, stats.measure, stats.enter] {
        let mean = cost.mean_ns().expect("some runs are timed");
        assert!((5.0..20_000.0).contains(&mean), "{mean} ns a run");
    }
}

#[test]
fn a_call_that_waits_is_measured_by_its_wait() {
    let ground = grounds().remove(0);
    let target = ground.cgroup("waits");
    let mut probe = detailed(&ground);
    let slot = probe.add_target(target.id()).expect("a target");
    probe.set_mode(slot, Mode::Full).expect("full");
    let mut sleeper = Command::new("sleep");
    sleeper.arg("0.2");
    assert!(target.status(sleeper).success());
    let mut latencies = Vec::new();
    probe.drain_latencies(&mut latencies).expect("a drain");
    let waits = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep];
    let wait = latencies
        .iter()
        .find(|one| one.slot == slot && waits.contains(&i64::from(one.syscall)));
    let wait = wait.expect("sleep has slept");
    assert!((200_000_000..2_000_000_000).contains(&wait.sum_ns), "{wait:?}");
    // 2^27 ns are 134 ms, 2^31 ns are 2.1 s.
    assert_eq!(wait.buckets[27..31].iter().sum::<u32>(), 1, "{wait:?}");
}

#[test]
fn what_a_container_does_beside_system_calls_is_counted_where_it_is_wanted() {
    for ground in grounds() {
        let (target, neighbour) = (ground.cgroup("target"), ground.cgroup("neighbour"));
        let mut probe = Probe::load(ProbeConfig {
            cgroups: Some(ground.kind),
            signals: true,
            ..ProbeConfig::default()
        })
        .expect("the probe loads");
        assert_eq!(*probe.missing_signals(), BTreeMap::new());
        let slot = probe.add_target(target.id()).expect("a target");
        let plain = probe.stats().expect("stats").attached;
        let script = "/bin/true; /bin/true; kill -CONT $$; exec 3<>/dev/tcp/127.0.0.1/9";
        let act = |cgroup: &crate::ground::Cgroup| {
            let mut shell = Command::new("/bin/bash");
            shell.args(["-c", script]).stderr(Stdio::null());
            // Nobody listens there, and so it fails.
            assert!(!cgroup.status(shell).success());
        };
        act(&target);
        let none = probe.drain_used().expect("a drain")[&slot].signals;
        assert_eq!(none, SignalCounts::default());

        probe.set_signals(&Signal::ALL.into());
        assert_eq!(probe.stats().expect("stats").attached, plain + 6);
        act(&target);
        act(&neighbour);
        let counts = probe.drain_used().expect("a drain");
        assert_eq!(counts.len(), 1, "the neighbour is no target");
        let counts = counts[&slot].signals;
        assert_eq!(
            (counts.processes, counts.programs, counts.connections),
            (2, 3, 1),
            "{counts:?}"
        );
        // Two children that ended, and one that the shell sent to itself.
        assert!(counts.signals >= 3, "{counts:?}");
        assert!(counts.capabilities >= counts.denials, "{counts:?}");
        probe.set_signals(&[].into());
        assert_eq!(probe.stats().expect("stats").attached, plain);
    }
}

#[test]
fn a_kill_for_want_of_memory_is_told_although_the_container_goes_with_it() {
    for ground in grounds()
        .into_iter()
        .filter(|ground| ground.kind == HierarchyKind::V1)
    {
        let target = ground.cgroup("small");
        target.write("memory.limit_in_bytes", "16M");
        let mut probe = Probe::load(ProbeConfig {
            cgroups: Some(ground.kind),
            signals: true,
            ..ProbeConfig::default()
        })
        .expect("the probe loads");
        let slot = probe.add_target(target.id()).expect("a target");
        probe.set_signals(&[Signal::OomKills].into());
        // It keeps its last lines, of which there is but one.
        let mut hungry = Command::new("tail");
        hungry.arg("/dev/zero").stdout(Stdio::null());
        assert!(!target.status(hungry).success());
        target.remove();
        let used = probe.drain_used().expect("a drain")[&slot];
        assert_eq!(used.signals.oom_kills, 1);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_target_gets_its_share_of_the_table_and_no_more() {
    for ground in grounds() {
        let (greedy, modest) = (ground.cgroup("greedy"), ground.cgroup("modest"));
        let mut probe = Probe::load(ProbeConfig {
            cgroups: Some(ground.kind),
            tallies: 1024,
            ..ProbeConfig::default()
        })
        .expect("the probe loads");
        let slots = [&greedy, &modest].map(|cgroup| probe.add_target(cgroup.id()).expect("a target"));
        // One that is so far away from the greedy one that it takes the places near by that that one would.
        let mut before = slots[0];
        while before.0 < slots[0].0 + 512 {
            before = probe.add_target(greedy.id()).expect("a target");
        }
        greedy.run_both(472..512, 472..472);
        probe.bind_cgroup(slots[0], greedy.id()).expect("bound");
        // Numbers of both ABIs want the same places of a CPU; those that come second go to the table, a 64th of it at most.
        greedy.run_both(472..512, 472..512);
        modest.run_both(472..512, 472..482);
        let used = probe.drain_used().expect("a drain");
        assert_eq!((used[&slots[0]].lost, used[&slots[1]].lost), (40 - 16, 0));
        assert_eq!(probe.stats().expect("stats").lost_calls, 40 - 16);
    }
}
