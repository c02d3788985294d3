//! One vector as one line of JSON: a window of which only its features are left, as in a Parquet file.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use vigia_model::context::{Context, Gram, PLACES};
use vigia_model::schema::Schema;
use vigia_model::syscalls::Fingerprint;
use vigia_trainer::data::{About, Rows};

use crate::record::AFTER;

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// Name of the schema whose features these are.
    pub schema: String,
    /// Tells sources apart; 16 digits in hexadecimal.
    pub source: String,
    /// Start, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Length in milliseconds.
    pub window_ms: u32,
    /// A model raised it above its alert threshold.
    #[serde(default)]
    pub above_threshold: bool,
    /// Which calls were looked at, where that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Fingerprint>,
    /// Values by name; those that are 0 are left out.
    pub features: BTreeMap<String, f32>,
    /// Calls that came right after each other, as `first>second>…` of up to six, and how often; by names of features.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, u32>,
    /// `total` of the windows right before, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<f32>,
}

impl Vector {
    /// Whether a line is meant to be a vector, right or wrong.
    pub fn is_one(line: &[u8]) -> bool {
        const KEY: &[u8] = b"\"features\"";
        line.windows(KEY.len()).any(|part| part == KEY)
    }

    /// Row `index`.
    pub fn of(rows: &Rows, index: usize) -> Self {
        let about = &rows.about()[index];
        let named = rows.schema().features().iter().zip(rows.row(index));
        let context = &rows.contexts()[index];
        let name = |place: usize| place_name(rows.schema(), place);
        let sequences = context.grams().iter().map(|gram| {
            let mut names: Vec<String> = Gram::latest_first(gram.id).map(name).collect();
            names.reverse();
            (names.join(AFTER), gram.count)
        });
        Self {
            schema: rows.schema().name().to_owned(),
            source: format!("{:016x}", about.source),
            started_ms: about.started_ms,
            window_ms: about.window_ms,
            above_threshold: about.above_threshold,
            capture: about.capture,
            features: named
                .filter(|(_, value)| **value != 0.0)
                .map(|(feature, value)| (feature.to_string(), *value))
                .collect(),
            sequences: sequences.collect(),
            past: context.past().to_vec(),
        }
    }

    fn context(&self, schema: &Schema) -> Result<Context, String> {
        let places: HashMap<String, usize> = (0..PLACES).map(|p| (place_name(schema, p), p)).collect();
        let place = |name: &str| {
            let known = places.get(name).copied();
            known.ok_or_else(|| format!("schema {} has no feature {name:?}", schema.name()))
        };
        let gram = |(names, &count): (&String, &u32)| {
            let places = names
                .split(AFTER)
                .map(place)
                .collect::<Result<Vec<usize>, String>>()?;
            let id = Gram::id_of(places);
            match Gram::is_id(id) {
                true => Ok(Gram { id, count }),
                false => Err(format!("sequence {names:?}: write first{AFTER}second{AFTER}…")),
            }
        };
        let grams = self.sequences.iter().map(gram);
        let mut grams = grams.collect::<Result<Vec<Gram>, String>>()?;
        grams.sort_unstable();
        Context::new(grams, self.past.clone()).map_err(|error| error.to_string())
    }

    /// Adds it to rows.
    ///
    /// # Errors
    /// Another schema, a feature that it does not have, or what rows refuse.
    pub fn push(&self, rows: &mut Rows) -> Result<(), String> {
        let schema = rows.schema();
        if self.schema != schema.name() {
            return Err(format!("schema {:?} is not {}", self.schema, schema.name()));
        }
        let mut values = vec![0.0; schema.width()];
        let mut named = 0;
        for (feature, value) in schema.features().iter().zip(&mut values) {
            if let Some(given) = self.features.get(&feature.to_string()) {
                *value = *given;
                named += 1;
            }
        }
        if named < self.features.len() {
            let known = |name: &&String| schema.features().iter().any(|f| f.to_string() == **name);
            let unknown = self.features.keys().find(|name| !known(name));
            return Err(format!(
                "schema {} has no feature {:?}",
                schema.name(),
                unknown.map_or("", |name| name)
            ));
        }
        let source = u64::from_str_radix(&self.source, 16)
            .map_err(|_| format!("source {:?} is not hexadecimal", self.source))?;
        let about = About {
            source,
            started_ms: self.started_ms,
            window_ms: self.window_ms,
            above_threshold: self.above_threshold,
            capture: self.capture,
        };
        rows.push_within(&values, about, self.context(schema)?)
            .map_err(|error| error.to_string())
    }
}

/// The feature at a place, or the place where there is none.
fn place_name(schema: &Schema, place: usize) -> String {
    let feature = schema.features().get(place);
    feature.map_or_else(|| place.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_its_line() {
        let schema = Schema::syscalls_v1();
        let mut rows = Rows::new(schema);
        let values: Vec<f32> = (0..schema.width()).map(|i| (i % 7) as f32 / 3.0).collect();
        let about = About {
            source: u64::MAX,
            started_ms: 7,
            capture: "a".repeat(32).parse().ok(),
            ..About::default()
        };
        let gram = |id, count| Gram { id, count };
        let grams = vec![
            gram(Gram::id_of([0, 3]), 9),
            gram(Gram::id_of([PLACES - 1; 6]), 1),
        ];
        let context = Context::new(grams, vec![0.5, 0.0]).expect("a context");
        rows.push_within(&values, about, context).expect("a row");
        let line = serde_json::to_string(&Vector::of(&rows, 0)).expect("a line");
        assert!(Vector::is_one(line.as_bytes()));
        let back: Vector = serde_json::from_str(&line).expect("a vector");
        let mut again = Rows::new(schema);
        back.push(&mut again).expect("a row");
        assert_eq!((again.row(0), again.about()[0]), (&values[..], about));
        assert_eq!(again.contexts(), rows.contexts());
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let mut rows = Rows::new(Schema::syscalls_v1());
        let mut vector = Vector {
            schema: "vigia.syscalls.v1".to_owned(),
            source: "1f".to_owned(),
            started_ms: 0,
            window_ms: 2000,
            above_threshold: false,
            capture: None,
            features: BTreeMap::from([("opne".to_owned(), 1.0)]),
            sequences: BTreeMap::new(),
            past: vec![],
        };
        assert!(vector.push(&mut rows).is_err_and(|why| why.contains("\"opne\"")));
        vector.features = BTreeMap::from([("total".to_owned(), f32::NAN)]);
        assert!(vector.push(&mut rows).is_err());
        vector.features.clear();
        vector.sequences = BTreeMap::from([("read>opne".to_owned(), 1)]);
        assert!(vector.push(&mut rows).is_err_and(|why| why.contains("\"opne\"")));
        vector.sequences = BTreeMap::from([("read".to_owned(), 1)]);
        assert!(
            vector
                .push(&mut rows)
                .is_err_and(|why| why.contains("write first>second"))
        );
        vector.sequences.clear();
        vector.past = vec![f32::INFINITY];
        assert!(
            vector
                .push(&mut rows)
                .is_err_and(|why| why.contains("0 to 46.67"))
        );
        vector.past.clear();
        vector.source = "it".to_owned();
        assert!(vector.push(&mut rows).is_err());
        vector.schema = "other".to_owned();
        assert!(vector.push(&mut rows).is_err_and(|why| why.contains("other")));
        assert!(rows.is_empty());
    }
}
