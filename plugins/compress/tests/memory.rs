//! What a stream really allocates stays under what its plan says, and comes back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use std::rc::Rc;

use edgeweir_compress::{Coding, Decoder, Dictionary, Flush, Plan};

struct Counting;
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `work` held at once beside what was there before and what it gives.
fn most_held<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let done = work();
    (MOST.load(Relaxed) - before, done)
}

fn coded(plan: &Plan, body: &[u8], chunk: usize, out: &mut Vec<u8>) {
    let mut encoder = plan.encoder();
    for chunk in body.chunks(chunk) {
        encoder.push(chunk, false, out).expect("codes");
    }
    encoder.push(&[], true, out).expect("ends");
}

/// Plans with a dictionary, and decoders.
fn others(text: &[u8], over: &mut Vec<String>) {
    let mut out = Vec::with_capacity(4 * text.len());
    let mut tell = |what: String, most: usize, planned: usize| {
        println!("{what}: {} KiB of {}", most / 1024, planned / 1024);
        if most > planned {
            over.push(what);
        }
    };
    for (coding, level) in [
        (Coding::Brotli, 2),
        (Coding::Brotli, 5),
        (Coding::Brotli, 9),
        (Coding::Zstd, 1),
        (Coding::Zstd, 3),
        (Coding::Zstd, 4),
    ] {
        for (held, length) in [
            (2_000, false),
            (600_000, true),
            (600_000, false),
            (3_000_000, true),
        ] {
            let bytes = text.iter().copied().cycle().skip(77).take(held).collect();
            let dictionary = Rc::new(Dictionary::new(bytes));
            let plan = Plan::new(coding, level, 20, length.then_some(text.len() as u64));
            let plan = plan.with_dictionary(dictionary).expect("a dictionary");
            for chunk in [text.len(), 16 * 1024] {
                out.clear();
                let (most, ()) = most_held(|| coded(&plan, text, chunk, &mut out));
                let what = format!("{} {level} of {held} by {chunk}, {length}", plan.token());
                tell(what, most, plan.memory());
            }
        }
    }
    for coding in Coding::ALL {
        for (window, mebibytes) in [(20, 3), (24, 18)] {
            if window == 24 && matches!(coding, Coding::Gzip | Coding::Deflate) {
                continue;
            }
            let mut body = Vec::new();
            let plan = Plan::new(coding, 3, window, None);
            let much: Vec<u8> = text.iter().copied().cycle().take(mebibytes << 20).collect();
            coded(&plan, &much, 1 << 20, &mut body);
            drop(much);
            out.clear();
            let (most, ()) = most_held(|| {
                let mut decoder = Decoder::new(coding, 1000);
                for mut piece in body.chunks(65_536) {
                    while decoder
                        .pull(&mut piece, false, &mut out, 65_536)
                        .expect("decodes")
                    {
                        out.clear();
                    }
                    out.clear();
                }
            });
            tell(
                format!("decoding {} {window}", coding.token()),
                most,
                Decoder::memory(coding),
            );
        }
    }
}

// One test in this file: the counters are of the whole process.
#[test]
fn a_stream_holds_no_more_than_its_plan_says() {
    let mut seed = 7_u64;
    let mut word = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let words = ["alpha", "beta", "\"name\":", "12345", "\n", "{", "}", ", "];
    let text: Vec<u8> = (0..300_000)
        .flat_map(|_| words[word() % words.len()].bytes())
        .collect();
    let noise: Vec<u8> = (0..700_000).map(|_| word() as u8).collect();
    let mut over = Vec::new();
    for coding in Coding::ALL {
        for level in coding.levels() {
            for (window, length, body) in [
                (20, None, &text),
                (17, None, &noise),
                (22, None, &noise),
                (20, Some(100_000), &text),
                (20, Some(250_000), &text),
            ] {
                // The slowest levels do 1 MB a second.
                let body = &body[..if level > 9 { 200_000 } else { body.len() }];
                let declared = length.map_or(usize::MAX, |length: u64| length as usize);
                let body = &body[..declared.min(body.len())];
                let plan = Plan::new(coding, level, window, length);
                for chunk in [body.len(), 16 * 1024] {
                    let mut out = Vec::with_capacity(2 * body.len() + 1_000_000);
                    let before = NOW.load(Relaxed);
                    MOST.store(before, Relaxed);
                    let mut encoder = plan.encoder();
                    // What is declared is not flushed piece by piece.
                    let flush = match length {
                        None => Flush::Now,
                        Some(_) => Flush::Later,
                    };
                    for chunk in body.chunks(chunk) {
                        encoder.feed(chunk, flush, &mut out).expect("codes");
                    }
                    encoder.push(&[], true, &mut out).expect("ends");
                    let most = MOST.load(Relaxed) - before;
                    drop(encoder);
                    // Of zstd the last encoder is kept.
                    let kept = match coding {
                        Coding::Zstd => 3 << 20,
                        _ => 0,
                    };
                    let now = NOW.load(Relaxed);
                    assert!(now <= before + kept, "{coding:?} {level}: all comes back");
                    println!(
                        "{coding:?} level {level} window {window} of {length:?} by {chunk}: {} KiB of {}",
                        most / 1024,
                        plan.memory() / 1024
                    );
                    if most > plan.memory() {
                        over.push((
                            coding,
                            level,
                            window,
                            length,
                            chunk,
                            most / 1024,
                            plan.memory() / 1024,
                        ));
                    }
                }
            }
        }
    }
    assert!(over.is_empty(), "KiB held, KiB planned: {over:#?}");
    let mut over = Vec::new();
    others(&text, &mut over);
    assert!(over.is_empty(), "{over:#?}");
}
