//! `vigia convert`: the same windows, or what there is to say of a model, in another format.

use std::path::Path;

use vigia_model::artifact::{self, write_atomic};
use vigia_model::schema::Schema;
use vigia_trainer::parquet;

use crate::args::Convert;
use crate::error::Failure;
use crate::say::Out;
use crate::vector::Vector;
use crate::{input, model, say};

/// Reads one format and writes another.
pub fn run(args: &Convert) -> Result<u8, Failure> {
    let (from, to) = (args.from.as_path(), args.to.as_path());
    match (extension(from), extension(to)) {
        ("apr", "json") => describe(from, to),
        ("jsonl" | "ndjson" | "json" | "parquet", "parquet") => to_parquet(from, to),
        ("parquet", "jsonl") => to_vectors(from, to),
        (other, into) => Err(Failure::input(format!(
            "nothing converts {other:?} to {into:?}: windows go from .jsonl to .parquet and back, models from .apr to .json"
        ))
        .next("see vigia convert --help")),
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

fn done(to: &Path, windows: usize) -> u8 {
    let windows = say::count(windows as u64);
    Out::Stderr.line(&format!("{windows} windows in {}", to.display()));
    0
}

fn to_parquet(from: &Path, to: &Path) -> Result<u8, Failure> {
    let bar = say::progress("converting");
    let rows = input::rows(&[from.to_owned()], Schema::syscalls_v1())?;
    let bytes = parquet::write(&rows, "", "").map_err(|error| Failure::write(to, error))?;
    write_atomic(to, &bytes).map_err(|error| Failure::write(to, error))?;
    bar.finish_and_clear();
    Ok(done(to, rows.len()))
}

fn to_vectors(from: &Path, to: &Path) -> Result<u8, Failure> {
    let bar = say::progress("converting");
    let rows = input::rows(&[from.to_owned()], Schema::syscalls_v1())?;
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

fn describe(from: &Path, to: &Path) -> Result<u8, Failure> {
    let bytes = input::bytes(from)?;
    let found = artifact::inspect(&bytes).map_err(|error| input::refused(from, &error))?;
    let document = model::document(&found, "not verified", None);
    let mut text = serde_json::to_vec_pretty(&document).map_err(|error| Failure::write(to, error))?;
    text.push(b'\n');
    write_atomic(to, &text).map_err(|error| Failure::write(to, error))?;
    Ok(0)
}
