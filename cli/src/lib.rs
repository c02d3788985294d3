//! The `vigia` command, also installed as `kubectl-vigia`: Vigía on one host, with no cluster.
//!
//! Each command is a module with a `run` that returns a [`error::Failure`] or an exit code; what they share is how
//! they read windows, models and keys ([`input`]), and how they speak ([`say`]).

mod alike;
mod analysis;
mod args;
mod brief;
mod convert;
mod error;
mod files;
mod filter;
mod gguf;
mod input;
mod keys;
mod labels;
mod model;
mod ptrace;
mod record;
mod say;
mod score;
mod shell;
mod status;
mod times;
mod trace;
mod train;
mod vector;
mod worth;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use args::{Command, Vigia};
use error::{COMMAND_LINE, OUTPUT};
use say::Out;

/// Parses the command line, does what it says, and explains itself on standard error if that fails.
pub fn main() -> ExitCode {
    restore_sigpipe();
    let vigia = match Vigia::try_parse_from(asked(std::env::args_os())) {
        Ok(vigia) => vigia,
        Err(error) => return explained(&hinted(error)),
    };
    let outcome = match vigia.command {
        Command::Trace(args) => trace::run(*args),
        Command::Train(args) => train::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Keygen(args) => keys::keygen(&args),
        Command::Sign(args) => keys::sign(&args),
        Command::Encrypt(args) => keys::encrypt(&args),
        Command::Decrypt(args) => keys::decrypt(&args),
        Command::Verify(args) => model::verify(&args),
        Command::Inspect(args) => model::inspect(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    };
    match outcome {
        Ok(code) => ended(code),
        Err(failure) => failure.report(),
    }
}

/// `vigia help --help` asks what help is, as `vigia help help` does.
fn asked(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    if let [_, help, option] = &mut words[..]
        && help == "help"
        && (option == "--help" || option == "-h")
    {
        option.clone_from(help);
    }
    words
}

/// Done, but for what could not be written.
fn ended(code: u8) -> ExitCode {
    ExitCode::from(if say::is_unsaid() { OUTPUT } else { code })
}

/// The help that was asked for, or what is wrong with the command line.
fn explained(error: &clap::Error) -> ExitCode {
    let printed = match say::was_closed() && !error.use_stderr() {
        true => Err(say::closed()),
        false => error.print().and_then(|()| std::io::stdout().flush()),
    };
    let code = u8::try_from(error.exit_code()).unwrap_or(COMMAND_LINE);
    if error.use_stderr() {
        return ExitCode::from(code);
    }
    Out::Stdout.noted(printed);
    ended(code)
}

/// `vigia trace ls` lacks what says where the command begins.
fn hinted(mut error: clap::Error) -> clap::Error {
    let unexpected = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::UnknownArgument => word.clone(),
        _ => return error,
    };
    let traces = std::env::args_os().nth(1).is_some_and(|word| word == "trace");
    if traces && !unexpected.starts_with('-') {
        let tip = format!("a command comes after --: vigia trace -- {unexpected}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// `vigia … | head` ends quietly, as other tools do; Rust ignores the signal by default and panics on the write.
fn restore_sigpipe() {
    // SAFETY: no handler is installed, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
