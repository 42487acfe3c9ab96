//! A middleware component that does what its request's path says, and passes the request on where that says nothing.

use std::cell::{Cell, RefCell};

wit_bindgen::generate!({
    path: "../../../../wit",
    world: "edgeweir:worlds/spin-filter",
    generate_all,
});

use exports::wasi::http::handler::Guest;
use spin::key_value::key_value::Store;
use spin::variables::variables;
use wasi::http::types::{ErrorCode, Fields, Request, Response};
use wasi::http::{client, handler};
use wit_bindgen::StreamResult;

struct Component;
export!(Component);

thread_local! {
    static SERVED: Cell<u32> = const { Cell::new(0) };
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        SERVED.set(SERVED.get() + 1);
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/reply" => Ok(text(200, "a reply of its own\n")),
            "/count" => Ok(text(200, &SERVED.get().to_string())),
            "/target" => {
                let seen = format!(
                    "{:?} {} {}",
                    request.get_scheme(),
                    request.get_authority().unwrap_or_default(),
                    target
                );
                Ok(text(200, &seen))
            }
            "/address" => {
                let values = request.get_headers().get("spin-client-addr");
                Ok(text(200, &values.iter().map(|v| String::from_utf8_lossy(v)).collect::<Vec<_>>().join(",")))
            }
            "/file" => Ok(match std::fs::read_to_string(query) {
                Ok(read) => text(200, &read),
                Err(error) => text(404, &format!("{:?}", error.kind())),
            }),
            "/write" => Ok(match std::fs::write(query, "written") {
                Ok(()) => text(200, "written"),
                Err(error) => text(403, &format!("{:?}", error.kind())),
            }),
            "/environment" => Ok(text(200, &std::env::var(query).unwrap_or_default())),
            "/variable" => Ok(match variables::get(query.to_owned()).await {
                Ok(value) => text(200, &value),
                Err(error) => text(404, &format!("{error:?}")),
            }),
            "/print" => {
                println!("to standard output: {query}");
                eprintln!("to standard error: {query}");
                Ok(text(200, "printed"))
            }
            "/header" => {
                let response = handler::handle(request).await?;
                let fields = response.get_headers().clone();
                let status = response.get_status_code();
                let _ = fields.append("x-guest", b"was here");
                let (_, result) = wit_future::new(|| Ok(()));
                let (body, trailers) = Response::consume_body(response, result);
                let (response, _) = Response::new(fields, Some(body), trailers);
                let _ = response.set_status_code(status);
                Ok(response)
            }
            "/upper" => {
                let response = handler::handle(request).await?;
                Ok(upper(response))
            }
            "/upper-request" => {
                let (method, path) = (request.get_method(), request.get_path_with_query());
                let (scheme, authority) = (request.get_scheme(), request.get_authority());
                let fields = request.get_headers().clone();
                let (_, result) = wit_future::new(|| Ok(()));
                let (mut from, trailers) = Request::consume_body(request, result);
                let (mut to, body) = wit_stream::new();
                wit_bindgen::spawn_local(async move { copy_upper(&mut from, &mut to).await });
                let (request, _) = Request::new(fields, Some(body), trailers, None);
                let _ = request.set_method(&method);
                let _ = request.set_path_with_query(path.as_deref());
                let _ = request.set_scheme(scheme.as_ref());
                let _ = request.set_authority(authority.as_deref());
                handler::handle(request).await
            }
            "/swallow" => {
                // Reads the next layer's body to its end and says how it ended.
                let response = handler::handle(request).await?;
                let (_, result) = wit_future::new(|| Ok(()));
                let (mut body, trailers) = Response::consume_body(response, result);
                let mut length = 0;
                loop {
                    let (result, bytes) = body.read(Vec::with_capacity(16 << 10)).await;
                    length += bytes.len();
                    if matches!(result, StreamResult::Dropped) {
                        break;
                    }
                }
                let end = match trailers.await {
                    Ok(None) => "end".to_owned(),
                    Ok(Some(trailers)) => format!("trailers {:?}", trailers.copy_all().len()),
                    Err(error) => format!("error {error:?}"),
                };
                Ok(text(200, &format!("{length} {end}")))
            }
            "/echo" => {
                let fields = Fields::new();
                let (_, result) = wit_future::new(|| Ok(()));
                let (body, trailers) = Request::consume_body(request, result);
                let (response, _) = Response::new(fields, Some(body), trailers);
                Ok(response)
            }
            "/twice" => {
                let authority = request.get_authority();
                let first = handler::handle(request).await?;
                let first = first.get_status_code();
                let second = handler::handle(get("/second", authority)).await?;
                Ok(text(200, &format!("{first} {}", second.get_status_code())))
            }
            "/background" => {
                let authority = request.get_authority();
                wit_bindgen::spawn_local(async move {
                    let _ = handler::handle(get("/refresh", authority)).await;
                });
                Ok(text(200, "answered before the refresh"))
            }
            "/status" => match handler::handle(request).await {
                Ok(response) => Ok(text(200, &response.get_status_code().to_string())),
                Err(error) => Ok(text(200, &format!("{error:?}"))),
            },
            "/client" => match client::send(get("/", Some(query.to_owned()))).await {
                Ok(response) => Ok(text(200, &response.get_status_code().to_string())),
                Err(error) => Ok(text(200, &format!("{error:?}"))),
            },
            // GET with content, of which nobody says the length; whole, or cut by a trap.
            "/content" | "/half-content" => {
                let (mut to, content) = wit_stream::new();
                let (_, trailers) = wit_future::new(|| Ok(None));
                let (request, _) = Request::new(Fields::new(), Some(content), trailers, None);
                let _ = request.set_scheme(Some(&wasi::http::types::Scheme::Http));
                let _ = request.set_authority(Some(query));
                let _ = request.set_path_with_query(Some("/"));
                let half = path == "/half-content";
                wit_bindgen::spawn_local(async move {
                    to.write_all(b"content".to_vec()).await;
                    if half {
                        wasi::clocks::monotonic_clock::wait_for(200_000_000).await;
                        panic!("the guest was told to panic in the middle of a request");
                    }
                });
                match client::send(request).await {
                    Ok(response) => Ok(text(200, &response.get_status_code().to_string())),
                    Err(error) => Ok(text(200, &format!("{error:?}"))),
                }
            }
            "/store" => Ok(store(query).await),
            "/panic" => panic!("the guest was told to panic"),
            "/panic-later" => {
                let (mut to, body) = wit_stream::new();
                let (_, trailers) = wit_future::new(|| Ok(None));
                wit_bindgen::spawn_local(async move {
                    to.write_all(b"the first part, ".to_vec()).await;
                    to.write_all(b"the second part, ".to_vec()).await;
                    panic!("the guest was told to panic in the middle of a body");
                });
                let (response, _) = Response::new(Fields::new(), Some(body), trailers);
                Ok(response)
            }
            "/stall" => {
                let (mut to, body) = wit_stream::new();
                let (_, trailers) = wit_future::new(|| Ok(None));
                wit_bindgen::spawn_local(async move {
                    to.write_all(b"some, and no more".to_vec()).await;
                    wasi::clocks::monotonic_clock::wait_for(3_600_000_000_000).await;
                    drop(to);
                });
                let (response, _) = Response::new(Fields::new(), Some(body), trailers);
                Ok(response)
            }
            "/short" => {
                let response = text(200, "four");
                let (fields, (_, result)) = (Fields::new(), wit_future::new(|| Ok(())));
                let _ = fields.append("content-length", b"10");
                let (body, trailers) = Response::consume_body(response, result);
                Ok(Response::new(fields, Some(body), trailers).0)
            }
            "/never" => {
                wasi::clocks::monotonic_clock::wait_for(3_600_000_000_000).await;
                Ok(text(200, "late"))
            }
            "/wait" => {
                wasi::clocks::monotonic_clock::wait_for(query.parse().unwrap_or(0) * 1_000_000).await;
                Ok(text(200, "waited"))
            }
            "/spin" => loop {
                SERVED.set(std::hint::black_box(SERVED.get()).wrapping_add(1));
            },
            "/allocate" => loop {
                KEPT.with_borrow_mut(|kept| kept.push(vec![1; 1 << 20]));
            },
            "/recurse" => Ok(text(200, &recurse(0).to_string())),
            "/large" => {
                let size: usize = query.parse().unwrap_or(0);
                let (mut to, body) = wit_stream::new();
                let (_, trailers) = wit_future::new(|| Ok(None));
                wit_bindgen::spawn_local(async move {
                    let mut left = size;
                    while left > 0 {
                        let n = left.min(64 << 10);
                        if !to.write_all(vec![b'x'; n]).await.is_empty() {
                            return;
                        }
                        left -= n;
                    }
                });
                Ok(Response::new(Fields::new(), Some(body), trailers).0)
            }
            "/large-header" => {
                let response = text(200, "");
                let fields = response.get_headers().clone();
                Ok(match fields.append("x-large", &vec![b'x'; 4 << 20]) {
                    Ok(()) => text(200, "taken"),
                    Err(error) => text(200, &format!("{error:?}")),
                })
            }
            _ => handler::handle(request).await,
        }
    }
}

async fn store(query: &str) -> Response {
    let store = match Store::open("default".to_owned()).await {
        Ok(store) => store,
        Err(error) => return text(500, &format!("{error:?}")),
    };
    let (call, rest) = query.split_once(':').unwrap_or((query, ""));
    let said = match call {
        "get" => format!("{:?}", store.get(rest.to_owned()).await.map(|v| v.map(|v| String::from_utf8_lossy(&v).into_owned()))),
        "set" => {
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            format!("{:?}", store.set(key.to_owned(), value.as_bytes().to_vec()).await)
        }
        "delete" => format!("{:?}", store.delete(rest.to_owned()).await),
        "exists" => format!("{:?}", store.exists(rest.to_owned()).await),
        "keys" => {
            let (keys, result) = store.get_keys().await;
            let keys = keys.collect().await;
            format!("{keys:?} {:?}", result.await)
        }
        "open" => match Store::open(rest.to_owned()).await {
            Ok(_) => "opened".to_owned(),
            Err(error) => format!("{error:?}"),
        },
        _ => "unknown".to_owned(),
    };
    text(200, &said)
}

fn upper(response: Response) -> Response {
    let fields = response.get_headers().clone();
    let status = response.get_status_code();
    let (_, result) = wit_future::new(|| Ok(()));
    let (mut from, trailers) = Response::consume_body(response, result);
    let (mut to, body) = wit_stream::new();
    wit_bindgen::spawn_local(async move { copy_upper(&mut from, &mut to).await });
    let (response, _) = Response::new(fields, Some(body), trailers);
    let _ = response.set_status_code(status);
    response
}

async fn copy_upper(
    from: &mut wit_bindgen::StreamReader<u8>,
    to: &mut wit_bindgen::StreamWriter<u8>,
) {
    loop {
        let (result, mut bytes) = from.read(Vec::with_capacity(16 << 10)).await;
        bytes.make_ascii_uppercase();
        if !to.write_all(bytes).await.is_empty() || matches!(result, StreamResult::Dropped) {
            return;
        }
    }
}

fn get(path: &str, authority: Option<String>) -> Request {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    let _ = request.set_path_with_query(Some(path));
    let _ = request.set_scheme(Some(&wasi::http::types::Scheme::Http));
    let _ = request.set_authority(authority.as_deref());
    request
}

fn text(status: u16, text: &str) -> Response {
    let fields = Fields::new();
    let bytes = text.as_bytes().to_vec();
    let _ = fields.append("content-length", bytes.len().to_string().as_bytes());
    let (mut to, body) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    wit_bindgen::spawn_local(async move {
        to.write_all(bytes).await;
    });
    let (response, _) = Response::new(fields, Some(body), trailers);
    let _ = response.set_status_code(status);
    response
}

fn recurse(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    if std::hint::black_box(depth) == u64::MAX { 0 } else { recurse(depth + 1) + room[3] }
}
