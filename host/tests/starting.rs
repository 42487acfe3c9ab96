//! What stands in the way of a start is said where it can be put right: the place in the file, or the option.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use edgeweir::config::Config;
use edgeweir::host::Host;

fn built(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/edge");
    built.join(name).canonicalize().expect("cargo edge build")
}

/// A component that needs nothing, on Spin; `more` is of it.
fn manifest(more: &str) -> String {
    format!(
        "spin_manifest_version = 2\n[application]\nname = \"a\"\n[variables]\nedgeweir_cache = {{ default = \"\" }}\n\
         v = {{ default = \"{{}}\" }}\n[[trigger.http]]\nroute = \"/...\"\ncomponent = \"a\"\n[component.a]\n\
         source = {:?}\nenvironment = {{ EDGEWEIR_ORIGIN = \"http://127.0.0.1:9\" }}\n{more}\n",
        built("gateway.wasi-http.wasm")
    )
}

/// The same as a filter of this host's.
fn toml(more: &str) -> String {
    format!(
        "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"o\"\nfilters = [\"f\"]\n\
         [upstream.o]\naddress = \"127.0.0.1:9\"\n[filter.f]\nmodule = {:?}\n\
         environment = {{ EDGEWEIR_ORIGIN = \"http://127.0.0.1:9\" }}\n{more}\n",
        built("gateway.wasi-http.wasm")
    )
}

/// A folder with these files, and the program in it.
struct Place(tempfile::TempDir);

impl Place {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        Self(folder)
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_edgeweir"));
        program.current_dir(self.0.path()).args(arguments);
        program
    }

    fn inside(&self) -> BTreeSet<PathBuf> {
        let inside = std::fs::read_dir(self.0.path()).expect("a folder");
        inside.map(|it| it.expect("readable").path()).collect()
    }
}

fn text(output: &Output) -> String {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn what_is_to_be_kept_is_refused_where_it_is_named() {
    let store = |path: &str| toml(&format!("[state]\nstore = \"{path}\""));
    let spin = manifest("key_value_stores = [\"other\"]");
    let data = manifest("sqlite_databases = [\"other\"]");
    let run = ["edge.toml"].as_slice();
    let with = ["spin.toml", "--runtime-config-file", "rt.toml"].as_slice();
    for (name, main, runtime, arguments, want) in [
        (
            "a store that is none",
            &store("text"),
            "",
            run,
            "edge.toml:12:9: in `state.store`: text: it is not a database of SQLite",
        ),
        (
            "a folder in its place",
            &store("/"),
            "",
            run,
            "edge.toml:12:9: in `state.store`: /: it is no name of a file",
        ),
        (
            "no name",
            &store(""),
            "",
            run,
            "edge.toml:12:9: in `state.store`: : it is no name of a file",
        ),
        (
            "a folder that is not there",
            &store("absent/v.db"),
            "",
            run,
            "edge.toml:12:9: in `state.store`: absent/v.db: there is no folder absent: No such file",
        ),
        (
            "a store of Spin's",
            &spin,
            "[key_value_store.other]\ntype = \"spin\"\npath = \"text\"",
            with,
            "rt.toml:3:8: in `key_value_store.other.path`: text: it is not a database",
        ),
        (
            "a Redis",
            &spin,
            "[key_value_store.other]\ntype = \"redis\"\nurl = \"nonsense\"",
            with,
            "rt.toml:3:7: in `key_value_store.other.url`: this is no address of a Redis",
        ),
        (
            "a database of Spin's",
            &data,
            "[sqlite_database.other]\ntype = \"spin\"\npath = \"text\"",
            with,
            "rt.toml:3:8: in `sqlite_database.other.path`: text: it is not a database",
        ),
        (
            "the folder of a runtime configuration",
            &manifest(""),
            "state_dir = \"text\"",
            with,
            "rt.toml:1:13: in `state_dir`: text/sqlite_key_value.db: it cannot be opened: Not a dir",
        ),
        (
            "the folder of the command line",
            &manifest(""),
            "",
            ["spin.toml", "--state-dir", "text"].as_slice(),
            "spin.toml: in `--state-dir`: text/sqlite_key_value.db: it cannot be opened: Not a dir",
        ),
    ] {
        let no_database = "no database, and long enough to be seen as that";
        let files = [
            (arguments[0], main.as_str()),
            ("rt.toml", runtime),
            ("text", no_database),
        ];
        let place = Place::with(&files);
        let before = place.inside();
        for command in [&["run", "--check"][..], &["run"]] {
            let output = place.program(command).args(arguments).output();
            let output = output.expect("it runs");
            let said = text(&output);
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains(want), "{name}: {said}");
            assert_eq!(place.inside(), before, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_makes_no_store() {
    let runtime = "[key_value_store.other]\ntype = \"spin\"\npath = \"deep/other.db\"\n[sqlite_database.more]\ntype = \"spin\"\npath = \"more.db\"\n";
    let spin =
        manifest("key_value_stores = [\"other\"]\nsqlite_databases = [\"default\", \"more\"]");
    let mut kept = toml("[state]\nstore = \"PLACE/v.db\"");
    let place = Place::with(&[("spin.toml", &spin), ("rt.toml", runtime)]);
    kept = kept.replace("PLACE", place.0.path().to_str().expect("a path"));
    std::fs::write(place.0.path().join("edge.toml"), &kept).expect("written");
    let before = place.inside();
    let rt = ["--runtime-config-file", "rt.toml"];
    for arguments in [
        &["run", "--check", "edge.toml"][..],
        &["check", "edge.toml"],
        &[
            "run",
            "--check",
            "spin.toml",
            rt[0],
            rt[1],
            "--state-dir",
            "kept",
        ],
        &["check", "spin.toml", rt[0], rt[1]],
    ] {
        let output = place.program(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert_eq!(place.inside(), before, "{arguments:?}");
    }
    let config = Config::parse(Path::new("edge.toml"), kept).expect("good");
    let host = Host::start(config).await.expect("it serves");
    assert!(place.0.path().join("v.db").is_file(), "who serves makes it");
    host.stop().await;
}

#[test]
fn what_an_option_says_is_refused_by_its_name() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let limit = format!(
        "variables = {{ edgeweir_ratelimit = \"{{{{ v }}}}\" }}\n[component.limit]\nsource = {:?}\n",
        built("ratelimit.spin.wasm")
    );
    let behind = "component = \"a\"\ndependencies.middleware = [{ component = \"limit\", inherit_configuration = [\"variables\"] }]\n";
    let limited = manifest(&limit).replacen("component = \"a\"\n", behind, 1);
    let outbound = manifest("allowed_outbound_hosts = [\"{{ v }}\"]");
    let commented = format!("# served here\n{}", manifest(""));
    let wrong = "v={\"rules\":3}";
    for (name, main, arguments, environment, want) in [
        (
            "a port in use",
            &commented,
            ["--listen", &taken],
            ("A", "1"),
            format!("spin.toml: in `--listen`: cannot listen on {taken}: Address already in use"),
        ),
        (
            "a variable there is not",
            &commented,
            ["--variable", "edgeweir_cach={}"],
            ("A", "1"),
            "spin.toml: in `--variable edgeweir_cach`: there is no variable `edgeweir_cach` in [variables]; \
             there are \"edgeweir_cache\", \"v\": `edgeweir_cache` may be meant\n"
                .to_owned(),
        ),
        (
            "a configuration by an option",
            &limited,
            ["--variable", wrong],
            ("SPIN_VARIABLE_V", "{}"),
            "`v` is what `--variable v` says".to_owned(),
        ),
        (
            "a configuration by the environment",
            &limited,
            ["--listen", "127.0.0.1:0"],
            ("SPIN_VARIABLE_V", "{\"rules\":3}"),
            "`v` is what `SPIN_VARIABLE_V` says".to_owned(),
        ),
        (
            "an address by an option",
            &outbound,
            ["--variable", "v=nowhere"],
            ("A", "1"),
            "\"nowhere\" is no `scheme://host:port`: it has no scheme; `v` is what `--variable v` says"
                .to_owned(),
        ),
        (
            "a level of the environment",
            &commented,
            ["--listen", &taken],
            ("EDGEWEIR_LOG", "a=b=c"),
            "EDGEWEIR_LOG: \"a=b=c\" is no level".to_owned(),
        ),
    ] {
        let place = Place::with(&[("spin.toml", main)]);
        let mut program = place.program(&["run", "spin.toml"]);
        program.env_remove("EDGEWEIR_LOG").args(arguments);
        let output = program.env(environment.0, environment.1).output();
        let output = output.expect("it runs");
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(&want), "{name}: {said}");
    }
}

#[test]
fn a_variable_of_the_environment_that_is_not_there_is_told_once() {
    let place = Place::with(&[("spin.toml", &manifest(""))]);
    let name = "SPIN_VARIABLE_EDGEWEIR_CACH";
    let checked = place
        .program(&["check", "spin.toml"])
        .env(name, "{}")
        .output();
    let checked = checked.expect("it runs");
    assert_eq!(checked.status.code(), Some(1), "{}", text(&checked));
    let want =
        format!("spin.toml: warning[variable]: in `{name}`: there is no variable `edgeweir_cach`");
    assert!(text(&checked).contains(&want), "{}", text(&checked));
    let log = place.0.path().join("log");
    let file = std::fs::File::create(&log).expect("made");
    let mut program = place.program(&["run", "spin.toml", "--listen", "127.0.0.1:0", "--no-watch"]);
    let program = program.env(name, "{}").env_remove("EDGEWEIR_LOG");
    program
        .stdout(file.try_clone().expect("twice"))
        .stderr(file);
    let mut host = program.spawn().expect("it runs");
    let said = |words: &str, times: usize| {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(&log).expect("read");
            if text.matches(words).count() >= times {
                return text;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{words}: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    said("http://127.0.0.1:", 1);
    for times in 1..=2 {
        let signal = Command::new("kill")
            .args(["-HUP", &host.id().to_string()])
            .status();
        assert!(signal.expect("kill").success());
        said(" reloaded", times);
    }
    host.kill().expect("killed");
    host.wait().expect("ended");
    let said = said("", 0);
    assert_eq!(said.matches(name).count(), 1, "{said}");
}

#[test]
fn what_an_editor_makes_of_a_file_is_read_or_named() {
    let good = toml("");
    let utf_16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let spin = manifest("");
    let mark = |text: &str| [b"\xEF\xBB\xBF".as_slice(), text.as_bytes()].concat();
    for (name, file, bytes, want) in [
        ("a byte order mark", "a.toml", mark(&good), "a.toml: good: "),
        (
            "one before a manifest",
            "spin.toml",
            mark(&spin),
            "spin.toml: good: ",
        ),
        (
            "lines of another system",
            "a.toml",
            good.replace('\n', "\r\n").into_bytes(),
            "a.toml: good: ",
        ),
        (
            "UTF-16",
            "a.toml",
            [b"\xFF\xFE".as_slice(), &utf_16].concat(),
            "a.toml: it is UTF-16: save it as UTF-8",
        ),
        (
            "Latin-1",
            "a.toml",
            [good.as_bytes(), b"# caf\xE9\n"].concat(),
            "a.toml:12:6: the byte 0xE9 is no UTF-8",
        ),
        (
            "text that is no JSON",
            "a.toml",
            toml("config = '{\"a\": }'")
                .replace("gateway.wasi-http", "minify.wasi-http")
                .into_bytes(),
            "a.toml:11:10: in `filter.f.config`: it is no JSON: expected value at line 1 column 7",
        ),
        (
            "no name of a log",
            "a.toml",
            good.replacen("[upstream.o]", "access_log = \"\"\n[upstream.o]", 1)
                .into_bytes(),
            "a.toml:6:14: in `listener[0].access_log`: ",
        ),
    ] {
        let place = Place::with(&[]);
        std::fs::write(place.0.path().join(file), bytes).expect("written");
        let output = place.program(&["run", "--check", file]).output();
        let output = output.expect("it runs");
        let said = text(&output);
        let code = if want.ends_with("good: ") { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert!(said.contains(want), "{name}: {said}");
    }
}
