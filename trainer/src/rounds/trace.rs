//! What a rank did when, told to the operator at its end where the run is traced. Its end waits for that for [`PATIENCE`]
//! at most, and nothing fails by it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vigia_proto::MAX_STAGES;
use vigia_proto::v1::{self, StageEnd, TraceRequest};

use super::operator::Operator;
use super::retry::Budget;
use super::{Config, Fault, Outcome, Stage};

/// How long it may take to tell.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest reason of a failure that is told, in characters.
const MAX_ERROR: usize = 256;

/// When stages were done.
#[derive(Debug)]
pub struct Stages {
    start_us: i64,
    ends: Mutex<Vec<StageEnd>>,
}

impl Stages {
    /// From now.
    pub fn new() -> Self {
        Self {
            start_us: now_us(),
            ends: Mutex::default(),
        }
    }

    /// A stage is done.
    pub fn done(&self, stage: Stage) {
        let stage = match stage {
            Stage::Planned => v1::Stage::Plan,
            Stage::Serving => return,
            Stage::ShardRead => v1::Stage::Shard,
            Stage::Reduced => v1::Stage::Moments,
            Stage::Grown => v1::Stage::Fit,
            Stage::Contributed => v1::Stage::Contribute,
            Stage::Combined => v1::Stage::Combine,
            Stage::Submitted => v1::Stage::Submit,
        };
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        // A rank that begins again tells of its first try.
        if ends.len() < MAX_STAGES {
            ends.push(StageEnd {
                stage: stage.into(),
                end_unix_us: now_us(),
            });
        }
    }

    fn told(&self, config: &Config, traceparent: &str, outcome: &Result<Outcome, Fault>) -> TraceRequest {
        let stages = self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let error = outcome.as_ref().err().map(ToString::to_string);
        TraceRequest {
            rank: config.rank,
            traceparent: traceparent.to_owned(),
            start_unix_us: self.start_us,
            end_unix_us: now_us(),
            stages,
            error: error.unwrap_or_default().chars().take(MAX_ERROR).collect(),
        }
    }

    /// Tells the operator, where the run is traced.
    pub async fn tell(&self, config: &Config, budget: &Budget, outcome: &Result<Outcome, Fault>) {
        let Some(traceparent) = &config.traceparent else {
            return;
        };
        let operator = Operator::new(&config.operator, budget, config.rank);
        let request = self.told(config, traceparent, outcome);
        match tokio::time::timeout(PATIENCE, operator.trace(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(?error, "the operator was not told what took how long"),
            Err(_) => tracing::warn!("the operator was not told in time what took how long"),
        }
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
