//! A rank other than 0: makes its part once, and hands it over until the result is submitted.

use vigia_model::deviation::Moments;
use vigia_proto::MAX_CHUNK;
use vigia_proto::v1::{Chunk, ReduceRequest};

use super::board::{Contribution, flatten};
use super::operator::Operator;
use super::plan::Plan;
use super::retry::{Budget, CallError, Patience};
use super::service::{self, DONE, MOMENTS};
use super::{Config, Fault, Observer, Outcome, Stage};
use crate::data::Rows;
use crate::{fit, parquet};

/// See [`super::run`].
pub async fn run(config: &Config, budget: &Budget, observer: &Observer<'_>) -> Result<Outcome, Fault> {
    let operator = Operator::new(&config.operator, budget, config.rank);
    let mut patience = Patience::new(budget.clone());
    let mut part: Option<Part> = None;
    loop {
        let plan = Plan::new(&operator.plan().await?, config)?;
        observer(Stage::Planned).await;
        if plan.submitted {
            return Ok(Outcome::AlreadySubmitted);
        }
        // Another plan than before would be a bug of the operator's; the part follows it all the same.
        if part
            .as_ref()
            .is_none_or(|p| p.plan.fingerprint != plan.fingerprint)
        {
            part = Some(Part::new(plan, &operator, observer).await?);
        }
        let Some(part) = &mut part else { continue };
        match budget
            .within(
                "taking part in the round",
                part.hand_over(config, observer, &mut patience),
            )
            .await?
        {
            Ok(()) => return Ok(Outcome::Contributed),
            Err(error) => patience.after("taking part in the round", error).await?,
        }
    }
}

/// Reads a shard, refusing what is no set of windows.
pub async fn decode(what: &'static str, bytes: bytes::Bytes, plan: &Plan) -> Result<Rows, Fault> {
    let schema = plan.schema;
    blocking(move || {
        let mut rows =
            parquet::read(bytes, schema).map_err(|error| Fault::Input(format!("{what}: {error}")))?;
        rows.sort();
        Ok(rows)
    })
    .await?
}

/// Work that would hold up the answers of a whole thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Fault::Passing(format!("a thread died: {error}")))
}

struct Part {
    plan: Plan,
    rows: std::sync::Arc<Rows>,
    moments: Moments,
    /// Made at the first hand-over, kept for the next.
    contribution: Option<Vec<u8>>,
}

impl Part {
    async fn new(plan: Plan, operator: &Operator<'_>, observer: &Observer<'_>) -> Result<Self, Fault> {
        let rows = decode("the shard", operator.shard().await?, &plan).await?;
        tracing::info!(windows = rows.len(), "shard read");
        observer(Stage::ShardRead).await;
        let moments = fit::moments(&rows).map_err(|error| Fault::Input(error.to_string()))?;
        Ok(Self {
            plan,
            rows: rows.into(),
            moments,
            contribution: None,
        })
    }

    async fn hand_over(
        &mut self,
        config: &Config,
        observer: &Observer<'_>,
        patience: &mut Patience,
    ) -> Result<(), CallError> {
        let mut zero = service::connect(&config.rank_zero, &config.tls).await?;
        let reduce = |round: &str, values| ReduceRequest {
            rank: config.rank,
            round: round.to_owned(),
            values,
        };
        zero.reduce(reduce(MOMENTS, flatten(&self.moments))).await?;
        patience.calm();
        observer(Stage::Reduced).await;
        if self.contribution.is_none() {
            self.contribution = Some(contribution(self.plan.clone(), self.rows.clone(), config.rank).await?);
            observer(Stage::Grown).await;
        }
        let bytes = self.contribution.as_deref().unwrap_or_default();
        let chunks: Vec<Chunk> = bytes
            .chunks(MAX_CHUNK)
            .map(|data| Chunk {
                data: data.to_vec().into(),
            })
            .collect();
        zero.contribute(tokio_stream::iter(chunks)).await?;
        patience.calm();
        observer(Stage::Contributed).await;
        zero.reduce(reduce(DONE, vec![])).await?;
        Ok(())
    }
}

/// Makes a rank's share.
pub async fn contribution(plan: Plan, rows: std::sync::Arc<Rows>, rank: u32) -> Result<Vec<u8>, Fault> {
    blocking(move || {
        let share = fit::share(&rows, &plan.params, rank).map_err(|error| Fault::Input(error.to_string()))?;
        let part = Contribution {
            rank,
            fingerprint: plan.fingerprint,
            share,
        };
        part.encode()
            .map_err(|error| Fault::Input(format!("the share cannot be sent: {error}")))
    })
    .await?
}
