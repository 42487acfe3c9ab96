//! What a host function answers: a status of the specification, or a trap.

/// A status of the proxy-wasm ABI (`proxy_status_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    /// Nothing under that name, or nothing to read.
    NotFound = 1,
    /// An argument the host does not accept, or a call outside its phase.
    BadArgument = 2,
    /// Bytes that do not follow the format they are in.
    ParseFailure = 4,
    /// A pointer or a size outside the guest's memory.
    InvalidMemoryAccess = 6,
    /// An empty queue.
    Empty = 7,
    /// Somebody else wrote the key first.
    CasMismatch = 8,
    /// A bound of the host was reached.
    InternalFailure = 10,
    /// The specification has it, this host does not.
    Unimplemented = 12,
}

/// Why a host function did not succeed.
pub(crate) enum Fault {
    /// The guest is told.
    Status(Status),
    /// The guest's own allocator trapped inside the call.
    Trap(wasmtime::Error),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Fault::Status(status)
    }
}

/// The result of a host function that gives its answers through pointers.
pub(crate) type Reply = Result<(), Fault>;

/// Turns a reply into what the guest sees.
pub(crate) fn answer(reply: Reply) -> wasmtime::Result<u32> {
    match reply {
        Ok(()) => Ok(0),
        Err(Fault::Status(status)) => Ok(status as u32),
        Err(Fault::Trap(trap)) => Err(trap),
    }
}
