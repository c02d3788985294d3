//! Lists that are read from outside and may not be longer than their owner allows.
//!
//! A limit on the bytes of an encoding is none on memory: an element that takes a few bytes there may take hundreds
//! here. So whoever declares a list says how long it may be, and one that claims more is refused before its first
//! element is read; and a claim is believed up to a mebibyte, past which room is made as elements come.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// Bytes that are set aside on a claim alone.
const BELIEVED: usize = 1 << 20;

/// Reads a list of at most `MOST` elements, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// More elements, or one that cannot be read.
pub fn list<'de, D, T, const MOST: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    from.deserialize_seq(AtMost::<T, MOST>(PhantomData))
}

struct AtMost<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AtMost<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let claimed = from.size_hint().unwrap_or(0);
        if claimed > MOST {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut list = Vec::with_capacity(claimed.min(BELIEVED / size_of::<T>().max(1)));
        while let Some(element) = from.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Few(#[serde(deserialize_with = "list::<_, _, 2>")] Vec<u16>);

    #[test]
    fn a_list_is_as_long_as_it_may_be() {
        for few in [vec![], vec![1, 2]] {
            let bytes = bincode::serialize(&few).expect("encodes");
            assert_eq!(bincode::deserialize(&bytes).ok(), Some(Few(few)));
        }
        // The claim is enough: there are no elements.
        for claimed in [3u64, u64::from(u32::MAX)] {
            let error = bincode::deserialize::<Few>(&claimed.to_le_bytes()).expect_err("too long");
            assert!(error.to_string().contains("a list of at most 2"), "{error}");
        }
        // Who claims nothing is counted.
        let error = serde_json::from_str::<Few>("[1, 2, 3]").expect_err("too long");
        assert!(error.to_string().contains("a list of at most 2"), "{error}");
    }
}
