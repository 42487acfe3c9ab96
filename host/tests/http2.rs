//! HTTP/2 by the letter of RFC 9113 and RFC 7541, frame by frame, to this host and to a real Envoy in front of the same origin:
//! the host has to conform everywhere, and the table says where Envoy does not.

#[path = "http2/case.rs"]
mod case;
#[path = "http2/floods.rs"]
mod floods;
#[path = "http2/frames.rs"]
mod frames;
#[path = "http2/hpack.rs"]
mod hpack;
#[path = "http2/streams.rs"]
mod streams;
mod support;
#[path = "http2/windows.rs"]
mod windows;
#[path = "http2/wire.rs"]
mod wire;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use case::{Case, Server, Short};
use support::envoy::Envoy;

/// The program itself: its memory is its own, the origin's is not in it.
struct Program {
    child: Child,
    address: SocketAddr,
    _out: BufReader<std::process::ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(origin: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edgeweir.toml");
        let text = format!(
            "[[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\nupstream = \"origin\"\n\
             [upstream.origin]\naddress = \"{origin}\"\ntimeout_ms = 5000\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_edgeweir"))
            .args(["run", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.split_once("http://").expect("an address").1;
        let address = address.split_whitespace().next().expect("an address");
        Self {
            address: address.parse().unwrap(),
            child,
            _out: out,
            _folder: folder,
        }
    }
}

fn table() -> Vec<Case> {
    [
        frames::cases(),
        streams::cases(),
        windows::cases(),
        hpack::cases(),
        floods::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What does not do what the table says, and how many conform.
fn against(
    server: &Server,
    table: &[Case],
    known: fn(&Case) -> Option<Short>,
) -> (Vec<String>, usize) {
    let mut wrong = Vec::new();
    let mut conforming = 0;
    for case in table {
        let place = format!("{}: {}, {}", server.name, case.section, case.says);
        match (case.run(server), known(case)) {
            (Ok(()), None) => conforming += 1,
            (Err(did), Some(short)) if did.contains(short.does) => {
                println!("{place}: {did}: {}", short.because);
            }
            (Err(did), Some(short)) => {
                wrong.push(format!("{place}: got {did}, the table says {short:?}"));
            }
            // How much memory Envoy takes is its own affair, and more on a busy machine.
            (Err(did), None) if server.name == "Envoy" && did.starts_with(floods::GREW) => {
                println!("{place}: {did}");
            }
            (Err(did), None) => wrong.push(format!("{place}: want {:?}, got {did}", case.want)),
            (Ok(()), Some(short)) => {
                wrong.push(format!("{place}: conforms, the table says {short:?}"));
            }
        }
        if let Err(error) = floods::alive(server) {
            wrong.push(format!("{place}: after it {error}"));
        }
    }
    (wrong, conforming)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_conforms_everywhere() {
    let origin = support::origin().await;
    let results = tokio::task::spawn_blocking(move || {
        let (program, proxy) = (Program::start(origin), Envoy::start(origin, "5s"));
        let (host, envoy) = (
            Server {
                name: "host",
                address: program.address,
                pid: program.child.id(),
            },
            Server {
                name: "Envoy",
                address: proxy.address,
                pid: proxy.pid(),
            },
        );
        std::thread::scope(|scope| {
            let ours = scope.spawn(|| against(&host, &table(), |_| None));
            let theirs = against(&envoy, &table(), |case| case.envoy);
            (ours.join().expect("the host's cases"), theirs)
        })
    });
    let ((mut wrong, ours), (theirs_wrong, theirs)) = results.await.unwrap();
    wrong.extend(theirs_wrong);
    println!(
        "{} cases: the host conforms in {ours}, Envoy in {theirs}",
        table().len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
