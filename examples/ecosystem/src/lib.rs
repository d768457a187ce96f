//! Programs of other people's crates on quoit, each task on its core, without a wrapper and without
//! `unsafe`.
//!
//! | | |
//! |---|---|
//! | `axum_hello` | extractors, state, JSON, a handler that awaits a socket |
//! | `axum_notes` | JSON, a file, server-sent events |
//! | `axum_chat` | WebSocket, by tungstenite on the upgraded stream |
//! | `axum_layers` | layers of tower: a limit, load shedding, compression; and a time limit |
//! | `hyper_get` | hyper's client |
//! | `kv` | a key-value server for the clients of Redis, on one core or several |
//! | `postgres` | a queue of jobs in PostgreSQL, by tokio-postgres |

pub mod chat;
pub mod hello;
pub mod kv;
pub mod layers;
pub mod notes;
pub mod postgres;
pub mod redis_client;
