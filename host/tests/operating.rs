//! The program while it is operated: it stops, its token is rotated, it is asked whether a configuration is good.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::ChildStdout;

const TOKEN: &str = "a-token-of-the-operator";

/// The program, killed with the test.
struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// The program on a configuration with one listener and the admin pages.
    async fn start(file: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args(["run", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out = ChildStdout::from_std(child.stdout.take().unwrap()).unwrap();
        let mut out = BufReader::new(out).lines();
        let mut address = async || {
            let line = out.next_line().await.unwrap().expect("an address");
            let word = line.split_whitespace().nth(1).unwrap().to_owned();
            let word = word.trim_start_matches("http://").trim_end_matches('/');
            word.parse::<SocketAddr>().expect(&line)
        };
        let (listener, admin) = (address().await, address().await);
        Self {
            child,
            out,
            address: listener,
            admin,
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args([name, &id]).status();
        assert!(told.unwrap().success());
    }

    /// Waits for the line that begins with a word.
    async fn says(&mut self, word: &str) {
        while let Some(line) = self.out.next_line().await.unwrap() {
            if line.starts_with(word) {
                return;
            }
        }
        panic!("it never said {word}");
    }

    /// Status and body of an admin page.
    async fn page(&self, path: &str, fields: &str) -> (u16, String) {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
        let answer = String::from_utf8(raw(self.admin, request).await).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        (answer[9..12].parse().unwrap(), body.to_owned())
    }

    async fn ends_within(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

fn written(folder: &Path, admin: &str, upstream: SocketAddr, rest: &str) -> PathBuf {
    let file = folder.join("edge.toml");
    let text = format!(
        "[limits]\ngrace_ms = 60000\n[state]\ncache_dir = {:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n\
         [[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n{rest}\n\
         [upstream.origin]\naddress = \"{upstream}\"\n",
        folder.join("cache"),
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_while_it_finishes_and_a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "", origin().await, "");
    for (first, second) in [("-TERM", "-TERM"), ("-INT", "-TERM")] {
        let mut host = Running::start(&file).await;
        assert_eq!(host.page("/readyz", "").await, (200, "ready\n".to_owned()));
        // In flight for as long as it is let.
        let mut client = TcpStream::connect(host.address).await.unwrap();
        let asked = client.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
        asked.await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        host.signal(first);
        host.says(&first.replace('-', "SIG")).await;
        let began = Instant::now();
        while host.page("/readyz", "").await != (503, "stopping\n".to_owned()) {
            assert!(began.elapsed() < Duration::from_secs(5), "still ready");
        }
        assert_eq!(host.page("/healthz", "").await.0, 200, "it is alive");
        assert!(!host.ends_within(Duration::from_secs(1)).await, "too soon");
        host.signal(second);
        assert!(host.ends_within(Duration::from_secs(5)).await, "{second}");
        host.says("main: ").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_compiled_does_not_hold_up_a_signal_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("large.wasm");
    // Long to compile, and no handler at all in the end.
    let body =
        "(func (param i64) (result i64) local.get 0 i64.const 3 i64.mul local.get 0 i64.add)";
    let text = format!("(component (core module {}))", body.repeat(60_000));
    std::fs::write(&component, wat::parse_str(text).unwrap()).unwrap();
    let upstream = origin().await;
    let file = written(folder.path(), "", upstream, "");
    let mut host = Running::start(&file).await;
    let filter = format!("filters = [\"large\"]\n[filter.large]\nmodule = {component:?}\n");
    written(folder.path(), "", upstream, &filter);
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let began = Instant::now();
    host.signal("-TERM");
    assert!(
        host.ends_within(Duration::from_secs(5)).await,
        "it compiles for {:?} already",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_rotated_counts_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let admin = format!("token_file = {token:?}");
    let file = written(folder.path(), &admin, origin().await, "");
    let host = Running::start(&file).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let (old, new) = (bearer(TOKEN), bearer("another-token-than-before"));
    assert_eq!(host.page("/metrics", &old).await.0, 200);
    assert_eq!(host.page("/metrics", &new).await.0, 401);
    // One that is none changes nothing.
    std::fs::write(&token, "short\n").unwrap();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(host.page("/metrics", &old).await.0, 200);
    std::fs::write(&token, "another-token-than-before\n").unwrap();
    let began = Instant::now();
    while host.page("/metrics", &new).await.0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(host.page("/metrics", &old).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_ask_whether_a_configuration_is_good_makes_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.jsonl");
    let upstream = origin().await;
    let check = |log: &Path, arguments: &[&str]| {
        let rest = format!("access_log = {log:?}");
        let file = written(folder.path(), "", upstream, &rest);
        let run = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args(arguments)
            .arg(file)
            .output();
        run.unwrap()
    };
    for arguments in [&["run", "--check"][..], &["check"][..]] {
        let checked = check(&log, arguments);
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{arguments:?}: {said}");
        assert!(!log.exists(), "{arguments:?}");
    }
    let nowhere = check(
        &folder.path().join("gone/access.jsonl"),
        &["run", "--check"],
    );
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(!nowhere.status.success(), "{said}");
    assert!(said.contains("listener[0].access_log"), "{said}");
    assert!(said.contains("cannot be written"), "{said}");
}
