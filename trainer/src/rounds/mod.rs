//! One training over several pods, any of which may die at any moment.
//!
//! ```text
//! every rank                         rank 0                                operator
//! ──────────                         ──────                                ────────
//! Plan, Shard ◀──────────────────────────────────────────────────────────▶ Training
//! sums of moments ═ Reduce ════════▶ adds in the order of ranks
//!                ◀════════════════   the sum, when all have come
//! its trees, a sample ═ Contribute ═▶ keeps (memory, checkpoint)
//!                                    concatenates, fits, calibrates, validates ══▶ Submit
//! end ◀═ Reduce "done" ═════════════ submitted
//! ```
//!
//! Nothing has to be remembered for a right result: every part is a pure function of the shard and the plan, so
//! whoever comes back makes the same part again, and sending a part twice is sending it once. Hence:
//!
//! - a worker killed before or after its contribution starts again, and rank 0 keeps what came first;
//! - rank 0 killed at any moment starts again with empty hands (or its checkpoints), and the workers, who stay
//!   until the result is submitted, hand their parts over again;
//! - whoever starts, or looks again, after the submission is told so by the operator's Plan and ends well,
//!   so a rank 0 killed between the submission and the last farewell leaves nobody waiting.
//!
//! A rank that cannot reach another asks again with growing pauses until the deadline; a long wait is one call
//! of at most [`WAIT`], asked again.

mod board;
mod checkpoint;
mod operator;
mod plan;
mod retry;
mod service;
mod tls;
mod trace;
mod worker;
mod zero;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

pub use operator::OperatorConfig;
pub use retry::Fault;
pub use tls::RoundsTls;

/// Longest that rank 0 lets a call wait before it says "ask again".
pub const WAIT: Duration = Duration::from_secs(20);
/// Largest contribution of one worker.
pub const MAX_PART: usize = 32 << 20;
/// Largest shard, and largest set of held-out windows, as Parquet.
pub const MAX_SHARD: usize = 512 << 20;

/// Who this process is and where the others are.
#[derive(Debug, Clone)]
pub struct Config {
    /// The pod's completion index.
    pub rank: u32,
    /// How many ranks there are.
    pub workers: u32,
    /// Where plans and shards come from and the result goes to.
    pub operator: OperatorConfig,
    /// `host:port` of rank 0; the host must be a name of its certificate.
    pub rank_zero: String,
    /// Where rank 0 listens.
    pub listen: SocketAddr,
    /// Certificate, key and CA of this run.
    pub tls: RoundsTls,
    /// Folder for what a restart need not do again.
    pub checkpoints: PathBuf,
    /// When to give up, from the start.
    pub deadline: Duration,
    /// The span of the Job as W3C trace context, where the run is traced.
    pub traceparent: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Rank 0: the result is with the operator.
    Submitted {
        /// Its digest.
        digest: String,
    },
    /// A worker: its part is in a submitted result.
    Contributed,
    /// The run had its result already.
    AlreadySubmitted,
}

/// How far a rank is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Has the plan.
    Planned,
    /// Rank 0 takes calls.
    Serving,
    /// Has its shard.
    ShardRead,
    /// Has the sum of everyone's moments.
    Reduced,
    /// Has grown its trees.
    Grown,
    /// Rank 0 has, and has kept, its part.
    Contributed,
    /// Rank 0 has the artifact.
    Combined,
    /// The operator has the artifact.
    Submitted,
}

/// Is told of each stage, and holds the rank up until its future is done.
pub type Observer<'a> = dyn Fn(Stage) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'a;

/// Takes part in a round, as rank 0 or another, until the result is submitted.
///
/// # Errors
/// See [`Fault`]: what no retry heals, or what did not pass before the deadline.
pub async fn run(config: &Config, observer: &Observer<'_>) -> Result<Outcome, Fault> {
    if config.workers == 0 || config.rank >= config.workers {
        return Err(Fault::Config(format!(
            "rank {} of {} workers: the rank must be below the number of workers",
            config.rank, config.workers
        )));
    }
    let budget = retry::Budget::new(config.deadline, config.rank);
    let stages = trace::Stages::new();
    let observed = |stage| {
        stages.done(stage);
        observer(stage)
    };
    let outcome = if config.rank == 0 {
        zero::run(config, &budget, &observed).await
    } else {
        worker::run(config, &budget, &observed).await
    };
    stages.tell(config, &budget, &outcome).await;
    outcome
}
