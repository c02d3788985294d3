//! Artifacts on disk: read once and bounded, written whole or not at all.

use super::MAX_FILE;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Reads a file of at most [`MAX_FILE`] bytes; a longer one is cut one byte past the limit, which every
/// check refuses as too large.
///
/// # Errors
/// Those of the file system.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file so that at every moment, a power cut included, `path` holds either what it held before or
/// all of `bytes`: temporary file beside it, fsync, rename, fsync of the folder.
///
/// # Errors
/// Those of the file system; the temporary file is then gone.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replaceable(path)?;
    let folder = folder(path);
    let mut temporary = temporary(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

/// Whether [`write_atomic`] could write a file now: what takes long is better not begun if its result has no place.
///
/// # Errors
/// Why it could not.
pub fn can_write(path: &Path) -> io::Result<()> {
    replaceable(path)?;
    temporary(folder(path)).map(drop)
}

/// A folder cannot be replaced by a file, and a device must not be: without /dev/null, a machine is broken.
fn replaceable(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(meta) if !meta.is_file() => Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file")),
        // What keeps one from looking keeps one from writing too, and says so there.
        _ => Ok(()),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".vigia-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
}
