//! Programs of other people's crates on quoit, each task on its core, without a wrapper and without
//! `unsafe`.
//!
//! | | |
//! |---|---|
//! | `axum_hello` | extractors, state, JSON, a handler that awaits a socket |
//! | `axum_notes` | JSON, a file, server-sent events |
//! | `axum_chat` | WebSocket, by tungstenite on the upgraded stream |
//! | `axum_layers` | layers of tower: a limit, load shedding, compression; and a time limit |
//! | `https_hello`, `https_get` | TLS by rustls: HTTP/1 and HTTP/2 by ALPN, server and client |
//! | `hyper_get` | hyper's client |
//! | `quic_echo` | QUIC by quinn, on a socket of the standard library |
//! | `kv` | a key-value server for the clients of Redis, on one core or several |
//! | `postgres` | a queue of jobs in PostgreSQL, by tokio-postgres |
//! | `grpc_store`, `grpc_call` | gRPC by tonic: server and client, every kind of call, deadlines |
//! | `axum_links` | reqwest and sqlx, which need tokio, in a sidecar |
//! | `tower_get` | a client in layers of tower: trace, retry, rate, concurrency, time limit |
//! | `worker_pool` | channels, codecs, trackers: work shared out, answered in order |
//! | `tokio_guest` | quoit inside a program of tokio's |

pub mod chat;
pub mod deadline;
pub mod grpc;
pub mod grpc_client;
pub mod grpc_status;
pub mod guest;
pub mod hello;
pub mod https;
pub mod kv;
pub mod layers;
pub mod links;
pub mod notes;
pub mod postgres;
pub mod quic;
pub mod redis_client;
pub mod sidecar;
pub mod timed;
pub mod tower_client;
pub mod worker_pool;
