//! One vector as one line of JSON: a window of which only its features are left, as in a Parquet file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vigia_trainer::data::{About, Rows};

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
    /// Values by name; those that are 0 are left out.
    pub features: BTreeMap<String, f32>,
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
        Self {
            schema: rows.schema().name().to_owned(),
            source: format!("{:016x}", about.source),
            started_ms: about.started_ms,
            window_ms: about.window_ms,
            above_threshold: about.above_threshold,
            features: named
                .filter(|(_, value)| **value != 0.0)
                .map(|(feature, value)| (feature.to_string(), *value))
                .collect(),
        }
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
        };
        rows.push(&values, about).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_model::schema::Schema;

    #[test]
    fn a_row_survives_its_line() {
        let schema = Schema::syscalls_v1();
        let mut rows = Rows::new(schema);
        let values: Vec<f32> = (0..schema.width()).map(|i| (i % 7) as f32 / 3.0).collect();
        let about = About {
            source: u64::MAX,
            started_ms: 7,
            ..About::default()
        };
        rows.push(&values, about).expect("a row");
        let line = serde_json::to_string(&Vector::of(&rows, 0)).expect("a line");
        assert!(Vector::is_one(line.as_bytes()));
        let back: Vector = serde_json::from_str(&line).expect("a vector");
        let mut again = Rows::new(schema);
        back.push(&mut again).expect("a row");
        assert_eq!((again.row(0), again.about()[0]), (&values[..], about));
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
            features: BTreeMap::from([("opne".to_owned(), 1.0)]),
        };
        assert!(vector.push(&mut rows).is_err_and(|why| why.contains("\"opne\"")));
        vector.features = BTreeMap::from([("total".to_owned(), f32::NAN)]);
        assert!(vector.push(&mut rows).is_err());
        vector.features.clear();
        vector.source = "it".to_owned();
        assert!(vector.push(&mut rows).is_err());
        vector.schema = "other".to_owned();
        assert!(vector.push(&mut rows).is_err_and(|why| why.contains("other")));
        assert!(rows.is_empty());
    }
}
