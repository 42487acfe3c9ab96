//! What edges tell one another with an invalidation: lines the store keeps in order and does not read.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Lines that are kept; who has not read for longer is told that some are lost.
pub const KEPT: usize = 4096;
/// Lines in one answer; there may be more behind the mark it gives.
pub const AT_ONCE: usize = 256;
/// Bytes of a line.
pub const LONGEST: usize = 12 * 1024;

/// What came after a mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// To be asked with next.
    pub mark: Mark,
    /// Whether there may have been more than `lines` since the mark that was given.
    pub lost: bool,
    /// In the order they came.
    pub lines: Vec<String>,
}

/// A place in the order of lines: of which order, and after how many.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Never the same for two orders; lines of another one can't be counted from here.
    pub order: String,
    /// Lines before it.
    pub number: u64,
}

impl Mark {
    /// `<order>-<number>`; anything else is a mark of no order.
    pub fn of(text: &str) -> Self {
        let parts = text.rsplit_once('-');
        let mark = parts.and_then(|(order, number)| {
            let number = number.parse().ok()?;
            let order = order.to_owned();
            Some(Self { order, number })
        });
        mark.unwrap_or_default()
    }

    /// As `of` reads it.
    pub fn text(&self) -> String {
        format!("{}-{}", self.order, self.number)
    }
}

/// A name for an order.
pub fn fresh_order() -> String {
    format!("{:016x}", RandomState::new().hash_one(0))
}

/// The last lines, in memory only: after a restart it is another order.
pub struct Board(Mutex<Lines>);

struct Lines {
    end: Mark,
    kept: VecDeque<String>,
}

impl Board {
    /// Empty, in an order of its own.
    pub fn new() -> Self {
        Self(Mutex::new(Lines {
            end: Mark {
                order: fresh_order(),
                number: 0,
            },
            kept: VecDeque::new(),
        }))
    }

    /// Adds a line.
    pub fn tell(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.kept.len() == KEPT {
            lines.kept.pop_front();
        }
        lines.kept.push_back(line.to_owned());
        lines.end.number += 1;
    }

    /// What came after a mark.
    pub fn since(&self, mark: &Mark) -> News {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = &lines.end;
        let missing = end.number.checked_sub(mark.number);
        let missing = missing.and_then(|count| usize::try_from(count).ok());
        match missing.filter(|count| mark.order == end.order && *count <= lines.kept.len()) {
            None => News {
                mark: end.clone(),
                lost: true,
                lines: Vec::new(),
            },
            Some(count) => {
                let from = lines.kept.len() - count;
                let next: Vec<String> = lines
                    .kept
                    .iter()
                    .skip(from)
                    .take(AT_ONCE)
                    .cloned()
                    .collect();
                let number = mark.number + next.len() as u64;
                News {
                    mark: Mark {
                        order: end.order.clone(),
                        number,
                    },
                    lost: false,
                    lines: next,
                }
            }
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_once_in_order_and_what_is_lost_is_said() {
        let board = Board::new();
        let start = board.since(&Mark::of(""));
        assert!(start.lost && start.lines.is_empty());
        board.tell("a");
        board.tell("b");
        let news = board.since(&start.mark);
        assert_eq!(
            (news.lost, news.lines),
            (false, vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(board.since(&news.mark).lines.is_empty());
        for at in 0..KEPT {
            board.tell(&at.to_string());
        }
        let mut mark = news.mark.clone();
        let mut count = 0;
        loop {
            let next = board.since(&mark);
            assert!(!next.lost);
            if next.lines.is_empty() {
                break;
            }
            assert_eq!(next.lines.first(), Some(&count.to_string()));
            count += next.lines.len();
            mark = Mark::of(&next.mark.text());
        }
        assert_eq!(count, KEPT);
        assert!(board.since(&start.mark).lost, "older than what is kept");
        let ahead = Mark {
            number: mark.number + 1,
            ..mark
        };
        assert!(board.since(&ahead).lost);
        assert!(Board::new().since(&ahead).lost, "another order");
    }
}
