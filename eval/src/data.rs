//! The evaluation data's formats, as its READMEs describe them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use flate2::read::MultiGzDecoder;

/// Text larger than this is not evaluation data.
const MAX_TEXT: u64 = 1 << 30;

fn capped(from: impl Read, path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = from
        .take(MAX_TEXT)
        .read_to_string(&mut text)
        .with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(
        (read as u64) < MAX_TEXT,
        "{} unpacks to more than 1 GiB",
        path.display()
    );
    Ok(text)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

/// A gzip-compressed text.
pub fn gunzip(path: &Path) -> Result<String> {
    capped(MultiGzDecoder::new(open(path)?), path)
}

/// A zstd-compressed text.
pub fn unzstd(path: &Path) -> Result<String> {
    let decoder = zstd::Decoder::new(open(path)?).with_context(|| format!("unpacking {}", path.display()))?;
    capped(decoder, path)
}

/// Numbers of a gzip-compressed CSV with a header, row by row.
#[derive(Debug)]
pub struct Table {
    /// Columns.
    pub width: usize,
    /// Rows, one after the other.
    pub values: Vec<f64>,
}

impl Table {
    /// Rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.width)
    }

    /// One column.
    pub fn column(&self, index: usize) -> Vec<f64> {
        self.rows().map(|r| r[index]).collect()
    }

    /// Reads `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = gunzip(path)?;
        let mut lines = text.lines();
        let width = lines.next().context("no header")?.split(',').count();
        let mut values = Vec::new();
        for (i, line) in lines.enumerate().filter(|(_, l)| !l.is_empty()) {
            let before = values.len();
            for cell in line.split(',') {
                values.push(
                    cell.trim()
                        .parse::<f64>()
                        .map_err(|e| anyhow!("{} line {}: {cell:?}: {e}", path.display(), i + 2))?,
                );
            }
            anyhow::ensure!(
                values.len() - before == width,
                "{} line {}: {} cells under a header of {width}",
                path.display(),
                i + 2,
                values.len() - before
            );
        }
        Ok(Self { width, values })
    }
}

/// The names in a folder that end in `suffix`, without it, in order.
pub fn stems(folder: &Path, suffix: &str) -> Result<Vec<String>> {
    let mut stems = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        if let Some(stem) = entry?.file_name().to_str().and_then(|n| n.strip_suffix(suffix)) {
            stems.push(stem.to_owned());
        }
    }
    stems.sort_unstable();
    anyhow::ensure!(!stems.is_empty(), "{} holds no *{suffix}", folder.display());
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gz(text: &str) -> (std::path::PathBuf, impl Drop) {
        struct Gone(std::path::PathBuf);
        impl Drop for Gone {
            fn drop(&mut self) {
                let _ = std::fs::remove_file(&self.0);
            }
        }
        let path = std::env::temp_dir().join(format!("vigia-eval-{}-{}.gz", std::process::id(), text.len()));
        let file = File::create(&path).expect("a temporary file");
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("written");
        encoder.finish().expect("written");
        (path.clone(), Gone(path))
    }

    #[test]
    fn tables_are_read_row_by_row() {
        let (path, _gone) = gz("a,b\n1,2\n3,4.5\n");
        let table = Table::read(&path).expect("a table");
        assert_eq!(
            (table.width, table.values.as_slice()),
            (2, [1.0, 2.0, 3.0, 4.5].as_slice())
        );
        assert_eq!(table.column(1), [2.0, 4.5]);
    }

    #[test]
    fn what_is_no_table_is_said_where() {
        for (text, says) in [
            ("a,b\n1\n", "line 2: 1 cells"),
            ("a\n1\nx\n\n", "line 3"),
            ("", "no header"),
        ] {
            let (path, _gone) = gz(text);
            let error = format!("{:#}", Table::read(&path).expect_err("not a table"));
            assert!(error.contains(says), "{error}");
        }
    }
}
