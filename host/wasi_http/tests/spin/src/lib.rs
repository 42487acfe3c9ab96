//! An application of Spin 3, made with its SDK, that calls what its request's path says.

use spin_sdk::http::{IntoResponse, Request, Response};
use spin_sdk::http_component;
use spin_sdk::key_value::Store;
use spin_sdk::{llm, redis, sqlite, sqlite3, variables};

mod wasi {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package edgeweir:test;
            world drafts {
                include edgeweir:host/keyvalue;
                include edgeweir:host/config;
            }
        ",
        world: "edgeweir:test/drafts",
        generate_all,
    });
}

use wasi::wasi::config::store as config;
use wasi::wasi::keyvalue::{atomics, batch, store};

#[http_component]
async fn handle(request: Request) -> impl IntoResponse {
    let target = request.path_and_query().unwrap_or("/").to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let body = String::from_utf8_lossy(request.body()).into_owned();
    let said = match path {
        "/store" => key_value(query, &body),
        "/draft" => draft(query).unwrap_or_else(|error| format!("{error:?}")),
        "/config" => format!("{:?} {:?}", config::get(query), config::get_all()),
        "/variable" => format!("{:?}", variables::get(query)),
        "/sqlite" => older(query, &body),
        "/sqlite3" => newer(&body),
        "/redis" => remote(query),
        "/wait" => waiting(query),
        "/llm" => format!("{:?}", llm::infer(llm::InferencingModel::Llama2Chat, "?").is_ok()),
        "/call" => call(query).await,
        "/loop" => call("http://self.alt/loop").await,
        _ => format!("answered by Spin 3: {path}"),
    };
    Response::builder().status(200).body(said).build()
}

async fn call(address: &str) -> String {
    let answer: Result<Response, _> = spin_sdk::http::send(Request::get(address)).await;
    match answer {
        Ok(answer) => format!("{} {}", answer.status(), String::from_utf8_lossy(answer.body())),
        Err(error) => format!("not reached: {error}"),
    }
}

fn key_value(label: &str, body: &str) -> String {
    let told = || -> Result<String, spin_sdk::key_value::Error> {
        let store = Store::open(label)?;
        store.set("key", body.as_bytes())?;
        let got = store.get("key")?.map(|it| String::from_utf8_lossy(&it).into_owned());
        let keys = store.get_keys()?;
        let there = store.exists("key")?;
        store.delete("key")?;
        Ok(format!("{got:?} {keys:?} {there} {}", store.exists("key")?))
    };
    told().unwrap_or_else(|error| format!("{error:?}"))
}

fn draft(label: &str) -> Result<String, store::Error> {
    let bucket = store::open(label)?;
    batch::set_many(&bucket, &[("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())])?;
    let got = batch::get_many(&bucket, &["a".into(), "none".into()])?;
    let keys = bucket.list_keys(None)?.keys;
    let (one, other) = (atomics::Cas::new(&bucket, "a")?, atomics::Cas::new(&bucket, "a")?);
    let first = atomics::swap(one, b"by one").is_ok();
    // The second began with what is no more there; what it is given goes on from what is.
    let second = match atomics::swap(other, b"by the other") {
        Err(atomics::CasError::CasFailed(again)) => {
            let seen = again.current()?.map(|it| String::from_utf8_lossy(&it).into_owned());
            format!("{seen:?} {}", atomics::swap(again, b"after all").is_ok())
        }
        other => format!("{}", other.is_ok()),
    };
    let counted = (atomics::increment(&bucket, "n", 5)?, atomics::increment(&bucket, "n", -7)?);
    batch::delete_many(&bucket, &["a".into(), "b".into(), "n".into()])?;
    let left = bucket.list_keys(None)?.keys;
    Ok(format!("{got:?} {keys:?} {first} {second} {counted:?} {left:?}"))
}

fn older(label: &str, statement: &str) -> String {
    let told = || -> Result<String, sqlite::Error> {
        let connection = sqlite::Connection::open(label)?;
        let told = connection.execute(statement, &[])?;
        Ok(format!("{:?} {:?}", told.columns, told.rows))
    };
    told().unwrap_or_else(|error| format!("{error:?}"))
}

fn newer(statement: &str) -> String {
    let told = || -> Result<String, sqlite3::Error> {
        let connection = sqlite3::Connection::open("default")?;
        let told = connection.execute(statement, &[sqlite3::Value::Text("given".into())])?;
        let (row, changes) = (connection.last_insert_rowid(), connection.changes());
        Ok(format!("{:?} {:?} {row} {changes}", told.columns, told.rows))
    };
    told().unwrap_or_else(|error| format!("{error:?}"))
}

fn remote(address: &str) -> String {
    let told = || -> Result<String, redis::Error> {
        let connection = redis::Connection::open(address)?;
        connection.set("edgeweir-test", &b"7".to_vec())?;
        let number = connection.incr("edgeweir-test")?;
        let told = connection.execute("GET", &[redis::RedisParameter::Binary(b"edgeweir-test".to_vec())])?;
        let gone = connection.del(&["edgeweir-test".into()])?;
        Ok(format!("{number} {told:?} {gone}"))
    };
    told().unwrap_or_else(|error| format!("{error:?}"))
}

/// A command that Redis answers when there is something, or has waited a while.
fn waiting(address: &str) -> String {
    let told = || -> Result<String, redis::Error> {
        let connection = redis::Connection::open(address)?;
        let arguments = ["nothing", "6"].map(|it| redis::RedisParameter::Binary(it.into()));
        Ok(format!("{:?}", connection.execute("BLPOP", &arguments)?))
    };
    told().unwrap_or_else(|error| format!("{error:?}"))
}
