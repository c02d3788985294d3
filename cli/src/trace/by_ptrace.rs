//! Tracing by ptrace: for a line for each call, or to count where the probe may not be loaded.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::engine::{Reader, TRACED};
use super::target::{Keep, Traced, Who, children_of, name, there};
use super::{Clock, Event};
use crate::args::{Format, Trace};
use crate::error::Failure;
use crate::ptrace::watch::{Shared, Watch};
use crate::ptrace::{self, Ending, Lines, Style};

/// Traces by ptrace: for lines, or to count where the probe cannot.
pub fn start(
    args: &Trace,
    keep: Keep,
    program: Option<PathBuf>,
    clock: &Clock,
    events: &Sender<Event>,
) -> Result<(Reader, Traced), Failure> {
    let target = match program {
        Some(program) => ptrace::Target::Command {
            program,
            args: args.command.clone(),
            to_stderr: args.format == Format::Json,
        },
        None => ptrace::Target::Processes(wanted_processes(args)?),
    };
    let shared = Shared::default();
    let style = args.prints_lines().then_some(Style {
        format: args.format,
        times: args.times,
    });
    let watch = Watch::new(
        args.filter.clone().unwrap_or_default(),
        Arc::clone(&shared),
        args.ml.anomaly_realtime,
        Lines::new(args.out(), args.format, style),
    )
    .with_sequences(keep.sequences);
    let since = clock.now();
    // As it was typed, so that a folder that is wrong can be seen.
    let name = args.command.first().cloned().unwrap_or_else(|| name(args));
    let events = events.clone();
    let session = ptrace::begin(target, args.follow, watch, move |ending| {
        let event = match ending {
            Ok(Ending {
                refused: Some(error), ..
            }) => Event::Failed(Failure::input(format!("{name}: {error}"))),
            Ok(ending) => Event::Ended(ending.status.map(ExitStatus::from_raw)),
            Err(error) => Event::Failed(Failure::tracing(format!("tracing {name}: {error}"))),
        };
        let _ = events.send(event);
    })
    .map_err(|error| not_attached(args, &error))?;
    let who = Who::Ptrace(session);
    let slot = TRACED;
    Ok((Reader::Ptrace(shared), Traced { slot, since, who }))
}

fn not_attached(args: &Trace, error: &io::Error) -> Failure {
    let failure = Failure::tracing(format!("{}: cannot be traced: {error}", name(args)));
    match error.raw_os_error() {
        Some(libc::EPERM) => failure.next(
            "run it as the process's user or as root; a process has one tracer at most (see TracerPid in \
             /proc/PID/status); in a container, let its seccomp profile allow ptrace(2); see also \
             /proc/sys/kernel/yama/ptrace_scope",
        ),
        _ => failure,
    }
}

/// The processes that were named and, if they are followed, what they have started.
fn wanted_processes(args: &Trace) -> Result<Vec<i32>, Failure> {
    for &pid in &args.pids {
        there(pid)?;
    }
    let mut known: BTreeSet<u32> = args.pids.iter().copied().collect();
    loop {
        let new = if args.follow {
            children_of(&known).map_err(|error| Failure::tracing(format!("/proc: {error}")))?
        } else {
            vec![]
        };
        if new.is_empty() {
            break;
        }
        known.extend(new);
    }
    // Who follows its own ancestor finds itself, which no tracer can trace.
    known.remove(&std::process::id());
    Ok(known.into_iter().map(u32::cast_signed).collect())
}
