//! `bench`, `diff`, `record`, `replay` and `explain` as a user runs them, without any filter: the examples of `docs/`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An origin of one page, whose text can change.
struct Origin {
    address: SocketAddr,
    version: Arc<AtomicUsize>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let version = Arc::new(AtomicUsize::new(1));
        let current = version.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let version = current.clone();
                std::thread::spawn(move || serve(stream, &version));
            }
        });
        Self { address, version }
    }
}

fn serve(mut stream: TcpStream, version: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    loop {
        let mut line = String::new();
        while !line.ends_with("\r\n\r\n") {
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = line
            .lines()
            .find_map(|field| field.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        if reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let body = format!("version {}\n", version.load(Relaxed));
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nset-cookie: secret=1\r\n\
             cache-status: edgeweir; fwd=uri-miss; detail=private\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn edgeweir(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgeweir"));
    command
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder)
        .env_remove("EDGEWEIR_BIN")
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    edgeweir(folder)
        .args(arguments)
        .output()
        .expect("edgeweir runs")
}

fn out(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn configuration(folder: &Path, origin: SocketAddr) -> PathBuf {
    let file = folder.join("edgeweir.toml");
    let text = format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n\n[upstream.origin]\naddress = \"{origin}\"\n"
    );
    std::fs::write(&file, text).expect("a configuration");
    file
}

/// What stands for `wasmtime serve`: it says where it listens as that does, and answers 200 if it was started as that has to
/// be, else 500 with what it was given.
#[cfg(unix)]
const SERVE: &str = r#"#!/usr/bin/env python3
import http.server, os, sys, urllib.request
given = sys.argv[1:]
env = dict(each[6:].split("=", 1) for each in given if each.startswith("--env="))
right = (given[:3] == ["serve", "--addr", "127.0.0.1:0"] and env.get("EDGEWEIR_LIMIT") == '{"a":1}'
    and open(given[-1], "rb").read(8) == b"\0asm\x0d\0\x01\0" and os.environ["TOKIO_WORKER_THREADS"] == "1")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        asked = urllib.request.urlopen(env["EDGEWEIR_ORIGIN"] + self.path).read() if right else repr(given).encode()
        self.send_response(200 if right else 500)
        self.send_header("content-length", str(len(asked)))
        self.end_headers()
        self.wfile.write(asked)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"Serving HTTP on http://127.0.0.1:{server.server_port}/", file=sys.stderr, flush=True)
server.serve_forever()
"#;

#[cfg(unix)]
#[test]
fn bench_starts_wasmtime_with_the_component_its_settings_and_the_origin() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("wasmtime");
    std::fs::write(&program, SERVE).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a program");
    std::fs::write(folder.path().join("limit.wasm"), b"\0asm\x0d\0\x01\0").expect("a component");
    let short = ["--rounds", "6", "--seconds", "0.1", "--warm-up", "0.1"];
    let output = edgeweir(folder.path())
        .env("EDGEWEIR_WASMTIME", &program)
        .args(["bench", "wasmtime:limit.wasm", "--config", "{\"a\":1}"])
        .args(["--path", "/1k", "-c", "2", "--json"])
        .args(short)
        .output()
        .expect("edgeweir runs");
    assert!(output.status.success(), "{}", out(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let side = &report["sides"][0];
    assert_eq!(side["name"], "wasmtime:limit.wasm");
    let statuses = side["statuses"].as_object().expect("statuses");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["200"], "{statuses:?}");
    let round = &side["rounds"][5];
    assert_eq!(round["bytes"], 1_024.0);
    // The kernel counts in hundredths of a second: a round of a tenth may show none.
    let rounds = side["rounds"].as_array().expect("rounds");
    let used = |round: &serde_json::Value| round["cpu"].as_f64().is_some_and(|us| us > 0.0);
    assert!(rounds.iter().any(used), "{rounds:?}");
    assert!(
        round["resident"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1 << 20),
        "{round}"
    );
    // What cannot be run there is said before anything is.
    std::fs::write(folder.path().join("limit.wasm"), b"\0asm\x01\0\0\0").expect("a module");
    let output = edgeweir(folder.path())
        .env("EDGEWEIR_WASMTIME", &program)
        .args(["bench", "wasmtime:limit.wasm"])
        .output()
        .expect("edgeweir runs");
    assert!(!output.status.success());
    assert!(
        out(&output).contains("wasmtime serve runs components only"),
        "{}",
        out(&output)
    );
}

#[test]
fn bench_measures_reports_and_judges() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configuration(folder, SocketAddr::from(([127, 0, 0, 1], 1)));
    let short = [
        "--rounds",
        "6",
        "--seconds",
        "0.1",
        "--warm-up",
        "0.1",
        "--path",
        "/1k",
        "-c",
        "2",
    ];
    let mut first = vec![
        "bench",
        "edgeweir.toml",
        "edgeweir.toml",
        "--html",
        "report.html",
        "--save-baseline",
        "main.json",
    ];
    first.extend(short);
    let output = run(folder, &first);
    assert!(output.status.success(), "{}", out(&output));
    let text = out(&output);
    for words in ["requests/s", "CPU µs/request", "B / A", "B  edgeweir.toml"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let page = std::fs::read_to_string(folder.join("report.html")).expect("the report");
    assert!(page.contains("<svg") && page.ends_with("</html>\n"));
    // The same again: whatever this machine is at, it is not eleven times slower.
    let mut again = vec![
        "bench",
        "edgeweir.toml",
        "--json",
        "--baseline",
        "main.json",
        "--fail-above",
        "1000%",
    ];
    again.extend(short);
    let output = run(folder, &again);
    assert!(output.status.success(), "{}", out(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        report["sides"][0]["rounds"].as_array().map(Vec::len),
        Some(6)
    );
    // A baseline of a machine a thousand times as fast.
    let text = std::fs::read_to_string(folder.join("main.json")).expect("the baseline");
    let mut fast: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for side in fast["sides"].as_array_mut().expect("sides") {
        for round in side["rounds"].as_array_mut().expect("rounds") {
            for figure in ["cpu", "p50"] {
                round[figure] = (round[figure].as_f64().expect("a figure") / 1e3).into();
            }
        }
    }
    std::fs::write(folder.join("fast.json"), fast.to_string()).expect("written");
    let mut regressed = vec!["bench", "edgeweir.toml", "--baseline", "fast.json"];
    regressed.extend(short);
    let output = run(folder, &regressed);
    assert_eq!(output.status.code(), Some(3), "{}", out(&output));
    assert!(out(&output).contains("regression: "), "{}", out(&output));
}

#[test]
fn bench_says_what_is_wrong_before_it_measures() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configuration(folder, SocketAddr::from(([127, 0, 0, 1], 1)));
    for (arguments, words) in [
        (vec!["bench", "absent.toml"], "absent.toml cannot be read"),
        (
            vec!["bench", "edgeweir.ini"],
            "none of: a configuration (.toml)",
        ),
        (
            vec!["bench", "envoy.yaml"],
            "is a bootstrap of Envoy's, which only `run`",
        ),
        (vec!["bench", "edgeweir.toml", "--rounds", "3"], "6..=100"),
        (
            vec!["bench", "edgeweir.toml", "--listener", "other"],
            "no listener \"other\"; it has main",
        ),
        (
            vec!["bench", "edgeweir.toml", "--baseline", "absent.json"],
            "absent.json cannot be read",
        ),
    ] {
        let output = run(folder, &arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            out(&output).contains(words),
            "{arguments:?}: {}",
            out(&output)
        );
    }
}

#[test]
fn the_same_configuration_does_not_differ_from_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    configuration(folder, SocketAddr::from(([127, 0, 0, 1], 1)));
    for more in [None, Some("--http2-origin")] {
        let mut arguments = vec![
            "diff",
            "edgeweir.toml",
            "edgeweir.toml",
            "--generate",
            "200",
            "--seed",
            "7",
        ];
        arguments.extend(more);
        let output = run(folder, &arguments);
        assert!(output.status.success(), "{}", out(&output));
        assert!(
            out(&output).starts_with("no difference in "),
            "{}",
            out(&output)
        );
    }
}

/// A module with these callbacks; it does nothing.
fn module(folder: &Path, name: &str, callbacks: &str) {
    let text = format!(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
             (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))
             (func (export "proxy_on_context_create") (param i32 i32))
             (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
             {callbacks}
             (func (export "proxy_on_delete") (param i32)))"#
    );
    let bytes = wat::parse_str(text).expect("it is good");
    std::fs::write(folder.join(name), bytes).expect("written");
}

#[test]
fn diff_shows_callbacks_that_differ() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let log = r#"(func (export "proxy_on_log") (param i32))"#;
    module(folder, "logs.wasm", log);
    module(folder, "silent.wasm", "");
    let sides = ["diff", "logs.wasm", "silent.wasm", "--generate", "20"];
    let output = run(folder, &sides);
    assert_eq!(output.status.code(), Some(3), "{}", out(&output));
    let want = "  callbacks of logs / silent\n    first:  context_create, request_headers(end), [log], delete\n    \
                second: context_create, request_headers(end), [], delete\n";
    assert!(out(&output).contains(want), "{}", out(&output));
    let output = run(folder, &[&sides[..], &["--json"]].concat());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["callbacks"]["compared"], true, "{found}");
    let ways = found["ways"].as_array().expect("ways");
    let difference = &ways[0]["differences"][0];
    assert_eq!(difference["what"], "callbacks of logs / silent", "{found}");
    let output = run(folder, &[&sides[..], &["--lanes", "2"]].concat());
    assert!(output.status.success(), "{}", out(&output));
    let said = "callbacks are not compared: those of several sessions at once cannot be told apart";
    assert!(out(&output).contains(said), "{}", out(&output));
}

/// A child that serves, stopped by SIGTERM as a service manager does.
struct Serving {
    child: Child,
    address: String,
    rest: BufReader<std::process::ChildStdout>,
}

impl Serving {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = edgeweir(folder)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("edgeweir runs");
        let mut rest = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        rest.read_line(&mut line).expect("a line");
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"))
            .unwrap_or_else(|| panic!("no address in {line:?}"))
            .to_owned();
        Self {
            child,
            address,
            rest,
        }
    }

    /// What it said after its address.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        let stopped = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill");
        assert!(stopped.success());
        let mut said = String::new();
        self.rest.read_to_string(&mut said).expect("its output");
        assert!(self.child.wait().expect("it ends").success(), "{said}");
        said
    }
}

fn get(address: &str, path: &str) -> String {
    let fields = "authorization: Bearer x\r\n";
    ask(address, "GET", path, fields, "")
}

fn post(address: &str, path: &str, body: &str) -> String {
    let fields = format!("content-length: {}\r\n", body.len());
    ask(address, "POST", path, &fields, body)
}

fn ask(address: &str, method: &str, path: &str, fields: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: app.test\r\n{fields}connection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_replay_against_nothing_is_an_error_and_no_difference() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let har = r#"{"log":{"entries":[{"request":{"method":"GET","url":"http://app.test/","headers":[]},
        "response":{"status":200,"headers":[],"content":{}}}]}}"#;
    std::fs::write(folder.join("recorded.har"), har).expect("a recording");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let output = run(folder, &["replay", "recorded.har", "--against", &address]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let said = out(&output);
    assert!(
        said.contains("connecting to 127.0.0.1") && !said.contains("differ"),
        "{said}"
    );
}

#[test]
fn cases_that_are_all_skipped_are_no_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    module(folder, "still.wasm", "");
    let cases = "module = \"still.wasm\"\n\n[[case]]\nname = \"it passes\"\n\n[[case.step]]\nrequest = \"GET /\"\nexpect.status = 200\n";
    std::fs::write(folder.join("a.test.toml"), cases).expect("cases");
    let output = run(folder, &["test"]);
    assert!(output.status.success(), "{}", out(&output));
    // The same as YAML, found in the same folder.
    let yaml = "module: still.wasm\ncase:\n- name: it passes too\n  step:\n  - request: GET /\n    expect: { status: 200 }\n";
    std::fs::write(folder.join("b.test.yaml"), yaml).expect("cases");
    let output = run(folder, &["test"]);
    assert!(out(&output).contains("2 passed"), "{}", out(&output));
    std::fs::remove_file(folder.join("b.test.yaml")).expect("removed");
    let output = run(folder, &["test", "--torture-at", "proxy_lgo:1:1"]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let said = out(&output);
    assert!(
        said.contains("nothing was run: every case was skipped"),
        "{said}"
    );
    let output = run(folder, &["test", "--filter", "it fails"]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    // A module that is not there is named where it is named.
    let cases = format!("# A comment.\n{}", cases.replace("still", "absent"));
    std::fs::write(folder.join("a.test.toml"), cases).expect("cases");
    let output = run(folder, &["test"]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    let said = out(&output);
    assert!(
        said.contains("a.test.toml:2: ") && said.contains("absent.wasm"),
        "{said}"
    );
}

/// `test --watch`: what it said, until it is dropped.
struct Watching {
    child: Child,
    said: std::sync::mpsc::Receiver<String>,
}

impl Watching {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        // Both in one pipe, which keeps their order.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let child = edgeweir(folder)
            .args(["test", "--watch"])
            .args(arguments)
            .stdout(writer.try_clone().expect("its other end"))
            .stderr(writer)
            .spawn()
            .expect("edgeweir runs");
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, said }
    }

    /// Waits for a line with these words.
    fn says(&self, words: &str) {
        let mut all = Vec::new();
        loop {
            match self.said.recv_timeout(std::time::Duration::from_secs(30)) {
                Ok(line) if line.contains(words) => return,
                Ok(line) => all.push(line),
                Err(_) => panic!("{words:?} is not said: {all:#?}"),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of one case that takes about so long, without any time of its clock.
fn case_of(name: &str, times: u32) -> String {
    format!(
        "module = \"still.wasm\"\n[[case]]\nname = \"{name}\"\n[[case.step]]\ntimes = {times}\nrequest = \"GET /\"\n"
    )
}

#[test]
fn whatever_changes_is_run_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect(name);
    module(folder, "still.wasm", "");
    let watching = Watching::start(folder, &["."]);
    watching.says("no file named");
    watching.says("waiting for a change");
    // A change during a run is one too.
    write("a.test.toml", case_of("slow", 300));
    watching.says("slow");
    watching.says("waiting for a change");
    write("a.test.toml", case_of("slower", 20_000));
    std::thread::sleep(std::time::Duration::from_millis(600));
    write("a.test.toml", case_of("edited", 1));
    watching.says("passed  edited");
    watching.says("waiting for a change");
    // So are a folder that comes with a case, and a case of it that is edited.
    let below = folder.join("below/deeper");
    std::fs::create_dir_all(&below).expect("folders");
    module(&below, "still.wasm", "");
    write("below/deeper/b.test.toml", case_of("found", 1));
    watching.says("passed  found");
    watching.says("waiting for a change");
    write("below/deeper/b.test.toml", case_of("found again", 1));
    watching.says("passed  found again");
    watching.says("waiting for a change");
    std::fs::rename(folder.join("below"), folder.join(".away")).expect("moved");
    watching.says("1 passed on host");
    watching.says("waiting for a change");
    std::fs::rename(folder.join(".away"), folder.join("below")).expect("moved");
    watching.says("2 passed on host");
}

#[test]
fn a_file_that_is_away_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("below")).expect("a folder");
    let file = folder.join("below/a.test.toml");
    module(folder, "below/still.wasm", "");
    std::fs::write(&file, case_of("first", 1)).expect("cases");
    let watching = Watching::start(folder, &["below/a.test.toml"]);
    watching.says("passed  first");
    watching.says("waiting for a change");
    std::fs::remove_file(&file).expect("removed");
    watching.says("cannot be read");
    watching.says("waiting for a change");
    std::fs::write(&file, case_of("second", 1)).expect("cases");
    watching.says("passed  second");
    watching.says("waiting for a change");
    // With its folder, too.
    std::fs::rename(folder.join("below"), folder.join("away")).expect("moved");
    watching.says("cannot be read");
    watching.says("waiting for a change");
    std::fs::rename(folder.join("away"), folder.join("below")).expect("moved");
    watching.says("passed  second");
}

#[test]
fn what_was_recorded_is_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let origin = Origin::start();
    configuration(folder, origin.address);
    for side in ["client", "origin"] {
        let serving = Serving::start(
            folder,
            &[
                "record",
                "edgeweir.toml",
                "--to",
                "recorded.har",
                "--side",
                side,
            ],
        );
        for path in ["/a", "/b?c=d"] {
            assert!(get(&serving.address, path).ends_with("version 1\n"));
        }
        let said = serving.stop();
        assert!(said.contains("2 exchanges in recorded.har"), "{said}");
        let text = std::fs::read_to_string(folder.join("recorded.har")).expect("the recording");
        let har: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            har["log"]["entries"][1]["request"]["url"],
            "http://app.test/b?c=d"
        );
        assert_eq!(
            har["log"]["entries"][0]["response"]["content"]["text"],
            "version 1\n"
        );
        assert!(
            !text.contains("Bearer x") && !text.contains("secret=1"),
            "{text}"
        );
        assert!(text.contains("Bearer [redacted]"), "{text}");
        assert_eq!(text.contains("x-forwarded-for"), side == "origin", "{text}");
    }
    let output = run(
        folder,
        &["replay", "recorded.har", "--against", "edgeweir.toml"],
    );
    assert!(output.status.success(), "{}", out(&output));
    assert!(
        out(&output).contains("2 responses of edgeweir.toml are as recorded"),
        "{}",
        out(&output)
    );
    origin.version.store(2, Relaxed);
    let address = format!("http://{}", origin.address);
    let output = run(folder, &["replay", "recorded.har", "--against", &address]);
    assert_eq!(output.status.code(), Some(3), "{}", out(&output));
    assert!(
        out(&output).contains("recorded: 10 bytes, at 0: \"version 1\\n\""),
        "{}",
        out(&output)
    );
}

#[test]
fn a_request_whose_body_was_left_out_is_not_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let origin = Origin::start();
    configuration(folder, origin.address);
    let record = ["record", "edgeweir.toml", "--to", "recorded.har"];
    let serving = Serving::start(folder, &[&record[..], &["--max-body-kib", "1"]].concat());
    for body in ["small", &"x".repeat(5_000)] {
        assert!(post(&serving.address, "/a", body).ends_with("version 1\n"));
    }
    serving.stop();
    let text = std::fs::read_to_string(folder.join("recorded.har")).expect("the recording");
    let har: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let [small, large] = [0, 1].map(|at| &har["log"]["entries"][at]["request"]);
    assert_eq!(small["postData"]["text"], "small");
    assert!(small.get("_leftOut").is_none());
    assert_eq!(large["_leftOut"], true);
    for (arguments, want, not_sent) in [
        (
            ["replay", "recorded.har", "--against", "edgeweir.toml"].as_slice(),
            "1 responses of edgeweir.toml are as recorded",
            "1 not sent: the bodies of their requests were too large to be recorded",
        ),
        (
            &[
                "diff",
                "edgeweir.toml",
                "edgeweir.toml",
                "--replay",
                "recorded.har",
            ],
            "no difference in 1 exchanges",
            "1 not sent: the body of the request or of its response was not recorded",
        ),
    ] {
        let output = run(folder, arguments);
        let said = out(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(want) && said.contains(not_sent), "{said}");
    }
    let mut har = har.clone();
    har["log"]["entries"].as_array_mut().expect("two").remove(0);
    std::fs::write(folder.join("recorded.har"), har.to_string()).expect("a recording");
    for command in [
        "replay recorded.har --against edgeweir.toml",
        "diff edgeweir.toml edgeweir.toml --replay recorded.har",
    ] {
        let output = run(folder, &command.split(' ').collect::<Vec<_>>());
        let said = out(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("holds nothing to send"), "{said}");
    }
}

#[test]
fn a_recording_that_does_not_start_leaves_the_one_that_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let origin = Origin::start();
    let good = configuration(folder, origin.address);
    let good = std::fs::read_to_string(good).expect("the configuration");
    let record = |configuration| ["record", configuration, "--to", "recorded.har"];
    let serving = Serving::start(folder, &record("edgeweir.toml"));
    get(&serving.address, "/a");
    let taken = good.replace("127.0.0.1:0", &serving.address);
    let missing = format!("{good}[filter.absent]\nmodule = \"absent.wasm\"\n");
    for (configuration, text, words) in [
        ("taken.toml", &taken, "cannot listen on"),
        ("missing.toml", &missing, "absent.wasm cannot be read"),
        (
            "same-file.toml",
            &good,
            "is being written by another recording",
        ),
    ] {
        std::fs::write(folder.join(configuration), text).expect("a configuration");
        let output = run(folder, &record(configuration));
        assert_eq!(output.status.code(), Some(1), "{}", out(&output));
        assert!(out(&output).contains(words), "{}", out(&output));
    }
    get(&serving.address, "/b");
    let said = serving.stop();
    assert!(said.contains("2 exchanges in recorded.har"), "{said}");
    let entries = || {
        let text = std::fs::read_to_string(folder.join("recorded.har")).expect("the recording");
        let har: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        har["log"]["entries"].as_array().expect("entries").len()
    };
    assert_eq!(entries(), 2);
    assert!(!run(folder, &record("missing.toml")).status.success());
    assert_eq!(entries(), 2);
    Serving::start(folder, &record("edgeweir.toml")).stop();
    assert_eq!(entries(), 0);
}

#[test]
fn explain_puts_cache_status_into_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let origin = Origin::start();
    let file = configuration(folder, origin.address);
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let logged = "name = \"main\"\naccess_log = \"access.jsonl\"\n";
    std::fs::write(&file, text.replace("name = \"main\"\n", logged)).expect("a configuration");
    let own = format!("http://{}/account", origin.address);
    for arguments in [
        vec![
            "explain",
            "--config",
            "edgeweir.toml",
            "https://app.test/account",
        ],
        vec!["explain", "GET", &own, "--times", "1"],
    ] {
        let output = run(folder, &arguments);
        assert!(output.status.success(), "{arguments:?}: {}", out(&output));
        let words = "not stored: the response says private, and this cache is shared [private] (RFC 9111 §5.2.2.7)";
        assert!(
            out(&output).contains(words),
            "{arguments:?}: {}",
            out(&output)
        );
    }
    // What is asked here is none of what the host that serves logs.
    assert!(!folder.join("access.jsonl").exists());
    let output = run(folder, &["explain", "https://app.test/account"]);
    assert!(
        out(&output).contains("https is not spoken here"),
        "{}",
        out(&output)
    );
}
