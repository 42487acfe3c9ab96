//! Where the rewriter takes blocks instead of bytes.

use super::{Rewriter, State};
use crate::Framing;
use crate::lexer::FEW;
use crate::nesting::Container;
use crate::plain::{Between, Point};
use crate::run::Run;
use crate::stretch::{self, STRETCH, Stretch};

impl Rewriter {
    /// Whether a stretch can begin here: between tokens of an array or object.
    #[inline]
    pub(super) fn may_take(&self, run: &Run<'_, '_>) -> bool {
        run.at >= run.doubted && run.rest().len() >= FEW && self.between().is_some()
    }

    #[inline]
    pub(super) fn between(&self) -> Option<Between> {
        match self.state {
            State::ArrayFirst | State::ObjectFirst => Some(Between::First),
            State::ArrayNext | State::ObjectNext => Some(Between::Next),
            State::AfterValue => Some(Between::After),
            _ => None,
        }
    }

    /// Takes a stretch where nothing but `null`s is to go.
    pub(super) fn take_plain(
        &mut self,
        stretch: &mut Stretch,
        run: &mut Run<'_, '_>,
    ) -> Option<()> {
        let point = Point {
            between: self.between()?,
            wrote: self.wrote,
        };
        let rules = stretch::Rules {
            max_depth: self.max_depth,
            lines: self.framing == Framing::Lines,
        };
        self.before.clone_from(&self.nesting);
        let nesting = &mut self.nesting;
        let Some(inside) =
            stretch.take_inside(run.rest(), point, nesting, &rules, self.rules.drop_nulls)
        else {
            std::mem::swap(&mut self.before, &mut self.nesting);
            run.doubted = run.at + STRETCH;
            return None;
        };
        if inside.bytes == 0 {
            run.doubted = run.at + 1;
            return None;
        }
        run.comma(inside.comma);
        run.write(stretch.kept());
        self.wrote = inside.point.wrote;
        self.tally.nulls += inside.nulls;
        run.at += inside.bytes;
        run.doubted = run.at + usize::from(inside.ended);
        self.arrive(inside.point.between);
        Some(())
    }

    /// A stretch was taken up to here.
    pub(super) fn arrive(&mut self, between: Between) {
        self.inner = self.nesting.innermost();
        self.depth = self.nesting.depth();
        let in_object = self.inner == Some(Container::Object);
        self.state = match between {
            Between::First if in_object => State::ObjectFirst,
            Between::First => State::ArrayFirst,
            Between::Next if in_object => State::ObjectNext,
            Between::Next => State::ArrayNext,
            Between::After => State::AfterValue,
        };
        self.space = None;
    }
}
