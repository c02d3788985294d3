//! What stands before a vector estimator: standard scaling, and where wanted a projection onto principal
//! components.
//!
//! Everything behind it lives in units of standard deviations and within ±[`LIMIT`], so that no sum of squares
//! overflows and no distance is NaN, whatever finite vector comes.
//!
//! A call that training never saw has no part in any component: a projection alone loses it. So how far a vector lies
//! from the components' plane is one more value behind them (Jackson and Mudholkar, Technometrics 21, 1979).

use super::reconstruction::rest;
use super::table::{Table, dot};
use super::{Refused, rule};
use crate::bounded;
use crate::schema::MAX_FEATURES;
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest absolute value behind the front: what lies further says no more.
pub const LIMIT: f32 = 1e6;

const NAME: &str = "scaler";

/// A standard scaler, and principal components after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// Mean of each feature in training.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub mean: Vec<f32>,
    /// Standard deviation of each feature in training, above 0.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub scale: Vec<f32>,
    /// What the scaled features are projected on.
    #[serde(with = "projection")]
    pub projection: Option<Projection>,
}

/// Principal components, and how far from their plane windows of training lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Unit vectors over the scaled features, a row a component; fewer than there are features.
    pub components: Table,
    /// Mean distance from the plane in training.
    pub mean: f32,
    /// Standard deviation of that distance, above 0.
    pub scale: f32,
}

/// As `Option` is encoded, but for the number that says there is one: under 1 there were components without the
/// distance from their plane, which no estimator behind them can do without.
mod projection {
    use super::*;

    const ABSENT: u8 = 0;
    const WITHOUT_DISTANCE: u8 = 1;
    const PRESENT: u8 = 2;

    pub fn serialize<S: Serializer>(projection: &Option<Projection>, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return projection.serialize(to);
        }
        let mut fields = to.serialize_tuple(1 + usize::from(projection.is_some()))?;
        match projection {
            None => fields.serialize_element(&ABSENT)?,
            Some(projection) => {
                fields.serialize_element(&PRESENT)?;
                fields.serialize_element(projection)?;
            }
        }
        fields.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Projection>, D::Error> {
        if from.is_human_readable() {
            return Option::deserialize(from);
        }
        from.deserialize_tuple(2, Fields)
    }

    struct Fields;

    impl<'de> Visitor<'de> for Fields {
        type Value = Option<Projection>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a projection or none")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            match fields.next_element()? {
                Some(ABSENT) => Ok(None),
                Some(PRESENT) => fields.next_element(),
                Some(WITHOUT_DISTANCE) => Err(A::Error::custom(
                    "its principal components lose the calls that training never saw: train the model anew",
                )),
                _ => Err(A::Error::custom("neither a projection nor none")),
            }
        }
    }
}

/// Space for a vector behind the front.
pub(super) type Space = [f32; MAX_FEATURES];

impl Front {
    /// Features that it takes.
    pub const fn width(&self) -> usize {
        self.mean.len()
    }

    /// Values that it gives.
    pub fn outputs(&self) -> usize {
        let behind = |projection: &Projection| projection.components.len() + 1;
        self.projection.as_ref().map_or(self.width(), behind)
    }

    /// Checks every parameter's range, for fronts from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        let width = self.width();
        rule(
            (1..=MAX_FEATURES).contains(&width) && self.scale.len() == width,
            NAME,
            "means and scales are of different or impossible widths",
        )?;
        let means = self.mean.iter().all(|m| m.is_finite());
        rule(means, NAME, "a mean is out of range")?;
        // Whatever overflows by one of these is clamped, and nothing that is no number can come of it.
        let scales = self
            .scale
            .iter()
            .all(|s| (f32::MIN_POSITIVE..=f32::MAX).contains(s));
        rule(scales, NAME, "a scale is out of range")?;
        let Some(Projection {
            components,
            mean,
            scale,
        }) = &self.projection
        else {
            return Ok(());
        };
        components.check("pca", width, 1..=width - 1, 1.001)?;
        let within = (0.0..=LIMIT).contains(mean) && (1.0 / LIMIT..=LIMIT).contains(scale);
        rule(within, "pca", "a distance from the plane is out of range")
    }

    /// The scaled vector; or its projection and, last, how far it lies from the components' plane. And its width.
    pub(super) fn apply(&self, vector: &[f32], out: &mut Space) -> usize {
        let scaled = vector.iter().zip(&self.mean).zip(&self.scale);
        for (out, ((x, mean), scale)) in out.iter_mut().zip(scaled) {
            *out = ((x - mean) / scale).clamp(-LIMIT, LIMIT);
        }
        let width = self.width().min(MAX_FEATURES);
        let Some(projection) = &self.projection else {
            return width;
        };
        let space = *out;
        let scaled = &space[..width];
        let components = &projection.components;
        let along = components.rows().map(|component| dot(component, scaled));
        let distance = (rest(components, scaled) - projection.mean) / projection.scale;
        let values = along.chain([distance]);
        let mut given = 0;
        for (out, value) in out.iter_mut().zip(values) {
            *out = value.clamp(-LIMIT, LIMIT);
            given += 1;
        }
        given
    }

    /// A whole table's rows behind the front.
    pub fn table(&self, rows: &Table) -> Table {
        let mut space = [0.0; MAX_FEATURES];
        let mut values = Vec::with_capacity(rows.len() * self.outputs());
        for row in rows.rows() {
            let width = self.apply(row, &mut space);
            values.extend_from_slice(&space[..width]);
        }
        Table::new(self.outputs(), values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(projection: Option<Projection>) -> Front {
        Front {
            mean: vec![1.0, 0.0, 0.0],
            scale: vec![1.0, 2.0, 1.0],
            projection,
        }
    }

    fn on_the_first() -> Projection {
        Projection {
            components: Table::new(3, vec![1.0, 0.0, 0.0]),
            mean: 1.0,
            scale: 0.5,
        }
    }

    #[test]
    fn what_a_projection_loses_is_its_last_value() {
        let (front, mut space) = (front(Some(on_the_first())), [0.0; MAX_FEATURES]);
        assert_eq!(front.check(), Ok(()));
        let given = front.apply(&[5.0, 6.0, 4.0], &mut space);
        assert_eq!(space[..given], [4.0, 8.0]);
        assert_eq!(given, front.outputs());
        let given = front.apply(&[f32::MAX, -f32::MAX, f32::MAX], &mut space);
        assert_eq!(space[..given], [LIMIT, LIMIT]);
    }

    #[test]
    fn a_projection_out_of_range_is_refused() {
        let wrong = |change: fn(&mut Projection)| {
            let mut projection = on_the_first();
            change(&mut projection);
            front(Some(projection)).check()
        };
        assert!(wrong(|p| p.mean = -1.0).is_err());
        assert!(wrong(|p| p.mean = f32::NAN).is_err());
        assert!(wrong(|p| p.scale = 0.0).is_err());
        // With the distance, there would be more values than features.
        assert!(wrong(|p| p.components = Table::new(3, vec![0.0; 9])).is_err());
    }

    #[test]
    fn what_was_written_before_is_read_but_for_components_without_the_distance() {
        type Before = (Vec<f32>, Vec<f32>, Option<Table>);
        let mut before: Before = (vec![1.0, 0.0, 0.0], vec![1.0, 2.0, 1.0], None);
        let bytes = bincode::serialize(&before).expect("encodes");
        assert_eq!(bytes, bincode::serialize(&front(None)).expect("encodes"));
        assert_eq!(
            bincode::deserialize::<Front>(&bytes).expect("decodes"),
            front(None)
        );
        before.2 = Some(on_the_first().components);
        let bytes = bincode::serialize(&before).expect("encodes");
        let error = bincode::deserialize::<Front>(&bytes)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("components") && error.contains("train the model anew"),
            "{error}"
        );
        let whole = front(Some(on_the_first()));
        let mut bytes = bincode::serialize(&whole).expect("encodes");
        assert_eq!(bincode::deserialize::<Front>(&bytes).expect("decodes"), whole);
        let at = bincode::serialized_size(&(&whole.mean, &whole.scale)).expect("a size") as usize;
        bytes[at] = 3;
        assert!(bincode::deserialize::<Front>(&bytes).is_err());
        // As whoever exports it sees it.
        let json = serde_json::to_value(&whole).expect("JSON");
        assert_eq!(json["projection"]["scale"], 0.5);
    }
}
