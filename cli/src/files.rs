//! Which file a path leads to: what is read must not be written over, nor one result over another.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vigia_model::artifact;

use crate::error::Failure;

/// A path, and the argument that it was given as.
pub type Given<'a> = (&'static str, &'a Path);

/// Refuses an output that is an input too, or another output.
///
/// # Errors
/// Which two they are.
pub fn apart(outputs: &[Given<'_>], inputs: &[Given<'_>]) -> Result<(), Failure> {
    for (at, (argument, path)) in outputs.iter().enumerate() {
        let place = Place::of(path);
        let mut others = outputs[..at].iter().chain(inputs);
        if let Some((other, its)) = others.find(|(_, other)| Place::of(other) == place) {
            return Err(Failure::command_line(format!(
                "{argument} {} and {other} {} are the same file, and what is in it would be lost",
                path.display(),
                its.display()
            ))
            .next("write to another file"));
        }
    }
    Ok(())
}

/// What is written at the end needs a place, which should be known at the beginning.
///
/// # Errors
/// There is none.
pub fn writable(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if !folder.unwrap_or(Path::new(".")).is_dir() {
        return Err(Failure::write(path, "its folder is not there"));
    }
    artifact::can_write(path).map_err(|error| {
        let next = match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::IsADirectory => "name a file, or what is not there yet",
            _ => "write to another folder, or as who may write to this one",
        };
        // The error itself names a file that nobody knows.
        Failure::write(path, format!("cannot be written: {}", reason(&error))).next(next)
    })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::InvalidInput => error.to_string(),
        kind => kind.to_string(),
    }
}

/// What two paths have in common that lead to one file.
#[derive(PartialEq)]
enum Place {
    /// Device and inode of what is there.
    There(u64, u64),
    /// Where it would be.
    New(PathBuf),
}

impl Place {
    fn of(path: &Path) -> Self {
        if let Ok(meta) = fs::metadata(path) {
            return Self::There(meta.dev(), meta.ino());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
        Self::New(match (folder, path.file_name()) {
            (Ok(folder), Some(name)) => folder.join(name),
            _ => path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_many_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).expect("a folder");
        for name in ["a", "b"] {
            fs::write(at(name), "").expect("a file");
        }
        std::os::unix::fs::symlink(at("a"), at("link")).expect("a link");
        fs::hard_link(at("a"), at("twin")).expect("a link");
        let differ = |one: &str, other: &str| apart(&[("-o", &at(one))], &[("--input", &at(other))]).is_ok();
        for other in ["a", "sub/../a", "link", "twin"] {
            assert!(!differ("a", other), "{other}");
        }
        assert!(!differ("new", "sub/../new"));
        assert!(differ("a", "b") && differ("new", "newer") && differ("new", "sub/new"));
        let (one, other) = (at("new"), at("sub/../new"));
        let said = apart(&[("--output", &one), ("--save-model", &other)], &[]).expect_err("the same");
        let words = ["--output", "--save-model", "new are the same file"];
        assert!(words.iter().all(|word| said.what().contains(word)), "{said:?}");
    }
}
