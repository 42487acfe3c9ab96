//! What a body goes through: the lexer where only whitespace is to go, the rewriter where more is; where the origin is trusted what
//! checks nothing.

use crate::rewriter::Tally;
use crate::{Bare, Invalid, Lexer, Rewriter};

pub(crate) enum Engine {
    Space(Lexer),
    Rules(Box<Rewriter>),
    Bare(Bare),
}

impl Engine {
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Option<Invalid> {
        match self {
            Self::Space(lexer) => lexer.push(chunk, out),
            Self::Rules(rewriter) => rewriter.push(chunk, out),
            Self::Bare(bare) => bare.push(chunk, out),
        }
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Option<Invalid> {
        match self {
            Self::Space(lexer) => lexer.finish(out),
            Self::Rules(rewriter) => rewriter.finish(out),
            Self::Bare(bare) => bare.finish(out),
        }
    }

    /// What was changed, but for whitespace, since this was asked last.
    pub(crate) fn take_tally(&mut self) -> Tally {
        match self {
            Self::Space(_) => Tally::default(),
            Self::Rules(rewriter) => rewriter.take_tally(),
            Self::Bare(bare) => Tally {
                nulls: bare.take_nulls(),
                ..Tally::default()
            },
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        match self {
            Self::Space(lexer) => lexer.is_passing(),
            Self::Rules(rewriter) => rewriter.is_stopped(),
            Self::Bare(bare) => bare.is_passing(),
        }
    }

    /// Whether nothing goes on from here on.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(self, Self::Rules(rewriter) if rewriter.is_cut())
    }

    pub(crate) fn stop(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Space(lexer) => lexer.pass(out),
            Self::Rules(rewriter) => rewriter.stop(out),
            Self::Bare(bare) => bare.pass(out),
        }
    }
}
