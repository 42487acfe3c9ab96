//! nginx and Varnish, set up to do what the cache filter does: for the same rows of the table.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cases::Nginx;
use super::proxy::{Running, spawn, wait};
use crate::tools;

/// Where a program is: on the PATH, else where distributions put daemons.
pub fn find(program: &str) -> Option<PathBuf> {
    tools::on_path(program).or_else(|| {
        let found = Path::new("/usr/sbin").join(program);
        found.is_file().then_some(found)
    })
}

/// nginx, one worker.
pub fn nginx(does: Nginx, origin: SocketAddr, folder: &Path, log: &Path) -> Result<Running> {
    let address = free()?;
    // What an earlier run stored is of another origin.
    let store = folder.join("store");
    let _ = fs::remove_dir_all(&store);
    let config = folder.join("nginx.conf");
    fs::write(&config, nginx_config(does, address, origin, folder))?;
    let mut command = Command::new(find("nginx").context("nginx is not there")?);
    command.arg("-p").arg(folder).arg("-c").arg(&config);
    let process = spawn(command, log)?;
    wait(process, log, || {
        TcpStream::connect(address).ok().map(|_| address)
    })
}

/// One process alone: a worker of a master that is killed would stay.
fn nginx_config(does: Nginx, address: SocketAddr, origin: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    let does = match does {
        Nginx::Cache => "proxy_cache edge;
            proxy_cache_key $scheme$host$request_uri;
            add_header x-cache $upstream_cache_status;"
            .to_owned(),
        Nginx::Limit => "limit_req zone=clients burst=1000000 nodelay;".to_owned(),
        // Its default level is 1; the types are those of the documents, text/html is always among them.
        Nginx::Gzip(level) => format!(
            "gzip on;
            gzip_comp_level {level};
            gzip_types application/json;"
        ),
    };
    format!(
        "daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    proxy_cache_path {folder}/store levels=1:2 keys_zone=edge:64m max_size=512m use_temp_path=off;
    limit_req_zone $binary_remote_addr zone=clients:10m rate=1000000r/s;
    upstream origin {{ server {origin}; keepalive 64; }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header connection \"\";
            {does}
        }}
    }}
}}
"
    )
}

/// Varnish with its memory store; its threads are one pool, it has no single worker.
pub fn varnish(origin: SocketAddr, folder: &Path, log: &Path) -> Result<Running> {
    let address = free()?;
    let program = folder.join("edge.vcl");
    let (host, port) = (origin.ip(), origin.port());
    fs::write(
        &program,
        format!("vcl 4.1;\nbackend origin {{ .host = \"{host}\"; .port = \"{port}\"; }}\n"),
    )?;
    let mut command = Command::new(find("varnishd").context("varnishd is not there")?);
    command
        // No privileges to drop, in the foreground, no shell to it.
        .args(["-j", "none", "-F", "-T", "none", "-s", "malloc,512m"])
        .args(["-p", "thread_pools=1"])
        .args(["-a", &address.to_string()])
        .arg("-n")
        .arg(folder.join("varnish"))
        .arg("-f")
        .arg(&program);
    let process = spawn(command, log)?;
    wait(process, log, || {
        TcpStream::connect(address).ok().map(|_| address)
    })
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_found_and_nonsense_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    fn nginx_keeps_to_its_folder() {
        let addresses = (
            SocketAddr::from(([127, 0, 0, 1], 1)),
            SocketAddr::from(([127, 0, 0, 1], 2)),
        );
        let config = nginx_config(Nginx::Gzip(6), addresses.0, addresses.1, Path::new("/here"));
        assert!(config.contains("gzip_comp_level 6;") && !config.contains("proxy_cache edge"));
        assert!(config.contains("listen 127.0.0.1:1;") && config.contains("server 127.0.0.1:2;"));
        assert_eq!(config.matches("_path /here/").count(), 6);
    }
}
