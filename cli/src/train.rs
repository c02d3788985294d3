//! `vigia train`: what the trainer's rounds do, in one process.

use serde_json::json;
use sha2::{Digest, Sha256};
use vigia_model::artifact;
use vigia_model::calibration::MIN_HOLDOUT;
use vigia_model::estimators::rate::LEAST_PAST;
use vigia_model::pipeline::{EstimatorKind, MAX_MEMBERS};
use vigia_model::schema::Schema;
use vigia_trainer::data::Rows;
use vigia_trainer::estimators::EstimatorError;
use vigia_trainer::fit::{self, FitError, Params, Trained};

use crate::alike::{self, FEW};
use crate::args::{self, Format, Train};
use crate::error::Failure;
use crate::labels::{self, Label};
use crate::say::Out;
use crate::worth::{self, Short};
use crate::{files, input, say};

const MORE_SEQUENCES: &str = "record more windows with `vigia trace --sequences`, or by an agent that traces in mode Sampled or \
    Full, or leave it out of --estimator";

/// Of all windows, this share is held out, or as many as are needed.
const HOLDOUT: f64 = 0.2;

/// Reads windows, fits, writes a model.
pub fn run(args: &Train) -> Result<u8, Failure> {
    // Before the work, so that what is wrong costs none.
    args::once("--estimator", &args.estimators)?;
    let inputs = args.input.iter().map(|path| ("--input", path.as_path()));
    let labels = labels::files(args);
    let key = args.sign_key.iter().map(|path| ("--sign-key", path.as_path()));
    files::apart(
        &[("--output", &args.output)],
        &Vec::from_iter(inputs.chain(labels).chain(key)),
    )?;
    labels::can_be_learnt(args)?;
    let count = args.estimators.len();
    if count > MAX_MEMBERS {
        return Err(
            Failure::input(format!("{count} estimators: a model has {MAX_MEMBERS} at most"))
                .next("leave some out of --estimator, or train two models"),
        );
    }
    if args.pca.is_some() && !args.estimators.iter().any(|kind| kind.takes_components()) {
        return Err(Failure::input(
            "--pca: principal components stand in front of estimators that measure distances",
        )
        .next("name one in --estimator, for example kmeans or pca"));
    }
    let key = args
        .sign_key
        .as_deref()
        .map(crate::keys::signing_key)
        .transpose()?;
    files::writable(&args.output)?;
    let bar = say::progress("reading windows");
    let rows = input::rows(&args.input, Schema::syscalls_v1())?;
    let labels = labels::read(args, &rows)?;
    let silent = can_learn(&args.estimators, &rows)?;
    let (captures, differ) = alike::of_training(&rows)?;
    let lengths = labels.iter().filter_map(|label| label.other_lengths(&rows));
    silent
        .into_iter()
        .chain(differ)
        .chain(lengths)
        .for_each(|warning| Out::Stderr.line(&warning));
    let params = Params {
        estimators: args.estimators.clone(),
        components: args.pca,
        trees: args.trees,
        sample_size: args.sample_size,
        seed: args.seed,
        captures,
        ..usual(&args.name)
    };
    let windows = rows.len();
    bar.set_message(format!("training on {}", say::windows(windows)));
    let Fitted {
        trained,
        held,
        short,
        odd,
    } = fit_rows(rows, labels, params)?;
    bar.finish_and_clear();

    let bytes = match &key {
        Some(key) => artifact::sign(&trained.artifact, key).map_err(Failure::input)?,
        None => trained.artifact,
    };
    artifact::write_atomic(&args.output, &bytes).map_err(|error| Failure::write(&args.output, error))?;
    let digest = artifact::digest(&bytes).to_string();
    let signer = key.map(|key| key.id().to_string());
    match args.format {
        Format::Json => say::json(&json!({
            "file": args.output,
            "digest": digest,
            "signedBy": signer,
            "windows": windows,
            "heldOut": held,
            "metrics": trained.metrics,
            "failedGates": short,
            "oddestStartedMs": odd,
        })),
        Format::Text => {
            let signed = signer.map_or_else(|| "unsigned".to_owned(), |id| format!("signed by key {id}"));
            let out = Out::Stdout;
            out.line(&format!(
                "{}: {} bytes, {signed}",
                args.output.display(),
                say::count(bytes.len() as u64)
            ));
            out.line(&digest);
            out.line(&format!(
                "trained on {} windows, {held} more held out",
                windows - held
            ));
            for (name, value) in &trained.metrics {
                out.line(&format!("{name} {}", (value * 1e4).round() / 1e4));
            }
        }
    }
    worth::warn(&args.output, &short, &args.estimators, &odd);
    worth::warn_of_attacks(&args.output, &trained.metrics);
    Ok(0)
}

/// A model of all windows but those that were held out of training.
pub struct Fitted {
    /// The model.
    pub trained: Trained,
    /// Windows that were held out.
    pub held: usize,
    /// Metrics that speak against it.
    pub short: Vec<Short>,
    /// Where there are any: when the windows began that it finds the oddest.
    pub odd: Vec<i64>,
}

/// What is trained where nothing is said.
pub fn usual(name: &str) -> Params {
    Params {
        name: name.to_owned(),
        estimators: EstimatorKind::DEFAULT.to_vec(),
        components: None,
        trees: 100,
        sample_size: 256,
        seed: 42,
        workers: 1,
        created_at: String::new(),
        data_digest: String::new(),
        captures: vec![],
    }
}

/// Trains on windows in the order of time, which `params` say of which calls they are; says itself when they were recorded.
pub fn fit_rows(rows: Rows, labels: Vec<Label>, mut params: Params) -> Result<Fitted, Failure> {
    let held = held_out(rows.len())?;
    let end = rows.about().last();
    params.created_at = say::time(end.map_or(0, |a| a.started_ms + i64::from(a.window_ms)));
    params.data_digest = data_digest(&rows, &labels);
    let labelled: Vec<_> = labels
        .into_iter()
        .map(|label| label.parted(params.seed))
        .collect();
    let (shard, holdout) = rows.hold_out(held, params.seed);
    let part = fit::fit(&shard, &params, 0).map_err(Failure::input)?;
    let trained = fit::combine(vec![part], &params, &holdout, &labelled).map_err(|error| unfit(&error))?;
    let short = worth::short(&trained.metrics);
    let odd = match short.is_empty() {
        true => Vec::new(),
        false => worth::oddest(&trained, [&shard, &holdout]).map_err(Failure::input)?,
    };
    Ok(Fitted {
        trained,
        held,
        short,
        odd,
    })
}

/// Why windows make no model, in words of who recorded them here.
fn unfit(error: &FitError) -> Failure {
    let (kind, what) = match error {
        FitError::Silent { kind, known, of } if kind.is_order() => (
            *kind,
            format!(
                "{known} of the {of} windows held out carry sequences of calls, and {MIN_HOLDOUT} must, spread over all of their time"
            ),
        ),
        FitError::Silent { kind, known, of } => (
            *kind,
            format!(
                "{known} of the {of} windows held out have {LEAST_PAST} others before them, and {MIN_HOLDOUT} must, spread \
                 over all of their time"
            ),
        ),
        FitError::Estimator(EstimatorError::TooFew { estimator, .. }) => {
            match estimator.parse::<EstimatorKind>() {
                Ok(kind) if kind.is_order() => {
                    (kind, "no sequence of calls in the windows to train on".to_owned())
                }
                _ => return Failure::input(error),
            }
        }
        _ => return Failure::input(error),
    };
    let more = if kind.is_order() {
        MORE_SEQUENCES
    } else {
        "trace for longer at a time, or leave it out of --estimator"
    };
    Failure::input(format!("{kind}: {what}")).next(more)
}

/// What looks at sequences of calls cannot be trained on windows that were recorded without them. Where some were, what
/// there is to say of that.
fn can_learn(estimators: &[EstimatorKind], rows: &Rows) -> Result<Option<String>, Failure> {
    let kinds: Vec<&str> = estimators
        .iter()
        .filter(|kind| kind.is_order())
        .map(|kind| kind.as_str())
        .collect();
    // A window without a call was recorded as well as it can be.
    let busy = |at: &usize| rows.row(*at).iter().any(|value| *value != 0.0);
    let busy: Vec<usize> = (0..rows.len()).filter(busy).collect();
    let without = busy.iter().filter(|at| rows.contexts()[**at].grams().is_empty());
    let without = without.count();
    let names = kinds.join(" and ");
    if !kinds.is_empty() && busy.is_empty() && !rows.is_empty() {
        return Err(Failure::input(format!(
            "{names}: no call in any of these windows, let alone a sequence of them"
        ))
        .next("trace it while it has something to do"));
    }
    // An idle thread makes no two calls in a window.
    if kinds.is_empty() || without * FEW < busy.len().max(1) {
        return Ok(None);
    }
    if without < busy.len() {
        return Ok(Some(format!(
            "warning: {without} of {} carry no sequences of calls: {names} learn from the others alone, and say nothing of \
             windows like these; record all of them with `vigia trace --sequences`, or by agents in mode Full",
            say::windows(busy.len())
        )));
    }
    Err(Failure::input(format!(
        "{names}: no sequence of calls in these windows, which is what that looks at"
    ))
    .next(MORE_SEQUENCES))
}

/// How many of so many windows are held out, which are `least` at least.
pub fn share(windows: usize, least: usize) -> usize {
    ((windows as f64 * HOLDOUT) as usize).max(least)
}

/// How many of so many windows are held out of training.
///
/// # Errors
/// They are too few to be divided.
pub fn held_out(windows: usize) -> Result<usize, Failure> {
    let held = share(windows, MIN_HOLDOUT);
    if held * 2 > windows {
        let least = 2 * MIN_HOLDOUT;
        return Err(Failure::input(format!(
            "{windows} windows are too few: at least {least} are needed"
        ))
        .next("trace for longer, or with a shorter --window"));
    }
    Ok(held)
}

/// Digest of the windows in their order, so that two models can be seen to come from the same data.
fn data_digest(rows: &Rows, labels: &[Label]) -> String {
    let mut hash = Sha256::new();
    add_windows(&mut hash, rows);
    for label in labels {
        hash.update(label.class.name());
        add_windows(&mut hash, &label.rows);
    }
    artifact::Digest(hash.finalize().into()).to_string()
}

fn add_windows(hash: &mut Sha256, rows: &Rows) {
    for (i, about) in rows.about().iter().enumerate() {
        hash.update(about.started_ms.to_le_bytes());
        hash.update(about.source.to_le_bytes());
        hash.update(about.window_ms.to_le_bytes());
        let context = &rows.contexts()[i];
        let values = rows.row(i).iter().chain(context.past());
        values.for_each(|x| hash.update(x.to_le_bytes()));
        for gram in context.grams() {
            hash.update(gram.id.to_le_bytes());
            hash.update(gram.count.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_learns_from_a_part_of_the_windows_says_so() {
        use vigia_model::context::{Context, Gram};
        use vigia_trainer::data::About;
        let rows_of = |with: usize, without: usize, idle: usize| {
            let mut rows = Rows::new(Schema::syscalls_v1());
            let vector = |value| vec![value; Schema::syscalls_v1().width()];
            for i in 0..with + without + idle {
                let gram = (i < with).then_some(Gram { id: 0x0203, count: 1 });
                let context = Context::new(gram.into_iter().collect(), vec![]).expect("a context");
                let calls = if i < with + without { 1.0 } else { 0.0 };
                rows.push_within(&vector(calls), About::default(), context)
                    .expect("a row");
            }
            rows
        };
        let rows = |with: usize, without: usize| rows_of(with, without, 0);
        let order = [EstimatorKind::Novelty, EstimatorKind::Ngram, EstimatorKind::Stide];
        let said = can_learn(&order, &rows(30, 20))
            .expect("some")
            .expect("a warning");
        assert!(
            said.starts_with("warning: 20 of 50 windows carry no sequences of calls: n-gram and stide learn"),
            "{said}"
        );
        assert_eq!(
            can_learn(&order, &rows(50, 2)),
            Ok(None),
            "an idle one now and then"
        );
        assert_eq!(
            can_learn(&order[..1], &rows(30, 20)),
            Ok(None),
            "it looks at counts"
        );
        assert_eq!(can_learn(&order, &rows(0, 0)), Ok(None), "that is said elsewhere");
        assert!(can_learn(&order, &rows(0, 50)).is_err());
        assert_eq!(
            can_learn(&order, &rows_of(30, 0, 90)),
            Ok(None),
            "they say all there is"
        );
        let idle = format!("{:?}", can_learn(&order, &rows_of(0, 0, 50)));
        assert!(
            idle.contains("no call in any") && !idle.contains("--sequences"),
            "{idle}"
        );
    }

    #[test]
    fn a_fifth_is_held_out_or_what_calibration_needs() {
        assert_eq!(held_out(1000), Ok(200));
        assert_eq!(held_out(60), Ok(25));
        assert!(held_out(49).is_err());
        assert!(held_out(0).is_err());
    }
}
