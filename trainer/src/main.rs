//! One pod of a training Job.
//!
//! Exit codes, for the Job's podFailurePolicy: 0 done; 64 wrong flags, 65 the data make no model, 77 refused,
//! 78 wrong configuration (another pod would fare no better: fail the Job); 75 gave up waiting, 143 told to stop,
//! anything else a crash (another pod may succeed: retry).

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use vigia_trainer::rounds::{self, Config, Fault, OperatorConfig, Outcome, RoundsTls, Stage};

/// Trains its share of a model, together with the other pods of one training Job.
///
/// The operator starts it; on one host without a cluster, use `vigia train`.
#[derive(Debug, Parser)]
#[command(name = "vigia-trainer", version)]
struct Flags {
    /// The operator's gRPC address.
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://vigia-operator.vigia-system.svc:8443"
    )]
    operator: String,
    /// CA that signed the operator's certificate.
    #[arg(long, value_name = "FILE", default_value = "/etc/vigia/ca/ca.crt")]
    ca: PathBuf,
    /// Projected service-account token with audience "vigia".
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/vigia/token")]
    token: PathBuf,
    /// Folder with ca.crt, tls.crt and tls.key of this run.
    #[arg(long, value_name = "FOLDER", default_value = "/etc/vigia/rounds")]
    rounds_tls: PathBuf,
    /// Where rank 0 is reached: <job>-0.<job>.<namespace>.svc:8444.
    #[arg(long, value_name = "HOST:PORT")]
    rank_zero: String,
    /// Where rank 0 listens.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8444")]
    listen: SocketAddr,
    /// Number of ranks.
    #[arg(long)]
    workers: u32,
    /// This pod's rank.
    #[arg(long, env = "JOB_COMPLETION_INDEX")]
    rank: u32,
    /// Folder for checkpoints.
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/vigia-trainer")]
    checkpoints: PathBuf,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    deadline: u64,
    /// The Job's span, as W3C trace context: the operator is told at the end what took how long.
    #[arg(long, value_name = "TRACEPARENT", env = "TRACEPARENT")]
    traceparent: Option<String>,
}

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("VIGIA_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .init();

    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::from(75);
        }
    };
    let code = runtime.block_on(train(flags));
    // A fit under way on another thread must not hold up an end that was asked for.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn train(flags: Flags) -> u8 {
    let rank = flags.rank;
    let work = async {
        let config = config(flags)?;
        rounds::run(&config, &move |stage| Box::pin(async move { log(rank, stage) })).await
    };
    // As a container's first process it would not be ended by a signal that it does not ask for.
    let outcome = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
            outcome = work => outcome,
            _ = terminate.recv() => return stopped(rank),
            _ = interrupt.recv() => return stopped(rank),
        },
        _ => work.await,
    };
    match outcome {
        Ok(Outcome::Submitted { digest }) => tracing::info!(rank, digest, "submitted"),
        Ok(Outcome::Contributed) => tracing::info!(rank, "this worker's part is in the result"),
        Ok(Outcome::AlreadySubmitted) => tracing::info!(rank, "the run has its result already"),
        Err(fault) => {
            let code = fault.exit_code();
            tracing::error!(rank, error = %fault, code, "failed");
            last_words(&fault);
            return code;
        }
    }
    0
}

/// Leaves the reason in the pod's status, from where the operator tells it. Only a kubelet makes that file.
fn last_words(fault: &Fault) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/termination-log");
    if let Ok(mut file) = file {
        let _ = write!(file, "{fault}");
    }
}

fn stopped(rank: u32) -> u8 {
    tracing::info!(rank, "told to stop");
    128 + 15
}

fn log(rank: u32, stage: Stage) {
    tracing::info!(rank, ?stage, "stage");
}

fn config(flags: Flags) -> Result<Config, Fault> {
    if !flags.operator.starts_with("https://") {
        return Err(Fault::Config(format!(
            "--operator {}: write https://host:port",
            flags.operator
        )));
    }
    Ok(Config {
        rank: flags.rank,
        workers: flags.workers,
        operator: OperatorConfig {
            url: flags.operator,
            ca: flags.ca,
            token: flags.token,
        },
        rank_zero: flags.rank_zero,
        listen: flags.listen,
        tls: RoundsTls::load(&flags.rounds_tls)?,
        checkpoints: flags.checkpoints,
        deadline: Duration::from_secs(flags.deadline),
        traceparent: flags.traceparent,
    })
}
