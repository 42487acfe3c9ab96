//! Requests of a filter's own: a call to a cluster, with its own time-out.

use std::rc::Rc;

use bytes::Bytes;
use edgeweir_filter::{FETCHED, Failed, Fetch, Fetched, Reply, Timestamp};

use crate::agenda::{Agenda, Ticket};
use crate::heads;
use crate::hostcalls::{self, Buffer};

/// A call under way.
pub struct Call {
    /// The agenda of the root it was made for.
    pub agenda: Rc<Agenda>,
    /// Who waits for it.
    pub ticket: Ticket,
    /// When it was sent.
    pub sent: Timestamp,
    /// The longest it may take.
    pub timeout: std::time::Duration,
}

/// Sends the request to a cluster; the token of the answer.
pub fn send(cluster: &str, fetch: &Fetch) -> Result<u32, Failed> {
    let head = &fetch.head;
    let or = |value: &'static [u8], own: &Bytes| {
        if own.is_empty() {
            Bytes::from_static(value)
        } else {
            own.clone()
        }
    };
    let authority = if head.authority.is_empty() {
        Bytes::copy_from_slice(cluster.as_bytes())
    } else {
        head.authority.clone()
    };
    let pseudo: [(&[u8], Bytes); 4] = [
        (b":method", or(b"GET", &head.method)),
        (b":scheme", or(b"http", &head.scheme)),
        (b":authority", authority),
        (b":path", or(b"/", &head.path)),
    ];
    // The host writes these unchecked: a blank or a control byte in one would forge a request line.
    if pseudo
        .iter()
        .any(|(_, value)| value.iter().any(|byte| *byte <= b' ' || *byte == 0x7f))
    {
        return Err(Failed::Unsupported);
    }
    let lines = pseudo.iter().map(|(name, value)| (*name, &value[..]));
    let fields = head
        .fields
        .iter()
        .map(|(name, value)| (&name[..], &value[..]));
    let timeout = u32::try_from(fetch.timeout.as_millis())
        .unwrap_or(u32::MAX)
        .max(1);
    hostcalls::http_call(
        cluster,
        &heads::pairs(lines.chain(fields)),
        &fetch.body,
        timeout,
    )
    .map_err(|_| Failed::Unsupported)
}

/// Reads the answer the host announces now, of `fields` fields and `size` bytes.
pub fn receive(call: &Call, fields: u32, size: usize, now: Timestamp) -> Result<Fetched, Failed> {
    if fields == 0 {
        return Err(Failed::Unavailable);
    }
    if size > FETCHED {
        return Err(Failed::TooLarge);
    }
    let head = heads::call_response(size == 0).map_err(|_| Failed::Unavailable)?;
    // The host answers for a cluster that was too late.
    if head.status == 504 && now.since(call.sent) >= call.timeout {
        return Err(Failed::TimedOut);
    }
    let mut body = Vec::new();
    while body.len() < size {
        let more = hostcalls::buffer(Buffer::CallResponseBody, body.len(), size - body.len())
            .map_err(|_| Failed::Unavailable)?;
        if more.is_empty() {
            return Err(Failed::Unavailable);
        }
        body.extend_from_slice(&more);
    }
    Ok(Reply {
        head,
        body: body.into(),
    })
}
