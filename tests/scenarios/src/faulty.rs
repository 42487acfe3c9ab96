//! A store in trouble: what only a server that breaks the protocol can do. One that works is `machines::RealStore`.

use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::origin::receive;

/// What it does with each request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Never answers.
    Hangs,
    /// Ends the connection without an answer.
    Dead,
    /// Answers this status and body, whatever is asked.
    Answers(u16, Vec<u8>),
}

/// A server, shared by its clones; a thread for each connection, until the program ends.
#[derive(Clone)]
pub struct Faulty {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<(Fault, usize)>>,
}

impl Faulty {
    /// One that hangs.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let faulty = Self {
            address: listener.local_addr()?,
            state: Arc::new(Mutex::new((Fault::Hangs, 0))),
        };
        let serving = faulty.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let faulty = serving.clone();
                thread::spawn(move || drop(faulty.serve(stream)));
            }
        });
        Ok(faulty)
    }

    /// From now on it behaves so, and has been asked nothing.
    pub fn set(&self, fault: Fault) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (fault, 0);
    }

    /// How often it was asked since.
    pub fn asked(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while receive(&mut reader, &mut writer)?.is_some() {
            let fault = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.1 += 1;
                state.0.clone()
            };
            match fault {
                Fault::Hangs => {
                    // Until the edge gives up.
                    receive(&mut reader, &mut writer)?;
                    return Ok(());
                }
                Fault::Dead => return Ok(()),
                Fault::Answers(status, body) => {
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n\r\n");
                    writer.write_all(&[head.as_bytes(), &body].concat())?;
                }
            }
        }
        Ok(())
    }
}
