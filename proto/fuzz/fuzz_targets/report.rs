//! What agents report, on hostile bytes: through tonic's own framing into the codec that measures before it decodes.
//! Nothing may panic; what is decoded is within its bounds, and is the same when it is written and read again.
#![no_main]

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, Streaming};
use vigia_proto::bounded::BoundedCodec;
use vigia_proto::v1::{ReportAck, ReportBatch};
use vigia_proto::{MAX_ALERTS, MAX_BINS, MAX_DRIVERS, MAX_MESSAGE, MAX_SAMPLES, MAX_SCORES, MAX_SEQUENCES};

/// Not compressed, the length, and the message.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a fuzzer's inputs are short"));
    frame.put_slice(message);
    frame.freeze()
}

fn receive(body: Bytes) -> Result<Option<ReportBatch>, Status> {
    let decoder = BoundedCodec::<ReportAck, ReportBatch>::default().decoder();
    let mut stream = Streaming::new_request(decoder, Full::new(body), None, Some(MAX_MESSAGE));
    futures_executor::block_on(stream.message())
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    // A message as it is, or the frame's five bytes too.
    let body = if mode % 4 == 0 {
        Bytes::copy_from_slice(data)
    } else {
        framed(data)
    };
    let Ok(Some(batch)) = receive(body) else {
        return;
    };
    assert!(batch.alerts.len() <= MAX_ALERTS && batch.scores.len() <= MAX_SCORES);
    assert!(batch.samples.len() <= MAX_SAMPLES);
    assert!(
        batch
            .alerts
            .iter()
            .all(|alert| alert.drivers.len() <= MAX_DRIVERS && alert.sequences.len() <= MAX_SEQUENCES)
    );
    assert!(batch.scores.iter().all(|score| score.histogram.len() <= MAX_BINS));
    let written = batch.encode_to_vec();
    let again = receive(framed(&written)).expect("what was read can be read");
    // By its bytes: a NaN is not equal to itself.
    assert_eq!(again.expect("a message").encode_to_vec(), written);
});
