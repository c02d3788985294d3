//! Compiles the contracts with no protoc installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["vigia/v1/vigia.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .codec_path("crate::bounded::BoundedCodec")
        .compile_fds(files)?;
    Ok(())
}
