//! What tracing costs the traced, and what a drain costs us.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vigia_agent::probe::{Mode, Probe, ProbeConfig, ProgramCost};

use crate::ground::{Cgroup, grounds};
use crate::row::{Row, Target};
use crate::workload::{inside, this};

const ROUNDS: usize = 15;
const CALLS: i64 = 1_000_000;
/// strace makes each call some seventy times slower.
const CALLS_STRACE: i64 = 20_000;

fn getppid(cgroup: &Cgroup, calls: i64) -> f64 {
    nanoseconds(inside(
        this(&["workload-getppid", &calls.to_string()]),
        cgroup.procs(),
    ))
}

fn nanoseconds(mut command: Command) -> f64 {
    let output = command.stderr(Stdio::null()).output().expect("the workload runs");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("nanoseconds")
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|done| done.status.success())
}

/// bpftrace as people use it to count system calls, in a mount namespace of its own because it needs tracefs; none where
/// it cannot be had.
fn bpftrace() -> Option<Child> {
    const PROGRAM: &str =
        r#"BEGIN { printf("ready\n"); } tracepoint:raw_syscalls:sys_exit { @[args->id] = count(); }"#;
    let run = "t=/sys/kernel/tracing; [ -e $t/events ] || mount -t tracefs none $t && exec bpftrace -B line -e \"$0\"";
    let mut child = Command::new("unshare")
        .args(["--mount", "sh", "-c", run, PROGRAM])
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    if lines.map_while(Result::ok).any(|line| line == "ready") {
        return Some(child);
    }
    child.wait().expect("bpftrace ends");
    None
}

pub fn counts() {
    let ground = grounds().remove(0);
    let (target, other) = (ground.cgroup("target"), ground.cgroup("other"));
    let config = ProbeConfig {
        cgroups: Some(ground.kind),
        ..ProbeConfig::default()
    };
    let mut probe = Probe::load(config).expect("the probe loads");
    let with_strace = has("strace");
    let (mut ours, mut filtered, mut theirs, mut straces) = (vec![], vec![], vec![], vec![]);
    getppid(&target, CALLS);
    for _ in 0..ROUNDS {
        let untraced = getppid(&target, CALLS);
        let slot = probe.add_target(target.id()).expect("a target");
        ours.push(getppid(&target, CALLS) / untraced);
        filtered.push(getppid(&other, CALLS) / untraced);
        probe.remove_target(slot).expect("removed");
        if let Some(mut peer) = bpftrace() {
            theirs.push(getppid(&target, CALLS) / untraced);
            peer.kill().and_then(|()| peer.wait()).expect("bpftrace ends");
        }
        if with_strace {
            let me = std::env::current_exe().expect("this program");
            let mut strace = Command::new("strace");
            strace
                .args(["-f", "-c", "-o", "/dev/null"])
                .arg(me)
                .arg("workload-getppid")
                .arg(CALLS_STRACE.to_string());
            straces.push(nanoseconds(strace) / untraced);
        }
    }
    let beside = crate::at(&mut filtered, 0.5);
    let peers = [("bpftrace count", theirs), ("strace -c", straces)];
    Row {
        name: "probe.counts",
        unit: "time of a getppid loop, traced / untraced",
        ours,
        peers: peers
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .collect(),
        rivals: true,
        target: Target::AtMost(1.45),
        note: format!("{CALLS} calls a round; a process beside it that is no target: {beside:.2}"),
    }
    .print();
}

/// Latencies and sequences: all the time, and in one sixteenth of it.
pub fn detail() {
    const ON: Duration = Duration::from_millis(40);
    const ONE_IN: u32 = 16;
    let ground = grounds().remove(0);
    let (target, other) = (ground.cgroup("target"), ground.cgroup("other"));
    let config = ProbeConfig {
        cgroups: Some(ground.kind),
        detail: true,
        sequences: true,
        ..ProbeConfig::default()
    };
    let mut probe = Probe::load(config).expect("the probe loads");
    let (mut full, mut filtered, mut sampled) = (vec![], vec![], vec![]);
    getppid(&target, CALLS);
    for _ in 0..ROUNDS {
        let untraced = getppid(&target, CALLS);
        let slot = probe.add_target(target.id()).expect("a target");
        probe.set_mode(slot, Mode::Full).expect("full");
        full.push(getppid(&target, CALLS) / untraced);
        filtered.push(getppid(&other, CALLS) / untraced);
        probe.set_mode(slot, Mode::Sampled).expect("sampled");
        let ns = std::thread::scope(|scope| {
            // Some two seconds, so that several phases fall into it.
            let running = scope.spawn(|| getppid(&target, 15 * CALLS));
            let mut on = true;
            while !running.is_finished() {
                probe.set_phase(on).expect("a phase");
                probe
                    .take_grams(&mut Vec::new())
                    .expect("taken, as an agent does");
                std::thread::sleep(if on { ON } else { ON * (ONE_IN - 1) });
                on = !on;
            }
            probe.set_phase(false).expect("it ends");
            running.join().expect("the workload runs")
        });
        sampled.push(ns / untraced);
        probe.remove_target(slot).expect("removed");
    }
    let beside = crate::at(&mut filtered, 0.5);
    let stats = probe.stats().expect("stats");
    let ns = |cost: ProgramCost| cost.mean_ns().unwrap_or_default();
    let (measure, enter) = (ns(stats.measure), ns(stats.enter));
    let unit = "time of a getppid loop, traced / untraced";
    let note = |what: &str| format!("counts, latency histograms and sequences, {what}");
    let rows = [
        (
            "probe.full",
            full,
            2.1,
            note(&format!(
                "all the time; a process beside it that is no target: {beside:.2}; our programs take {enter:.0} ns on \
                 entry and {measure:.0} ns on exit"
            )),
        ),
        (
            "probe.sampled",
            sampled,
            1.45,
            note("the last two in 1/16 of the time"),
        ),
    ];
    for (name, ours, target, note) in rows {
        Row {
            name,
            unit,
            ours,
            peers: vec![],
            rivals: true,
            target: Target::AtMost(target),
            note,
        }
        .print();
    }
}

pub fn drain() {
    const TARGETS: usize = 100;
    const CALLS: usize = 120;
    let ground = grounds().remove(0);
    let config = ProbeConfig {
        cgroups: Some(ground.kind),
        ..ProbeConfig::default()
    };
    let mut probe = Probe::load(config).expect("the probe loads");
    let cgroups: Vec<Cgroup> = (0..TARGETS)
        .map(|number| ground.cgroup(&format!("target-{number}")))
        .collect();
    for cgroup in &cgroups {
        probe.add_target(cgroup.id()).expect("a target");
        let done = inside(this(&["workload-many", &CALLS.to_string()]), cgroup.procs()).status();
        assert!(done.expect("the workload runs").success());
    }
    let mut tallies = Vec::new();
    let mut ours = Vec::new();
    for _ in 0..101 {
        tallies.clear();
        let start = cpu_ms();
        probe.drain(&mut tallies).expect("a drain");
        ours.push(cpu_ms() - start);
    }
    assert!(tallies.len() >= TARGETS * CALLS, "{} entries", tallies.len());
    Row {
        name: "probe.drain",
        unit: "ms of CPU",
        ours,
        peers: vec![],
        rivals: true,
        target: Target::AtMost(3.0),
        note: format!("{} live entries, each on every possible CPU", tallies.len()),
    }
    .print();
}

fn cpu_ms() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec of ours, which the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
