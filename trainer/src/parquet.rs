//! Windows as Parquet: the columns of the contracts' `Sample`.
//!
//! | column | type |
//! | --- | --- |
//! | `namespace`, `profile` | utf8; written, not needed to read |
//! | `source` | u64 |
//! | `window_start_unix_ms`, `window_ms` | i64 |
//! | `schema` | utf8, SHA-256 of the feature schema in hexadecimal |
//! | `features` | list of f32 |
//! | `above_threshold` | bool |
//! | `sequences`, `sequence_counts` | lists of u64 and u32, of one length; see `vigia_model::context` |
//! | `past` | list of f32; see there |
//! | `capture` | utf8, fingerprint of the filter that they were made by; empty where nobody has said |
//!
//! The last four came later: a file without them is one of windows of which nothing else is known.
//!
//! A file that was written here says the SHA-256 of its windows (`vigia.windows.sha256` among its key-value metadata), since
//! Parquet's pages are damaged without a word; a file without it is of another writer.
//!
//! Files are read in small batches, and no more rows are decoded than a matrix may hold, whatever the file's
//! own numbers say.

use std::sync::Arc;

use arrow_array::builder::{Float32Builder, ListBuilder, UInt32Builder, UInt64Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema as Columns};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};
use vigia_model::context::{Context, ContextError};
use vigia_model::schema::{Schema, SchemaHash};
use vigia_model::syscalls::NoFingerprint;

use crate::data::{About, MAX_ROWS, RowError, Rows};

const BATCH: usize = 4096;
/// The key of the digest of a file's windows.
const DIGEST: &str = "vigia.windows.sha256";
const READ: [&str; 10] = [
    "source",
    "window_start_unix_ms",
    "window_ms",
    "schema",
    "features",
    "above_threshold",
    "sequences",
    "sequence_counts",
    "past",
    "capture",
];

/// Why bytes are no windows.
#[derive(Debug, thiserror::Error)]
pub enum ParquetProblem {
    /// Not Parquet, or damaged.
    #[error("not a Parquet file of windows: {0}")]
    Format(#[from] ParquetError),
    /// Damaged inside.
    #[error("not a Parquet file of windows: {0}")]
    Values(#[from] ArrowError),
    /// The windows are not those that were written.
    #[error(
        "its windows are not those of vigia.windows.sha256 in its metadata: it is damaged, or {by} changed them and kept that key; \
         record or fetch it again or, where the change was meant, write it without that key (pyarrow: \
         table.replace_schema_metadata(None))"
    )]
    Damaged {
        /// What wrote the file, as it says.
        by: String,
    },
    /// Compressed in another way.
    #[error(
        "compressed with {0}, which is not read here: write it with zstd or without compression (pandas and pyarrow: \
         compression=\"zstd\")"
    )]
    Compressed(&'static str),
    /// A column is missing or of another type.
    #[error("column {column} is not there or is not {expected}")]
    Column {
        /// Which.
        column: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A value is missing.
    #[error("column {0} has nulls")]
    Null(&'static str),
    /// Vectors made by other rules.
    #[error("window {row} was made by feature schema {got}, {expected} is wanted")]
    Schema {
        /// Which window, from 0.
        row: usize,
        /// The schema wanted: its hash.
        expected: SchemaHash,
        /// What the file says.
        got: String,
    },
    /// What is said to be known beside a window's vector cannot be.
    #[error("window {row}: {error}")]
    Context {
        /// Which window, from 0.
        row: usize,
        /// Why.
        error: ContextError,
    },
    /// What is said of the filter cannot be.
    #[error("window {row}: capture is {error}")]
    Capture {
        /// Which window, from 0.
        row: usize,
        /// Why.
        error: NoFingerprint,
    },
    /// A window that is no row.
    #[error(transparent)]
    Row(#[from] RowError),
}

/// Reads a whole file's windows, in the file's order.
///
/// # Errors
/// The first thing that is not as the module's head says.
pub fn read(bytes: Bytes, schema: &'static Schema) -> Result<Rows, ParquetProblem> {
    // The reader panics at some damage.
    std::panic::catch_unwind(|| read_rows(bytes, schema)).unwrap_or_else(|_| {
        let why = "damaged inside a column".to_owned();
        Err(ParquetError::General(why).into())
    })
}

fn read_rows(bytes: Bytes, schema: &'static Schema) -> Result<Rows, ParquetProblem> {
    // The writer's own Arrow types (dictionaries, views) do not matter, Parquet's do.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
    let declared = builder.metadata().file_metadata().num_rows();
    if usize::try_from(declared).map_or(true, |n| n > MAX_ROWS) {
        return Err(RowError::TooMany.into());
    }
    let footer = builder.metadata().file_metadata();
    let written = footer
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == DIGEST))
        .map(|pair| pair.value.clone().unwrap_or_default());
    let by = footer.created_by().unwrap_or("another program");
    let by = by.chars().take(64).collect::<String>();
    for column in builder
        .metadata()
        .row_groups()
        .iter()
        .flat_map(|group| group.columns())
    {
        if let Some(other) = unread(column.compression()) {
            return Err(ParquetProblem::Compressed(other));
        }
    }
    let columns = ProjectionMask::columns(builder.parquet_schema(), READ);
    let hash = schema.hash();
    let text = hash.to_string();
    let mut rows = Rows::new(schema);
    for batch in builder.with_projection(columns).with_batch_size(BATCH).build()? {
        let batch = batch?;
        let source = column(&batch, "source", "u64", |c| c.as_primitive_opt::<UInt64Type>())?;
        let started = column(&batch, "window_start_unix_ms", "i64", |c| {
            c.as_primitive_opt::<Int64Type>()
        })?;
        let length = column(&batch, "window_ms", "i64", |c| c.as_primitive_opt::<Int64Type>())?;
        let hashes = column(&batch, "schema", "utf8", |c| c.as_string_opt::<i32>())?;
        let lists = column(&batch, "features", "a list of f32", |c| c.as_list_opt::<i32>())?;
        let above = column(&batch, "above_threshold", "bool", |c| c.as_boolean_opt())?;
        let beside = Beside::of(&batch)?;
        let captures = match batch.column_by_name("capture") {
            Some(_) => Some(column(&batch, "capture", "utf8", |c| c.as_string_opt::<i32>())?),
            None => None,
        };
        for i in 0..batch.num_rows() {
            if hashes.value(i) != text {
                return Err(ParquetProblem::Schema {
                    row: rows.len(),
                    expected: hash,
                    got: hashes.value(i).chars().take(64).collect(),
                });
            }
            let vector = numbers::<Float32Type>(lists, i, "features", "a list of f32")?;
            let context = match &beside {
                Some(beside) => beside.context(i, rows.len())?,
                None => Context::default(),
            };
            let about = About {
                source: source.value(i),
                started_ms: started.value(i),
                // A length that is no u32 is as wrong as none.
                window_ms: u32::try_from(length.value(i)).unwrap_or(0),
                above_threshold: above.value(i),
                capture: match captures.map_or("", |texts| texts.value(i)) {
                    "" => None,
                    text => {
                        let row = rows.len();
                        Some(
                            text.parse()
                                .map_err(|error| ParquetProblem::Capture { row, error })?,
                        )
                    }
                },
            };
            rows.push_within(vector.values(), about, context)?;
        }
    }
    if written.is_some_and(|written| written != digest(&rows)) {
        return Err(ParquetProblem::Damaged { by });
    }
    Ok(rows)
}

/// The name of a compression that is not built in.
fn unread(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::UNCOMPRESSED | Compression::ZSTD(_) => None,
        Compression::SNAPPY => Some("snappy"),
        Compression::GZIP(_) => Some("gzip"),
        Compression::BROTLI(_) => Some("brotli"),
        Compression::LZ4 | Compression::LZ4_RAW => Some("lz4"),
        Compression::LZO => Some("lzo"),
    }
}

/// SHA-256 of all that is read of windows, in hexadecimal.
fn digest(rows: &Rows) -> String {
    let mut sha = Sha256::new();
    sha.update((rows.len() as u64).to_le_bytes());
    for (row, (about, context)) in rows.about().iter().zip(rows.contexts()).enumerate() {
        sha.update(about.source.to_le_bytes());
        sha.update(about.started_ms.to_le_bytes());
        sha.update(about.window_ms.to_le_bytes());
        sha.update([u8::from(about.above_threshold)]);
        let capture = about.capture.map_or_else(String::new, |c| c.to_string());
        sha.update((capture.len() as u64).to_le_bytes());
        sha.update(capture);
        rows.row(row).iter().for_each(|x| sha.update(x.to_le_bytes()));
        sha.update((context.grams().len() as u64).to_le_bytes());
        for gram in context.grams() {
            sha.update(gram.id.to_le_bytes());
            sha.update(gram.count.to_le_bytes());
        }
        sha.update((context.past().len() as u64).to_le_bytes());
        context.past().iter().for_each(|x| sha.update(x.to_le_bytes()));
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The columns that not every file has.
struct Beside<'a> {
    grams: &'a ListArray,
    counts: &'a ListArray,
    past: &'a ListArray,
}

const IDS: &str = "a list of u64";
const NUMBERS: &str = "a list of u32";
const RATES: &str = "a list of f32";

impl<'a> Beside<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Option<Self>, ParquetProblem> {
        if batch.column_by_name("sequences").is_none() {
            return Ok(None);
        }
        let list = |name, expected| column(batch, name, expected, |c| c.as_list_opt::<i32>());
        Ok(Some(Self {
            grams: list("sequences", IDS)?,
            counts: list("sequence_counts", NUMBERS)?,
            past: list("past", RATES)?,
        }))
    }

    fn context(&self, i: usize, row: usize) -> Result<Context, ParquetProblem> {
        let ids = numbers::<UInt64Type>(self.grams, i, "sequences", IDS)?;
        let counts = numbers::<UInt32Type>(self.counts, i, "sequence_counts", NUMBERS)?;
        let past = numbers::<Float32Type>(self.past, i, "past", RATES)?;
        let refuse = |error| ParquetProblem::Context { row, error };
        Context::counted(ids.values(), counts.values(), past.values().to_vec()).map_err(refuse)
    }
}

/// One row's list of numbers.
fn numbers<T: ArrowPrimitiveType>(
    lists: &ListArray,
    i: usize,
    column: &'static str,
    expected: &'static str,
) -> Result<arrow_array::PrimitiveArray<T>, ParquetProblem> {
    let list = lists.value(i);
    let list = list
        .as_primitive_opt::<T>()
        .ok_or(ParquetProblem::Column { column, expected })?;
    if list.null_count() > 0 {
        return Err(ParquetProblem::Null(column));
    }
    Ok(list.clone())
}

fn column<'a, T: Array>(
    batch: &'a RecordBatch,
    name: &'static str,
    expected: &'static str,
    cast: impl Fn(&'a ArrayRef) -> Option<&'a T>,
) -> Result<&'a T, ParquetProblem> {
    let array = batch
        .column_by_name(name)
        .and_then(cast)
        .ok_or(ParquetProblem::Column {
            column: name,
            expected,
        })?;
    if array.null_count() > 0 {
        return Err(ParquetProblem::Null(name));
    }
    Ok(array)
}

/// Writes windows as one file, zstd-compressed. The same rows make the same bytes.
///
/// # Errors
/// None is known; the encoder's are passed on.
pub fn write(rows: &Rows, namespace: &str, profile: &str) -> Result<Vec<u8>, ParquetProblem> {
    let element = Arc::new(Field::new("element", DataType::Float32, false));
    let id = Arc::new(Field::new("element", DataType::UInt64, false));
    let number = Arc::new(Field::new("element", DataType::UInt32, false));
    let columns = Arc::new(Columns::new(vec![
        Field::new("namespace", DataType::Utf8, false),
        Field::new("profile", DataType::Utf8, false),
        Field::new("source", DataType::UInt64, false),
        Field::new("window_start_unix_ms", DataType::Int64, false),
        Field::new("window_ms", DataType::Int64, false),
        Field::new("schema", DataType::Utf8, false),
        Field::new("features", DataType::List(element.clone()), false),
        Field::new("above_threshold", DataType::Boolean, false),
        Field::new("sequences", DataType::List(id.clone()), false),
        Field::new("sequence_counts", DataType::List(number.clone()), false),
        Field::new("past", DataType::List(element.clone()), false),
        Field::new("capture", DataType::Utf8, false),
    ]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new(DIGEST.to_owned(), digest(rows))]))
        .build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, columns.clone(), Some(properties))?;
    let hash = rows.schema().hash().to_string();
    for start in (0..rows.len()).step_by(BATCH) {
        let range = start..rows.len().min(start + BATCH);
        let about = &rows.about()[range.clone()];
        let rates = || ListBuilder::new(Float32Builder::new()).with_field(element.clone());
        let numbers = || ListBuilder::new(UInt32Builder::new()).with_field(number.clone());
        let ids = ListBuilder::new(UInt64Builder::new()).with_field(id.clone());
        let (mut features, mut past, mut grams, mut counts) = (rates(), rates(), ids, numbers());
        for row in range.clone() {
            features.values().append_slice(rows.row(row));
            features.append(true);
            let context = &rows.contexts()[row];
            past.values().append_slice(context.past());
            past.append(true);
            for gram in context.grams() {
                grams.values().append_value(gram.id);
                counts.values().append_value(gram.count);
            }
            grams.append(true);
            counts.append(true);
        }
        let same =
            |text: &str| Arc::new(StringArray::from_iter_values(range.clone().map(|_| text))) as ArrayRef;
        let arrays: Vec<ArrayRef> = vec![
            same(namespace),
            same(profile),
            Arc::new(UInt64Array::from_iter_values(about.iter().map(|a| a.source))),
            Arc::new(Int64Array::from_iter_values(about.iter().map(|a| a.started_ms))),
            Arc::new(Int64Array::from_iter_values(
                about.iter().map(|a| i64::from(a.window_ms)),
            )),
            same(&hash),
            Arc::new(features.finish()),
            Arc::new(BooleanArray::from_iter(
                about.iter().map(|a| Some(a.above_threshold)),
            )),
            Arc::new(grams.finish()),
            Arc::new(counts.finish()),
            Arc::new(past.finish()),
            Arc::new(StringArray::from_iter_values(
                about
                    .iter()
                    .map(|a| a.capture.map_or_else(String::new, |c| c.to_string())),
            )),
        ];
        writer.write(&RecordBatch::try_new(columns.clone(), arrays)?)?;
    }
    writer.close()?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::rows;

    #[test]
    fn what_is_written_is_read() {
        let schema = Schema::syscalls_v1();
        for n in [0, 1, 5000] {
            let before = rows(n, 4);
            let bytes = write(&before, "shop", "checkout").expect("writes");
            assert_eq!(bytes, write(&before, "shop", "checkout").expect("writes"));
            let after = read(bytes.into(), schema).expect("reads");
            assert_eq!(after.values(), before.values());
            assert_eq!(after.about(), before.about());
            assert_eq!(after.contexts(), before.contexts());
        }
    }

    #[test]
    fn damage_is_an_error_at_every_cut() {
        let bytes = Bytes::from(write(&rows(20, 4), "a", "b").expect("writes"));
        for cut in (0..bytes.len()).step_by(61) {
            assert!(read(bytes.slice(..cut), Schema::syscalls_v1()).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_was_changed_is_refused_or_changes_nothing() {
        let before = rows(60, 4);
        let bytes = write(&before, "a", "b").expect("writes");
        let (mut refused, mut same) = (0, 0);
        for at in (0..bytes.len()).step_by(3) {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            match read(bent.into(), Schema::syscalls_v1()) {
                Err(_) => refused += 1,
                Ok(after) => {
                    assert_eq!(after.values(), before.values(), "{at}");
                    assert_eq!(after.about(), before.about(), "{at}");
                    assert_eq!(after.contexts(), before.contexts(), "{at}");
                    same += 1;
                }
            }
        }
        // Names that nobody reads, statistics: they may change.
        assert!(refused > same, "{refused} refused, {same} the same");
    }

    #[test]
    fn what_another_program_changed_and_kept_the_digest_of_is_told_what_to_do() {
        let before = rows(60, 4);
        let bytes = Bytes::from(write(&before, "a", "b").expect("writes"));
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a reader");
        let pairs = builder.metadata().file_metadata().key_value_metadata().cloned();
        let pairs = pairs
            .expect("there are")
            .into_iter()
            .filter(|pair| pair.key == DIGEST);
        let pairs: Vec<KeyValue> = pairs.collect();
        let batch = builder
            .build()
            .expect("reads")
            .next()
            .expect("one")
            .expect("good");
        let again = |batch: &RecordBatch, pairs: Option<Vec<KeyValue>>| {
            let properties = WriterProperties::builder()
                .set_created_by("parquet-cpp-arrow version 21.0.0".to_owned())
                .set_key_value_metadata(pairs)
                .build();
            let mut out = Vec::new();
            let mut writer =
                ArrowWriter::try_new(&mut out, batch.schema(), Some(properties)).expect("a writer");
            writer.write(batch).expect("writes");
            writer.close().expect("closes");
            read(out.into(), Schema::syscalls_v1()).map(|rows| rows.len())
        };
        let fewer = batch.slice(0, 50);
        let error = again(&fewer, Some(pairs.clone())).expect_err("stale").to_string();
        for words in [
            "parquet-cpp-arrow",
            "vigia.windows.sha256",
            "replace_schema_metadata(None)",
        ] {
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(again(&fewer, None).expect("another's"), 50);
        assert_eq!(again(&batch, Some(pairs)).expect("the same windows"), 60);
    }

    #[test]
    fn a_compression_that_is_not_built_in_is_named_with_one_that_is() {
        let mut bytes = write(&rows(4, 4), "a", "b").expect("writes");
        // Of each column in the footer: field 4, the codec, is 6 (zstd), and a count follows.
        let zstd = [0x15, 6 << 1, 0x16];
        let places: Vec<usize> = (0..bytes.len() - 2)
            .filter(|&at| bytes[at..at + 3] == zstd)
            .collect();
        assert!(places.len() >= 12, "{places:?}");
        for (codec, name) in [(1u8, "snappy"), (2, "gzip"), (4, "brotli"), (7, "lz4")] {
            for at in &places {
                bytes[at + 1] = codec << 1;
            }
            let error = read(bytes.clone().into(), Schema::syscalls_v1()).expect_err("not built in");
            let error = error.to_string();
            assert!(
                error.contains(name) && error.contains("compression=\"zstd\""),
                "{error}"
            );
        }
    }

    #[test]
    fn a_sign_turned_anywhere_is_no_panic() {
        let bytes = write(&rows(2, 4), "a", "b").expect("writes");
        // The lowest bit of a number in the footer is its sign.
        for i in bytes.len().saturating_sub(2000)..bytes.len() {
            let mut bent = bytes.clone();
            bent[i] ^= 1;
            let _ = read(bent.into(), Schema::syscalls_v1());
        }
    }

    #[test]
    fn another_writers_arrow_types_do_not_matter() {
        use arrow_array::types::Int32Type;
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let columns = Arc::new(Columns::new(vec![
            Field::new("above_threshold", DataType::Boolean, true),
            Field::new("source", DataType::UInt64, true),
            Field::new("window_start_unix_ms", DataType::Int64, true),
            Field::new("window_ms", DataType::Int64, true),
            Field::new("schema", dictionary, true),
            Field::new("features", DataType::List(item.clone()), true),
            Field::new("one_more", DataType::Int64, true),
        ]));
        let before = rows(1, 1);
        let mut features = ListBuilder::new(Float32Builder::new()).with_field(item);
        features.values().append_slice(before.row(0));
        features.append(true);
        let hash = before.schema().hash().to_string();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![false])),
            Arc::new(UInt64Array::from(vec![0])),
            Arc::new(Int64Array::from(vec![0])),
            Arc::new(Int64Array::from(vec![1_000])),
            Arc::new(arrow_array::DictionaryArray::<Int32Type>::from_iter([
                hash.as_str()
            ])),
            Arc::new(features.finish()),
            Arc::new(Int64Array::from(vec![None])),
        ];
        let mut out = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut out, columns.clone(), None).expect("a writer");
        writer
            .write(&RecordBatch::try_new(columns, arrays).expect("a batch"))
            .expect("writes");
        writer.close().expect("closes");
        let after = read(out.into(), before.schema()).expect("reads");
        assert_eq!((after.values(), after.about()), (before.values(), before.about()));
    }

    #[test]
    fn other_tables_are_refused_by_column() {
        let columns = Arc::new(Columns::new(vec![Field::new("source", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(columns.clone(), vec![Arc::new(Int64Array::from(vec![1]))])
            .expect("a batch");
        let mut out = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut out, columns, None).expect("a writer");
        writer.write(&batch).expect("writes");
        writer.close().expect("closes");
        let error = read(out.into(), Schema::syscalls_v1()).expect_err("no windows");
        assert_eq!(error.to_string(), "column source is not there or is not u64");
    }
}
