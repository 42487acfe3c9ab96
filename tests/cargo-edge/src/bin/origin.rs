//! A small fast origin for measuring: HTTP/1.1 with keep-alive, every response made beforehand, a thread for each
//! connection. Prints its address.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// The responses by path.
struct Pages(Vec<(&'static [u8], Vec<u8>)>);

fn main() -> io::Result<()> {
    let pages = Arc::new(Pages::new());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, pages) = (stream?, Arc::clone(&pages));
        thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                // The proxy closes its connections when it ends: nothing to say about it.
                let _ = serve(stream, &pages);
            })?;
    }
    Ok(())
}

impl Pages {
    fn new() -> Self {
        let text = |bytes: usize| -> Vec<u8> {
            let line = b"The weir holds water back and lets it through.\n";
            line.iter().copied().cycle().take(bytes).collect()
        };
        let json = document(50_000);
        let large = document(630_000);
        let html = listing(90_000);
        let shared = "cache-control: max-age=86400\r\netag: \"1\"\r\ndate: ";
        let date = http_date();
        let shared = format!("{shared}{date}\r\n");
        let own = format!("cache-control: no-store\r\ndate: {date}\r\n");
        Self(vec![
            (b"/1k", page("text/plain", &own, &text(1_024))),
            (b"/cached-1k", page("text/plain", &shared, &text(1_024))),
            (b"/cached-100k", page("text/plain", &shared, &text(102_400))),
            (b"/json", page("application/json", &own, json.as_bytes())),
            (
                b"/cached-json",
                page("application/json", &shared, json.as_bytes()),
            ),
            (
                b"/large-json",
                page("application/json", &own, large.as_bytes()),
            ),
            (
                b"/cached-large-json",
                page("application/json", &shared, large.as_bytes()),
            ),
            (b"/html", page("text/html", &own, html.as_bytes())),
        ])
    }

    fn find(&self, path: &[u8]) -> &[u8] {
        let found = self.0.iter().find(|(name, _)| *name == path);
        found.map_or(
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            |(_, page)| page,
        )
    }
}

fn page(media: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {media}\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Pretty-printed JSON as an API would send it.
fn document(bytes: usize) -> String {
    let mut all = "[\n".to_owned();
    let mut id = 1_000_u32;
    while all.len() < bytes {
        let price = f64::from(id * 7919 % 100_000) / 100.0;
        all.push_str(&format!(
            "    {{\n        \"id\": {id},\n        \"name\": \"Product {}\",\n        \"price\": {price:.2},\n        \
             \"in_stock\": {},\n        \"tags\": [\n            \"tag-{}\",\n            \"tag-{}\"\n        ],\n        \
             \"description\": null\n    }},\n",
            id * 31 % 977,
            id.is_multiple_of(3),
            id % 17,
            id % 29,
        ));
        id += 1;
    }
    all.truncate(all.len() - 2);
    all.push_str("\n]\n");
    all
}

/// A page of a shop as a template makes it: much markup, some words that differ.
fn listing(bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "river", "weir", "stone", "quiet", "morning", "lock", "barge", "willow", "copper",
        "lantern", "harbour", "gravel", "amber", "meadow", "ferry", "current",
    ];
    let mut all = "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Weir</title></head>\n<body>\n"
        .to_owned();
    let mut state = 1_u32;
    let mut word = || {
        // A linear congruential generator: the same page each time.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        WORDS.get(state as usize >> 28).copied().unwrap_or("weir")
    };
    let mut id = 0;
    while all.len() < bytes {
        all.push_str(&format!(
            "  <article class=\"card card--wide\" id=\"item-{id}\">\n    <h2><a href=\"/items/{}-{}/{id}\">{} {}</a></h2>\n    \
             <p class=\"teaser\">{} {} {} {}, {} {} {}.</p>\n    <span class=\"price\">{}.{:02}&nbsp;&euro;</span>\n  \
             </article>\n",
            word(), word(), word(), word(), word(), word(), word(), word(), word(), word(), word(),
            id * 37 % 211,
            id * 53 % 100,
        ));
        id += 1;
    }
    all.push_str("</body>\n</html>\n");
    all
}

/// Now, as RFC 9110 §5.6.7 writes it.
fn http_date() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Civil from days, after Howard Hinnant's algorithm; the era starts on 1 March of year 0.
    let shifted = days + 719_468;
    let era_day = shifted % 146_097;
    let year_of_era = (era_day - era_day / 1_460 + era_day / 36_524 - era_day / 146_096) / 365;
    let day_of_year = era_day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 2
    } else {
        shifted_month - 10
    };
    let year = year_of_era + shifted / 146_097 * 400 + u64::from(month < 2);
    let name = |names: &'static str, at: u64| {
        let at = at as usize * 3;
        names.get(at..at + 3).unwrap_or("???")
    };
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        name("ThuFriSatSunMonTueWed", days % 7),
        name("JanFebMarAprMayJunJulAugSepOctNovDec", month),
        time / 3_600,
        time / 60 % 60,
        time % 60,
    )
}

/// Requests have no bodies here: each ends with its head.
fn serve(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16_384];
    let mut held = 0;
    loop {
        let Some(room) = buffer.get_mut(held..).filter(|room| !room.is_empty()) else {
            return Err(io::Error::other("a head of more than 16 KiB"));
        };
        let read = stream.read(room)?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        while let Some(end) = buffer[..held]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        {
            let path = buffer[..end]
                .split(|byte| *byte == b' ')
                .nth(1)
                .unwrap_or_default();
            stream.write_all(pages.find(path))?;
            buffer.copy_within(end + 4..held, 0);
            held -= end + 4;
        }
    }
}
