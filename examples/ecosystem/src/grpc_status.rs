//! What an error of HTTP/2 is in gRPC.
//!
//! tonic knows this only in its transport, and answers "unknown" without it. Told in time, it takes
//! our word: an error that is a `Status` stays one.
//!
//! In one case it must be told on a server, too: tonic takes "cancelled" in the middle of a
//! request's messages for their end, so that half of them would pass for all.

use std::error::Error;
use std::io;

use http_body_util::BodyExt;
use http_body_util::combinators::MapErr;
use hyper::body::Incoming;
use hyper::{Request, Response};
use quoit_http::RequestBody;
use tonic::{Code, Status};

/// A body whose errors are statuses.
pub type Told<B> = MapErr<B, fn(hyper::Error) -> Status>;

/// For a client: what an error of its connection, or of a response's body, comes to.
pub fn status_of<E: Error + 'static>(error: E) -> Status {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    let mut code = Code::Unknown;
    let mut texts = Vec::new();
    while let Some(error) = source {
        texts.push(error.to_string());
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            code = code_of(error);
        } else if error.is::<io::Error>() {
            code = Code::Unavailable;
        } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
            // A reason of HTTP/2, which may stand behind it, is more exact.
            if error.is_closed() || error.is_canceled() || error.is_timeout() {
                code = Code::Unavailable;
            }
        }
        source = error.source();
    }
    Status::new(code, texts.join(": "))
}

/// By the table of gRPC's PROTOCOL-HTTP2.md, "Errors".
fn code_of(error: &h2::Error) -> Code {
    match error.reason() {
        _ if error.is_io() || error.is_go_away() => Code::Unavailable,
        Some(h2::Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(h2::Reason::CANCEL) => Code::Cancelled,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// For a client.
pub fn tell_response(response: Response<Incoming>) -> Response<Told<Incoming>> {
    response.map(|body| body.map_err(status_of as fn(_) -> _))
}

/// For a server: the messages of a client that goes away do not end, they fail.
pub fn tell_request(request: Request<RequestBody>) -> Request<Told<RequestBody>> {
    fn gone(error: hyper::Error) -> Status {
        Status::aborted(status_of(error).message())
    }
    request.map(|body| body.map_err(gone as fn(_) -> _))
}
