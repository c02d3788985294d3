//! TLS of the gRPC server.
