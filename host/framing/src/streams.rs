//! What a client has said about its last streams.

/// So many streams are known; what lies further back is left to the reader behind.
const KEPT: u32 = 1_024;
/// Streams whose states are in one word.
const IN_WORD: u32 = 32;

/// The state of a stream as its client left it (RFC 9113 §5.1), whatever the server did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Higher than any stream before.
    Idle,
    /// Left out, reset, too long ago, or not a client's.
    Unknown,
    /// HEADERS came, END_STREAM did not.
    Open,
    /// END_STREAM came: half-closed (remote) or closed.
    Ended,
    /// More came behind END_STREAM.
    Beyond,
}

/// The states of the last streams. Memory: 256 bytes.
#[derive(Debug)]
pub struct Streams {
    /// The number of the next stream; stream 1 has number 0.
    next: u32,
    /// Two bits for each, where its number modulo [`KEPT`] says.
    words: [u64; (KEPT / IN_WORD) as usize],
    /// More came behind an END_STREAM.
    beyond: bool,
}

impl Streams {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self {
            next: 0,
            words: [0; (KEPT / IN_WORD) as usize],
            beyond: false,
        }
    }

    /// What is known of a stream.
    pub fn state(&self, stream: u32) -> State {
        // RFC 9113 §5.1.1: streams initiated by a client MUST use odd-numbered stream identifiers.
        let number = stream >> 1;
        if stream & 1 == 0 {
            return State::Unknown;
        }
        if number >= self.next {
            return State::Idle;
        }
        if self.next - number > KEPT {
            return State::Unknown;
        }
        let (word, shift) = place(number);
        match self.words.get(word).map_or(0, |word| word >> shift & 3) {
            0 => State::Unknown,
            1 => State::Open,
            2 => State::Ended,
            _ => State::Beyond,
        }
    }

    /// Whether any stream is [`State::Beyond`].
    pub fn beyond(&self) -> bool {
        self.beyond
    }

    /// Remembers a state. RFC 9113 §5.1.1: the first use of a stream closes those with lower identifiers that were idle.
    pub fn set(&mut self, stream: u32, state: State) {
        let number = stream >> 1;
        match self.state(stream) {
            State::Idle => {
                for left_out in self.next.max(number.saturating_sub(KEPT))..number {
                    self.put(left_out, 0);
                }
                self.next = number + 1;
            }
            // Another may be in its place.
            State::Unknown => return,
            State::Open | State::Ended | State::Beyond => {}
        }
        let bits = match state {
            State::Idle | State::Unknown => 0,
            State::Open => 1,
            State::Ended => 2,
            State::Beyond => 3,
        };
        self.beyond |= state == State::Beyond;
        self.put(number, bits);
    }

    fn put(&mut self, number: u32, bits: u64) {
        let (word, shift) = place(number);
        if let Some(word) = self.words.get_mut(word) {
            *word = *word & !(3 << shift) | bits << shift;
        }
    }
}

fn place(number: u32) -> (usize, u32) {
    let number = number % KEPT;
    ((number / IN_WORD) as usize, 2 * (number % IN_WORD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known() {
        let mut streams = Streams::new();
        assert_eq!(streams.state(1), State::Idle);
        streams.set(1, State::Open);
        streams.set(7, State::Ended);
        for (stream, state) in [
            (0, State::Unknown),
            (1, State::Open),
            (2, State::Unknown),
            (3, State::Unknown),
            (7, State::Ended),
            (8, State::Unknown),
            (9, State::Idle),
            (0x7fff_ffff, State::Idle),
        ] {
            assert_eq!(streams.state(stream), state, "{stream}");
        }
        streams.set(3, State::Open);
        assert_eq!(streams.state(3), State::Unknown, "it was left out");
        streams.set(1, State::Unknown);
        assert_eq!(streams.state(1), State::Unknown, "reset");
        assert!(!streams.beyond());
        streams.set(7, State::Beyond);
        assert_eq!((streams.state(7), streams.beyond()), (State::Beyond, true));
    }

    #[test]
    fn older_ones_are_not() {
        let mut streams = Streams::new();
        for number in 0..3_000 {
            streams.set(1 + 2 * number, State::Open);
        }
        assert_eq!(streams.state(1 + 2 * 2_999), State::Open);
        assert_eq!(streams.state(1 + 2 * (3_000 - KEPT)), State::Open);
        assert_eq!(streams.state(1 + 2 * (2_999 - KEPT)), State::Unknown);
        streams.set(0x7fff_ffff, State::Ended);
        assert_eq!(streams.state(0x7fff_ffff), State::Ended);
        assert_eq!(streams.state(0x7fff_fffd), State::Unknown, "left out");
        assert_eq!(streams.state(0x7fff_ffff - 2 * (KEPT - 1)), State::Unknown);
    }
}
