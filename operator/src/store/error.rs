//! What can go wrong with the store, by what has to be done about it.

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left. Nothing was stored, so nothing is acknowledged; it works again when there is space.
    #[error("the store's volume is full: {0}; enlarge it, or lower the retention of samples")]
    Full(String),
    /// There is no such thing.
    #[error("{0} is not in the store")]
    NotFound(String),
    /// What was read is not what was written.
    #[error("{path} in the store is damaged: {why}")]
    Corrupt {
        /// Where.
        path: String,
        /// What does not hold.
        why: String,
    },
    /// Larger than the store takes or reads.
    #[error("{what} has {size} bytes, more than the {limit} that are taken")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A name that would not stay inside its folder.
    #[error("{0:?} cannot be a name in the store")]
    Name(String),
    /// Another operator has the store, or soon will.
    #[error("this operator no longer has the right to write; another one takes over")]
    Fenced,
    /// Rows that do not fit the columns.
    #[error("samples: {0}")]
    Rows(String),
    /// Anything else of the volume.
    #[error("store: {0}")]
    Io(#[source] object_store::Error),
}

impl StoreError {
    /// Whether a file is to blame: reading it again will not help, and the others can be read.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Rows(_) | Self::TooLarge { .. })
    }

    /// Whether what was asked for is gone: nobody gets it from here any more. A volume that cannot be read now says
    /// nothing about it.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::NotFound(_)) || self.is_damage()
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::NotFound(path),
            other if no_space(&other) => Self::Full(other.to_string()),
            other => Self::Io(other),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(error),
        }
        .into()
    }
}

impl From<parquet::errors::ParquetError> for StoreError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Rows(error.to_string())
    }
}

impl From<arrow_schema::ArrowError> for StoreError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Rows(error.to_string())
    }
}

/// Whether an error, or what it was caused by, says that a volume or a quota is exhausted.
fn no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{QuotaExceeded, StorageFull};
            if matches!(io.kind(), StorageFull | QuotaExceeded) {
                return true;
            }
        }
        next = error.source();
    }
    false
}
