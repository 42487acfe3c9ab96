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
use crate::plugin::{Common, Notes, OnTrap, Properties, Route};
use crate::stream::{Direction, LocalResponse, Origin, Phase, Signal, Stream, bodiless};
use crate::vm::Action;
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

/// What a client is told of an upstream that failed before the head went out.
const LOST: &str = "upstream connect error or disconnect before headers";

/// What is known of a request when its response comes.
struct Asked {
    head: bool,
    grpc: bool,
}

/// A body before the plugin's callbacks, or after the first of them.
enum Inbound {
    /// It is empty.
    Over(Body),
    Comes(Body),
    /// It went ahead of its head.
    Led(Box<Pump>),
}

impl Inbound {
    fn of(body: Body, end: bool) -> Self {
        if end {
            Self::Over(body)
        } else {
            Self::Comes(body)
        }
    }

    /// What is left of it for a message that the plugin has no say in any more.
    fn rest(self) -> Body {
        match self {
            Self::Over(body) | Self::Comes(body) => body,
            Self::Led(pump) => PumpBody::request(*pump).boxed_unsync(),
        }
    }
}

#[async_trait]
impl Layer for ProxyWasm {
    fn name(&self) -> &str {
        &self.common.name
    }

    fn meter(&self) -> Option<&Arc<Meter>> {
        Some(&self.common.meter)
    }

    fn tell(&self, emergency: Emergency) {
        self.common.data.tell(emergency);
    }

    async fn handle(&self, request: Request, next: Next) -> Result<Response, Error> {
        let meter = &self.common.meter;
        meter.exchanges.fetch_add(1, Ordering::Relaxed);
        let (mut parts, body) = request.into_parts();
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
            self.tell(*emergency);
        }
        let exchange = match self.open(&mut parts).await {
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
            Ok(Action::Lead) => {
                let mut pump = self.pump(&exchange, Direction::Request, body);
                pump.lead().await;
                if let Some(failure) = pump.failure {
                    return self.failed(ending, asked, failure).await;
                }
                let body = Inbound::Led(Box::new(pump));
                return self.forward(ending, asked, parts, body, next).await;
            }
            Ok(_) => exchange.released(Direction::Request).await,
            Err(Gone) => Outcome::Gone,
        };
        match outcome {
            Outcome::Go => {
                let body = Inbound::of(body, end);
                self.forward(ending, asked, parts, body, next).await
            }
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
    async fn open(&self, parts: &mut request::Parts) -> Result<Arc<Exchange>, Gone> {
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
        let notes = parts.extensions.get_or_insert_default::<Notes>().clone();
        let request = Fields::of_request(parts);
        let mut stream = Stream::new(request, Arc::clone(&signal), origin, notes);
        if let Some(Properties(properties)) = parts.extensions.get() {
            let keyed = |(path, value): &(String, Vec<u8>)| {
                (path.replace('.', "\0").into_bytes(), value.clone())
            };
            stream.given = properties.iter().map(keyed).collect();
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
        body: Inbound,
        next: Next,
    ) -> Result<Response, Error> {
        let exchange = Arc::clone(&ending.0);
        let id = exchange.id;
        let original = (self.common.on_trap == OnTrap::PassThrough).then(|| parts.clone());
        let applied = exchange.enter(|vm| {
            if let Some(stream) = vm.stream(id) {
                stream.request.gone = true;
                if let Some(fields) = &stream.request.fields {
                    fields.apply_to_request(&mut parts);
                }
            }
            Ok(())
        });
        if applied.await.is_err() {
            return self
                .without(original.unwrap_or(parts), body.rest(), next)
                .await;
        }
        let pump = match body {
            Inbound::Over(body) => Err(body),
            Inbound::Comes(body) if self.over.request == (false, false) => {
                let exchange = Arc::clone(&exchange);
                let body = body.map_err(move |error| {
                    exchange.leave();
                    error
                });
                Err(body.boxed_unsync())
            }
            Inbound::Comes(body) => Ok(self.pump(&exchange, Direction::Request, body)),
            Inbound::Led(pump) => Ok(*pump),
        };
        let body = match pump {
            Err(body) => body,
            Ok(mut pump) => {
                pump.prime(&parts.headers).await;
                if let Some(failure) = pump.failure {
                    return self.failed(ending, asked, failure).await;
                }
                PumpBody::request(pump).boxed_unsync()
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
                let mut response = LocalResponse::plain(StatusCode::BAD_GATEWAY, LOST)
                    .into_response(asked.head, asked.grpc);
                response.extensions_mut().insert(Unreached::Closed);
                response
            }
        };
        self.respond(ending, asked, response).await
    }

    /// A body of the plugin's, with its callbacks over it.
    fn pump(&self, exchange: &Arc<Exchange>, direction: Direction, body: Body) -> Pump {
        let over = match direction {
            Direction::Request => self.over.request,
            Direction::Response => self.over.response,
        };
        let common = Arc::clone(&self.common);
        Pump::new(Arc::clone(exchange), common, direction, body, over)
    }

    /// Ends an exchange whose request's body the plugin ended.
    async fn failed(
        &self,
        ending: Ending,
        asked: Asked,
        failure: Failure,
    ) -> Result<Response, Error> {
        match failure {
            Failure::Trapped | Failure::Mislabelled => Ok(self.failure(asked.head)),
            Failure::Decided | Failure::TooLarge => {
                let outcome = ending.0.verdict().await;
                self.decided(ending, asked, outcome).await
            }
        }
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
            return Ok(self.past(ending, response).await);
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
        let mut body = Inbound::of(body, end);
        let outcome = match begun.await {
            Ok(Action::Lead) => {
                let mut pump = self.pump(&exchange, Direction::Response, body.rest());
                pump.lead().await;
                let outcome = match pump.failure {
                    None if pump.broke_off() => {
                        let lost = LocalResponse::plain(StatusCode::BAD_GATEWAY, LOST);
                        return Ok(self.direct(ending, asked, lost).await);
                    }
                    None => Outcome::Go,
                    Some(Failure::Decided) => match exchange.verdict().await {
                        Outcome::Go => Outcome::Close,
                        decided => decided,
                    },
                    Some(Failure::Trapped | Failure::TooLarge | Failure::Mislabelled) => {
                        return Ok(self.failure(asked.head));
                    }
                };
                body = Inbound::Led(Box::new(pump));
                outcome
            }
            Ok(_) => exchange.released(Direction::Response).await,
            Err(Gone) => Outcome::Gone,
        };
        let original = (self.common.on_trap == OnTrap::PassThrough).then(|| parts.clone());
        let outcome = match outcome {
            Outcome::Go => {
                let applied = exchange.enter(|vm| {
                    if let Some(stream) = vm.stream(id) {
                        stream.phase = Phase::ResponseBody;
                        stream.response.gone = true;
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
                return Ok(self.direct(ending, asked, reply).await);
            }
            Outcome::Close => return Err(closed()),
            Outcome::Gone => {
                return Ok(match original {
                    Some(parts) => Response::from_parts(parts, body.rest()),
                    None => self.failure(asked.head),
                });
            }
        }
        let pump = match body {
            Inbound::Over(_) if asked.head || bodiless(parts.status) => Err(empty()),
            Inbound::Over(body) => Err(body),
            Inbound::Comes(body) if self.over.response == (false, false) => Err(body),
            Inbound::Comes(body) => Ok(self.pump(&exchange, Direction::Response, body)),
            Inbound::Led(pump) => Ok(*pump),
        };
        let mut pump = match pump {
            Ok(pump) => pump,
            Err(body) => {
                let body = Passing::new(body, ending, meter).boxed_unsync();
                return Ok(Response::from_parts(parts, body));
            }
        };
        pump.prime(&parts.headers).await;
        match pump.failure {
            None => Ok(Response::from_parts(
                parts,
                PumpBody::response(pump, ending).boxed_unsync(),
            )),
            Some(Failure::Decided) => Err(closed()),
            Some(Failure::Trapped | Failure::TooLarge | Failure::Mislabelled) => {
                Ok(self.failure(asked.head))
            }
        }
    }

    /// A response in place of one that is with the plugin already: it goes out as it is, past all plugins.
    async fn direct(&self, ending: Ending, asked: Asked, reply: LocalResponse) -> Response {
        let mut response = reply.into_response(asked.head, asked.grpc);
        response.extensions_mut().insert(Direct);
        self.past(ending, response).await
    }

    /// A response that the plugin has no say in.
    async fn past(&self, ending: Ending, response: Response) -> Response {
        self.finish_head(&ending.0).await;
        let meter = &self.common.meter;
        response.map(|body| Passing::new(body, ending, meter).boxed_unsync())
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
