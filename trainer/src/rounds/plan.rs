//! The operator's plan, understood and checked once.

use sha2::{Digest as _, Sha256};
use vigia_model::artifact::Task;
use vigia_model::pipeline::{EstimatorKind, MAX_MEMBERS};
use vigia_model::schema::Schema;
use vigia_model::syscalls::is_fingerprint;
use vigia_proto::v1::RunPlan;

use super::{Config, Fault};
use crate::fit::Params;
use crate::forest::MAX_SAMPLE;

/// Most trees of a forest; as many as the model's format takes.
const MAX_TREES: u32 = vigia_model::forest::MAX_TREES as u32;
/// Most ways in which a run's windows may have been made.
const MAX_CAPTURES: usize = 64;
/// Most ranks: what a TrainingRun allows, with room.
const MAX_WORKERS: u32 = 64;

/// What to train.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Parameters of the fit.
    pub params: Params,
    /// The windows' schema.
    pub schema: &'static Schema,
    /// Tells plans apart, so that parts of another run, or of other data, are never mixed in.
    pub fingerprint: [u8; 32],
    /// The run has its result.
    pub submitted: bool,
}

impl Plan {
    /// Checks a plan against what this process was told and can do.
    ///
    /// # Errors
    /// What does not fit; another try would get the same plan.
    pub fn new(plan: &RunPlan, config: &Config) -> Result<Self, Fault> {
        let refuse = |why: String| {
            Err(Fault::Input(format!(
                "run {}/{}: {why}",
                plan.namespace, plan.run
            )))
        };
        if plan.workers != config.workers || plan.workers > MAX_WORKERS {
            return refuse(format!(
                "the plan has {} workers, --workers says {}",
                plan.workers, config.workers
            ));
        }
        if plan.task != Task::Anomaly.to_string() {
            return refuse(format!("this trainer does not know task {:?}", plan.task));
        }
        let Some(schema) = Schema::all().find(|s| s.hash().to_string() == plan.schema) else {
            return refuse(format!(
                "this trainer does not have feature schema {:?}",
                plan.schema
            ));
        };
        if !(1..=MAX_TREES).contains(&plan.trees) || !(2..=MAX_SAMPLE).contains(&plan.sample_size) {
            return refuse(format!(
                "{} trees of {} windows: write 1 to {MAX_TREES} trees of 2 to {MAX_SAMPLE} windows",
                plan.trees, plan.sample_size
            ));
        }
        let kinds: Result<Vec<EstimatorKind>, _> = plan.estimators.iter().map(|name| name.parse()).collect();
        let kinds = match kinds {
            Ok(kinds) if kinds.is_empty() => EstimatorKind::DEFAULT.to_vec(),
            Ok(kinds) if kinds.len() <= MAX_MEMBERS => kinds,
            Ok(kinds) => return refuse(format!("{} estimators: write at most {MAX_MEMBERS}", kinds.len())),
            Err(unknown) => return refuse(unknown.to_string()),
        };
        if plan.captures.len() > MAX_CAPTURES || !plan.captures.iter().all(|text| is_fingerprint(text)) {
            return refuse("what its windows were made of is not said as it should be".to_owned());
        }
        let Ok(created) = jiff::Timestamp::from_millisecond(plan.created_unix_ms) else {
            return refuse(format!("created_unix_ms {} is no time", plan.created_unix_ms));
        };
        Ok(Self {
            params: Params {
                name: format!("{}/{}", plan.namespace, plan.model),
                estimators: kinds,
                components: (plan.components > 0).then_some(plan.components),
                trees: plan.trees,
                sample_size: plan.sample_size,
                seed: plan.seed,
                workers: plan.workers,
                created_at: created.to_string(),
                data_digest: plan.data_digest.clone(),
                captures: plan.captures.clone(),
            },
            schema,
            fingerprint: fingerprint(plan),
            submitted: plan.submitted,
        })
    }
}

fn fingerprint(plan: &RunPlan) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in [
        &plan.namespace,
        &plan.run,
        &plan.model,
        &plan.task,
        &plan.schema,
        &plan.data_digest,
    ] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    for name in &plan.estimators {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
    }
    for number in [plan.workers, plan.trees, plan.sample_size, plan.components] {
        hash.update(number.to_le_bytes());
    }
    for capture in &plan.captures {
        hash.update((capture.len() as u64).to_le_bytes());
        hash.update(capture);
    }
    hash.update(plan.seed.to_le_bytes());
    hash.update(plan.created_unix_ms.to_le_bytes());
    hash.finalize().into()
}
