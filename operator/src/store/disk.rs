//! The volume: durable, atomic writes of whole objects, and how much space there is.
//!
//! `object_store`'s LocalFileSystem writes to a temporary file and renames it; with `with_fsync` it also syncs
//! the file before and the folders after. What it does not do, and is done here: removing the temporary files
//! of writes that a crash cut off, telling a full volume from other errors, capping what is read, and keeping
//! a reserve, so that samples can never take the space that an artifact needs to be signed and served.
//!
//! One process has the folder at a time: it holds a lock on it to its end. Who is no longer the leader writes
//! nothing more, even before that end.

use std::fs::File;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use rustix::fs::FlockOperation;

use super::StoreError;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path below the root.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, or last marked as in use.
    pub modified: SystemTime,
}

/// Bytes of the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// That it has.
    pub total: u64,
    /// That may still be written.
    pub free: u64,
}

/// Whose lock it is; not an object of the store.
const LOCK: &str = "lock";
/// A lock that another process holds is tried again after this.
const LOCK_RETRY: Duration = Duration::from_millis(200);

/// A folder that objects are kept in.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    objects: LocalFileSystem,
    fenced: AtomicBool,
    /// Unlocked when it is closed, however the process ends.
    _lock: Option<File>,
}

impl Disk {
    /// Opens a folder, which must exist, once no other process has it, and removes what an interrupted write left.
    pub async fn open(root: &FsPath) -> Result<Self, StoreError> {
        let lock = lock(root).await?;
        remove_staged(root)?;
        Ok(Self {
            root: root.to_owned(),
            objects: LocalFileSystem::new_with_prefix(root)?
                .with_fsync(true)
                .with_automatic_cleanup(true),
            fenced: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// From now on nothing is written or removed.
    pub fn fence(&self) {
        self.fenced.store(true, Ordering::SeqCst);
    }

    fn writable(&self) -> Result<(), StoreError> {
        if self.fenced.load(Ordering::SeqCst) {
            return Err(StoreError::Fenced);
        }
        Ok(())
    }

    /// Writes an object as a whole; when it returns, the object outlives a power cut.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.writable()?;
        self.objects.put(&Path::from(path), bytes.into()).await?;
        Ok(())
    }

    /// Reads an object of at most `limit` bytes.
    pub async fn get(&self, path: &str, limit: u64) -> Result<Bytes, StoreError> {
        let object = self.objects.get(&Path::from(path)).await?;
        if object.meta.size > limit {
            return Err(StoreError::TooLarge {
                what: path.to_owned(),
                size: object.meta.size,
                limit,
            });
        }
        Ok(object.bytes().await?)
    }

    /// The last bytes of an object, `most` of them or all, and its size.
    pub async fn tail(&self, path: &str, most: u64) -> Result<(Bytes, u64), StoreError> {
        let options = GetOptions {
            range: Some(GetRange::Suffix(most)),
            ..GetOptions::default()
        };
        let object = self.objects.get_opts(&Path::from(path), options).await?;
        let size = object.meta.size;
        Ok((object.bytes().await?, size))
    }

    /// Gives an object another name, in one step and without a copy.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.writable()?;
        Ok(self.objects.rename(&Path::from(from), &Path::from(to)).await?)
    }

    /// Marks an object as in use now.
    pub fn touch(&self, path: &str, now: SystemTime) -> Result<(), StoreError> {
        self.writable()?;
        let file = File::options().write(true).open(self.root.join(path))?;
        Ok(file.set_modified(now)?)
    }

    /// Size of an object, where there is one.
    pub async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&Path::from(path)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Every object below a folder, by path.
    pub async fn list(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = self
            .objects
            .list(Some(&Path::from(folder)))
            .map_ok(|meta| Entry {
                path: meta.location.to_string(),
                bytes: meta.size,
                modified: meta.last_modified.into(),
            })
            .try_collect()
            .await?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Removes an object; one that is gone already is no error.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.writable()?;
        match self.objects.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Space of the volume.
    pub fn space(&self) -> Result<Space, StoreError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(std::io::Error::from)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// Takes the lock of a folder; where another process has it, once that has ended. Nothing where the file system
/// has no locks: there the Lease alone keeps operators apart.
async fn lock(root: &FsPath) -> Result<Option<File>, StoreError> {
    use rustix::io::Errno;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join(LOCK))?;
    let mut told = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => {
                if !told {
                    tracing::warn!(store = %root.display(), "another process has the store: waiting for its end");
                    told = true;
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS) => {
                tracing::warn!(store = %root.display(), "the store's file system has no locks: never start two operators on it");
                return Ok(None);
            }
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
}

/// Removes `name#1` files: writes that never got their name. Listings leave them out, so that nothing else
/// would ever find them.
fn remove_staged(folder: &FsPath) -> Result<(), StoreError> {
    let entries = match std::fs::read_dir(folder) {
        // Not ours: `lost+found` of a fresh volume, for one.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let staged = name
            .to_string_lossy()
            .rsplit_once('#')
            .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        if entry.file_type()?.is_dir() {
            remove_staged(&entry.path())?;
        } else if staged {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_interrupted_write_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/x.parquet#1"), b"half").unwrap();
        std::fs::write(folder.path().join("a/b/x.parquet"), b"whole").unwrap();
        let disk = Disk::open(folder.path()).await.unwrap();
        assert!(!folder.path().join("a/b/x.parquet#1").exists());
        assert_eq!(disk.get("a/b/x.parquet", 10).await.unwrap(), "whole");
    }

    #[tokio::test]
    async fn reads_are_capped_and_deletes_are_idempotent() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).await.unwrap();
        disk.put("x", Bytes::from_static(b"12345")).await.unwrap();
        assert!(matches!(
            disk.get("x", 4).await,
            Err(StoreError::TooLarge { size: 5, .. })
        ));
        assert_eq!(disk.size("x").await.unwrap(), Some(5));
        disk.delete("x").await.unwrap();
        disk.delete("x").await.unwrap();
        assert_eq!(disk.size("x").await.unwrap(), None);
        assert!(matches!(disk.get("x", 4).await, Err(StoreError::NotFound(_))));
    }

    #[tokio::test]
    async fn a_folder_has_one_owner_and_a_fenced_one_writes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let first = Disk::open(folder.path()).await.unwrap();
        let second = Disk::open(folder.path());
        tokio::pin!(second);
        let early = tokio::time::timeout(Duration::from_millis(500), &mut second).await;
        assert!(early.is_err(), "two have the folder");
        first.put("x", Bytes::from_static(b"1")).await.unwrap();
        first.fence();
        for refused in [
            first.put("x", Bytes::new()).await,
            first.delete("x").await,
            first.rename("x", "y").await,
            first.touch("x", SystemTime::UNIX_EPOCH),
        ] {
            assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
        }
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(second.get("x", 9).await.unwrap(), "1");
    }

    #[tokio::test]
    async fn the_end_of_an_object_is_read_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).await.unwrap();
        disk.put("x", Bytes::from_static(b"12345")).await.unwrap();
        assert_eq!(disk.tail("x", 2).await.unwrap(), (Bytes::from_static(b"45"), 5));
        assert_eq!(
            disk.tail("x", 9).await.unwrap(),
            (Bytes::from_static(b"12345"), 5)
        );
    }
}
