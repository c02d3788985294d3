//! Writes the corpus that fuzzing starts from into the folder named by the first argument.

use prost::Message;
use vigia_proto::v1::{Driver, ReportBatch, Sample, ScoreSummary, Sequence, Verdict, VersionSpan};

fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).expect("a folder to write to"));
    let alert = Verdict {
        namespace: "shop".to_owned(),
        profile: "checkout".to_owned(),
        pod: "checkout-1".to_owned(),
        score: 0.97,
        drivers: vec![Driver::default(); 3],
        estimator: "STIDE".to_owned(),
        sequences: vec![Sequence {
            calls: vec!["clone".to_owned(), "execve".to_owned()],
            times: 4,
            ..Sequence::default()
        }],
        ..Verdict::default()
    };
    let scores = ScoreSummary {
        model: "m".to_owned(),
        histogram: vec![1, 0, 300, 70_000],
        ..ScoreSummary::default()
    };
    let sample = Sample {
        source: 7,
        features: vec![1.5, 0.0, -2.0],
        ..Sample::default()
    };
    let version = VersionSpan {
        model: "m".to_owned(),
        start_unix_us: 1,
        ..VersionSpan::default()
    };
    let empty = ReportBatch {
        instance: "i".to_owned(),
        sequence: 1,
        ..ReportBatch::default()
    };
    let seeds = [
        empty.clone(),
        ReportBatch {
            alerts: vec![alert.clone(); 2],
            ..empty.clone()
        },
        ReportBatch {
            alerts: vec![alert],
            scores: vec![scores; 3],
            samples: vec![sample; 4],
            versions: vec![version; 2],
            ..empty
        },
    ];
    for (number, seed) in seeds.iter().enumerate() {
        let bytes = [&[1], &seed.encode_to_vec()[..]].concat();
        std::fs::write(folder.join(number.to_string()), bytes).expect("the folder is writable");
    }
}
