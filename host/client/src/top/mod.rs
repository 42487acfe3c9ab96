//! `edgeweir top`: a running host in the terminal, from its admin pages.

mod frame;
mod past;
mod seen;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::Method;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use serde_json::Value;

use crate::ask::{Asker, Edge, Keep};
use crate::secret;

pub use seen::Seen;

/// The largest page read.
const LARGEST: usize = 16 << 20;
/// How many lines a frame has where there is no terminal to ask.
const LINES: u16 = 40;
/// How wide it is there.
const COLUMNS: u16 = 120;
/// Where the token is looked for without --token-file.
pub const VARIABLE: &str = "EDGEWEIR_ADMIN_TOKEN";

/// Arguments of `top`.
#[derive(clap::Args, Debug)]
pub struct Top {
    /// The admin pages' address.
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:9902")]
    pub address: Edge,
    /// Print one frame as plain text and end; so it is where standard output is no terminal.
    #[arg(long)]
    pub once: bool,
    /// Time between two frames, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub interval_ms: u64,
    /// The file with the host's `admin.token` in its first line; without it the environment's EDGEWEIR_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Shows it until `q`, Escape or control and C are pressed, or once.
pub async fn execute(arguments: &Top) -> anyhow::Result<()> {
    let mut fields = Vec::new();
    if let Some(token) = secret::token(arguments.token_file.as_deref(), VARIABLE)? {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        fields.push((AUTHORIZATION, bearer));
    }
    let source = Source {
        asker: Asker::new(Some(arguments.address.clone()), Duration::from_secs(5))?,
        edge: arguments.address.clone(),
        fields,
    };
    let mut seen = Seen::default();
    // The first frame is asked for before the screen is taken: what is wrong then is said in plain text.
    seen.add(source.stats().await?);
    seen.past(&source.history().await?);
    if arguments.once || !std::io::stdout().is_terminal() {
        print(&plain(&seen)?);
        return Ok(());
    }
    let mut terminal = ratatui::init();
    let shown = live(&mut terminal, &source, &mut seen, arguments).await;
    ratatui::restore();
    shown
}

struct Source {
    asker: Asker,
    edge: Edge,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Source {
    async fn stats(&self) -> anyhow::Result<Value> {
        self.page("/stats.json").await
    }

    async fn history(&self) -> anyhow::Result<Value> {
        self.page("/history.json").await
    }

    async fn page(&self, path: &str) -> anyhow::Result<Value> {
        let edge = &self.edge;
        let asked = self
            .asker
            .ask(Method::GET, path, &self.fields, Keep::UpTo(LARGEST));
        let answer = asked.await.with_context(|| {
            format!("{edge}{path}: is a host running, with `[admin]` listening there?")
        })?;
        match answer.status.as_u16() {
            200 => {}
            401 => {
                bail!("{edge}: the token is missing or wrong: give --token-file, or set {VARIABLE}")
            }
            status => bail!("{edge}{path} answered {status}: is that a host's admin address?"),
        }
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("{edge}{path} is not JSON: is that a host's admin address?"))
    }
}

async fn live(
    terminal: &mut ratatui::DefaultTerminal,
    source: &Source,
    seen: &mut Seen,
    arguments: &Top,
) -> anyhow::Result<()> {
    let every = Duration::from_millis(arguments.interval_ms);
    let mut trouble = None;
    loop {
        terminal.draw(|frame| frame::draw(frame, seen, trouble.as_deref()))?;
        let due = Instant::now() + every;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            // Keys are waited for on a thread that may block.
            let event = tokio::task::spawn_blocking(move || -> std::io::Result<Option<Event>> {
                event::poll(left)?.then(event::read).transpose()
            });
            match event.await?? {
                None => break,
                Some(event) if ends(&event) => return Ok(()),
                Some(Event::Resize(..)) => {
                    terminal.draw(|frame| frame::draw(frame, seen, trouble.as_deref()))?;
                }
                Some(_) => {}
            }
        }
        match source.stats().await {
            Ok(stats) => {
                seen.add(stats);
                trouble = None;
            }
            // The host may come back: what was seen stays on the screen meanwhile.
            Err(error) => trouble = Some(format!("{error:#}")),
        }
    }
}

fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

/// One frame as text, without what is empty at its end.
pub fn plain(seen: &Seen) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(COLUMNS, LINES))?;
    terminal.draw(|frame| frame::draw(frame, seen, None))?;
    let buffer = terminal.backend().buffer();
    let lines = (0..LINES).map(|y| {
        let line: String = (0..COLUMNS)
            .filter_map(|x| buffer.cell((x, y)).map(|cell| cell.symbol()))
            .collect();
        line.trim_end().to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Ok(lines.join("\n") + "\n")
}

/// Prints, and does not mind when nobody reads any more.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
