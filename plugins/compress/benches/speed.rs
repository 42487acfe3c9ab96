//! Speed and ratio of every coding and level, on generated documents: `cargo bench -p edgeweir-compress`.
//!
//! The best of many rounds, in turns, so that a busy machine shows least. `whole` is a body in one call, `flushed` one in
//! chunks of 16 KiB with a flush after each, as an origin that sends piece by piece makes them.

// The clock is what it is for.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use edgeweir_compress::{Coding, Flush, Plan};

/// Numbers that look random and are the same in each run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

const WORDS: &str = "the of and river harbour garden winter letter market engine silver window paper stone captain \
    morning village question answer bridge summer forest music doctor station pencil travel coffee history mountain \
    island number picture system water yellow circle kitchen language machine matter moment nature office orange people \
    person planet police power present problem product program purpose quality reason record region report result return \
    science second section series service signal simple single society source special square status story street strong";

fn sentence(draw: &mut Draw, words: usize) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    let picked: Vec<&str> = (0..words)
        .map(|_| all[draw.below(all.len()).min(draw.below(all.len()))])
        .collect();
    picked.join(" ")
}

fn json(bytes: usize) -> Vec<u8> {
    let mut draw = Draw(1);
    let mut text = String::from("[");
    let mut id = 1000;
    while text.len() < bytes {
        id += 1 + draw.below(40);
        let (name, price, stock) = (sentence(&mut draw, 3), draw.below(90_000), draw.below(500));
        let (note, words) = (2 + draw.below(10), sentence(&mut draw, 2));
        let note = sentence(&mut draw, note);
        let _ = write!(
            text,
            "{{\"id\":{id},\"sku\":\"{:08x}\",\"name\":\"{name}\",\"price\":{}.{:02},\"stock\":{stock},\"tags\":[\"{}\"],\
             \"available\":{},\"updated\":\"2026-{:02}-{:02}T{:02}:{:02}:00Z\",\"description\":\"{note}\"}},",
            draw.below(1 << 31),
            price / 100,
            price % 100,
            words.replace(' ', "\",\""),
            stock > 40,
            1 + draw.below(12),
            1 + draw.below(28),
            draw.below(24),
            draw.below(60),
        );
    }
    text.pop();
    text.push(']');
    text.into_bytes()
}

fn html(bytes: usize) -> Vec<u8> {
    let mut draw = Draw(2);
    let mut text = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>News</title></head><body>\n",
    );
    while text.len() < bytes {
        let (title, count) = (sentence(&mut draw, 4), 20 + draw.below(60));
        let (body, id) = (sentence(&mut draw, count), draw.below(100_000));
        let _ = write!(
            text,
            "<article class=\"card card--{}\" id=\"a{id}\">\n  <h2 class=\"card__title\"><a href=\"/news/{id}-{}\">{title}</a></h2>\n  \
             <p class=\"card__text\">{body}.</p>\n  <img src=\"/img/{:x}.webp\" width=\"320\" height=\"180\" alt=\"{}\">\n</article>\n",
            ["wide", "small", "lead"][draw.below(3)],
            title.replace(' ', "-"),
            draw.below(1 << 30),
            sentence(&mut draw, 3),
        );
    }
    text.push_str("</body></html>\n");
    text.into_bytes()
}

fn code(plan: &Plan, body: &[u8], chunk: usize, out: &mut Vec<u8>) -> Duration {
    out.clear();
    let start = Instant::now();
    let mut encoder = plan.encoder();
    let mut chunks = body.chunks(chunk).peekable();
    while let Some(piece) = chunks.next() {
        let flush = if chunks.peek().is_none() {
            Flush::End
        } else {
            Flush::Now
        };
        encoder.feed(piece, flush, out).expect("codes");
    }
    start.elapsed()
}

fn main() {
    let documents = [
        ("json 50K", json(50 << 10)),
        ("html 90K", html(90_000)),
        ("json 630K", json(630_000)),
    ];
    println!(
        "{:<12} {:>32} {:>32} {:>32}",
        "MB/s: ratio", "json 50K", "html 90K", "json 630K"
    );
    println!(
        "{:<12} {}",
        "",
        "          whole          flushed".repeat(3)
    );
    for coding in Coding::ALL {
        if coding == Coding::Deflate {
            continue;
        }
        for level in coding.levels() {
            let mut line = format!("{:<12}", format!("{} {level}", coding.token()));
            for (_, body) in &documents {
                let plan = Plan::new(coding, level, 20, Some(body.len() as u64));
                let mut best = [Duration::MAX; 2];
                let mut sizes = [0; 2];
                let mut out = Vec::with_capacity(body.len());
                let rounds = if level > 9 {
                    2
                } else {
                    20_000_000 / body.len() / 4
                };
                let began = Instant::now();
                for _ in 0..rounds.max(2) {
                    for (at, chunk) in [body.len(), 16 << 10].into_iter().enumerate() {
                        best[at] = best[at].min(code(&plan, body, chunk, &mut out));
                        sizes[at] = out.len();
                    }
                    if began.elapsed() > Duration::from_millis(400) {
                        break;
                    }
                }
                for at in 0..2 {
                    let speed = body.len() as f64 / best[at].as_secs_f64() / 1e6;
                    let _ = write!(
                        line,
                        " {speed:>8.0}: {:>5.2}",
                        body.len() as f64 / sizes[at] as f64
                    );
                }
            }
            println!("{line}");
        }
    }
}
