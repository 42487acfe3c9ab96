//! How the body of a message is treated.

use std::mem;

/// What a filter wants of a message's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Body {
    /// Nothing: it is not even read.
    #[default]
    Pass,
    /// To see it: it goes on unchanged.
    Observe,
    /// To change it, chunk by chunk.
    Transform,
    /// To change it as a whole: one call with all of it when it is at most `limit` bytes; beyond that, what was held
    /// comes in one call and the rest chunk by chunk.
    Buffer {
        /// Bytes held at most.
        limit: usize,
    },
}

/// Takes a chunk, whether it is the last, and where what goes on is appended.
type StageFn<'a> = dyn FnMut(&[u8], bool, &mut Vec<u8>) + 'a;

/// Feeds a body to one filter as its [`Body`] asks.
#[derive(Default, Debug)]
pub struct Pipe {
    body: Body,
    held: Vec<u8>,
}

impl Pipe {
    /// A pipe for a treatment.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            held: Vec::new(),
        }
    }

    /// The treatment now: `Buffer` becomes `Transform` once its limit was passed.
    pub fn body(&self) -> Body {
        self.body
    }

    /// Bytes held back now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Gives `chunk` to `stage` (called with chunk, end, out) and appends what goes on to `out`.
    pub fn push(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, stage: &mut StageFn<'_>) {
        match self.body {
            Body::Pass => out.extend_from_slice(chunk),
            Body::Observe => {
                stage(chunk, end, &mut Vec::new());
                out.extend_from_slice(chunk);
            }
            Body::Transform => stage(chunk, end, out),
            Body::Buffer { limit } => {
                let fits = self.held.len().saturating_add(chunk.len()) <= limit;
                if fits && !end {
                    self.held.extend_from_slice(chunk);
                    return;
                }
                let mut held = mem::take(&mut self.held);
                self.body = Body::Transform;
                if held.is_empty() {
                    return stage(chunk, end, out);
                }
                if fits {
                    held.extend_from_slice(chunk);
                    return stage(&held, end, out);
                }
                stage(&held, false, out);
                stage(chunk, end, out);
            }
        }
    }
}
