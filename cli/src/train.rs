//! `vigia train`: what the trainer's rounds do, in one process.

use serde_json::json;
use sha2::{Digest, Sha256};
use vigia_model::artifact;
use vigia_model::keys::SigningKey;
use vigia_model::schema::Schema;
use vigia_trainer::data::Rows;
use vigia_trainer::fit::{self, Params, Trained};
use vigia_trainer::validate::MIN_HOLDOUT;

use crate::args::{Format, Train};
use crate::error::Failure;
use crate::say::Out;
use crate::{input, say};

/// Of all windows, this share is held out, or as many as are needed.
const HOLDOUT: f64 = 0.2;

/// Reads windows, fits, writes a model.
pub fn run(args: &Train) -> Result<u8, Failure> {
    // Before the work, so that a wrong key costs none.
    let key = args
        .sign_key
        .as_deref()
        .map(SigningKey::load)
        .transpose()
        .map_err(Failure::input)?;
    let bar = say::progress("reading windows");
    let rows = input::rows(&args.input, Schema::syscalls_v1())?;
    let held = held_out(rows.len())?;
    let (shard, holdout) = rows.hold_out(held, args.seed);
    let params = Params {
        name: args.name.clone(),
        estimators: args.estimators.clone(),
        components: args.pca,
        trees: args.trees,
        sample_size: args.sample_size,
        seed: args.seed,
        workers: 1,
        created_at: say::time(
            rows.about()
                .last()
                .map_or(0, |a| a.started_ms + i64::from(a.window_ms)),
        ),
        data_digest: data_digest(&rows),
    };
    bar.set_message(format!("training on {} windows", say::count(shard.len() as u64)));
    let trained = train(&shard, &holdout, &params)?;
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
            "windows": rows.len(),
            "heldOut": holdout.len(),
            "metrics": trained.metrics,
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
                "trained on {} windows, {} more held out",
                shard.len(),
                holdout.len()
            ));
            for (name, value) in &trained.metrics {
                out.line(&format!("{name} {}", (value * 1e4).round() / 1e4));
            }
        }
    }
    Ok(0)
}

fn train(shard: &Rows, holdout: &Rows, params: &Params) -> Result<Trained, Failure> {
    let part = fit::fit(shard, params, 0).map_err(Failure::input)?;
    fit::combine(vec![part], params, holdout).map_err(Failure::input)
}

fn held_out(windows: usize) -> Result<usize, Failure> {
    let held = ((windows as f64 * HOLDOUT) as usize).max(MIN_HOLDOUT);
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
fn data_digest(rows: &Rows) -> String {
    let mut hash = Sha256::new();
    for (i, about) in rows.about().iter().enumerate() {
        hash.update(about.started_ms.to_le_bytes());
        hash.update(about.source.to_le_bytes());
        hash.update(about.window_ms.to_le_bytes());
        rows.row(i).iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    let digest = artifact::Digest(hash.finalize().into());
    digest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_held_out_or_what_calibration_needs() {
        assert_eq!(held_out(1000), Ok(200));
        assert_eq!(held_out(60), Ok(25));
        assert!(held_out(49).is_err());
        assert!(held_out(0).is_err());
    }
}
