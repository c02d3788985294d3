//! `vigia trace`: the agent's probe and windows on one host.

mod by_ptrace;
mod engine;
mod lesson;
mod recording;
mod signals;
mod sink;
pub mod spawn;
mod table;
mod target;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM};
use vigia_agent::probe::ProbeError;
use vigia_agent::window::{Closed, Now, Totals, Windows};
use vigia_model::artifact::Artifact;

use crate::alike::{Calls, Learnt};
use crate::args::{self, Format, Trace};
use crate::error::Failure;
use crate::files::{self, Given};
use crate::input;
use crate::ptrace;
use crate::say::Out;
use crate::times::{self, Times};
use crate::worth;
use engine::Reader;
use signals::{Pending, Reached, Stage};
use sink::Sink;
use target::Traced;

/// How long a command that was told to terminate may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// A signal so soon after another says the same again: timeout(1) signals the process, and then its group.
const ECHO: Duration = Duration::from_millis(250);
/// A Ctrl-C so soon after another is for us too.
const IN_A_ROW: Duration = Duration::from_secs(2);
/// Length of a window where none is given.
const WINDOW: Duration = Duration::from_secs(2);
/// How long a command takes to start where nothing is said: as long as a window then is. Imports of an interpreter take
/// .4 s, on a busy machine three times as long.
const WARM_UP: Duration = Duration::from_secs(2);
/// How often those are looked for that outlive what was named.
const TICK: Duration = Duration::from_millis(100);
/// How often sequences of calls are taken, for which the kernel side has little room.
const BEAT: Duration = Duration::from_secs(1);

/// What the loop waits for beside the end of a window.
enum Event {
    /// The command has ended, or every process that was named.
    Ended(Option<ExitStatus>),
    Signal(i32),
    /// Tracing has failed, or the command could not be run.
    Failed(Failure),
}

/// Where events come in.
struct Post {
    events: Sender<Event>,
    inbox: Receiver<Event>,
    /// Whether a signal has been heeded.
    pending: Pending,
    /// How far its end has come.
    reached: Reached,
}

/// Traces until the target ends, the time is over, or a signal says so.
pub fn run(mut args: Trace) -> Result<u8, Failure> {
    makes_sense(&args)?;
    let (pids, remarks) = led(&args.pids, |id| ptrace::process_of(id.cast_signed()));
    args.pids = pids;
    remarks.iter().for_each(|remark| Out::Stderr.line(remark));
    let args = &args;
    let model = args
        .model
        .as_deref()
        .map(|path| input::model(path, &args.trusted))
        .transpose()?;
    if let (Some(path), Some(model)) = (&args.model, &model) {
        is_for_these(path, model, args)?;
    }
    let mut sink = Sink::new(args, model)?;
    let (events, inbox) = mpsc::channel();
    // Before the target starts: a Ctrl-C meant for it must not end us without a report.
    // The thread that waits for them must not swallow what the tracer waits for.
    ptrace::hold_changes();
    let told = events.clone();
    let pending = signals::watch(move |signal| {
        // Nobody listens any more only where we end.
        let _ = told.send(Event::Signal(signal));
    })?;
    ptrace::let_changes_through();
    let clock = Clock(Instant::now());
    let (mut reader, traced) = target::start(args, sink.wanted(), &clock, &events)?;
    let post = Post {
        events,
        inbox,
        pending,
        reached: Reached::default(),
    };
    let end = follow(args, &clock, &mut reader, &traced, &mut sink, &post)?;
    post.reached.is(Stage::Over);
    let is_over = traced.release();
    if is_over && matches!(end, End::Left(_)) {
        // Now that no line is half written.
        Out::Stderr.line("vigia: a second signal: the command goes on untraced, if it goes on");
    }
    // What is being saved now is not ended by one signal more, as where a terminal goes and says it twice.
    post.pending.answered();
    // Where the tracer waits for a reader of its lines, so would we.
    if is_over || !args.prints_lines() {
        sink.finish()?;
    }
    Ok(match end {
        End::Over(status) => status.map_or(0, exit_code),
        End::Left(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        End::OutOfTime => {
            let said = said_meanwhile(&post.inbox)?.flatten();
            exit_code(said.unwrap_or(ExitStatus::from_raw(SIGKILL)))
        }
    })
}

/// There is a target, and nothing is asked for that would have no effect.
fn makes_sense(args: &Trace) -> Result<(), Failure> {
    if args.pids.is_empty() && args.cgroup.is_none() && args.command.is_empty() {
        return Err(Failure::command_line("what should be traced?")
            .next("give a command (vigia trace -- CMD), processes (-p PID) or a cgroup (--cgroup PATH)"));
    }
    args::once("-p", &args.pids)?;
    are_apart(args)?;
    let is_recorded = args.output.is_some() || args.save_model.is_some();
    let is_printed = args.format == Format::Json && !args.summary;
    if args.sequences && !is_recorded && !is_printed {
        return Err(Failure::command_line(
            "--sequences: nothing says or records which calls come after which",
        )
        .next("add --output FILE or --save-model FILE, or --format json without -c"));
    }
    if args.ml.anomaly_realtime && !args.prints_lines() {
        return Err(Failure::command_line(
            "--anomaly-realtime is about the time of each single call, which is not seen where calls are counted",
        )
        .next(
            "trace a command or processes without -c, --window, --output and whatever else counts, for a line for each \
             call; or leave it out: -c --ml-anomaly finds slow calls by their mean times",
        ));
    }
    if args.warm_up.is_some() && args.command.is_empty() {
        return Err(Failure::command_line(
            "--warm-up is of a command that is started here, and what runs has started already",
        )
        .next("leave it out"));
    }
    let trusted = &args.trusted;
    let given = [
        ("--key", !trusted.keys.is_empty()),
        ("--unsigned", trusted.unsigned),
        ("--content-key", trusted.content_key.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) if args.model.is_none() => Err(Failure::command_line(format!(
            "{option} is about a model, and there is none to score with"
        ))
        .next(format!("add --load-model FILE, or leave {option} out"))),
        _ => Ok(()),
    }
}

/// A file that was named.
fn named<'a>((argument, path): (&'static str, &'a Option<PathBuf>)) -> Option<Given<'a>> {
    Some((argument, path.as_deref()?))
}

/// Nothing that is written is read too, or written twice.
fn are_apart(args: &Trace) -> Result<(), Failure> {
    let outputs = [("--output", &args.output), ("--save-model", &args.save_model)];
    let inputs = [("--load-model", &args.model), ("--baseline", &args.baseline)];
    let mut read = args.trusted.files();
    read.extend(inputs.into_iter().filter_map(named));
    files::apart(&Vec::from_iter(outputs.into_iter().filter_map(named)), &read)
}

/// The processes of what was named, which may be threads of theirs, and what there is to say of those.
fn led(ids: &[u32], process_of: impl Fn(u32) -> Option<i32>) -> (Vec<u32>, Vec<String>) {
    let (mut processes, mut remarks) = (Vec::new(), Vec::new());
    for &id in ids {
        let process = process_of(id).map_or(id, i32::cast_unsigned);
        if process != id {
            remarks.push(format!(
                "vigia: {id} is a thread of process {process}, all of which is traced"
            ));
        }
        if !processes.contains(&process) {
            processes.push(process);
        }
    }
    (processes, remarks)
}

/// The model of `path` is one for windows of these calls; where they have another length, that is said.
fn is_for_these(path: &Path, model: &Artifact, args: &Trace) -> Result<(), Failure> {
    let learnt = Learnt::of(&model.metadata);
    match args.capture() {
        Some(capture) if !learnt.fits(Some(capture)) => {
            return Err(learnt.of_other_calls(path, capture, Calls::Traced));
        }
        _ => {}
    }
    worth::warn_of(path, &model.metadata);
    if let Some(other) = learnt.other_length(path, args.window.unwrap_or(WINDOW)) {
        Out::Stderr.line(&other);
    }
    Ok(())
}

/// Why nobody is traced any more.
enum End {
    /// The target has ended, or need not be looked at for longer.
    Over(Option<ExitStatus>),
    /// A second signal said so; what was started is left to itself.
    Left(i32),
    /// The command was killed when its time was over, and those that it had started go on.
    OutOfTime,
}

/// Which of the signals that a command shrugs off is the last.
#[derive(Default)]
struct Asked {
    /// When the one before came.
    before: Option<Duration>,
    /// One was not a Ctrl-C.
    told: bool,
}

impl Asked {
    /// Whether the signal that came now is a second one. What a shell or an interpreter is interrupted by now and then is
    /// meant for it alone: only twice in a row does a Ctrl-C end the trace.
    fn again(&mut self, signal: i32, now: Duration) -> bool {
        if let Some(at) = self.before {
            let since = now.saturating_sub(at);
            if since <= ECHO {
                return false;
            }
            if since <= IN_A_ROW || (self.told && signal != SIGINT) {
                return true;
            }
        }
        self.before = Some(now);
        self.told |= signal != SIGINT;
        false
    }
}

fn follow(
    args: &Trace,
    clock: &Clock,
    reader: &mut Reader,
    traced: &Traced,
    sink: &mut Sink<'_>,
    post: &Post,
) -> Result<End, Failure> {
    let mut times = Times::new();
    let length = args.window.unwrap_or(WINDOW);
    let mut windows = Windows::default();
    let begin = traced.since;
    // A slot is new: its counters began with nothing, whatever a command has done by now.
    windows.open((), traced.slot, length, begin, &Totals::default());
    if let Some(duration) = args.duration {
        signals::hold_to(duration, GRACE, post.reached.clone(), traced.teller());
    }
    traced.watch(post.events.clone())?;
    let mut until = args.duration.map(|d| begin.mono + d);
    let (mut told, mut killed) = (false, false);
    // The end of the command, or of what was named, where what they have started is still looked at.
    let mut gone = None;
    let mut asked = Asked::default();
    let mut beat = sink.wanted().sequences.then(|| begin.mono + BEAT);
    loop {
        let now = clock.now().mono;
        let due = windows
            .next_due()
            .into_iter()
            .chain(until)
            .chain(beat)
            .min()
            .unwrap_or(length);
        let next = if gone.is_some() { due.min(now + TICK) } else { due };
        // We hold a sender ourselves, so that an error can only be the end of the wait.
        let event = post.inbox.recv_timeout(next.saturating_sub(now)).ok();
        let ended = match event {
            Some(Event::Ended(status)) => {
                gone = Some(status);
                // Its time is over for all of them.
                told.then_some(End::Over(status))
            }
            Some(Event::Failed(failure)) => return Err(failure),
            Some(Event::Signal(signal)) if traced.is_command() && gone.is_none() => {
                // A command gets the terminal's Ctrl-C itself, and its end is ours.
                if signal != SIGINT {
                    traced.signal(signal);
                }
                let again = asked.again(signal, clock.now().mono);
                if !again {
                    post.pending.answered();
                }
                again.then_some(End::Left(signal))
            }
            Some(Event::Signal(_)) => Some(End::Over(gone.flatten())),
            None if until.is_some_and(|until| clock.now().mono >= until) => {
                until = Some(clock.now().mono + GRACE);
                if !traced.is_command() || gone.is_some() {
                    Some(End::Over(gone.flatten()))
                } else if killed {
                    // Those that it started are still there, and nobody has said that they should go.
                    Some(End::OutOfTime)
                } else {
                    // The first time politely.
                    traced.signal(if told { SIGKILL } else { SIGTERM });
                    post.reached.is(if told { Stage::Killed } else { Stage::Told });
                    (told, killed) = (true, told);
                    None
                }
            }
            None if !traced.is_there() => match said_meanwhile(&post.inbox)? {
                None if traced.is_command() => {
                    return Err(Failure::tracing("the tracer died before the command did"));
                }
                said => Some(End::Over(said.flatten())),
            },
            None => None,
        };
        let ended = match gone {
            Some(status) if ended.is_none() && !(args.follow && reader.has_processes(traced.slot)?) => {
                Some(End::Over(status))
            }
            _ => ended,
        };
        // A read takes much more than a look at who is still there.
        let now = clock.now().mono;
        if ended.is_none() && now < due {
            continue;
        }
        beat = beat.map(|_| now + BEAT);
        let snapshot = reader.read()?;
        sink.unkept(windows.follow(&snapshot.grams));
        // The window in which the target ended is its last, also where it is due; one that is left to itself has none.
        let closed = if let Some(end) = &ended {
            let last = !matches!(end, End::Left(_));
            let closed = windows.end(&(), clock.now(), &snapshot.totals);
            Vec::from_iter(closed.map(|closed| Closed { last, ..closed }))
        } else {
            windows.close_due(clock.now(), &snapshot.totals)
        };
        for closed in closed {
            sink.window(&closed, &times::since(&times, &snapshot.times))?;
            times.clone_from(&snapshot.times);
        }
        if let Some(end) = ended {
            sink.unkept(reader.unkept()?);
            return Ok(end);
        }
    }
}

/// What was said meanwhile of the end of a target that nobody waits for any more; none where nothing was.
fn said_meanwhile(inbox: &Receiver<Event>) -> Result<Option<Option<ExitStatus>>, Failure> {
    for event in inbox.try_iter() {
        match event {
            Event::Ended(status) => return Ok(Some(status)),
            Event::Failed(failure) => return Err(failure),
            Event::Signal(_) => {}
        }
    }
    Ok(None)
}

struct Clock(Instant);

impl Clock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: self.0.elapsed(),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// As a shell says it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Why the probe does not work here, and what to do about it.
fn cannot(error: &ProbeError) -> Failure {
    let failure = Failure::tracing(error);
    match error.reason() {
        "MissingCapability" => failure.next(
            "run it as root (sudo vigia trace …), or give the program the capabilities once: \
             sudo setcap cap_bpf,cap_perfmon+ep \"$(command -v vigia)\"; whoever may run it may then count every \
             process of this machine, so let a group alone run it (chmod 750)",
        ),
        "NoBTF" => failure.next(
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions' are; \
             in a container, mount /sys/kernel/btf from the host",
        ),
        "Forbidden" => failure.next(
            "in a container, let its seccomp profile allow bpf(2) and perf_event_open(2); \
             on a host, see /sys/kernel/security/lockdown",
        ),
        "NoTracepoint" => failure.next("upgrade the kernel, or trace on another machine"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stands_for_its_process() {
        let process_of = |id| Some(if id == 12 { 10 } else { i32::try_from(id).ok()? });
        let (processes, remarks) = led(&[10, 12, 20], process_of);
        assert_eq!(processes, [10, 20]);
        assert_eq!(remarks.len(), 1);
        assert!(remarks[0].contains("12 is a thread of process 10"), "{remarks:?}");
        assert_eq!(
            led(&[7], |_| None),
            (vec![7], vec![]),
            "that it is not there is said elsewhere"
        );
    }

    #[test]
    fn codes_are_a_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(SIGKILL)), 137);
    }

    #[test]
    fn a_signal_is_the_second_only_some_time_after_the_first() {
        let ms = Duration::from_millis;
        let mut asked = Asked::default();
        assert!(!asked.again(SIGTERM, ms(1000)));
        assert!(!asked.again(SIGTERM, ms(1001)), "timeout(1) sends two");
        assert!(!asked.again(SIGINT, ms(30_000)), "a line of a shell's");
        assert!(asked.again(SIGTERM, ms(60_000)), "whatever came in between");
        let mut asked = Asked::default();
        assert!(!asked.again(SIGINT, ms(1000)));
        assert!(!asked.again(SIGINT, ms(60_000)), "a line of a shell's");
        assert!(!asked.again(SIGTERM, ms(120_000)), "the first that says so");
        assert!(asked.again(SIGINT, ms(121_000)));
    }

    #[test]
    fn what_is_missing_is_named_with_a_way_out() {
        let missing = ProbeError::Capability {
            missing: vec!["CAP_BPF"],
        };
        let said = format!("{:?}", cannot(&missing));
        assert!(said.contains("CAP_BPF") && said.contains("setcap"), "{said}");
    }
}
