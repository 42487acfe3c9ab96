//! What a stream really allocates stays under what its plan says, and comes back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use edgeweir_compress::{Coding, Plan};

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
            ] {
                // The slowest levels do 1 MB a second.
                let body = &body[..if level > 9 { 200_000 } else { body.len() }];
                let body = &body[..length.map_or(body.len(), |length: u64| length as usize)];
                let plan = Plan::new(coding, level, window, length);
                for chunk in [body.len(), 16 * 1024] {
                    let mut out = Vec::with_capacity(2 * body.len() + 1_000_000);
                    let before = NOW.load(Relaxed);
                    MOST.store(before, Relaxed);
                    let mut encoder = plan.encoder();
                    for chunk in body.chunks(chunk) {
                        encoder.push(chunk, false, &mut out).expect("codes");
                    }
                    encoder.push(&[], true, &mut out).expect("ends");
                    let most = MOST.load(Relaxed) - before;
                    drop(encoder);
                    assert_eq!(
                        NOW.load(Relaxed),
                        before,
                        "{coding:?} {level}: all comes back"
                    );
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
}
