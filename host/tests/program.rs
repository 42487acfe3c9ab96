//! The program as an operator meets it: configuration errors, checks, inspection, signals.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use edgeweir::config::{Config, ConfigError};

const LISTENER: &str =
    "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n";
const ORIGIN: &str = "[upstream.origin]\naddress = \"127.0.0.1:1\"\n";

fn refused(text: &str) -> ConfigError {
    match Config::parse(Path::new("edge.toml"), text.to_owned()) {
        Ok(_) => panic!("it was accepted:\n{text}"),
        Err(error) => error,
    }
}

#[test]
fn an_error_names_file_line_column_field_and_what_would_be_right() {
    for (case, text, place, field, words) in [
        (
            "misspelt field",
            format!("{LISTENER}{ORIGIN}timeout = 3\n"),
            (7, 1),
            "upstream.origin.timeout",
            vec![
                "unknown field `timeout`",
                "`timeout_ms`",
                "`connect_timeout_ms`",
            ],
        ),
        (
            "misspelt table",
            format!("[limit]\n{LISTENER}{ORIGIN}"),
            (1, 2),
            "limit",
            vec!["unknown field `limit`", "`limits`"],
        ),
        (
            "wrong type",
            format!("{LISTENER}{ORIGIN}[limits]\nmemory_mib = \"64\"\n"),
            (8, 14),
            "limits.memory_mib",
            vec!["a whole number from 1 to 4096", "string \"64\""],
        ),
        (
            "out of bounds",
            format!("{LISTENER}{ORIGIN}[limits]\ndeadline_ms = 0\n"),
            (8, 15),
            "limits.deadline_ms",
            vec!["0 is out of bounds: from 1 to 60000"],
        ),
        (
            "a stack too small",
            format!("{LISTENER}{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\nstack_kib = 32\n"),
            (9, 13),
            "filter.a.stack_kib",
            vec!["32 is out of bounds: from 64 to 1024"],
        ),
        (
            "too many callouts",
            format!("{LISTENER}{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\ncallouts = 1025\n"),
            (9, 12),
            "filter.a.callouts",
            vec!["1025 is out of bounds: from 0 to 1024"],
        ),
        (
            "callouts that bring nothing",
            format!("{LISTENER}{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\ncallout_kib = 0\n"),
            (9, 15),
            "filter.a.callout_kib",
            vec!["0 is out of bounds: from 1 to 1048576"],
        ),
        (
            "too much shared data",
            format!("{LISTENER}{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\nshared_data_mib = 5000\n"),
            (9, 19),
            "filter.a.shared_data_mib",
            vec!["5000 is out of bounds: from 1 to 4096"],
        ),
        (
            "too many instances",
            format!("{LISTENER}{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\ninstances = 1025\n"),
            (9, 13),
            "filter.a.instances",
            vec!["1025 is out of bounds: from 1 to 1024"],
        ),
        (
            "not an address",
            format!("{}{ORIGIN}", LISTENER.replace("127.0.0.1:0", "localhost")),
            (3, 10),
            "listener[0].listen",
            vec!["\"localhost\" is not an address", "127.0.0.1:8000"],
        ),
        (
            "upstream without a port",
            format!("{LISTENER}{}", ORIGIN.replace(":1", "")),
            (6, 11),
            "upstream.origin.address",
            vec!["is not host:port"],
        ),
        (
            "upstream that is not there",
            format!("{}{ORIGIN}", LISTENER.replace("origin", "orgin")),
            (4, 12),
            "listener[0].upstream",
            vec!["no [upstream.orgin]", "\"origin\""],
        ),
        (
            "filter that is not there",
            format!("{LISTENER}filters = [\"limit\"]\n{ORIGIN}"),
            (5, 12),
            "listener[0].filters[0]",
            vec!["no [filter.limit]", "there is none"],
        ),
        (
            "choice",
            format!("{LISTENER}{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\non_trap = \"ignore\"\n"),
            (9, 11),
            "filter.a.on_trap",
            vec!["`respond`", "`pass`"],
        ),
        (
            "missing field",
            format!("{LISTENER}{ORIGIN}[filter.a]\n"),
            (7, 1),
            "filter.a",
            vec!["missing field `module`"],
        ),
        (
            "not TOML",
            format!("{LISTENER}{ORIGIN}[limits\n"),
            (7, 8),
            "",
            vec!["unclosed table"],
        ),
        (
            "admin for everyone",
            format!("[admin]\nlisten = \"0.0.0.0:9902\"\n{LISTENER}{ORIGIN}"),
            (2, 10),
            "admin.listen",
            vec!["not a loopback address", "token"],
        ),
        (
            "two of a name",
            format!("{LISTENER}{LISTENER}{ORIGIN}"),
            (6, 8),
            "listener[1].name",
            vec!["the name of another listener"],
        ),
    ] {
        let error = refused(&text);
        let shown = error.to_string();
        assert_eq!(error.place, Some(place), "{case}: {shown}");
        assert_eq!(error.field, field, "{case}: {shown}");
        assert!(
            shown.starts_with(&format!("edge.toml:{}:{}: ", place.0, place.1)),
            "{case}: {shown}"
        );
        for word in words {
            assert!(shown.contains(word), "{case}: no {word} in {shown}");
        }
    }
    assert!(refused(ORIGIN).to_string().contains("no [[listener]]"));
}

#[test]
fn a_filters_configuration_becomes_json() {
    let text = format!(
        "{LISTENER}filters = [\"a\"]\n{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\n\
         [filter.a.config]\nrate = \"1/second\"\n[[filter.a.config.rules]]\nratio = 0.5\nlist = [1, true]\n"
    );
    let config = Config::parse(Path::new("edge.toml"), text).unwrap();
    let value = config.filters["a"].config.as_ref().unwrap().get_ref();
    assert_eq!(
        edgeweir_host_formats::settings::of(value).unwrap().1,
        serde_json::json!({"rate": "1/second", "rules": [{"ratio": 0.5, "list": [1, true]}]})
    );
}

fn edgeweir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_module_that_is_missing_or_no_wasm_is_said_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let with = |module: &str, extra: &str| {
        let text = format!(
            "{LISTENER}filters = [\"a\"]\n{ORIGIN}[filter.a]\nmodule = \"{module}\"\n{extra}"
        );
        std::fs::write(&file, text).unwrap();
        let output = edgeweir(&["run", "--check", file.to_str().unwrap()]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = with("gone.wasm", "");
    assert!(
        said.contains(":9:10: in `filter.a.module`: gone.wasm cannot be read"),
        "{said}"
    );
    assert!(said.contains("cargo edge build"), "{said}");
    std::fs::write(folder.path().join("text.wasm"), "this is not Wasm at all").unwrap();
    let said = with("text.wasm", "");
    assert!(said.contains("text.wasm is not Wasm"), "{said}");
    // A path is also tried beside the file that names it.
    assert!(!said.contains("cannot be read"), "{said}");
    std::fs::write(folder.path().join("core.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let said = with("core.wasm", "variables = { A = \"b\" }\n");
    assert!(said.contains("`variables` is for components"), "{said}");
    std::fs::write(folder.path().join("component.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
    for field in ["callouts", "callout_kib", "shared_data_mib", "stack_kib"] {
        let said = with("component.wasm", &format!("{field} = 64\n"));
        let want = format!("`{field}` is for proxy-wasm modules");
        assert!(said.contains(&want), "{said}");
    }
    let said = with("core.wasm", "");
    assert!(
        said.contains("core.wasm") && said.contains("in `filter.a`"),
        "{said}"
    );
    let output = edgeweir(&["run", "--check", "/nowhere/edge.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/edge.toml: cannot be read"));
}

#[test]
fn a_good_configuration_is_called_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, format!("{LISTENER}{ORIGIN}")).unwrap();
    let output = edgeweir(&["run", "--check", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("good: 1 listener(s), 0 filter(s)"));
}

#[test]
fn a_module_has_as_many_instances_as_the_configuration_may_say() {
    let folder = tempfile::tempdir().unwrap();
    let module = r#"(module (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)
        (func (export "proxy_on_context_create") (param i32 i32)))"#;
    let module = wat::parse_str(module).unwrap();
    std::fs::write(folder.path().join("a.wasm"), module).unwrap();
    let file = folder.path().join("edge.toml");
    let text = format!("{LISTENER}{ORIGIN}[filter.a]\nmodule = \"a.wasm\"\ninstances = 1024\n");
    std::fs::write(&file, text).unwrap();
    let output = edgeweir(&["run", "--check", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn inspect_says_what_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wasm");
    std::fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
    let output = edgeweir(&["inspect", file.to_str().unwrap(), "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["kind"], "core module, not proxy-wasm");
    assert_eq!(found["size"], 8);
    let output = edgeweir(&["inspect", file.to_str().unwrap(), "--schema"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("carries no schema"));
    std::fs::write(&file, "text").unwrap();
    let output = edgeweir(&["inspect", file.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not Wasm"));
}

/// Killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A standard error that nobody reads any more.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn an_error_that_nobody_reads_is_in_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, "[[listener]]\n").unwrap();
    for (command, want) in [("check", 2), ("run", 1), ("test", 2)] {
        let status = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args([command, file.to_str().unwrap()])
            .stderr(unread())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(want), "{command}");
    }
}

#[test]
fn a_host_whose_log_nobody_reads_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, format!("{LISTENER}{ORIGIN}")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
        .args(["run", file.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(unread())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.split_whitespace().nth(1).unwrap();
    // Each is logged: nothing listens behind it.
    for _ in 0..3 {
        let mut stream =
            std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
}

#[test]
fn a_signal_stops_it_and_it_reports() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, format!("{LISTENER}{ORIGIN}")).unwrap();
    for signal in ["-INT", "-TERM"] {
        let child = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args(["run", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let mut out = BufReader::new(running.0.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with("main http://127.0.0.1:"), "{line}");
        let address = line
            .split_whitespace()
            .nth(1)
            .unwrap()
            .trim_start_matches("http://")
            .to_owned();
        // Nothing listens behind it: one 502.
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        std::io::Write::write_all(
            &mut stream,
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        let killed = Command::new("kill")
            .args([signal, &running.0.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("main: 1 requests"), "{rest}");
        let began = Instant::now();
        while running.0.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(5), "it did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(running.0.wait().unwrap().success());
    }
}
