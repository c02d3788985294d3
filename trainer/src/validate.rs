//! What validation measures on held-out windows: do false alarms stay rare, and is something new seen?

use vigia_model::calibration::{FOLDS, Severity};
use vigia_model::context::{Context, Gram, ORDER};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::pipeline::{
    EstimatorSpec, Observed, Pipeline, PipelineError, PipelineSpec, ScoreError, Verdict,
};
use vigia_model::schema::{Feature, from_rate, to_rate};

use crate::data::{Labelled, Rows};

/// Share of held-out windows with a p-value below [`ALPHA`], among those with any; see `TrainingMetric` of the API.
pub const HOLDOUT_EXCEEDANCE: &str = "HoldoutExceedance";
/// Share of held-out windows that are flagged once system calls are added that training never saw.
pub const INJECTION_RECALL: &str = "InjectionRecall";
/// The p-value below which a held-out window counts as flagged.
pub const ALPHA: f64 = 0.01;
/// Different system calls added to a window, and how often each.
const INJECTED: usize = 3;
const TIMES: f64 = 3.0;

/// Share of held-out windows below [`ALPHA`] when each fifth, contiguous in time, is scored by what was
/// calibrated on the other four (and on `left_out`, see [`PipelineSpec::calibrate_beside`]): windows that calibrated
/// themselves would always hold. Windows of which the estimators say nothing are left out: no node has a score of such.
///
/// # Errors
/// Estimators that do not calibrate.
pub fn exceedance(
    deviation: &Deviation,
    estimators: &[EstimatorSpec],
    holdout: &Rows,
    left_out: &[f32],
) -> Result<f64, PipelineError> {
    let schema = holdout.schema();
    let (mut flagged, mut scored) = (0usize, 0usize);
    for fold in 0..FOLDS {
        let cut = |part: usize| holdout.len() * part / FOLDS;
        let (start, end) = (cut(fold), cut(fold + 1));
        let width = holdout.width();
        let (values, contexts) = (holdout.values(), holdout.contexts());
        let vectors = [&values[..start * width], &values[end * width..]].concat();
        let rest = [&contexts[..start], &contexts[end..]].concat();
        let rest = Observed {
            vectors: &vectors,
            contexts: &rest,
        };
        let spec =
            PipelineSpec::calibrate_beside(schema, deviation.clone(), estimators.to_vec(), rest, left_out)?;
        let pipeline = spec.compile(schema)?;
        let verdicts = (start..end).map(|i| pipeline.score_vector(holdout.row(i), &contexts[i]));
        for verdict in verdicts {
            scored += usize::from(verdict.is_ok());
            flagged += usize::from(is_flagged(&verdict));
        }
    }
    Ok(flagged as f64 / scored.max(1) as f64)
}

/// Share of held-out windows below [`ALPHA`] after three calls each of three system calls are added that
/// training never saw (the three rarest ones, where it saw almost all): to the counts, and where a window has sequences of
/// calls, to those too, after its most frequent one, which then goes on. Where sequences are counted in a part of the time,
/// that is as if the calls had been made in it. Who sees neither, by how it works, flags next to none.
pub fn injection_recall(pipeline: &Pipeline, moments: &Moments, holdout: &Rows) -> f64 {
    let features = holdout.schema().features();
    let mut pool: Vec<usize> = (0..features.len())
        .filter(|&f| matches!(features[f], Feature::Group(_)))
        .collect();
    // Stable: the order among equally rare ones is that of the schema.
    pool.sort_by_key(|&f| moments.present[f]);
    let unseen = pool.iter().filter(|&&f| moments.present[f] == 0).count();
    pool.truncate(unseen.max(INJECTED));
    let tail = features.len() - 2;
    let injected = |i: usize| {
        let mut row = holdout.row(i).to_vec();
        let rate = TIMES * 1000.0 / f64::from(holdout.about()[i].window_ms);
        // A different, but always the same, choice for each window.
        for k in 0..INJECTED {
            let feature = pool[(i * INJECTED + k) % pool.len()];
            row[tail + 1] =
                (f64::from(row[tail + 1]).exp() + f64::from(u8::from(row[feature] == 0.0))).ln() as f32;
            row[feature] = from_rate(to_rate(row[feature]) + rate);
            row[tail] = from_rate(to_rate(row[tail]) + rate);
        }
        row
    };
    let context = |i: usize| {
        let places = (0..INJECTED).map(|k| pool[(i * INJECTED + k) % pool.len()]);
        interrupted(&holdout.contexts()[i], places)
    };
    let scored = (0..holdout.len()).map(|i| pipeline.score_vector(&injected(i), &context(i)));
    scored.filter(is_flagged).count() as f64 / holdout.len().max(1) as f64
}

/// What is found of labelled windows that were held out: `MaliciousRecall`, the share of which the severity is low at least,
/// whichever of the model's estimators says so, since what is below is shown to nobody; and `RandomForestMaliciousRecall`, the share that this classifier finds to be malicious, rather than
/// normal or suspicious.
pub fn label_recall(pipeline: &Pipeline, spec: &PipelineSpec, labelled: &Labelled) -> Vec<(String, f64)> {
    let (rows, class) = (&labelled.holdout, labelled.class);
    let share = |found: usize| found as f64 / rows.len().max(1) as f64;
    let scored = (0..rows.len()).map(|i| pipeline.score_vector(rows.row(i), &rows.contexts()[i]));
    let mut recalls = vec![(
        format!("{}Recall", class.metric()),
        share(scored.filter(is_shown).count()),
    )];
    for member in &spec.members {
        let EstimatorSpec::Vector(staged) = &member.estimator else {
            continue;
        };
        if !staged.kind().is_classifier() {
            continue;
        }
        let is_told = |i: &usize| {
            let shares = staged.classes(rows.row(*i));
            shares.is_some_and(|shares| shares.iter().all(|share| *share <= shares[class as usize]))
        };
        let name = format!("{}{}Recall", staged.kind().api_name(), class.metric());
        recalls.push((name, share((0..rows.len()).filter(is_told).count())));
    }
    recalls
}

/// What is known of a window once calls of these places are made after its most frequent sequence, which then goes on;
/// that which was known, where it has no sequences.
fn interrupted(context: &Context, places: impl Iterator<Item = usize>) -> Context {
    let Some(most) = context.grams().iter().max_by_key(|gram| gram.count) else {
        return context.clone();
    };
    let mut usual: Vec<usize> = Gram::latest_first(most.id).collect();
    usual.reverse();
    let odd = |place| {
        let run: Vec<usize> = usual
            .iter()
            .chain(std::iter::repeat_n(&place, TIMES as usize))
            .chain(&usual)
            .copied()
            .collect();
        let ends = usual.len() + 1..run.len();
        let gram = |end: usize| Gram {
            id: Gram::id_of(run[end.saturating_sub(ORDER)..end].iter().copied()),
            count: 1,
        };
        ends.map(gram).collect::<Vec<_>>()
    };
    context.with(places.flat_map(odd))
}

/// Whether who scores with the model sees it stand out.
fn is_shown(scored: &Result<Verdict, ScoreError>) -> bool {
    scored
        .as_ref()
        .is_ok_and(|verdict| verdict.severity != Severity::None)
}

/// A window of which the model can say nothing is not flagged.
fn is_flagged(scored: &Result<Verdict, ScoreError>) -> bool {
    scored.as_ref().is_ok_and(|verdict| verdict.p_value < ALPHA)
}
