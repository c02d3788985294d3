//! `vigia convert`: the same windows, or a model and what there is to say of it, in another form.

use std::path::{Path, PathBuf};

use vigia_model::artifact::{self, write_atomic};
use vigia_model::calibration::Severity;
use vigia_model::estimators::quantized::Precision;
use vigia_model::pipeline::{Pipeline, PipelineSpec};
use vigia_model::schema::Schema;
use vigia_trainer::data::Rows;
use vigia_trainer::parquet;

use crate::args::Convert;
use crate::error::Failure;
use crate::say::Out;
use crate::vector::Vector;
use crate::{files, gguf, input, model, say};

/// Reads one format and writes another.
pub fn run(args: &Convert) -> Result<u8, Failure> {
    let (from, to) = (args.from.as_path(), args.to.as_path());
    let mut inputs = args.trusted.files();
    inputs.push(("FROM", from));
    inputs.extend(args.on.iter().map(|path| ("--on", path.as_path())));
    files::apart(&[("TO", to)], &inputs)?;
    if let Some(precision) = args.quantize {
        return match (extension(from), extension(to)) {
            ("apr", "apr" | "gguf") => quantize(args, precision),
            (other, into) => Err(Failure::input(format!(
                "nothing quantizes {other:?} to {into:?}: models go from .apr to .apr and .gguf"
            ))
            .next("see vigia convert --help")),
        };
    }
    match (extension(from), extension(to)) {
        ("apr", "gguf") => export(args),
        ("apr", "json") => describe(from, to),
        ("jsonl" | "ndjson" | "json" | "parquet", "parquet") => to_parquet(from, to),
        ("parquet", "jsonl") => to_vectors(from, to),
        (other, into) => Err(Failure::input(format!(
            "nothing converts {other:?} to {into:?}: windows go from .jsonl to .parquet and back, models from .apr to .json and .gguf"
        ))
        .next("see vigia convert --help")),
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

fn done(to: &Path, windows: usize) -> u8 {
    Out::Stderr.line(&format!("{} in {}", say::windows(windows), to.display()));
    0
}

/// As `vigia trace --output` does, this writes no file of nothing.
fn some_rows(from: &Path) -> Result<Rows, Failure> {
    let rows = input::rows(&[from.to_owned()], Schema::syscalls_v1())?;
    if rows.is_empty() {
        return Err(Failure::read(from, "nothing to learn from in it")
            .next("record it again: trace for longer, or with a shorter --window"));
    }
    Ok(rows)
}

fn to_parquet(from: &Path, to: &Path) -> Result<u8, Failure> {
    let bar = say::progress("converting");
    let rows = some_rows(from)?;
    let bytes = parquet::write(&rows, "", "").map_err(|error| Failure::write(to, error))?;
    write_atomic(to, &bytes).map_err(|error| Failure::write(to, error))?;
    bar.finish_and_clear();
    Ok(done(to, rows.len()))
}

fn to_vectors(from: &Path, to: &Path) -> Result<u8, Failure> {
    let bar = say::progress("converting");
    let rows = some_rows(from)?;
    let mut text = Vec::new();
    for index in 0..rows.len() {
        serde_json::to_writer(&mut text, &Vector::of(&rows, index))
            .map_err(|error| Failure::write(to, error))?;
        text.push(b'\n');
    }
    write_atomic(to, &text).map_err(|error| Failure::write(to, error))?;
    bar.finish_and_clear();
    Ok(done(to, rows.len()))
}

fn export(args: &Convert) -> Result<u8, Failure> {
    let (metadata, spec) = input::spec(&args.from, &args.trusted)?;
    let bytes = gguf::write(&metadata, spec).map_err(|error| Failure::write(&args.to, error))?;
    write_atomic(&args.to, &bytes).map_err(|error| Failure::write(&args.to, error))?;
    Ok(0)
}

fn quantize(args: &Convert, precision: Precision) -> Result<u8, Failure> {
    let (mut metadata, mut spec) = input::spec(&args.from, &args.trusted)?;
    let whole = compiled(args, &spec)?;
    if spec.quantize(precision) == 0 {
        return Err(
            Failure::input(format!("{}: there is no network in it", args.from.display())).next(
                "only networks have weights; train with --estimator autoencoder, or leave the model as it is",
            ),
        );
    }
    metadata
        .labels
        .insert("weights".to_owned(), precision.to_string());
    if args.on.is_empty() {
        let labels = &mut metadata.labels;
        labels.insert(ACCURACY_LOST.to_owned(), "not measured".to_owned());
        Out::Stdout.line(
            "what it costs in accuracy was not measured: name windows with --on, and it is said how much scores differ",
        );
    } else {
        let lost = Lost::measure(&whole, &compiled(args, &spec)?, &args.on)?;
        metadata
            .metrics
            .insert("quantized.scoreDifferenceMean".to_owned(), lost.mean);
        metadata
            .metrics
            .insert("quantized.scoreDifferenceMax".to_owned(), lost.most);
        Out::Stdout.line(&format!(
            "{}: scores differ by {:.6} on average and {:.6} at most; {} of another severity",
            say::windows(lost.windows),
            lost.mean,
            lost.most,
            lost.severities
        ));
    }
    let (bytes, signed) = if extension(&args.to) == "gguf" {
        let bytes = gguf::write(&metadata, spec).map_err(|error| Failure::write(&args.to, error))?;
        (bytes, "")
    } else {
        let bytes = artifact::encode(&metadata, &spec).map_err(|error| Failure::write(&args.to, error))?;
        (bytes, ", unsigned")
    };
    write_atomic(&args.to, &bytes).map_err(|error| Failure::write(&args.to, error))?;
    Out::Stdout.line(&format!(
        "{}: {} bytes, weights in {precision}{signed}",
        args.to.display(),
        say::count(bytes.len() as u64)
    ));
    Ok(0)
}

fn compiled(args: &Convert, spec: &PipelineSpec) -> Result<Pipeline, Failure> {
    spec.compile(Schema::syscalls_v1())
        .map_err(|error| Failure::read(&args.from, error))
}

/// What a model of weights in few bits says of itself that was compared with the whole one on no windows.
const ACCURACY_LOST: &str = "accuracyLost";

/// What it costs that weights are stored in few bits, in calibrated scores.
struct Lost {
    windows: usize,
    mean: f64,
    most: f64,
    /// Windows that are another severity now.
    severities: usize,
}

impl Lost {
    fn measure(before: &Pipeline, after: &Pipeline, windows: &[PathBuf]) -> Result<Self, Failure> {
        let rows = input::rows(windows, before.schema())?;
        let scores = |pipeline: &Pipeline| {
            let contexts = rows.contexts();
            let verdict = |i: usize| pipeline.score_vector(rows.row(i), &contexts[i]);
            let score = |i| verdict(i).map(|verdict| verdict.score);
            (0..rows.len())
                .map(score)
                .collect::<Result<Vec<_>, _>>()
                .map_err(Failure::input)
        };
        let (before, after) = (scores(before)?, scores(after)?);
        let pairs = || before.iter().zip(&after);
        let differences = || pairs().map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        let changed = pairs().filter(|(a, b)| Severity::of(**a) != Severity::of(**b));
        Ok(Self {
            windows: rows.len(),
            mean: differences().sum::<f64>() / rows.len().max(1) as f64,
            most: differences().fold(0.0, f64::max),
            severities: changed.count(),
        })
    }
}

fn describe(from: &Path, to: &Path) -> Result<u8, Failure> {
    let bytes = input::bytes(from)?;
    let found = artifact::inspect(&bytes).map_err(|error| input::refused(from, &error))?;
    let document = model::document(&found, "not verified", None);
    let mut text = serde_json::to_vec_pretty(&document).map_err(|error| Failure::write(to, error))?;
    text.push(b'\n');
    write_atomic(to, &text).map_err(|error| Failure::write(to, error))?;
    Ok(0)
}
