//! Samples as Parquet: one row a window, the columns of `vigia.v1.Sample` under its field names.
//!
//! | column | type |
//! | --- | --- |
//! | namespace, profile, schema | UTF-8 |
//! | source | UInt64 |
//! | window_start_unix_ms, window_ms | Int64 |
//! | features | List of Float32, no nulls |
//! | above_threshold | Boolean |
//! | sequences, sequence_counts | Lists of UInt64 and UInt32, of one length; files written before they were known have neither |
//! | past | List of Float32; likewise not in every file |
//! | capture | UTF-8; likewise, and then all calls are let in |
//! | unscored | Boolean; likewise, and then a version has scored it, as far as is known |
//!
//! Pages are compressed with zstd. The same rows give the same bytes. Trainers read the same columns.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float32Builder, Int64Builder, ListBuilder, StringBuilder, UInt32Builder, UInt64Builder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;

use vigia_model::context::{Context, Gram, MAX_GRAMS, MAX_PAST};
use vigia_model::schema::MAX_FEATURES;
use vigia_model::syscalls::ALL_CALLS;

use super::StoreError;

/// Length of a window in eighths of an octave of milliseconds, as agents' clocks make no two equally long: so files
/// can say how many they hold of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Length(pub(super) i32);

impl Length {
    /// Of a window.
    pub fn of(window_ms: i64) -> Self {
        // From 1; 0 is said by files that do not say it.
        Self((window_ms.max(1) as f64).log2().mul_add(8.0, 1.0).round() as i32)
    }

    /// Whether two are the same but for what clocks and a late drain add to them: those of which one is less than 1.29
    /// times the other are, and more than 1.42 times are not.
    pub fn is_about(self, other: Self) -> bool {
        self.0 > 0 && other.0 > 0 && self.0.abs_diff(other.0) <= 3
    }
}

/// What windows have in common that a model can be trained on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind<'a> {
    /// Hash of the feature schema.
    pub schema: &'a str,
    /// How long they are.
    pub length: Length,
    /// Fingerprint of the filter that they were made by.
    pub capture: &'a str,
}

/// One window's feature vector, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Namespace of the TraceProfile. Rows that are read together share their texts.
    pub namespace: Arc<str>,
    /// Name of the TraceProfile.
    pub profile: Arc<str>,
    /// Keyed hash that tells containers apart.
    pub source: u64,
    /// When the window began, by the operator's clock as far as it can be told.
    pub start_ms: i64,
    /// How long it was.
    pub window_ms: i64,
    /// Hash of the feature schema.
    pub schema: Arc<str>,
    /// The vector.
    pub features: Vec<f32>,
    /// The active version raised it above the alert threshold.
    pub above_threshold: bool,
    /// No version that served has scored it.
    pub unscored: bool,
    /// Fingerprint of the filter that it was made by.
    pub capture: Arc<str>,
    /// What else is known of it.
    pub context: Context,
}

/// Bytes that a row takes at most.
pub(super) const MOST_HELD: u64 = (size_of::<Row>()
    + MAX_FEATURES * size_of::<f32>()
    + MAX_PAST * size_of::<f32>()
    + MAX_GRAMS * size_of::<Gram>()) as u64;

impl Row {
    /// Bytes that it takes in memory; texts are shared.
    pub fn held(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.features)
            + size_of_val(self.context.past())
            + size_of_val(self.context.grams())
    }

    /// Its kind.
    pub fn kind(&self) -> Kind<'_> {
        Kind {
            schema: &self.schema,
            length: Length::of(self.window_ms),
            capture: &self.capture,
        }
    }
}

fn schema() -> Arc<Schema> {
    let list = |of| DataType::List(Arc::new(Field::new("item", of, false)));
    Arc::new(Schema::new(vec![
        Field::new("namespace", DataType::Utf8, false),
        Field::new("profile", DataType::Utf8, false),
        Field::new("source", DataType::UInt64, false),
        Field::new("window_start_unix_ms", DataType::Int64, false),
        Field::new("window_ms", DataType::Int64, false),
        Field::new("schema", DataType::Utf8, false),
        Field::new("features", list(DataType::Float32), false),
        Field::new("above_threshold", DataType::Boolean, false),
        Field::new("sequences", list(DataType::UInt64), false),
        Field::new("sequence_counts", list(DataType::UInt32), false),
        Field::new("past", list(DataType::Float32), false),
        Field::new("capture", DataType::Utf8, false),
        Field::new("unscored", DataType::Boolean, false),
    ]))
}

/// Rows that are turned into columns at once: what is held beside the encoded pages.
const BATCH: usize = 4096;

fn batch<'a>(schema: &Arc<Schema>, rows: impl Iterator<Item = &'a Row>) -> Result<RecordBatch, StoreError> {
    let mut namespace = StringBuilder::new();
    let mut profile = StringBuilder::new();
    let mut source = UInt64Builder::new();
    let mut start = Int64Builder::new();
    let mut length = Int64Builder::new();
    let mut hash = StringBuilder::new();
    let item = |of| Field::new("item", of, false);
    let rates = || ListBuilder::new(Float32Builder::new()).with_field(item(DataType::Float32));
    let numbers = || ListBuilder::new(UInt32Builder::new()).with_field(item(DataType::UInt32));
    let ids = ListBuilder::new(UInt64Builder::new()).with_field(item(DataType::UInt64));
    let (mut features, mut past, mut grams, mut counts) = (rates(), rates(), ids, numbers());
    let (mut above, mut capture) = (BooleanBuilder::new(), StringBuilder::new());
    let mut unscored = BooleanBuilder::new();
    for row in rows {
        namespace.append_value(&row.namespace);
        profile.append_value(&row.profile);
        source.append_value(row.source);
        start.append_value(row.start_ms);
        length.append_value(row.window_ms);
        hash.append_value(&row.schema);
        features.values().append_slice(&row.features);
        features.append(true);
        above.append_value(row.above_threshold);
        for gram in row.context.grams() {
            grams.values().append_value(gram.id);
            counts.values().append_value(gram.count);
        }
        grams.append(true);
        counts.append(true);
        past.values().append_slice(row.context.past());
        past.append(true);
        capture.append_value(&row.capture);
        unscored.append_value(row.unscored);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(namespace.finish()),
        Arc::new(profile.finish()),
        Arc::new(source.finish()),
        Arc::new(start.finish()),
        Arc::new(length.finish()),
        Arc::new(hash.finish()),
        Arc::new(features.finish()),
        Arc::new(above.finish()),
        Arc::new(grams.finish()),
        Arc::new(counts.finish()),
        Arc::new(past.finish()),
        Arc::new(capture.finish()),
        Arc::new(unscored.finish()),
    ];
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Parquet of rows, with key-value metadata in its footer.
pub(super) fn encode(rows: &[Row], metadata: Vec<(String, String)>) -> Result<Bytes, StoreError> {
    encode_refs(&rows.iter().collect::<Vec<_>>(), metadata)
}

/// The same of rows that are elsewhere.
pub(super) fn encode_refs(rows: &[&Row], metadata: Vec<(String, String)>) -> Result<Bytes, StoreError> {
    let metadata = metadata.into_iter().map(|(k, v)| KeyValue::new(k, v)).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by("vigia-operator".to_owned())
        .set_key_value_metadata(Some(metadata))
        .build();
    let schema = schema();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    for rows in rows.chunks(BATCH) {
        writer.write(&batch(&schema, rows.iter().copied())?)?;
    }
    Ok(writer.into_inner()?.into())
}

/// What the end of a Parquet file says of it.
#[derive(Debug, PartialEq)]
pub(super) enum Footer {
    /// Key-value metadata and the number of rows.
    Whole(Vec<(String, String)>, u64),
    /// So many bytes of its end are needed.
    Longer(u64),
}

/// Reads the footer of a Parquet file of `size` bytes from its last ones.
pub(super) fn footer(tail: &Bytes, size: u64) -> Result<Footer, StoreError> {
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(tail, size) {
        Ok(()) => {}
        Err(ParquetError::NeedMoreData(bytes)) => return Ok(Footer::Longer(bytes as u64)),
        Err(error) => return Err(error.into()),
    }
    let metadata = reader.finish()?;
    let file = metadata.file_metadata();
    let pairs = file
        .key_value_metadata()
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?)))
        .collect();
    Ok(Footer::Whole(pairs, u64::try_from(file.num_rows()).unwrap_or(0)))
}

/// Calls `take` with each row of a Parquet file. The reader panics at some damage: it is called where a panic is the
/// file's damage and no more, see [`super::blocking`].
pub(super) fn decode(bytes: Bytes, mut take: impl FnMut(Row)) -> Result<(), StoreError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let reader = builder.with_batch_size(BATCH).build()?;
    let mut texts = [const { None }; 4];
    for batch in reader {
        let batch = batch?;
        let columns = Columns::of(&batch)
            .ok_or_else(|| StoreError::Rows("a column is missing or of another type".into()))?;
        for i in 0..batch.num_rows() {
            take(columns.row(i, &mut texts)?);
        }
    }
    Ok(())
}

struct Columns<'a> {
    namespace: &'a StringArray,
    profile: &'a StringArray,
    source: &'a [u64],
    start: &'a [i64],
    length: &'a [i64],
    schema: &'a StringArray,
    features: &'a ListArray,
    above: &'a BooleanArray,
    beside: Option<Beside<'a>>,
    capture: Option<&'a StringArray>,
    unscored: Option<&'a BooleanArray>,
}

/// The columns that not every file has.
struct Beside<'a> {
    grams: &'a ListArray,
    counts: &'a ListArray,
    past: &'a ListArray,
}

impl<'a> Beside<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let list = |name| batch.column_by_name(name)?.as_list_opt::<i32>();
        let (grams, counts, past) = (list("sequences")?, list("sequence_counts")?, list("past")?);
        grams.values().as_primitive_opt::<UInt64Type>()?;
        counts.values().as_primitive_opt::<UInt32Type>()?;
        past.values().as_primitive_opt::<Float32Type>()?;
        Some(Self { grams, counts, past })
    }

    fn context(&self, i: usize) -> Result<Context, StoreError> {
        let ids = self.grams.value(i).as_primitive::<UInt64Type>().values().to_vec();
        let counts = self
            .counts
            .value(i)
            .as_primitive::<UInt32Type>()
            .values()
            .to_vec();
        let past = self.past.value(i).as_primitive::<Float32Type>().values().to_vec();
        Context::counted(&ids, &counts, past).map_err(|error| StoreError::Rows(error.to_string()))
    }
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let features = batch.column_by_name("features")?.as_list_opt::<i32>()?;
        features.values().as_primitive_opt::<Float32Type>()?;
        Some(Self {
            namespace: batch.column_by_name("namespace")?.as_string_opt::<i32>()?,
            profile: batch.column_by_name("profile")?.as_string_opt::<i32>()?,
            source: batch
                .column_by_name("source")?
                .as_primitive_opt::<UInt64Type>()?
                .values(),
            start: batch
                .column_by_name("window_start_unix_ms")?
                .as_primitive_opt::<Int64Type>()?
                .values(),
            length: batch
                .column_by_name("window_ms")?
                .as_primitive_opt::<Int64Type>()?
                .values(),
            schema: batch.column_by_name("schema")?.as_string_opt::<i32>()?,
            features,
            above: batch.column_by_name("above_threshold")?.as_boolean_opt()?,
            beside: match batch.column_by_name("sequences") {
                Some(_) => Some(Beside::of(batch)?),
                None => None,
            },
            capture: match batch.column_by_name("capture") {
                Some(column) => Some(column.as_string_opt::<i32>()?),
                None => None,
            },
            unscored: match batch.column_by_name("unscored") {
                Some(column) => Some(column.as_boolean_opt()?),
                None => None,
            },
        })
    }

    fn row(&self, i: usize, texts: &mut [Option<Arc<str>>; 4]) -> Result<Row, StoreError> {
        let [namespace, profile, schema, capture] = texts;
        let context = match &self.beside {
            Some(beside) => beside.context(i)?,
            None => Context::default(),
        };
        Ok(Row {
            namespace: shared(namespace, self.namespace.value(i)),
            profile: shared(profile, self.profile.value(i)),
            source: self.source[i],
            start_ms: self.start[i],
            window_ms: self.length[i],
            schema: shared(schema, self.schema.value(i)),
            features: self
                .features
                .value(i)
                .as_primitive::<Float32Type>()
                .values()
                .to_vec(),
            above_threshold: self.above.value(i),
            unscored: self.unscored.is_some_and(|column| column.value(i)),
            capture: shared(capture, self.capture.map_or(ALL_CALLS, |column| column.value(i))),
            context,
        })
    }
}

/// A text, the one of the row before where it is the same: most often it is.
fn shared(last: &mut Option<Arc<str>>, text: &str) -> Arc<str> {
    match last {
        Some(last) if **last == *text => last.clone(),
        _ => last.insert(text.into()).clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn row(profile: &str, source: u64, start_ms: i64) -> Row {
        Row {
            namespace: "shop".into(),
            profile: profile.into(),
            source,
            start_ms,
            window_ms: 2000,
            schema: "ab".repeat(32).into(),
            features: (0..124).map(|i| (i as f32).mul_add(0.5, source as f32)).collect(),
            above_threshold: source.is_multiple_of(7),
            unscored: source.is_multiple_of(3),
            capture: ALL_CALLS.into(),
            context: Context::counted(
                &[0x0203, 0x0102_0304],
                &[1, source as u32 | 1],
                vec![0.5; (source % 33) as usize],
            )
            .expect("a context"),
        }
    }

    fn read(bytes: Bytes) -> Vec<Row> {
        let mut rows = vec![];
        decode(bytes, |row| rows.push(row)).unwrap();
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rows_survive_the_round_trip(
            rows in prop::collection::vec(
                ("[a-z]{1,8}", any::<u64>(), any::<i64>(), prop::collection::vec(-1e30f32..1e30, 0..130), any::<bool>(),
                    "all|[0-9a-f]{32}"),
                0..40,
            )
        ) {
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|(name, source, start_ms, features, above_threshold, capture)| Row {
                    profile: name.into(), source, start_ms, features, above_threshold, unscored: !above_threshold,
                    capture: capture.into(),
                    ..row("p", 1, 0)
                })
                .collect();
            let bytes = encode(&rows, vec![("k".into(), "v".into())]).unwrap();
            let Footer::Whole(entries, count) = footer(&bytes, bytes.len() as u64).unwrap() else {
                panic!("the whole file holds its footer");
            };
            prop_assert!(entries.contains(&("k".to_owned(), "v".to_owned())));
            prop_assert_eq!(count, rows.len() as u64);
            prop_assert_eq!(read(bytes), rows);
        }

        #[test]
        fn damage_is_an_error_and_no_more(at in 0usize..4000, flip in 1u8.., cut in 0usize..4000) {
            let rows: Vec<Row> = (0..20).map(|i| row("p", i, i as i64)).collect();
            let whole = encode(&rows, vec![]).unwrap();
            let mut bent = whole.to_vec();
            let i = at % bent.len();
            bent[i] ^= flip;
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for bytes in [bent.into(), whole.slice(..cut % whole.len())] {
                let read = runtime.block_on(read_as_the_store_does(bytes));
                prop_assert!(read.as_ref().err().is_none_or(StoreError::is_damage), "{:?}", read);
            }
        }
    }

    async fn read_as_the_store_does(bytes: Bytes) -> Result<(), StoreError> {
        crate::store::blocking(move || decode(bytes, |_| ())).await
    }

    #[tokio::test]
    async fn a_sign_turned_anywhere_is_damage_and_no_more() {
        let rows: Vec<Row> = (0..2).map(|i| row("p", i, i as i64)).collect();
        let whole = encode(&rows, vec![]).unwrap();
        // The lowest bit of a number in the footer is its sign.
        for i in whole.len().saturating_sub(2000)..whole.len() {
            let mut bent = whole.to_vec();
            bent[i] ^= 1;
            let read = read_as_the_store_does(bent.into()).await;
            assert!(read.as_ref().err().is_none_or(StoreError::is_damage), "{read:?}");
        }
    }

    #[test]
    fn lengths_are_told_apart_but_for_what_clocks_add() {
        let about = |a, b| Length::of(a).is_about(Length::of(b));
        for window_ms in [1000, 2000, 5000, 10_000, 30_000, 300_000] {
            for (share, same) in [(100, true), (78, true), (129, true), (142, false), (70, false)] {
                assert_eq!(
                    about(window_ms, window_ms * share / 100),
                    same,
                    "{window_ms} {share}"
                );
            }
        }
        assert!(!Length(0).is_about(Length::of(1)));
    }

    #[test]
    fn what_files_of_before_do_not_say_is_taken_as_it_was_then() {
        let rows: Vec<Row> = (0..3).map(|i| row("p", i, i as i64)).collect();
        let whole = batch(&schema(), rows.iter()).unwrap();
        let all = whole.num_columns();
        let old = |columns: usize| {
            let columns: Vec<usize> = (0..columns).collect();
            let batch = whole.project(&columns).unwrap();
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            read(writer.into_inner().unwrap().into())
        };
        assert_eq!(old(all), rows);
        let scored = |row: &Row| Row {
            unscored: false,
            ..row.clone()
        };
        let scored: Vec<Row> = rows.iter().map(scored).collect();
        // Before it was said whether anybody had scored them, by which filter they were made, and anything beside the
        // vector.
        assert_eq!((old(all - 1), old(all - 2)), (scored.clone(), scored));
        assert!(old(all - 5).iter().all(|row| *row.capture == *ALL_CALLS));
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let rows: Vec<Row> = (0..5000).map(|i| row("p", i, i as i64)).collect();
        assert_eq!(encode(&rows, vec![]).unwrap(), encode(&rows, vec![]).unwrap());
    }
}
