//! Compiles the contracts with no protoc installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["vigia/v1/vigia.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .codec_path("crate::bounded::BoundedCodec")
        // What is streamed is a part of one buffer, however many take it.
        .bytes(".vigia.v1.Chunk")
        .compile_fds(files)?;
    Ok(())
}
