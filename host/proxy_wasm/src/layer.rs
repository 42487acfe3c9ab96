//! A plugin as a layer of a chain: one request through its callbacks, down the chain, and the response back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use edgeweir_host_chain::{
    Body, Direct, Emergency, Error, Layer, Meter, Next, Peer, Request, Response, Unreached, empty,
};
use http::header::HeaderMap;
use http::{Method, StatusCode, request};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::body::{Failure, Passing, Pump, PumpBody};
use crate::exchange::{Closed, Ending, Exchange, Outcome, closed};
use crate::fields::Fields;
use crate::plugin::{Common, OnTrap, Properties, Route};
use crate::stream::{Direction, LocalResponse, Origin, Phase, Signal, Stream, bodiless};
use crate::worker::{Gone, Place, Worker};

/// Which callbacks a module has over bodies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Over {
    pub(crate) request: (bool, bool),
    pub(crate) response: (bool, bool),
}

/// A loaded plugin.
pub(crate) struct ProxyWasm {
    pub(crate) common: Arc<Common>,
    pub(crate) workers: Vec<Arc<Worker>>,
    pub(crate) over: Over,
    pub(crate) turn: AtomicUsize,
}

/// What is known of a request when its response comes.
struct Asked {
    head: bool,
    grpc: bool,
}

#[async_trait]
impl Layer for ProxyWasm {
    fn name(&self) -> &str {
        &self.common.name
    }

    fn meter(&self) -> Option<&Arc<Meter>> {
        Some(&self.common.meter)
    }

    async fn handle(&self, request: Request, next: Next) -> Result<Response, Error> {
        let meter = &self.common.meter;
        meter.exchanges.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = request.into_parts();
        let asked = Asked {
            head: parts.method == Method::HEAD,
            grpc: parts
                .headers
                .get("content-type")
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")),
        };
        if self.exceeds(&parts.headers) {
            let refusal = LocalResponse::plain(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request has more header fields than the plugin takes",
            );
            meter.answered.fetch_add(1, Ordering::Relaxed);
            return Ok(refusal.into_response(asked.head, asked.grpc));
        }
        let end = body.is_end_stream();
        if let Some(emergency) = parts.extensions.get::<Emergency>() {
            self.common.data.tell(*emergency);
        }
        let exchange = match self.open(&parts).await {
            Ok(exchange) => exchange,
            Err(Gone) => return self.without(parts, body, next).await,
        };
        let ending = Ending(Arc::clone(&exchange));
        let id = exchange.id;
        let begun = exchange.enter(|vm| {
            vm.create(id)?;
            vm.on_headers(id, Direction::Request, end)
        });
        let outcome = match begun.await {
            Ok(_) => exchange.released(Direction::Request).await,
            Err(Gone) => Outcome::Gone,
        };
        match outcome {
            Outcome::Go => self.forward(ending, asked, parts, body, end, next).await,
            Outcome::Reply(reply) => self.answer(ending, asked, reply).await,
            Outcome::Close => Err(closed()),
            Outcome::Gone => self.without(parts, body, next).await,
        }
    }
}

impl ProxyWasm {
    fn exceeds(&self, headers: &HeaderMap) -> bool {
        let limits = &self.common.limits;
        let bytes = || {
            headers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum::<usize>()
        };
        headers.len() > limits.headers || bytes() > limits.header_bytes
    }

    /// Gives the request to the least busy machine.
    async fn open(&self, parts: &request::Parts) -> Result<Arc<Exchange>, Gone> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let place = Place::take(&self.workers, turn).ok_or(Gone)?;
        let signal = Arc::new(Signal::default());
        let origin = Origin {
            peer: parts.extensions.get::<Peer>().map(|peer| peer.0),
            version: parts.version,
            route: parts.extensions.get::<Route>().cloned(),
            unreached: None,
            started: Instant::now(),
            started_at: self.common.world.wall(),
        };
        let mut stream = Stream::new(Fields::of_request(parts), Arc::clone(&signal), origin);
        if let Some(Properties(properties)) = parts.extensions.get() {
            let keyed = |(path, value): &(String, Vec<u8>)| {
                (path.replace('.', "\0").into_bytes(), value.clone())
            };
            stream.properties = properties.iter().map(keyed).collect();
        }
        let (generation, id) = place.0.begin(|vm| Ok(vm.open(stream))).await?;
        Ok(Exchange::new(place, generation, id, signal))
    }

    /// The exchange without the plugin, whose machine is gone before anything left it.
    async fn without(
        &self,
        parts: request::Parts,
        body: Body,
        next: Next,
    ) -> Result<Response, Error> {
        match self.common.on_trap {
            OnTrap::PassThrough => next.run(Request::from_parts(parts, body)).await,
            OnTrap::Respond => Ok(self.failure(parts.method == Method::HEAD)),
        }
    }

    fn failure(&self, to_head: bool) -> Response {
        let text = "the plugin failed";
        LocalResponse::plain(StatusCode::INTERNAL_SERVER_ERROR, text).into_response(to_head, false)
    }

    /// Sends the request on and takes the response; meanwhile the plugin may answer from the request's body.
    async fn forward(
        &self,
        ending: Ending,
        asked: Asked,
        mut parts: request::Parts,
        body: Body,
        end: bool,
        next: Next,
    ) -> Result<Response, Error> {
        let exchange = Arc::clone(&ending.0);
        let id = exchange.id;
        let original = (self.common.on_trap == OnTrap::PassThrough).then(|| parts.clone());
        let applied = exchange.enter(|vm| {
            if let Some(fields) = vm
                .stream(id)
                .and_then(|stream| stream.request.fields.as_ref())
            {
                fields.apply_to_request(&mut parts);
            }
            Ok(())
        });
        if applied.await.is_err() {
            return self.without(original.unwrap_or(parts), body, next).await;
        }
        let body = if end {
            body
        } else if self.over.request == (false, false) {
            let exchange = Arc::clone(&exchange);
            body.map_err(move |error| {
                exchange.leave();
                error
            })
            .boxed_unsync()
        } else {
            let common = Arc::clone(&self.common);
            let mut pump = Pump::new(
                Arc::clone(&exchange),
                common,
                Direction::Request,
                body,
                self.over.request,
            );
            pump.prime(&mut parts.headers).await;
            match pump.failure {
                None => PumpBody::request(pump).boxed_unsync(),
                Some(Failure::Trapped) => return Ok(self.failure(asked.head)),
                Some(Failure::Decided | Failure::TooLarge) => {
                    let outcome = exchange.verdict().await;
                    return self.decided(ending, asked, outcome).await;
                }
            }
        };
        let run = next.run(Request::from_parts(parts, body));
        let response = tokio::select! {
            biased;
            outcome = decided(&exchange, self.common.on_trap) => return self.decided(ending, asked, outcome).await,
            response = run => response,
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                // The request's own pump may have ended it: then the plugin's word counts.
                let outcome = exchange.verdict().await;
                let pass = self.common.on_trap == OnTrap::PassThrough;
                match outcome {
                    Outcome::Go if exchange.left() || error.is::<Closed>() => return Err(error),
                    Outcome::Go => {}
                    Outcome::Gone if pass => return Err(error),
                    outcome => return self.decided(ending, asked, outcome).await,
                }
                // As in Envoy, the plugin sees a failed upstream as a response: it may have something better.
                tracing::debug!(plugin = %self.common.name, "no response from the next layer: {error}");
                let text = "upstream connect error or disconnect before headers";
                let mut response = LocalResponse::plain(StatusCode::BAD_GATEWAY, text)
                    .into_response(asked.head, asked.grpc);
                response.extensions_mut().insert(Unreached::Closed);
                response
            }
        };
        self.respond(ending, asked, response).await
    }

    /// Ends an exchange the plugin decided while the request was on its way.
    async fn decided(
        &self,
        ending: Ending,
        asked: Asked,
        outcome: Outcome,
    ) -> Result<Response, Error> {
        match outcome {
            Outcome::Reply(reply) => self.answer(ending, asked, reply).await,
            Outcome::Gone => Ok(self.failure(asked.head)),
            Outcome::Close | Outcome::Go => Err(closed()),
        }
    }

    /// A local response; the plugin's own response callbacks see it, as in Envoy.
    async fn answer(
        &self,
        ending: Ending,
        asked: Asked,
        reply: LocalResponse,
    ) -> Result<Response, Error> {
        self.common.meter.answered.fetch_add(1, Ordering::Relaxed);
        let response = reply.into_response(asked.head, asked.grpc);
        self.respond(ending, asked, response).await
    }

    /// Takes a response through the plugin.
    async fn respond(
        &self,
        ending: Ending,
        asked: Asked,
        response: Response,
    ) -> Result<Response, Error> {
        let exchange = Arc::clone(&ending.0);
        let (id, meter) = (exchange.id, &self.common.meter);
        // As in Envoy, nobody is told of a response that is not for the plugin, or for no client any more.
        if response.extensions().get::<Direct>().is_some() || exchange.left() {
            self.finish_head(&exchange).await;
            return Ok(response.map(|body| Passing::new(body, ending, meter).boxed_unsync()));
        }
        let (mut parts, body) = response.into_parts();
        if self.exceeds(&parts.headers) {
            let text = "the response has more header fields than the plugin takes";
            let refusal = LocalResponse::plain(StatusCode::BAD_GATEWAY, text);
            return Ok(refusal.into_response(asked.head, asked.grpc));
        }
        let end = body.is_end_stream() || asked.head || bodiless(parts.status);
        let fields = Fields::of_response(&parts);
        let unreached = parts.extensions.get::<Unreached>().copied();
        let begun = exchange.enter(|vm| {
            if let Some(stream) = vm.stream(id) {
                stream.phase = Phase::ResponseHead;
                stream.response.fields = Some(fields);
                stream.origin.unreached = unreached;
            }
            vm.on_headers(id, Direction::Response, end)
        });
        let outcome = match begun.await {
            Ok(_) => exchange.released(Direction::Response).await,
            Err(Gone) => Outcome::Gone,
        };
        let original = (self.common.on_trap == OnTrap::PassThrough).then(|| parts.clone());
        let outcome = match outcome {
            Outcome::Go => {
                let applied = exchange.enter(|vm| {
                    if let Some(stream) = vm.stream(id) {
                        stream.phase = Phase::ResponseBody;
                        if let Some(fields) = stream
                            .response
                            .fields
                            .as_ref()
                            .filter(|fields| fields.changed)
                        {
                            fields.apply_to_response(&mut parts);
                        }
                    }
                    Ok(())
                });
                applied.await.map_or(Outcome::Gone, |()| Outcome::Go)
            }
            outcome => outcome,
        };
        match outcome {
            Outcome::Go => {}
            Outcome::Reply(reply) => {
                // Its own callbacks ran for the response it replaces: this one goes out as it is.
                meter.answered.fetch_add(1, Ordering::Relaxed);
                let mut response = reply.into_response(asked.head, asked.grpc);
                response.extensions_mut().insert(Direct);
                self.finish_head(&exchange).await;
                return Ok(response.map(|body| Passing::new(body, ending, meter).boxed_unsync()));
            }
            Outcome::Close => return Err(closed()),
            Outcome::Gone => {
                return Ok(match original {
                    Some(parts) => Response::from_parts(parts, body),
                    None => self.failure(asked.head),
                });
            }
        }
        if end || self.over.response == (false, false) {
            let body = if asked.head || bodiless(parts.status) {
                empty()
            } else {
                body
            };
            return Ok(Response::from_parts(
                parts,
                Passing::new(body, ending, meter).boxed_unsync(),
            ));
        }
        let common = Arc::clone(&self.common);
        let mut pump = Pump::new(
            exchange,
            common,
            Direction::Response,
            body,
            self.over.response,
        );
        pump.prime(&mut parts.headers).await;
        match pump.failure {
            None => Ok(Response::from_parts(
                parts,
                PumpBody::response(pump, ending).boxed_unsync(),
            )),
            Some(Failure::Decided) => Err(closed()),
            Some(Failure::Trapped | Failure::TooLarge) => Ok(self.failure(asked.head)),
        }
    }

    /// From here on no local response is accepted.
    async fn finish_head(&self, exchange: &Exchange) {
        let id = exchange.id;
        let finished = exchange.enter(|vm| {
            if let Some(stream) = vm.stream(id) {
                stream.phase = Phase::ResponseBody;
            }
            Ok(())
        });
        // If the machine is gone there is nobody left to answer.
        let _ = finished.await;
    }
}

/// Waits for a decision; a machine that trapped is one only where a trap is answered.
async fn decided(exchange: &Exchange, on_trap: OnTrap) -> Outcome {
    match exchange.decided().await {
        Outcome::Gone if on_trap == OnTrap::PassThrough => std::future::pending().await,
        outcome => outcome,
    }
}
