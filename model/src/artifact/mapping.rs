//! Artifacts as the page cache holds them, instead of a copy.
//!
//! A mapping is only as good as the file below it: who cuts the file short makes a reader die of SIGBUS, and who writes
//! to it changes bytes behind a signature that was just checked. So a file is mapped under a read lease (fcntl(2),
//! F_SETLEASE), and read where there is none to be had. The kernel grants one only while nobody has the file open or
//! mapped for writing, and lets nobody open or truncate it for writing before the mapping is gone, which takes
//! milliseconds (or /proc/sys/fs/lease-break-time, after which it breaks the lease: what is mapped must not be kept for
//! seconds). That holds for local file systems; a server of a remote one changes what it likes, as ever.

use super::MAX_FILE;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

/// A file's bytes, to be verified and decoded, and then dropped.
#[derive(Debug)]
pub struct Contents(Held);

#[derive(Debug)]
enum Held {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Mapped(mapping) => mapping.bytes(),
            Held::Read(bytes) => bytes,
        }
    }
}

/// Maps a file of at most [`MAX_FILE`] bytes, or reads it where that is not safe. Of a longer one there are
/// [`MAX_FILE`] and one more, which every check refuses as too large.
///
/// # Errors
/// Those of the file system.
pub fn map(path: &Path) -> io::Result<Contents> {
    contents(File::open(path)?)
}

/// [`map`] of a file that is open already.
///
/// # Errors
/// Those of the file system.
pub fn contents(file: File) -> io::Result<Contents> {
    if lease(&file) {
        // Looked at after the lease was had: from here on the length stays.
        let meta = file.metadata()?;
        if meta.is_file() && (1..=MAX_FILE as u64).contains(&meta.len()) {
            return match Mapping::of(file, meta.len() as usize) {
                Ok(mapping) => Ok(Contents(Held::Mapped(mapping))),
                Err(file) => read(file),
            };
        }
    }
    read(file)
}

fn read(file: File) -> io::Result<Contents> {
    let expected = file.metadata()?.len().min(MAX_FILE as u64) as usize;
    // With room to see the end: a full buffer would be doubled for that.
    let mut bytes = Vec::with_capacity(expected + 32);
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Contents(Held::Read(bytes)))
}

/// Of fcntl(2); the crate libc has it for one architecture only.
const F_SETSIG: libc::c_int = 10;

/// Whether a read lease on the file was had. It goes when the file is closed.
fn lease(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // Whoever waits for the lease is announced by a signal: SIGIO, which ends a process, if no other is named. SIGURG is
    // ignored where nobody has asked for it.
    // SAFETY: both calls take an open descriptor and numbers, and touch no memory.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    }
}

/// A file in memory, and the lease that keeps it as it is.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
    /// Closed after the mapping is gone.
    _leased: File,
}

impl Mapping {
    fn of(leased: File, length: usize) -> Result<Self, File> {
        // All pages at once: all are about to be read, and faults are half the costs of a copy.
        let flags = libc::MAP_PRIVATE | libc::MAP_POPULATE;
        // SAFETY: a new mapping of an open file at a place of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                flags,
                leased.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(at) if start != libc::MAP_FAILED => Ok(Self {
                start: at,
                length,
                _leased: leased,
            }),
            _ => Err(leased),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `length` readable bytes are mapped at `start` until `self` is dropped, and by the lease neither they
        // nor the file's length change until then.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length, and nobody has a reference any more.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;

    fn writer() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        options
    }

    #[test]
    fn what_is_mapped_cannot_be_written_until_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.apr");
        fs::write(&path, [7; 5000]).expect("written");
        let contents = map(&path).expect("maps");
        assert_eq!(*contents, [7; 5000]);
        // Where the file system grants no leases, it was read, and there is nothing to hold.
        if matches!(contents.0, Held::Mapped(_)) {
            let refused = writer().open(&path).expect_err("the lease is broken first");
            assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
            drop(contents);
            writer().open(&path).expect("the lease is gone");
        }
    }

    #[test]
    fn a_file_that_somebody_writes_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.apr");
        fs::write(&path, b"bytes").expect("written");
        let _writer = writer().open(&path).expect("opens");
        let contents = map(&path).expect("reads");
        assert!(matches!(contents.0, Held::Read(_)));
        assert_eq!(*contents, *b"bytes");
    }

    #[test]
    fn what_is_empty_endless_or_too_long_is_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.apr");
        fs::write(&path, b"").expect("written");
        assert!(map(&path).expect("reads").is_empty());
        assert_eq!(map(Path::new("/dev/zero")).expect("reads").len(), MAX_FILE + 1);
        let file = fs::File::create(&path).expect("made");
        file.set_len(MAX_FILE as u64 + 100).expect("sparse");
        drop(file);
        assert_eq!(map(&path).expect("reads").len(), MAX_FILE + 1);
    }
}
