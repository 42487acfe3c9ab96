//! A real Envoy beside the host.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A plain Envoy in front of an origin, for as long as this lives.
pub struct Envoy {
    child: Child,
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    /// Starts it; called on a thread that lives as long as the test, since Envoy dies with it.
    pub fn start(origin: SocketAddr, timeout: &str) -> Self {
        let program = cargo_edge::tools::envoy().expect("an Envoy");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("envoy.yaml");
        let text = include_str!("envoy.yaml")
            .replace("LISTEN_PORT", &address.port().to_string())
            .replace("ORIGIN_PORT", &origin.port().to_string())
            .replace("TIMEOUT", timeout);
        std::fs::write(&file, text).unwrap();
        let child = Command::new(program)
            .args([
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
                "--log-level",
                "error",
                "-c",
            ])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "Envoy does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
