//! The command line.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use edgeweir_host_formats::{Finding, Level};
use edgeweir_host_launch::Exit;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, ConfigError, Options};
use crate::demo;
use crate::host::{Host, Prepared, State, StopSignals};
use crate::inspect::Inspected;
use crate::reload::{self, Changes};
use crate::report;
use crate::sources;

/// Runs edge filters (proxy-wasm modules and wasi:http components, in any mix) and says what each of them costs.
#[derive(Parser, Debug)]
#[command(
    name = "edgeweir",
    version,
    after_help = "Examples:\n  \
        edgeweir run                          the demo: all filters, a built-in origin, a dashboard\n  \
        edgeweir run edgeweir.toml            serve a configuration\n  \
        edgeweir run --check edgeweir.toml    load everything a configuration names, say what is wrong, and end\n  \
        edgeweir inspect cache.proxy-wasm.wasm\n  \
        edgeweir store                        the store, on 127.0.0.1:7440"
)]
pub struct Arguments {
    /// What is logged: error, warn, info, debug or trace, or a filter such as `info,edgeweir=debug`.
    /// Without it the environment variable EDGEWEIR_LOG counts, else `info`.
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve: a reverse proxy over chains of filters; without a file, the demo.
    #[command(
        after_help = "Stops on SIGINT or SIGTERM: accepts no more, finishes what is in flight, and prints what \
        each filter cost; a second signal ends it at once.\nReloads on SIGHUP, and when the configuration, a module or a certificate changes: a good one \
        takes over with nothing lost, a bad one is logged and changes nothing.\n\nExamples:\n  \
        edgeweir run\n  \
        edgeweir run --port 9100 --modules target/edge\n  \
        edgeweir run examples/host/edgeweir.toml --report 10\n  \
        edgeweir run examples/envoy/envoy.yaml\n  \
        edgeweir run examples/spin/spin.toml --listen 127.0.0.1:8080"
    )]
    Run(Run),
    /// Run declarative cases against filters, on this host or on a real Envoy.
    #[command(
        after_help = "Exit codes: 0 all passed, 1 some failed, 2 a case, a file or a module is broken.\n\nExamples:\n  \
        edgeweir test tests/cases\n  \
        edgeweir test cache.test.toml --filter stale --watch\n  \
        edgeweir test tests/cases --on envoy --envoy /usr/bin/envoy --junit report.xml\n  \
        edgeweir test tests/cases --torture"
    )]
    Test(crate::test::Test),
    /// Measure a chain, or compare two: latency, throughput, CPU, what each filter costs, with how sure that is.
    #[command(
        after_help = "Sides are processes of their own and take turns; the built-in origin (/1k, /json, /html, and \
        /cached/… of them) is behind both.\nExit codes: 0 measured, 1 an error, 3 worse than the baseline.\n\nExamples:\n  \
        edgeweir bench edgeweir.toml\n  \
        edgeweir bench before.toml after.toml --html report.html\n  \
        edgeweir bench edgeweir.toml envoy:edgeweir.toml --path /cached/json -H 'accept-encoding: gzip'\n  \
        edgeweir bench target/edge/minify.proxy-wasm.wasm --rate 2000\n  \
        edgeweir bench edgeweir.toml --baseline main.json --fail-above 5%"
    )]
    Bench(Box<edgeweir_host_bench::command::Bench>),
    /// Send the same exchanges through two sides, such as the host and a real Envoy, and show every difference: in responses,
    /// in what reaches the origin, in the callbacks of modules.
    #[command(
        after_help = "Both sides have an origin that says the same. Made-up exchanges that differ are made smaller \
        until what is left matters. Callbacks of proxy-wasm modules are compared with one lane.\n\
        Exit codes: 0 no difference, 1 an error, 3 differences.\n\nExamples:\n  \
        edgeweir diff edgeweir.toml --generate 10000 --seed 7\n  \
        edgeweir diff edgeweir.toml --replay recorded.har\n  \
        edgeweir diff before.toml after.toml --ignore cache-status\n  \
        edgeweir diff target/edge/compress.proxy-wasm.wasm target/edge/compress.wasi-http.wasm"
    )]
    Diff(Box<edgeweir_host_exchanges::diff::Diff>),
    /// Serve a configuration and write down what passes, as HAR.
    #[command(
        after_help = "Stops as `run` does. Authorization, Cookie, Set-Cookie and the like are redacted unless \
        --keep-secrets is given.\n\nExamples:\n  \
        edgeweir record edgeweir.toml --to recorded.har\n  \
        edgeweir record edgeweir.toml --to origin.har --side origin   what passes between filters and origin"
    )]
    Record(crate::record::Record),
    /// Send recorded requests again and compare the responses with the recorded ones.
    #[command(
        after_help = "Exit codes: 0 as recorded, 1 an error, 3 differences.\n\nExamples:\n  \
        edgeweir replay recorded.har --against edgeweir.toml\n  \
        edgeweir replay recorded.har --against http://127.0.0.1:10000 --speed 2\n  \
        edgeweir replay recorded.har --against edgeweir.toml --ignore x-origin-request"
    )]
    Replay(Box<edgeweir_host_exchanges::replay::Replay>),
    /// Say why a response was not cached, compressed or minified, or why it was refused.
    #[command(after_help = "Examples:\n  \
        edgeweir explain --config edgeweir.toml https://app.example/json\n  \
        edgeweir explain http://127.0.0.1:8000/json -H 'accept-encoding: gzip' --admin http://127.0.0.1:8003\n  \
        edgeweir explain POST http://app.example/json --at http://127.0.0.1:10000 --admin http://127.0.0.1:9901")]
    Explain(Box<edgeweir_host_exchanges::explain::Explain>),
    /// Say what a .wasm file is: its ABI, what it asks of a host, its memory, its configuration's schema.
    #[command(after_help = "Examples:\n  \
        edgeweir inspect target/edge/cache.proxy-wasm.wasm\n  \
        edgeweir inspect target/edge/cache.wasi-http.wasm --json\n  \
        edgeweir inspect target/edge/ratelimit.proxy-wasm.wasm --schema")]
    Inspect(Inspect),
    /// Look for what is wrong with a configuration, or could be better: edgeweir.toml, an Envoy bootstrap or a Spin manifest.
    #[command(
        after_help = "Exit codes: 0 nothing, or advice alone; 1 warnings; 2 errors.\n\nExamples:\n  \
        edgeweir check examples/host/edgeweir.toml\n  \
        edgeweir check examples/envoy/envoy.yaml --no-load\n  \
        edgeweir check examples/spin/spin.toml --json"
    )]
    Check(crate::check::Check),
    /// Ask an edge for URLs so that its cache has them, and say what came of each.
    #[command(
        after_help = "Exit codes: 0 all answered, 1 some did not answer or with 5xx, 2 the command line is wrong.\n\nExamples:\n  \
        edgeweir warm --edge http://127.0.0.1:8000 / /style.css\n  \
        edgeweir warm --edge http://127.0.0.1:8000 --sitemap /sitemap.xml --rate 20\n  \
        edgeweir warm --file urls.txt --accept-encoding br --accept-encoding gzip"
    )]
    Warm(Box<edgeweir_host_client::warm::Warm>),
    /// Invalidate what an edge's cache has: URLs, groups, prefixes, patterns, everything.
    #[command(
        after_help = "Exit codes: 0 done, 1 an edge refused or did not answer, 2 the command line is wrong.\n\nExamples:\n  \
        edgeweir purge --edge http://127.0.0.1:8000 --token-file token --url /style.css\n  \
        edgeweir purge --edge http://127.0.0.1:8000 --tag menu --soft --spread 60\n  \
        edgeweir purge --edge http://127.0.0.1:8000 --prefix /img/ --dry-run"
    )]
    Purge(Box<edgeweir_host_client::purge::Purge>),
    /// Keep what outgrows one edge: cached responses, keys and values, and limits that count once for all.
    Store(Box<edgeweir_host_store::command::Store>),
    /// Watch a running host in the terminal: rates, latency, filters, the level of saving, alarms.
    #[command(after_help = "Keys: q or Escape ends.\n\nExamples:\n  \
        edgeweir top\n  \
        edgeweir top 127.0.0.1:8003 --interval-ms 500\n  \
        edgeweir top --once | head -3")]
    Top(edgeweir_host_client::top::Top),
    /// Write modules, components and Spin applications as OCI images, for the registries that Istio, Envoy Gateway and Spin pull from.
    #[command(
        after_help = "A module becomes NAME:TAG for Istio and Envoy Gateway, and NAME:TAG-wasm in the form of CNCF's working group; a \
        component NAME:TAG-KIND in the latter; a spin.toml the application with its middlewares composed in. SOURCE_DATE_EPOCH sets the time that images say they were made; without it \
        the same file always has the same digest.\n\nExamples:\n  \
        edgeweir package target/edge/edge.proxy-wasm.wasm\n  \
        edgeweir package target/edge/*.wasm --to target/images --json\n  \
        edgeweir package examples/spin/spin.toml\n  \
        edgeweir package my-filter.wasm --form envoy --name acme/my-filter --tag 1.4.0"
    )]
    Package(crate::package::Package),
}

/// Arguments of `run`.
#[derive(clap::Args, Debug)]
pub struct Run {
    /// The configuration: edgeweir.toml, an Envoy bootstrap (YAML or JSON) or a Spin manifest (spin.toml); none: the demo
    /// on built-in defaults.
    pub config: Option<PathBuf>,
    /// Load everything, say what is wrong, and end without serving.
    #[arg(long)]
    pub check: bool,
    /// Do not look at the files: reload on SIGHUP only.
    #[arg(long)]
    pub no_watch: bool,
    /// Envoy bootstraps and Spin manifests: go on without what they ask for and this host does not have, though answers will
    /// be others.
    #[arg(long, requires = "config")]
    pub lenient: bool,
    /// Spin manifests alone: where they are served; default 127.0.0.1:3000.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "config")]
    pub listen: Option<std::net::SocketAddr>,
    /// Spin manifests alone: the value of a variable; also SPIN_VARIABLE_NAME in the environment.
    #[arg(long, value_name = "NAME=VALUE", requires = "config", value_parser = variable)]
    pub variable: Vec<(String, String)>,
    /// Spin manifests alone: their stores and databases, a runtime configuration as `spin up` takes it.
    #[arg(long, value_name = "FILE", requires = "config")]
    pub runtime_config_file: Option<PathBuf>,
    /// Spin manifests alone: where stores and databases are kept. `spin up` keeps them in `.spin` beside the manifest; here they
    /// are gone at the end without this.
    #[arg(long, value_name = "DIR", requires = "config")]
    pub state_dir: Option<PathBuf>,
    /// Print what each filter cost every so many seconds, not only at the end.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub report: Option<u64>,
    /// The demo's modules.
    #[arg(long, value_name = "DIR", default_value = demo::MODULES, conflicts_with = "config")]
    pub modules: PathBuf,
    /// The first of the demo's four ports; 0 takes free ones.
    #[arg(long, value_name = "N", default_value_t = demo::PORT, conflicts_with = "config")]
    pub port: u16,
}

/// Arguments of `inspect`.
#[derive(clap::Args, Debug)]
pub struct Inspect {
    /// The .wasm file: a module or a component.
    pub file: PathBuf,
    /// Everything as JSON.
    #[arg(long, conflicts_with = "schema")]
    pub json: bool,
    /// Only the JSON Schema of the filter's configuration.
    #[arg(long)]
    pub schema: bool,
}

/// Does what was asked.
pub fn execute(arguments: Arguments) -> anyhow::Result<()> {
    let environment = || Some(("EDGEWEIR_LOG", std::env::var("EDGEWEIR_LOG").ok()?));
    let given = arguments.log.map(|level| ("--log", level));
    let (by, level) = given.or_else(environment).unwrap_or_else(|| {
        let level = match &arguments.command {
            // Its cases look at what filters log; traps are in its report.
            Command::Test(_) => "off",
            // What filters say when they refuse is among the findings.
            Command::Check(_) => "error",
            _ => "info",
        };
        ("--log", level.to_owned())
    });
    let filter = tracing_subscriber::EnvFilter::try_new(&level)
        .with_context(|| format!("{by}: \"{level}\" is no level or filter for logs"))?;
    // A second subscriber (a test's) stays: logging is not worth failing for.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Where nobody reads any more, there is nobody to tell: it would be the end of what logs.
        .log_internal_errors(false)
        .try_init();
    match arguments.command {
        Command::Inspect(inspect) => self::inspect(&inspect),
        Command::Check(check) => {
            say(&serving(crate::check::execute(&check))?);
            Ok(())
        }
        Command::Warm(warm) => client(edgeweir_host_client::warm::execute(&warm)),
        Command::Purge(purge) => client(edgeweir_host_client::purge::execute(&purge)),
        Command::Store(store) => edgeweir_host_store::command::execute(&store),
        Command::Top(top) => client(async {
            edgeweir_host_client::top::execute(&top)
                .await
                .map(|()| true)
        }),
        Command::Test(test) => match crate::test::execute(&test) {
            0 => Ok(()),
            code => Err(Exit::said(code).into()),
        },
        Command::Bench(bench) => edgeweir_host_bench::command::execute(&bench),
        Command::Diff(diff) => edgeweir_host_exchanges::diff::execute(&diff),
        Command::Replay(replay) => edgeweir_host_exchanges::replay::execute(&replay),
        Command::Explain(explain) => {
            let file = explain.token_file.as_deref();
            let token = edgeweir_host_client::token(file, edgeweir_host_client::top::VARIABLE)?;
            edgeweir_host_exchanges::explain::execute(&explain, token)
        }
        Command::Record(record) => serving(crate::record::execute(&record)),
        Command::Package(package) => {
            say(&crate::package::execute(&package)?);
            Ok(())
        }
        Command::Run(run) => serving(self::run(run)),
    }
}

/// For what is under way on other threads when a command has ended.
const LAST_MOMENT: Duration = Duration::from_millis(200);

/// Runs a command that serves.
fn serving<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let done = runtime.block_on(command);
    // What still computes, such as a compilation, is not waited for; what is being written has a moment.
    runtime.shutdown_timeout(LAST_MOMENT);
    done
}

/// Runs a command that asks an edge; where the edge said no, the exit code is 1, and it said why.
fn client(command: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    match runtime.block_on(command)? {
        true => Ok(()),
        false => Err(Exit::said(1).into()),
    }
}

fn inspect(arguments: &Inspect) -> anyhow::Result<()> {
    let found = Inspected::read(&arguments.file)?;
    if arguments.schema {
        let schema = found.schema.with_context(|| {
            format!(
                "{} carries no schema (section edgeweir:schema)",
                arguments.file.display()
            )
        })?;
        say(&format!("{schema:#}\n"));
    } else if arguments.json {
        say(&format!("{:#}\n", found.to_json()));
    } else {
        say(&found.to_text(&arguments.file));
    }
    Ok(())
}

async fn run(arguments: Run) -> anyhow::Result<()> {
    let served = arguments.config.as_deref();
    let watched = served.filter(|_| !arguments.no_watch && !arguments.check);
    // Before anything is read: what changes meanwhile is read again.
    let mut changes = watched.and_then(watch);
    let (config, origin) = match &arguments.config {
        Some(file) => (read(file, &arguments, &[])?, None),
        None => {
            let demo = demo::start(&arguments.modules, arguments.port).await?;
            (demo.config, Some(demo.origin))
        }
    };
    follow(&mut changes, &reload::files(&config));
    for line in crate::check::unwise(&config) {
        tracing::warn!("{line}");
    }
    if arguments.check {
        let advise = |error| advised(error, &arguments);
        sources::make_ready(&config).await.map_err(advise)?;
        let prepared = Prepared::checked(config).await.map_err(advise)?;
        say(&format!(
            "{}: good: {}\n",
            shown(arguments.config.as_deref()),
            prepared.summary()
        ));
        return Ok(());
    }
    let prepared = Prepared::new(config)
        .await
        .map_err(|error| advised(error, &arguments))?;
    // Before anything is said: who reads the addresses may stop it at once.
    let mut signals = StopSignals::watch()?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be watched")?;
    let mut host = prepared.serve().await?;
    match &origin {
        Some(origin) => say(&demo::introduction(&host, origin.address)),
        None => say(&addresses(&host)),
    }
    let mut every = arguments
        .report
        .map(|seconds| tokio::time::interval(Duration::from_secs(seconds)));
    if let Some(every) = &mut every {
        every.tick().await;
    }
    let stopped_by = loop {
        let why = tokio::select! {
            name = signals.next() => break name,
            () = tick(&mut every) => {
                say(&format!("\n{}", report::table(&host.state)));
                continue;
            }
            _ = hangup.recv() => "SIGHUP",
            () = changed(&mut changes) => "files changed",
        };
        let Some(file) = &arguments.config else {
            tracing::info!(why, "the demo has no configuration to read again");
            continue;
        };
        // What takes long, compiling, must not hold up a signal to stop.
        let next = tokio::select! {
            next = read_again(&host, file, &arguments, &mut changes) => next,
            name = signals.next() => break name,
        };
        let taken = match next {
            Ok(next) => host.adopt(next).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => {
                tracing::info!(why, "reloaded");
                follow(&mut changes, &reload::files(host.config()));
            }
            Err(error) => {
                let text = format!("{error:#}");
                tracing::error!(why, "not reloaded, what was served is served on: {text}");
                host.state.reloads.note(Err(text));
            }
        }
    };
    say(&format!("\n{stopped_by}: finishing what is in flight\n"));
    let state = host.state.clone();
    tokio::select! {
        _ = host.stop() => {}
        name = signals.next() => say(&format!("{name}: ending at once\n")),
    }
    if let Some(origin) = origin {
        origin.stop(Duration::ZERO).await;
    }
    say(&format!("\n{}", report::table(&state)));
    Ok(())
}

/// A value of `--variable`.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("it is no NAME=VALUE".to_owned()),
    }
}

/// Reads a configuration, and says what of it has no meaning here, unless that was said before.
fn read(file: &Path, arguments: &Run, said: &[Finding]) -> Result<Config, ConfigError> {
    let options = Options {
        lenient: arguments.lenient,
        runtime_config: arguments.runtime_config_file.clone(),
        state_dir: arguments.state_dir.clone(),
        listen: arguments.listen,
        variables: arguments.variable.clone(),
        keep_going: false,
    };
    let config = Config::read_with(file, &options)?;
    let again = |note: &Finding| {
        let same = |it: &Finding| it.path == note.path && it.message == note.message;
        said.iter().any(same)
    };
    for note in config.notes.iter().filter(|note| !again(note)) {
        warn(&config, note);
    }
    Ok(config)
}

async fn read_again(
    host: &Host,
    file: &Path,
    arguments: &Run,
    changes: &mut Option<Changes>,
) -> anyhow::Result<Prepared> {
    if let Some(changes) = changes {
        changes.begin();
    }
    let config = read(file, arguments, &host.config().notes)?;
    // Those of what is served, too: they count on if this one is refused.
    let mut files = reload::files(host.config());
    files.extend(reload::files(&config));
    follow(changes, &files);
    host.prepare(config).await
}

/// Watches a configuration; without a word from the kernel there is still SIGHUP.
fn watch(file: &Path) -> Option<Changes> {
    match Changes::watch(&BTreeSet::from([file.to_owned()])) {
        Ok(changes) => Some(changes),
        Err(error) => {
            tracing::warn!("{error:#}: reload with SIGHUP");
            None
        }
    }
}

/// Watches these files in the place of others.
fn follow(changes: &mut Option<Changes>, files: &BTreeSet<PathBuf>) {
    if let Some(changes) = changes
        && let Err(error) = changes.follow(files)
    {
        tracing::warn!("{error:#}");
    }
}

async fn changed(changes: &mut Option<Changes>) {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

/// Says what of a file has no meaning here: what can be wrong with answers as a warning, the rest where it is asked for.
fn warn(config: &Config, note: &Finding) {
    let file = config.source.file.display();
    let place = note.place(&config.source.text);
    let place = place.map_or(String::new(), |place| format!(":{place}"));
    let Finding { path, message, .. } = note;
    match note.level {
        Level::Advice => tracing::debug!("{file}{place}: {path}: {message}"),
        _ => tracing::warn!("{file}{place}: {path}: {message}"),
    }
}

async fn tick(every: &mut Option<tokio::time::Interval>) {
    match every {
        Some(every) => {
            every.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// The demo's files have one origin: say how to get them.
fn advised(error: anyhow::Error, arguments: &Run) -> anyhow::Error {
    match error.downcast_ref::<ConfigError>() {
        Some(_) if arguments.config.is_none() => error.context(
            "the demo cannot start (`cargo edge build` writes its modules, `cargo edge demo` does both)",
        ),
        _ => error,
    }
}

pub(crate) fn addresses(host: &Host) -> String {
    let mut text = String::new();
    for listener in &host.state.listeners {
        text.push_str(&line_of(&host.state, listener));
    }
    if let Some(admin) = host.admin {
        text.push_str(&format!(
            "dashboard http://{admin}/  metrics http://{admin}/metrics\n"
        ));
    }
    text
}

/// `main http://127.0.0.1:8000 → limit (proxy-wasm), store (wasi:http) → 127.0.0.1:9000`.
pub(crate) fn line_of(state: &State, listener: &crate::host::ListenerState) -> String {
    let filters: Vec<String> = listener
        .filters
        .iter()
        .map(|name| {
            let abi = state
                .filters
                .iter()
                .find(|filter| filter.name == *name)
                .map_or("?", |filter| filter.abi.name());
            format!("{name} ({abi})")
        })
        .collect();
    let filters = if filters.is_empty() {
        "no filters".to_owned()
    } else {
        filters.join(", ")
    };
    let address = listener
        .address
        .get()
        .map_or("(not bound)".to_owned(), |address| {
            let scheme = if listener.secure { "https" } else { "http" };
            format!("{scheme}://{address}")
        });
    format!(
        "{} {address} → {filters} → {}\n",
        listener.name, listener.upstream
    )
}

fn shown(file: Option<&Path>) -> String {
    file.map_or("the demo".to_owned(), |file| file.display().to_string())
}

/// Prints, and does not mind when nobody reads any more.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Prints where errors are said, and does not mind when nobody reads any more: the exit code says it too.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
