//! Rank 0: a worker like the others, which also listens, puts the parts together and submits.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use vigia_model::artifact;
use vigia_proto::v1::SubmitHeader;

use super::board::{Board, flatten};
use super::checkpoint::Checkpoints;
use super::operator::Operator;
use super::plan::Plan;
use super::retry::{Budget, retry};
use super::worker::{blocking, contribution, decode};
use super::{Config, Fault, Observer, Outcome, Stage, service};
use crate::fit;

/// How long workers are waited for after the submission; who comes later learns of it from the operator.
const FAREWELL: Duration = Duration::from_secs(15);

/// See [`super::run`].
pub async fn run(config: &Config, budget: &Budget, observer: &Observer<'_>) -> Result<Outcome, Fault> {
    let operator = Operator::new(&config.operator, budget, 0);
    let plan = Plan::new(&operator.plan().await?, config)?;
    observer(Stage::Planned).await;
    if plan.submitted {
        return Ok(Outcome::AlreadySubmitted);
    }
    let checkpoints = Checkpoints::new(&config.checkpoints, plan.fingerprint);
    let board = blocking(move || Arc::new(Board::new(plan, checkpoints))).await?;

    let bind = || async {
        let bound = TcpListener::bind(config.listen).await;
        bound.map_err(|error| tonic::Status::unavailable(format!("{}: {error}", config.listen)).into())
    };
    let listener = retry("listening for workers", budget, bind).await?;
    let (end, ended) = oneshot::channel::<()>();
    let serving = service::serve(board.clone(), &config.tls, listener, async {
        let _ = ended.await;
    });
    let working = async {
        observer(Stage::Serving).await;
        let outcome = work(&board, &operator, budget, observer).await?;
        let _ = tokio::time::timeout(FAREWELL, board.all_dismissed()).await;
        let _ = end.send(());
        Ok(outcome)
    };
    let (mut serving, mut working) = (std::pin::pin!(serving), std::pin::pin!(working));
    tokio::select! {
        ended = &mut serving => {
            ended?;
            Err(Fault::Passing("the rounds' server ended".to_owned()))
        }
        outcome = &mut working => {
            // Farewells under way still go out.
            let _ = tokio::time::timeout(Duration::from_secs(5), serving).await;
            outcome
        }
    }
}

async fn work(
    board: &Arc<Board>,
    operator: &Operator<'_>,
    budget: &Budget,
    observer: &Observer<'_>,
) -> Result<Outcome, Fault> {
    let internal = |status: tonic::Status| Fault::Input(format!("own part: {}", status.message()));
    if board.has(0) != (true, true) {
        let rows = Arc::new(decode("the shard", operator.shard().await?, board.plan()).await?);
        tracing::info!(windows = rows.len(), "shard read");
        observer(Stage::ShardRead).await;
        let moments = fit::moments(&rows).map_err(|error| Fault::Input(error.to_string()))?;
        let (keeper, values) = (board.clone(), flatten(&moments));
        blocking(move || keeper.moments(0, &values))
            .await?
            .map_err(internal)?;
        wait("moments of all workers", board, budget, board.sum()).await?;
        observer(Stage::Reduced).await;
        let part = contribution(board.plan().clone(), rows, 0).await?;
        observer(Stage::Grown).await;
        let keeper = board.clone();
        blocking(move || keeper.contribution(&part))
            .await?
            .map_err(internal)?;
    }
    observer(Stage::Contributed).await;
    let parts = wait("contributions of all workers", board, budget, board.parts()).await?;
    let holdout = decode("the held-out windows", operator.holdout().await?, board.plan()).await?;
    let (windows, params) = (holdout.len(), board.plan().params.clone());
    let trained = blocking(move || fit::combine(parts, &params, &holdout, &[])).await?;
    let trained = trained.map_err(|error| Fault::Input(error.to_string()))?;
    observer(Stage::Combined).await;

    let header = SubmitHeader {
        digest: artifact::digest(&trained.artifact).to_string(),
        size: trained.artifact.len() as u64,
        metrics: trained.metrics.into_iter().collect(),
    };
    tracing::info!(digest = header.digest, size = header.size, holdout = windows, metrics = ?header.metrics, "submitting");
    operator.submit(&header, &trained.artifact.into()).await?;
    board.submitted();
    observer(Stage::Submitted).await;
    Ok(Outcome::Submitted {
        digest: header.digest,
    })
}

/// Waits with a word about whom for.
async fn wait<T>(
    what: &str,
    board: &Board,
    budget: &Budget,
    future: impl Future<Output = T>,
) -> Result<T, Fault> {
    let mut future = std::pin::pin!(future);
    loop {
        match budget
            .within(what, tokio::time::timeout(super::WAIT, &mut future))
            .await
        {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(_)) => tracing::info!(for_ = board.awaited(), "waiting"),
            Err(_) => {
                return Err(Fault::Passing(format!(
                    "{what}: the deadline is over, waiting for {}",
                    board.awaited()
                )));
            }
        }
    }
}
