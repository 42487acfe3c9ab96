//! An application made with the SDK of Spin 3: a core module, which imports what Spin 2 and 3 have.

mod support;

use std::collections::BTreeMap;

use edgeweir_host_chain::{Layer, Next, full};
use edgeweir_host_wasi_http::{Kept, Outbound, Plugin, Runtime, RuntimeOptions, load};
use support::*;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

fn spin() -> Plugin {
    Plugin {
        component: build_for("wasm32-wasip1", "spin"),
        databases: vec!["default".into(), "unknown".into()],
        ..plugin()
    }
}

async fn ask(layer: &std::sync::Arc<dyn Layer>, path: &str, body: &str) -> String {
    let chain: Next = hello(layer);
    let asked = request("POST", path, full(body.to_owned()));
    let response = chain.run(asked).await.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    text(response).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_stores_variables_and_databases_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sqlite_key_value.db");
    let runtime = Runtime::new(RuntimeOptions {
        cache_dir: Some(cache()),
        stores: BTreeMap::from([("kept".into(), Kept::File(file.clone()))]),
        databases: BTreeMap::from([
            ("default".into(), Some(folder.path().join("sqlite_db.db"))),
            ("other".into(), None),
        ]),
        ..RuntimeOptions::default()
    })
    .expect("a runtime");
    let granted = Plugin {
        stores: Some(vec!["default".into(), "kept".into(), "missing".into()]),
        ..spin()
    };
    let layer = load(&runtime, granted).await.expect("loads");
    let draft = "[(\"a\", Some([49])), (\"none\", None)] [\"a\", \"b\"] true Some(\"by one\") true (5, -2) []";
    let stored = "Some(\"value\") [\"key\"] true false";
    for (path, body, want) in [
        ("/", "", "answered by Spin 3: /"),
        ("/store?default", "value", stored),
        ("/store?kept", "value", stored),
        ("/store?missing", "", "Error::NoSuchStore"),
        ("/store?denied", "", "Error::AccessDenied"),
        ("/draft?default", "", draft),
        ("/draft?kept", "", draft),
        ("/draft?denied", "", "Error::AccessDenied"),
        ("/variable?answer", "", "Ok(\"42\")"),
        (
            "/variable?none",
            "",
            "Err(Error::Undefined(\"no variable named `none`\"))",
        ),
        (
            "/config?answer",
            "",
            "Ok(Some(\"42\")) Ok([(\"answer\", \"42\")])",
        ),
        ("/config?none", "", "Ok(None) Ok([(\"answer\", \"42\")])"),
        ("/sqlite?default", "CREATE TABLE t (a)", "[] []"),
        (
            "/sqlite3",
            "INSERT INTO t VALUES (?1) RETURNING a, 1.5, x'00', NULL",
            "[\"a\", \"1.5\", \"x'00'\", \"NULL\"] [RowResult { values: [Value::Text(\"given\"), Value::Real(1.5), Value::Blob([0]), Value::Null] }] 1 1",
        ),
        (
            "/sqlite?default",
            "SELECT COUNT(*) AS n FROM t",
            "[\"n\"] [RowResult { values: [Value::Integer(1)] }]",
        ),
        ("/sqlite?unknown", "", "Error::NoSuchDatabase"),
        ("/sqlite?other", "", "Error::AccessDenied"),
    ] {
        assert_eq!(ask(&layer, path, body).await, want, "{path} {body}");
    }
    let said = ask(&layer, "/sqlite?default", "NO STATEMENT").await;
    assert!(
        said.starts_with("Error::Io(") && said.contains("syntax error"),
        "{said}"
    );
    assert!(file.exists());
    let calls = layer.meter().expect("metered").snapshot().host_calls;
    assert!(
        calls["key-value.swap"] > 0 && calls["sqlite.execute"] > 0,
        "{calls:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_host_but_spin_has_is_a_trap_when_it_is_called() {
    let layer = layer(spin()).await;
    let chain = hello(&layer);
    let (status, _) = exchange(&chain, get("/llm")).await;
    assert_eq!(status, 500);
    let (status, said) = exchange(&chain, get("/")).await;
    assert_eq!((status, said.as_str()), (200, "answered by Spin 3: /"));
    assert_eq!(layer.meter().expect("metered").snapshot().traps, 1);
}

/// As much of a Redis as is asked here: one number.
async fn redis() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading).lines();
    let mut number: i64 = 0;
    while let Some(count) = lines.next_line().await? {
        let count: usize = count.trim_start_matches('*').parse().expect("an array");
        let mut words = Vec::new();
        for _ in 0..count {
            lines.next_line().await?;
            words.extend(lines.next_line().await?);
        }
        let answer = match words[0].as_str() {
            "SET" => {
                number = words[2].parse().expect("a number");
                "+OK\r\n".to_owned()
            }
            "INCR" => {
                number += 1;
                format!(":{number}\r\n")
            }
            "GET" => format!("${}\r\n{number}\r\n", number.to_string().len()),
            "DEL" => ":1\r\n".to_owned(),
            "BLPOP" => {
                let seconds = words[2].parse().expect("a number");
                tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
                "*-1\r\n".to_owned()
            }
            _ => "+OK\r\n".to_owned(),
        };
        writing.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_where_that_is_allowed() {
    let address = format!("redis://{}", redis().await);
    let allowed = Plugin {
        allowed_outbound: vec![Outbound::parse(&address).expect("parses")],
        ..spin()
    };
    let (allowed, denied) = (layer(allowed).await, layer(spin()).await);
    let path = format!("/redis?{address}");
    assert_eq!(
        ask(&allowed, &path, "").await,
        "8 [RedisResult::Binary([56])] 1"
    );
    assert_eq!(ask(&denied, &path, "").await, "Error::InvalidAddress");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_may_wait_as_long_as_its_exchange() {
    let address = format!("redis://{}", redis().await);
    let allowed = Plugin {
        allowed_outbound: vec![Outbound::parse(&address).expect("parses")],
        ..spin()
    };
    let layer = layer(allowed).await;
    let said = ask(&layer, &format!("/wait?{address}"), "").await;
    assert_eq!(said, "[RedisResult::Nil]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_tls_is_reached_where_that_is_allowed() {
    let address = format!("rediss://{}", redis().await);
    let allowed = Plugin {
        allowed_outbound: vec![Outbound::parse(&address).expect("parses")],
        ..spin()
    };
    // This one speaks no TLS: that it was asked is enough.
    let said = ask(&layer(allowed).await, &format!("/redis?{address}"), "").await;
    assert!(said.starts_with("Error::Other("), "{said}");
}
