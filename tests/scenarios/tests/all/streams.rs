//! Bodies that fit no buffer, and clients that do not read: memory stays flat. A real Envoy with two workers.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use edgeweir_scenarios::client::Client;
use edgeweir_scenarios::hosts::{self, Host, Running, envoy};
use edgeweir_scenarios::streaming::{Array, Streaming};
use edgeweir_scenarios::{Filter, Setup, compress, edge as in_one, get, minify};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn start(
    filters: impl IntoIterator<Item = Filter>,
    origin: &Streaming,
    change: fn(&mut Value),
) -> Running {
    let modules = hosts::modules().expect("the modules are built");
    let setup = Setup::of(filters);
    let mut bootstrap = envoy::bootstrap(&setup, &modules, origin.address);
    change(&mut bootstrap);
    // However busy the machine is.
    let listener = &mut bootstrap["static_resources"]["listeners"][0];
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let hosts = &mut manager["route_config"]["virtual_hosts"];
    hosts[0]["routes"][0]["route"]["timeout"] = json!("0s");
    let folder = hosts::folder(Host::Envoy).expect("a folder");
    envoy::run(&folder, "envoy.json", &bootstrap.to_string(), 2).expect("Envoy starts")
}

fn resident(edge: &Running) -> u64 {
    edge.memory().expect("its memory is known")
}

/// How far a body has come, and the most memory that was seen in each half of it.
struct Watched<'e> {
    edge: &'e Running,
    written: Arc<AtomicU64>,
    whole: u64,
    next: u64,
    most: [u64; 2],
}

impl<'e> Watched<'e> {
    fn new(edge: &'e Running, written: &Arc<AtomicU64>, whole: u64) -> Self {
        written.store(0, Ordering::SeqCst);
        Self {
            edge,
            written: Arc::clone(written),
            whole,
            next: 0,
            most: [0; 2],
        }
    }

    fn look(&mut self) {
        let written = self.written.load(Ordering::SeqCst);
        if written >= self.next {
            let half = usize::from(written > self.whole / 2);
            self.most[half] = self.most[half].max(resident(self.edge));
            self.next = written + self.whole / 100;
        }
    }
}

/// Asks for the array, looks at memory on the way, and checks what came by length and checksum.
fn fetch(edge: &Running, coding: &str, array: Array, watched: &mut Watched<'_>) {
    let mut client = Client::connect(edge.address).expect("connects");
    let asks = get("/").field("accept-encoding", coding);
    client.send(&asks, "/").expect("asks");
    read(&mut client, coding, array, || watched.look());
}

/// Reads the answer, and checks what came by length and checksum.
fn read(client: &mut Client, coding: &str, array: Array, mut look: impl FnMut()) {
    let head = client.receive_head().expect("a head");
    assert_eq!(
        (head.status, head.text("content-encoding").as_str()),
        (200, coding)
    );
    let (length, sum) = array.minified();
    let (mut came, mut tail) = (0, Vec::new());
    let mut brotli = brotli::DecompressorWriter::new(Summed::default(), 65_536);
    while let Some(chunk) = client.chunk().expect("the body goes on") {
        look();
        came += chunk.len() as u64;
        match coding {
            "gzip" => {
                let keep = tail.len().saturating_sub(8);
                tail.drain(..keep);
                tail.extend_from_slice(&chunk);
            }
            "br" => brotli.write_all(&chunk).expect("br decodes"),
            _ => {}
        }
    }
    match coding {
        // RFC 1952 §2.3.1: CRC32, then the length of the original, modulo 2^32, both least significant byte first.
        "gzip" => {
            let want = [sum.to_le_bytes(), (length as u32).to_le_bytes()].concat();
            assert_eq!(tail[tail.len() - 8..], want, "other bytes were coded");
        }
        "br" => {
            brotli.flush().expect("br ends");
            let decoded = brotli.get_ref();
            assert_eq!((decoded.length, decoded.crc.sum()), (length, sum));
        }
        _ => assert_eq!(came, length),
    }
}

/// Sums up what is written to it.
#[derive(Default)]
struct Summed {
    length: u64,
    crc: flate2::Crc,
}

impl std::io::Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.length += bytes.len() as u64;
        self.crc.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The body, watched.
fn stays_flat(filters: Vec<Filter>, coding: &str, whole: u64) {
    let written = Arc::new(AtomicU64::new(0));
    let origin = Streaming::array(whole, Arc::clone(&written)).expect("an origin");
    let edge = start(filters, &origin, |_| {});
    let before = resident(&edge);
    let mut watched = Watched::new(&edge, &written, whole);
    fetch(&edge, coding, Array::of_bytes(whole), &mut watched);
    let [first, second] = watched.most.map(|most| most / 1024);
    println!(
        "{coding:?}, {} MiB: {} KiB before, at most {first} in the first half, {second} in the second",
        whole / MIB,
        before / 1024
    );
    // A filter that kept a hundredth of what passed would show.
    let allowed = (whole / 200 / 1024).max(4 * 1024);
    assert!(second < first + allowed, "{first} KiB, then {second} KiB");
    assert!(
        first < before / 1024 + 64 * 1024,
        "{before} B before, {first} KiB"
    );
}

fn two() -> Vec<Filter> {
    vec![compress(json!({})), minify(json!({}))]
}

fn two_in_one() -> Vec<Filter> {
    vec![in_one(json!({ "filters": ["compress", "minify"] }))]
}

#[test]
fn two_hundred_megabytes_stream_through_two_modules() {
    stays_flat(two(), "gzip", 200 * MIB);
}

#[test]
fn two_hundred_megabytes_stream_through_two_in_one() {
    stays_flat(two_in_one(), "gzip", 200 * MIB);
}

#[test]
fn two_hundred_megabytes_are_minified_alone() {
    stays_flat(two_in_one(), "", 200 * MIB);
}

#[test]
fn twenty_megabytes_stream_as_brotli() {
    stays_flat(two_in_one(), "br", 20 * MIB);
}

/// Little room everywhere, as in front of the open network: 32 KiB in Envoy, 16 KiB in the kernel.
fn hardened(bootstrap: &mut Value) {
    const SOL_SOCKET: i32 = 1;
    const SO_SNDBUF: i32 = 7;
    let resources = &mut bootstrap["static_resources"];
    resources["listeners"][0]["per_connection_buffer_limit_bytes"] = json!(32_768);
    resources["listeners"][0]["socket_options"] =
        json!([{ "level": SOL_SOCKET, "name": SO_SNDBUF, "int_value": 16_384 }]);
    resources["clusters"][0]["per_connection_buffer_limit_bytes"] = json!(32_768);
}

/// A head that declares the length, the start of the body with it, and the rest as it is taken.
fn declared(body: Vec<u8>) -> Streaming {
    Streaming::start(move |path, stream| {
        let length = body.len();
        let fields = "content-type: application/json\r\ncontent-length";
        let head = format!("HTTP/1.1 200 OK\r\n{fields}: {length}\r\n\r\n");
        let first: usize = path.trim_start_matches('/').parse().unwrap_or(0);
        stream.write_all(&[head.as_bytes(), &body[..first]].concat())?;
        thread::sleep(Duration::from_millis(3));
        stream.write_all(&body[first..])
    })
    .expect("an origin")
}

#[test]
fn a_length_that_one_module_takes_away_is_no_reason_to_hold_the_body_in_the_next() {
    let mut body = Vec::new();
    Array::of_bytes(MIB / 2)
        .write(|piece| {
            body.extend_from_slice(piece);
            Ok(())
        })
        .expect("memory");
    let want: Value = serde_json::from_slice(&body).expect("JSON");
    let origin = declared(body);
    for filters in [two(), two_in_one()] {
        let edge = start(filters, &origin, hardened);
        for first in (300..3_000).step_by(300) {
            let mut client = Client::connect(edge.address).expect("connects");
            let path = format!("/{first}");
            let asks = get(&path).field("accept-encoding", "gzip");
            client.send(&asks, &path).expect("asks");
            let seen = client.receive(false).expect("a response");
            assert!(seen.complete, "{first}: {} bytes came", seen.body.len());
            assert_eq!(seen.text("content-encoding"), "gzip");
            let got = serde_json::from_reader(flate2::read::GzDecoder::new(&seen.body[..]));
            assert_eq!(got.ok().as_ref(), Some(&want), "{first}");
        }
    }
}

/// Until nothing moves any more; what the origin wrote until then.
fn stands_still(written: &AtomicU64) -> u64 {
    let mut last = u64::MAX;
    while last != written.load(Ordering::SeqCst) {
        last = written.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(500));
    }
    last
}

#[test]
fn the_origin_waits_for_a_client_that_does_not_read() {
    let (written, whole) = (Arc::new(AtomicU64::new(0)), 128 * MIB);
    let origin = Streaming::array(whole, Arc::clone(&written)).expect("an origin");
    for filters in [two(), two_in_one()] {
        let edge = start(filters, &origin, hardened);
        written.store(0, Ordering::SeqCst);
        let mut client = Client::with_little_room(edge.address).expect("connects");
        // Not coded: all of this array as gzip fits the sockets.
        client.send(&get("/"), "/").expect("asks");
        let ahead = stands_still(&written);
        println!("the origin wrote {} KiB and waits", ahead / 1024);
        assert!(ahead < 16 * MIB, "{} of {} MiB", ahead / MIB, whole / MIB);
        read(&mut client, "", Array::of_bytes(whole), || ());
    }
}

#[test]
fn a_thousand_clients_that_read_slowly_cost_little_and_harm_nobody() {
    const CLIENTS: u64 = 1_000;
    const ROOM: u64 = 16 * MIB;
    let written = Arc::new(AtomicU64::new(0));
    let whole = 512 * 1024;
    let origin = Streaming::array(whole, Arc::clone(&written)).expect("an origin");
    let config = json!({ "filters": [{ "compress": { "memory_bytes": ROOM } }, "minify"] });
    let edge = start([in_one(config)], &origin, hardened);
    let array = Array::of_bytes(whole);
    let (length, sum) = array.minified();
    // A first one, whole: what a worker allocates once is no matter of slow clients.
    for _ in 0..4 {
        let mut watched = Watched::new(&edge, &written, whole);
        fetch(&edge, "gzip", array, &mut watched);
    }
    let before = resident(&edge);
    let mut slow: Vec<Client> = (0..CLIENTS)
        .map(|at| {
            let mut client = Client::with_little_room(edge.address).expect("connects");
            // What does not compress away: most of them want it as it is.
            let coding = if at % 4 == 0 { "gzip" } else { "identity" };
            let asks = get("/").field("accept-encoding", coding);
            client.send(&asks, "/").expect("asks");
            client
        })
        .collect();
    let last = stands_still(&written);
    let held = resident(&edge) - before;
    println!(
        "{} KiB for each of {CLIENTS} clients that do not read; the origin wrote {} of {} MiB",
        held / CLIENTS / 1024,
        last / MIB,
        CLIENTS * whole / MIB,
    );
    assert!(
        held < 2 * ROOM + CLIENTS * 256 * 1024,
        "{} MiB are held",
        held / MIB
    );
    // The rest is served as ever, from both workers.
    for _ in 0..16 {
        let mut watched = Watched::new(&edge, &written, whole);
        fetch(&edge, "", array, &mut watched);
    }
    let mut coded = 0;
    for (at, client) in slow.iter_mut().enumerate() {
        let seen = client.receive(false).expect("a response");
        assert!(seen.complete, "client {at} got {} bytes", seen.body.len());
        if seen.text("content-encoding") == "gzip" {
            coded += 1;
            let want = [sum.to_le_bytes(), (length as u32).to_le_bytes()].concat();
            assert_eq!(seen.body[seen.body.len() - 8..], want, "client {at}");
        } else {
            assert_eq!(seen.body.len() as u64, length, "client {at}");
        }
    }
    println!("{coded} were coded, the others found no room or did not ask");
    assert!(coded > 0);
    let log = hosts::tail(&edge.log);
    assert!(
        !log.contains("[critical]") && !log.contains("[error]"),
        "{log}"
    );
}
