//! Times the minifier in wasmtime beside native programs, on one machine in turns: `cargo edge bench --only kernel`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use cargo_edge::{tools, workspace};
use edgeweir_kernel::{Kernel, document};
use serde_json::json;

/// Bytes of the documents.
const SIZES: [usize; 3] = [50_000, 630_000, 5_000_000];
/// Bytes a turn handles at least, so that the clock is fine enough.
const TURN: usize = 20_000_000;

/// What is timed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    /// The filter's lexer in wasmtime, in chunks of so many bytes.
    Minify(usize),
    /// The filter where it checks nothing, in wasmtime, in chunks of so many bytes.
    Bare(usize),
    /// The same where members that are `null` go, in chunks of 16 KiB.
    BareWithoutNulls,
    /// The filter's rewriter in wasmtime by these rules, in chunks of 16 KiB.
    Rewrite(&'static str),
    /// serde_json reading and writing in wasmtime.
    Transcode,
    /// A copy in wasmtime.
    Copy,
    /// simdjson's minify, native, by the name of its kernel.
    Simdjson(&'static str),
    /// The filter's lexer native, which has no SIMD.
    Native,
    /// A copy, native.
    NativeCopy,
}

const ALL: [What; 15] = [
    What::Minify(16 * 1024),
    What::Minify(64 * 1024),
    What::Bare(16 * 1024),
    What::Bare(64 * 1024),
    What::BareWithoutNulls,
    What::Rewrite(r#"{"drop_nulls":"members"}"#),
    What::Rewrite(r#"{"include":["data(id,customer/name,items/sku)"]}"#),
    What::Rewrite(r#"{"exclude":["data(customer/address,note)"]}"#),
    What::Rewrite(r#"{"redact":[{"path":"data/customer/email"}]}"#),
    What::Transcode,
    What::Copy,
    What::Simdjson("westmere"),
    What::Simdjson("haswell"),
    What::Native,
    What::NativeCopy,
];

fn main() -> Result<()> {
    let rounds: usize = env::args()
        .nth(1)
        .map_or(Ok(7), |rounds| rounds.parse())
        .context("the argument is the number of rounds")?;
    let mut kernel = Kernel::new()?;
    let folder = workspace::target_dir().join("kernel");
    fs::create_dir_all(&folder)?;
    let simdjson = simdjson(&folder);
    if let Err(error) = &simdjson {
        eprintln!("without simdjson: {error:#}");
    }
    let mut rows = Vec::new();
    for size in SIZES {
        let text = document::pretty(size);
        let file = folder.join(format!("{size}.json"));
        fs::write(&file, &text)?;
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); ALL.len()];
        for _ in 0..rounds {
            for (times, what) in times.iter_mut().zip(ALL) {
                times.extend(turn(
                    what,
                    &mut kernel,
                    &text,
                    &file,
                    simdjson.as_deref().ok(),
                )?);
            }
        }
        for (what, times) in ALL.into_iter().zip(times) {
            let Some(middle) = median(times) else {
                continue;
            };
            rows.push((size, what, text.len() as f64 / middle));
        }
    }
    let speed = |size, what| {
        let row = rows.iter().find(|row| row.0 == size && row.1 == what);
        row.map(|row| row.2)
    };
    println!(
        "GB/s of input, medians of {rounds} rounds in turn.\n\n| what | {} |\n|---|--:|--:|--:|",
        SIZES.map(|size| format!("{} KB", size / 1000)).join(" | ")
    );
    for what in ALL {
        let cells = SIZES.map(|size| match speed(size, what) {
            Some(speed) => match what {
                What::Minify(_) | What::Bare(_) => {
                    let to = |name| {
                        let other = speed_of(&rows, size, What::Simdjson(name));
                        other.map_or(String::new(), |other| format!(", {:.2}", speed / other))
                    };
                    format!("{speed:.2}{}{}", to("westmere"), to("haswell"))
                }
                _ => format!("{speed:.2}"),
            },
            None => "–".to_owned(),
        });
        println!("| {} | {} |", name(what), cells.join(" | "));
    }
    println!(
        "\nAfter the module's speed: its share of simdjson's SSE kernel, and of its AVX2 kernel."
    );
    let json: Vec<_> = rows
        .iter()
        .map(|(size, what, speed)| json!({ "document_bytes": size, "what": name(*what), "gb_per_second": speed }))
        .collect();
    let file = workspace::edge_dir().join("kernel.json");
    fs::create_dir_all(workspace::edge_dir())?;
    fs::write(&file, serde_json::to_string_pretty(&json)?)?;
    println!("written to target/edge/kernel.json");
    Ok(())
}

fn speed_of(rows: &[(usize, What, f64)], size: usize, what: What) -> Option<f64> {
    rows.iter()
        .find(|row| row.0 == size && row.1 == what)
        .map(|row| row.2)
}

fn name(what: What) -> String {
    match what {
        What::Minify(chunk) => format!("the module in wasmtime, chunks of {} KiB", chunk / 1024),
        What::Bare(chunk) => format!(
            "the module in wasmtime, `\"validate\": false`, chunks of {} KiB",
            chunk / 1024
        ),
        What::BareWithoutNulls => {
            r#"the module in wasmtime, `{"validate":false,"drop_nulls":"members"}`"#.to_owned()
        }
        What::Rewrite(rules) => format!("the module in wasmtime, `{rules}`"),
        What::Transcode => "serde_json transcode in wasmtime".to_owned(),
        What::Copy => "copy in wasmtime".to_owned(),
        What::Simdjson(kernel) => format!("simdjson {kernel}, native"),
        What::Native => "the module's code native, without SIMD".to_owned(),
        What::NativeCopy => "copy, native".to_owned(),
    }
}

/// Nanoseconds of one pass over the text; nothing when there is no such program.
fn turn(
    what: What,
    kernel: &mut Kernel,
    text: &[u8],
    file: &Path,
    simdjson: Option<&Path>,
) -> Result<Option<f64>> {
    let passes = (TURN / text.len()).clamp(4, 400);
    let mut out = Vec::with_capacity(text.len() + 1);
    let work: &mut dyn FnMut(&mut Kernel) -> Result<usize> = match what {
        What::Simdjson(name) => {
            let Some(program) = simdjson else {
                return Ok(None);
            };
            let output = Command::new(program)
                .arg(file)
                .arg(passes.to_string())
                .env("SIMDJSON_FORCE_IMPLEMENTATION", name)
                .output()
                .context("running simdjson")?;
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut figures = printed.split_ascii_whitespace();
            let middle = figures.nth(1).context("simdjson prints no time")?.parse()?;
            return Ok(Some(middle));
        }
        What::Minify(chunk) => &mut move |kernel| kernel.minify(chunk, 0, 512),
        What::Bare(chunk) => &mut move |kernel| kernel.bare(chunk, 0),
        What::BareWithoutNulls => &mut |kernel| kernel.bare(16 * 1024, 1),
        What::Rewrite(rules) => {
            kernel.rules(rules)?;
            &mut |kernel| kernel.rewrite(16 * 1024, 512)
        }
        What::Transcode => &mut |kernel| kernel.call("transcode"),
        What::Copy => &mut |kernel| kernel.call("copy"),
        What::Native => &mut |_| {
            let mut lexer = edgeweir_minify::Lexer::new(edgeweir_minify::Framing::Single, 512);
            out.clear();
            lexer.push(text, &mut out);
            Ok(out.len())
        },
        What::NativeCopy => &mut |_| {
            out.clear();
            out.extend_from_slice(std::hint::black_box(text));
            Ok(std::hint::black_box(&out).len())
        },
    };
    kernel.input(text)?;
    let mut times = Vec::with_capacity(passes);
    for _ in 0..passes {
        let start = Instant::now();
        let length = work(kernel)?;
        times.push(start.elapsed().as_nanos() as f64);
        if length == 0 {
            bail!("nothing came of {}", name(what));
        }
    }
    Ok(median(times))
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

/// The native program, compiled against the distribution's library.
fn simdjson(folder: &Path) -> Result<PathBuf> {
    let library = tools::simdjson()?;
    let source = folder.join("simdjson.c");
    fs::write(&source, include_str!("simdjson.c"))?;
    let program = folder.join("simdjson");
    let library_folder = library.parent().context("the library is nowhere")?;
    let output = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(&source)
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library_folder.display()))
        .output()
        .context("running cc")?;
    if !output.status.success() {
        bail!("cc failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(program)
}
