//! `#[quoit::main]` and `#[quoit::test]`: an async body in a fresh runtime.
