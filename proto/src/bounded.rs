//! Messages are measured before they are decoded.
//!
//! Two bytes on the wire can be a message of hundreds in memory: what is cheap to send must not be dear to take.
//! A message whose parts can multiply so says in [`Bounded::BOUNDS`] how many of them there may be, and the codec
//! counts them on the wire before anything is allocated for them.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::v1;
use crate::{
    MAX_ALERTS, MAX_BINS, MAX_DRIVERS, MAX_GRAMS, MAX_METRICS, MAX_SAMPLES, MAX_SCORES, MAX_SEQUENCES,
    MAX_SPANS, MAX_STAGES,
};

/// How often a field may occur in one message.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The field's tag.
    pub tag: u32,
    /// Its name, for the error.
    pub name: &'static str,
    /// Occurrences; values where it is a list of numbers.
    pub most: usize,
    /// What is in it.
    pub inside: Inside,
}

/// What a bounded field holds.
#[derive(Clone, Copy, Debug)]
pub enum Inside {
    /// A message, with bounds of its own.
    Message(&'static [Bound]),
    /// Varints, each for itself or packed.
    Varints,
}

/// A message that is received.
pub trait Bounded {
    /// Fields of which there can be many.
    const BOUNDS: &'static [Bound] = &[];
}

const fn message(tag: u32, name: &'static str, most: usize, inside: &'static [Bound]) -> Bound {
    Bound {
        tag,
        name,
        most,
        inside: Inside::Message(inside),
    }
}

const fn numbers(tag: u32, name: &'static str, most: usize) -> Bound {
    Bound {
        tag,
        name,
        most,
        inside: Inside::Varints,
    }
}

impl Bounded for v1::ReportBatch {
    const BOUNDS: &'static [Bound] = &[
        message(
            4,
            "alerts",
            MAX_ALERTS,
            &[
                message(14, "drivers", MAX_DRIVERS, &[]),
                message(
                    18,
                    "sequences",
                    MAX_SEQUENCES,
                    &[message(1, "calls", MAX_SEQUENCES, &[])],
                ),
            ],
        ),
        message(5, "scores", MAX_SCORES, &[numbers(8, "histogram", MAX_BINS)]),
        message(
            6,
            "samples",
            MAX_SAMPLES,
            &[
                numbers(15, "sequences", MAX_GRAMS),
                numbers(16, "sequence_counts", MAX_GRAMS),
            ],
        ),
        message(9, "versions", MAX_SPANS, &[]),
    ];
}

impl Bounded for v1::TraceRequest {
    const BOUNDS: &'static [Bound] = &[message(5, "stages", MAX_STAGES, &[])];
}

impl Bounded for v1::SubmitRequest {
    const BOUNDS: &'static [Bound] = &[message(
        1,
        "header",
        1,
        &[message(3, "metrics", MAX_METRICS, &[])],
    )];
}

// No larger in memory than on the wire.
impl Bounded for v1::ReportAck {}
impl Bounded for v1::FetchRequest {}
impl Bounded for v1::Chunk {}
impl Bounded for v1::PlanRequest {}
impl Bounded for v1::RunPlan {}
impl Bounded for v1::ShardRequest {}
impl Bounded for v1::HoldoutRequest {}
impl Bounded for v1::SubmitReply {}
impl Bounded for v1::TraceReply {}
impl Bounded for v1::ReduceRequest {}
impl Bounded for v1::ReduceReply {}
impl Bounded for v1::ContributeReply {}

/// Why a message is not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Excess {
    Many { name: &'static str, most: usize },
    Malformed,
}

/// Counts the bounded fields of a message on the wire. What is malformed is left to the decoder to describe,
/// except where it cannot be counted.
fn measure(mut wire: &[u8], bounds: &[Bound]) -> Result<(), Excess> {
    if bounds.is_empty() {
        return Ok(());
    }
    let mut counts = vec![0; bounds.len()];
    while wire.has_remaining() {
        let (tag, kind) = decode_key(&mut wire).map_err(|_| Excess::Malformed)?;
        let (value, numbers) = match kind {
            WireType::Varint => {
                decode_varint(&mut wire).map_err(|_| Excess::Malformed)?;
                (&[][..], 1)
            }
            WireType::SixtyFourBit => (take(&mut wire, 8)?, 1),
            WireType::ThirtyTwoBit => (take(&mut wire, 4)?, 1),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut wire).map_err(|_| Excess::Malformed)?;
                let value = take(&mut wire, usize::try_from(length).map_err(|_| Excess::Malformed)?)?;
                // Each varint ends with its only byte that has no highest bit.
                (value, value.iter().filter(|byte| **byte < 0x80).count())
            }
            // Not in use since proto2, and free to nest.
            WireType::StartGroup | WireType::EndGroup => return Err(Excess::Malformed),
        };
        let Some(at) = bounds.iter().position(|bound| bound.tag == tag) else {
            continue;
        };
        let Bound {
            name, most, inside, ..
        } = bounds[at];
        counts[at] += match inside {
            Inside::Message(_) => 1,
            Inside::Varints => numbers,
        };
        if counts[at] > most {
            return Err(Excess::Many { name, most });
        }
        if let Inside::Message(inside) = inside {
            measure(value, inside)?;
        }
    }
    Ok(())
}

fn take<'a>(wire: &mut &'a [u8], length: usize) -> Result<&'a [u8], Excess> {
    let (value, rest) = wire.split_at_checked(length).ok_or(Excess::Malformed)?;
    *wire = rest;
    Ok(value)
}

/// [`ProstCodec`] that measures before it decodes.
#[derive(Clone, Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Bounded + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::default()))
    }
}

/// The decoder of [`BoundedCodec`].
#[derive(Clone, Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Bounded + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, wire: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A message lies in one piece in tonic's buffer.
        match measure(wire.chunk(), U::BOUNDS) {
            Ok(()) => self.0.decode(wire),
            Err(Excess::Many { name, most }) => Err(Status::invalid_argument(format!(
                "more than {most} {name} in one message: send several"
            ))),
            Err(Excess::Malformed) => Err(Status::invalid_argument("the message is cut off or malformed")),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(batch: &v1::ReportBatch) -> Result<(), Excess> {
        measure(&batch.encode_to_vec(), v1::ReportBatch::BOUNDS)
    }

    #[test]
    fn what_is_within_its_bounds_passes() {
        let full = v1::ReportBatch {
            instance: "a".into(),
            alerts: vec![
                v1::Verdict {
                    drivers: vec![v1::Driver::default(); 3],
                    sequences: vec![
                        v1::Sequence {
                            calls: vec!["read".to_owned(); 6],
                            ..v1::Sequence::default()
                        };
                        3
                    ],
                    ..v1::Verdict::default()
                };
                MAX_ALERTS
            ],
            scores: vec![
                v1::ScoreSummary {
                    histogram: vec![u64::MAX; MAX_BINS],
                    ..v1::ScoreSummary::default()
                };
                3
            ],
            samples: vec![v1::Sample::default(); MAX_SAMPLES],
            lost_calls: 7,
            ..v1::ReportBatch::default()
        };
        assert_eq!(measured(&full), Ok(()));
    }

    #[test]
    fn what_multiplies_in_memory_is_refused_on_the_wire() {
        let many = |name, most| Err(Excess::Many { name, most });
        let empty = v1::ReportBatch::default;
        let alerts = vec![v1::Verdict::default(); MAX_ALERTS + 1];
        assert_eq!(
            measured(&v1::ReportBatch { alerts, ..empty() }),
            many("alerts", MAX_ALERTS)
        );
        let samples = vec![v1::Sample::default(); MAX_SAMPLES + 1];
        assert_eq!(
            measured(&v1::ReportBatch { samples, ..empty() }),
            many("samples", MAX_SAMPLES)
        );
        let alerts = vec![v1::Verdict {
            drivers: vec![v1::Driver::default(); MAX_DRIVERS + 1],
            ..v1::Verdict::default()
        }];
        assert_eq!(
            measured(&v1::ReportBatch { alerts, ..empty() }),
            many("drivers", MAX_DRIVERS)
        );
        let of_sequences = |sequences| v1::ReportBatch {
            alerts: vec![v1::Verdict {
                sequences,
                ..v1::Verdict::default()
            }],
            ..empty()
        };
        assert_eq!(
            measured(&of_sequences(vec![v1::Sequence::default(); MAX_SEQUENCES + 1])),
            many("sequences", MAX_SEQUENCES)
        );
        let long = v1::Sequence {
            calls: vec![String::new(); MAX_SEQUENCES + 1],
            ..v1::Sequence::default()
        };
        assert_eq!(measured(&of_sequences(vec![long])), many("calls", MAX_SEQUENCES));
        let scores = vec![v1::ScoreSummary {
            histogram: vec![1; MAX_BINS + 1],
            ..v1::ScoreSummary::default()
        }];
        assert_eq!(
            measured(&v1::ReportBatch { scores, ..empty() }),
            many("histogram", MAX_BINS)
        );
        let versions = vec![v1::VersionSpan::default(); MAX_SPANS + 1];
        assert_eq!(
            measured(&v1::ReportBatch { versions, ..empty() }),
            many("versions", MAX_SPANS)
        );
        // The same numbers one by one, which a decoder takes too.
        let one_by_one = [[0x40, 1]; MAX_BINS + 1].concat();
        let score = [&[0x2a, 0x80 | 2, 1][..], &one_by_one].concat();
        assert_eq!(
            measure(&score, v1::ReportBatch::BOUNDS),
            many("histogram", MAX_BINS)
        );
    }

    #[test]
    fn what_cannot_be_counted_is_malformed_and_nothing_panics() {
        let bounds = v1::ReportBatch::BOUNDS;
        for wire in [
            &[0x22][..],
            &[0x22, 5, 0],
            &[0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x23],
            &[0x00],
        ] {
            assert_eq!(measure(wire, bounds), Err(Excess::Malformed), "{wire:?}");
        }
        for length in 0..200u32 {
            let wire: Vec<u8> = (0..length)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect();
            let _ = measure(&wire, bounds);
        }
    }
}
