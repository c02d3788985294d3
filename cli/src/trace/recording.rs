//! A file of windows as lines. It is opened before the trace, so that a place where nothing may be written is told at once,
//! and emptied only when there is something to write: a trace that never began costs no recording of an earlier one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::record::Record;

/// See the module's head.
pub struct Recording {
    path: PathBuf,
    file: BufWriter<File>,
    /// It was not there before.
    is_new: bool,
    /// What was in it is gone.
    has_begun: bool,
}

impl Recording {
    /// Opens a file, and leaves it as it is.
    pub fn open(path: &Path) -> io::Result<Self> {
        let new = OpenOptions::new().write(true).create_new(true).open(path);
        let (file, is_new) = match new {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path);
                (there?, false)
            }
            new => (new?, true),
        };
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            is_new,
            has_begun: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From here on it holds this trace, whatever that sees.
    pub fn begin(&mut self) -> io::Result<()> {
        if !self.has_begun {
            let file = self.file.get_ref();
            // A pipe has no length.
            if file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            self.has_begun = true;
        }
        Ok(())
    }

    /// Adds a line.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.begin()?;
        serde_json::to_writer(&mut self.file, record)?;
        self.file.write_all(b"\n")?;
        // A window is seconds apart from the next: whoever follows the file wants it now.
        self.file.flush()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.is_new && !self.has_begun {
            // It is empty, and in nobody's way but its own.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_model::syscalls::Arch;
    use vigia_model::window::Window;

    #[test]
    fn what_was_recorded_goes_when_something_comes_in_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("w.jsonl");
        drop(Recording::open(&path).expect("opens"));
        assert!(!path.exists(), "nothing was written");
        let earlier = "earlier\n".repeat(1000);
        fs::write(&path, &earlier).expect("a file");
        drop(Recording::open(&path).expect("opens"));
        assert_eq!(fs::read_to_string(&path).expect("there"), earlier);
        let mut recording = Recording::open(&path).expect("opens");
        let record = Record::new(&Window::new(Arch::NATIVE, 0, 1000, []), "true", false);
        recording.write(&record).expect("written");
        recording.write(&record).expect("written");
        drop(recording);
        let text = fs::read_to_string(&path).expect("there");
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with('{') && text.ends_with("}\n"), "{text}");
    }
}
