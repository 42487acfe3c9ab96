//! `wasi:http/handler` as an import: the next layer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use edgeweir_host_chain as chain;
use edgeweir_host_chain::Unreached;
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime::{AsContextMut as _, format_err};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p3::bindings::http::types::{ErrorCode, Request, Response};

use crate::body::{FromGuest, Timely, copied};
use crate::context::{Guest, exchange_of};
use crate::exchange::{Exchange, NextFailed, check_head};

/// By these words our adapter knows that no layer failed: nobody waits for the response any more.
const CALLED_OFF: &str = "the exchange was called off";

type Handled = Result<Resource<Response>, ErrorCode>;

pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker
        .instance("wasi:http/handler@0.3.0")?
        .func_wrap_concurrent(
            "handle",
            |accessor: &Accessor<Guest>, (request,): (Resource<Request>,)| {
                Box::pin(async move { Ok((handle(accessor, request).await?,)) })
            },
        )
}

/// The outer error traps the guest: it gave a handle that is no request.
async fn handle(
    accessor: &Accessor<Guest>,
    request: Resource<Request>,
) -> wasmtime::Result<Handled> {
    let (request, exchange) = match take_request(accessor, request)? {
        Ok(taken) => taken,
        Err(code) => return Ok(Err(code)),
    };
    let next = exchange.next();
    let started = Instant::now();
    // A task of its own: the layers below go on while this guest computes, and a panic of theirs is theirs.
    let (quiet, bodiless) = (exchange.quiet.clone(), exchange.bodiless);
    let mut running = Running(tokio::spawn(async move {
        let request = match bodiless {
            // What came without content rarely goes on with any, and the layers below do well to know.
            true => {
                let (parts, body) = request.into_parts();
                chain::Request::from_parts(parts, chain::begun(body).await)
            }
            false => request,
        };
        let _outside = quiet.outside();
        next.run(request).await
    }));
    let outcome = tokio::select! {
        outcome = &mut running.0 => Some(outcome),
        () = exchange.cancelled() => None,
    };
    exchange.waited(started.elapsed());
    let response = match outcome {
        Some(Ok(Ok(response))) => match response.extensions().get::<Unreached>().copied() {
            None => response,
            // A guest tells a failure from an answer of the origin's by the error alone.
            Some(unreached) => {
                exchange.ended(Some(NextFailed::Made(unreached, response)));
                return Ok(Err(code_of(unreached)));
            }
        },
        Some(Ok(Err(error))) => {
            let code = error_code(&error);
            exchange.ended(Some(NextFailed::Error(error)));
            return Ok(Err(code));
        }
        Some(Err(panic)) => {
            return Ok(Err(ErrorCode::InternalError(Some(format!(
                "the next layer failed: {panic}"
            )))));
        }
        None => return Ok(Err(ErrorCode::InternalError(Some(CALLED_OFF.to_owned())))),
    };
    exchange.ended(None);
    give_response(accessor, response, &exchange)
}

fn take_request(
    accessor: &Accessor<Guest>,
    request: Resource<Request>,
) -> wasmtime::Result<Result<(chain::Request, Arc<Exchange>), ErrorCode>> {
    accessor.with(|mut store| {
        let exchange = exchange_of(store.as_context_mut());
        let guest = store.data_mut();
        let counted = guest.counted("handler.handle");
        let request = guest.table.delete(request)?;
        if counted.is_err() {
            return Ok(Err(ErrorCode::ConnectionTerminated));
        }
        let (sent, result) = oneshot::channel();
        guest.hooks.to_next = true;
        let converted = request.into_http(&mut store, async {
            // A sender that is gone was dropped with a body nobody wanted to its end.
            result.await.unwrap_or(Ok(()))
        });
        let guest = store.data_mut();
        guest.hooks.to_next = false;
        let request = match converted {
            Ok((request, _options)) => request,
            Err(error) => return error.downcast().map(Err),
        };
        let Some(exchange) = exchange else {
            return Ok(Err(ErrorCode::InternalError(Some(
                "wasi:http/handler was called outside of any exchange".into(),
            ))));
        };
        let quiet = exchange.quiet.clone();
        let instance = guest.instance.clone();
        let meter = guest.loaded.meter.clone();
        let request = request.map(|body| {
            copied(FromGuest::request(body, instance, quiet, sent), meter).boxed_unsync()
        });
        Ok(Ok((exchange.outgoing(request), exchange)))
    })
}

fn give_response(
    accessor: &Accessor<Guest>,
    response: chain::Response,
    exchange: &Exchange,
) -> wasmtime::Result<Handled> {
    accessor.with(|mut store| {
        let guest = store.data_mut();
        let limits = &guest.loaded.plugin.limits;
        if check_head(response.headers(), limits.headers, limits.header_bytes).is_err() {
            return Ok(Err(ErrorCode::HttpResponseHeaderSectionSize(None)));
        }
        let (meter, quiet) = (guest.loaded.meter.clone(), exchange.quiet.clone());
        let response = response.map(|body| {
            Timely::of(body, quiet).inspect_frame(move |frame| {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                meter.body_in.fetch_add(size, Ordering::Relaxed);
                meter.bytes_copied.fetch_add(size, Ordering::Relaxed);
            })
        });
        // The future tells how the guest liked the body; nobody above asks.
        let (response, _read) = Response::from_http(&mut guest.hooks, response);
        let response = guest
            .table
            .push(response)
            .map_err(|error| format_err!("too many resources: {error}"))?;
        Ok(Ok(response))
    })
}

/// Ends the next layer's work with its caller.
struct Running(JoinHandle<Result<chain::Response, chain::Error>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The error code for a response that a layer below made up.
fn code_of(unreached: Unreached) -> ErrorCode {
    match unreached {
        Unreached::Refused => ErrorCode::ConnectionRefused,
        Unreached::ConnectTimeout => ErrorCode::ConnectionTimeout,
        Unreached::Closed => ErrorCode::ConnectionTerminated,
        Unreached::Timeout => ErrorCode::HttpResponseTimeout,
        Unreached::Full => ErrorCode::ConnectionLimitReached,
        Unreached::Unavailable => ErrorCode::DestinationUnavailable,
    }
}

/// The error code that says most about an error of the layers below.
fn error_code(error: &chain::Error) -> ErrorCode {
    use std::io::ErrorKind;

    if let Some(error) = error.downcast_ref::<Error>() {
        match error {
            Error::ConnectionRefused => return ErrorCode::ConnectionRefused,
            Error::ConnectionTimeout => return ErrorCode::ConnectionTimeout,
            Error::ConnectionTerminated => return ErrorCode::ConnectionTerminated,
            Error::HttpResponseTimeout => return ErrorCode::HttpResponseTimeout,
            Error::HttpResponseIncomplete => return ErrorCode::HttpResponseIncomplete,
            Error::ConnectionLimitReached => return ErrorCode::ConnectionLimitReached,
            Error::DestinationUnavailable => return ErrorCode::DestinationUnavailable,
            _ => {}
        }
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            match error.kind() {
                ErrorKind::ConnectionRefused => return ErrorCode::ConnectionRefused,
                ErrorKind::TimedOut => return ErrorCode::ConnectionTimeout,
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof => return ErrorCode::ConnectionTerminated,
                _ => {}
            }
        }
        cause = error.source();
    }
    ErrorCode::InternalError(Some(error.to_string()))
}
