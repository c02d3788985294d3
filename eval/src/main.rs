//! Judges the estimators on public data, beside baselines measured in the same run (`make eval`).
//!
//! Every figure is a row: printed as a table and written to `<out>/<name>.json`. Nothing here is tuned by the
//! run: models are fitted on the training parts that the data's README names, and settings are constants of
//! the estimators, so that the same command on another folder of the same layout is a fair test.
//!
//! A row says whether a node runs what it judges ([`row::Subject`]): the targets are for estimators of the library that
//! no artifact carries, and the rows of `node` judge what one does.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

mod adfa;
mod budget;
mod cpu;
mod data;
mod linear;
mod metrics;
mod nab;
mod nab_score;
mod node;
mod row;
mod smd;

use row::{Provenance, Row};

/// Judge the estimators on evaluation data.
#[derive(Debug, Parser)]
#[command(name = "vigia-eval", version)]
struct Args {
    /// Folder with the data: adfa-ld, smd, nab, google-cpu; parts that are missing are passed over.
    #[arg(long)]
    data: PathBuf,
    /// Folder for the rows, one JSON file each.
    #[arg(long, default_value = "target/eval")]
    out: PathBuf,
    /// Version of the code, for the rows.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    code: String,
    /// Judge these alone: adfa, smd, nab, cpu.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

type Part = (&'static str, &'static str, fn(&Path) -> Result<Vec<Row>>);

const PARTS: [Part; 4] = [
    ("adfa", "adfa-ld", adfa::judge),
    ("smd", "smd", smd::judge),
    ("nab", "nab", nab::judge),
    ("cpu", "google-cpu", cpu::judge),
];

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vigia-eval: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    anyhow::ensure!(
        args.data.is_dir(),
        "{} is not a folder: say where the evaluation data is, as in `make eval DATA=../shared/data`",
        args.data.display()
    );
    if let Some(unknown) = args.only.iter().find(|o| PARTS.iter().all(|p| p.0 != o.as_str())) {
        anyhow::bail!("--only {unknown}: write adfa, smd, nab or cpu");
    }
    let provenance = Provenance::new(&args.code);
    let mut rows = Vec::new();
    for (name, folder, judge) in PARTS {
        if !args.only.is_empty() && args.only.iter().all(|o| o != name) {
            continue;
        }
        let folder = args.data.join(folder);
        if !folder.is_dir() {
            eprintln!("vigia-eval: no {}: {name} is not judged", folder.display());
            continue;
        }
        let started = std::time::Instant::now();
        rows.extend(judge(&folder).with_context(|| format!("judging {name} on {}", folder.display()))?);
        eprintln!("vigia-eval: {name} took {:.1} s", started.elapsed().as_secs_f64());
    }
    anyhow::ensure!(
        !rows.is_empty(),
        "{} holds none of the data: adfa-ld, smd, nab, google-cpu",
        args.data.display()
    );
    print!("{}", row::table(&rows));
    row::write(&args.out, &rows, &provenance)
        .with_context(|| format!("writing rows to {}", args.out.display()))
}
