//! What is found at a start: finished where a crash cut it off, undone where it was not, set aside where it is damaged.

use std::collections::HashMap;

use super::index::{Partition, Range, SampleFile};
use super::rows::{self, Footer};
use super::segment::Meta;
use super::{MAX_FILE, Store, StoreError, blocking, index, lock};

/// Bytes of the end of a file that are read for its footer, at first.
const FOOTER: u64 = 64 << 10;

impl Store {
    pub(super) async fn open_journal(&self, through: u64) -> Result<(), StoreError> {
        for entry in self.disk.list("journal").await? {
            let Some(range) = Range::of_path(&entry.path) else {
                continue;
            };
            if range.last <= through {
                self.disk.delete(&entry.path).await?;
                continue;
            }
            match self.meta(&entry.path).await {
                Ok(meta) => {
                    self.raise_marks(&meta.marks);
                    let file = SampleFile::new(entry.path, entry.bytes, meta);
                    lock(&self.index).journal.insert(range.last, file);
                    let mut next = self.next.lock().await;
                    *next = (*next).max(range.last + 1);
                }
                Err(error) => self.set_aside(&entry.path, error).await?,
            }
        }
        Ok(())
    }

    pub(super) async fn open_partitions(&self, through: u64) -> Result<(), StoreError> {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut folders: HashMap<Partition, HashMap<Range, u64>> = HashMap::new();
        for entry in self.disk.list("samples").await? {
            if let (Some(partition), Some(range)) =
                (Partition::of_path(&entry.path), Range::of_path(&entry.path))
            {
                folders.entry(partition).or_default().insert(range, entry.bytes);
            }
        }
        for (partition, ranges) in folders {
            let left = index::leftovers(ranges.keys());
            for (range, bytes) in ranges {
                let path = format!("{}/{}.parquet", partition.folder(), range.name());
                if range.last > through || left.contains(&range) {
                    self.disk.delete(&path).await?;
                    continue;
                }
                match self.meta(&path).await {
                    Ok(meta) => {
                        let mut file = SampleFile::new(path, bytes, meta);
                        file.coarsen(now_ms);
                        let mut index = lock(&self.index);
                        index
                            .partitions
                            .entry(partition.clone())
                            .or_default()
                            .insert(range, file);
                    }
                    Err(error) => self.set_aside(&path, error).await?,
                }
            }
        }
        Ok(())
    }

    /// A damaged file must not keep the operator from its work, nor be lost to a person who wants to look at
    /// it: it gets another name. What can only not be read now stays where it is.
    ///
    /// # Errors
    /// `error` itself, where the file is not to blame, or the volume.
    pub(super) async fn set_aside(&self, path: &str, error: StoreError) -> Result<(), StoreError> {
        if !error.is_damage() {
            return Err(error);
        }
        let to = format!("damaged/{path}");
        tracing::error!(path, to, %error, "a file of the store is damaged: it is set aside, and what was in it is not used");
        self.disk.rename(path, &to).await
    }

    /// Sets a damaged file of the index aside while the store is in use.
    pub(super) async fn quarantine(&self, path: &str, error: StoreError) -> Result<(), StoreError> {
        let _files = self.files.write().await;
        match self.set_aside(path, error).await {
            // Somebody else found it first.
            Ok(()) | Err(StoreError::NotFound(_)) => {
                lock(&self.index).remove(path);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn meta(&self, path: &str) -> Result<Meta, StoreError> {
        let mut wanted = FOOTER;
        loop {
            let (tail, size) = self.disk.tail(path, wanted).await?;
            match blocking(move || rows::footer(&tail, size)).await? {
                Footer::Whole(entries, _) => return Meta::from_entries(&entries),
                Footer::Longer(bytes) if bytes > wanted && bytes <= MAX_FILE => wanted = bytes,
                Footer::Longer(bytes) => {
                    return Err(StoreError::Corrupt {
                        path: path.to_owned(),
                        why: format!("its footer claims {bytes} of {size} bytes"),
                    });
                }
            }
        }
    }
}
