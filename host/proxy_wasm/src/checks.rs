//! Checks of a guest's deadline, put into its code: in each turn of a loop and at the start of each function that calls another.
//!
//! Epochs of wasmtime do the same, but what may call the host in each turn of a loop keeps the loop's values out of registers:
//! 12 to 17 % of the time of coding with gzip. A check that can do nothing but trap takes 1 to 3 %. This one asks whether a memory
//! of the module's own has grown, which the host makes it do from any thread.

use std::ops::Range;

use anyhow::{Context as _, bail};
use wasm_encoder::{Encode as _, Module, RawSection, SectionId};
use wasmparser::{FunctionBody, Operator, Parser, Payload, TypeRef};

/// The memory that grows when time is up, as the module exports it.
pub(crate) const MEMORY: &str = "edgeweir:deadline";
/// The module's start function, which waits until that memory can be had.
pub(crate) const START: &str = "edgeweir:start";

/// One page that becomes two, shared between threads: the flags byte, the least and the most.
const GROWS: [u8; 3] = [0x03, 1, 2];
/// The kinds of exports.
const FUNCTION: u8 = 0;
const MEMORY_KIND: u8 = 2;

/// The module with checks, with a memory exported as [`MEMORY`], and with its start function, if it has one, exported as [`START`]
/// and called by nobody. It does the same otherwise.
///
/// # Errors
/// A module that cannot be read, or that shares a memory of its own between threads: proxy-wasm has none.
pub(crate) fn insert(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let layout = Layout::of(module)?;
    let check = layout.check();
    let mut out = Module::new();
    let mut has_memory = false;
    let mut code = Code::default();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Payload::CodeSectionEntry(body) = &payload {
            code.add(module, body, &check)?;
            if code.left == 0 {
                out.section(&RawSection {
                    id: SectionId::Code as u8,
                    data: &code.bytes,
                });
            }
            continue;
        }
        if let Payload::CodeSectionStart { count, .. } = payload {
            code.left = count;
            count.encode(&mut code.bytes);
            continue;
        }
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        let data = bytes(module, range)?;
        // Sections come in one order (tags behind memories), and only custom ones may stand anywhere.
        let behind = id > SectionId::Memory as u8 && id != SectionId::Custom as u8;
        if behind && !has_memory {
            has_memory = true;
            section(&mut out, SectionId::Memory, &[1], &GROWS);
        }
        match payload {
            Payload::MemorySection(entries) => {
                has_memory = true;
                let more = appended(data, entries.count(), 1)?;
                section(&mut out, SectionId::Memory, &more, &GROWS);
            }
            Payload::ExportSection(entries) => {
                let added = layout.exports();
                let more = appended(data, entries.count(), 1 + u32::from(layout.start.is_some()))?;
                section(&mut out, SectionId::Export, &more, &added);
            }
            Payload::StartSection { .. } => {}
            _ => {
                out.section(&RawSection { id, data });
            }
        }
    }
    Ok(out.finish())
}

/// What has to be known of a module before its sections are written.
struct Layout {
    /// Memories it has: the number of the one to come.
    memories: u32,
    start: Option<u32>,
}

impl Layout {
    fn of(module: &[u8]) -> anyhow::Result<Self> {
        let mut layout = Self {
            memories: 0,
            start: None,
        };
        for payload in Parser::new(0).parse_all(module) {
            let memories = match payload? {
                Payload::ImportSection(section) => {
                    let mut memories = Vec::new();
                    for import in section.into_imports() {
                        if let TypeRef::Memory(memory) = import?.ty {
                            memories.push(memory);
                        }
                    }
                    memories
                }
                Payload::MemorySection(section) => section.into_iter().collect::<Result<_, _>>()?,
                Payload::StartSection { func, .. } => {
                    layout.start = Some(func);
                    continue;
                }
                _ => continue,
            };
            if memories.iter().any(|memory| memory.shared) {
                bail!("it shares memory between threads: proxy-wasm has none");
            }
            layout.memories += u32::try_from(memories.len())?;
        }
        Ok(layout)
    }

    /// `(if (i32.ne (memory.size $grows) (i32.const 1)) (then unreachable))`
    fn check(&self) -> Vec<u8> {
        let mut check = vec![0x3f];
        self.memories.encode(&mut check);
        check.extend([0x41, 1, 0x47, 0x04, 0x40, 0x00, 0x0b]);
        check
    }

    fn exports(&self) -> Vec<u8> {
        let mut exports = Vec::new();
        MEMORY.encode(&mut exports);
        exports.push(MEMORY_KIND);
        self.memories.encode(&mut exports);
        if let Some(start) = self.start {
            START.encode(&mut exports);
            exports.push(FUNCTION);
            start.encode(&mut exports);
        }
        exports
    }
}

/// The code section as it grows.
#[derive(Default)]
struct Code {
    left: u32,
    bytes: Vec<u8>,
    body: Vec<u8>,
}

impl Code {
    /// A function that calls nobody and has no loop ends by itself, and gets no check.
    fn add(
        &mut self,
        module: &[u8],
        function: &FunctionBody<'_>,
        check: &[u8],
    ) -> anyhow::Result<()> {
        let range = function.range();
        let mut operators = function.get_operators_reader()?;
        let first = operators.original_position();
        self.body.clear();
        let mut copied = range.start;
        let (mut loops, mut calls) = (Vec::new(), false);
        while !operators.eof() {
            match operators.read()? {
                Operator::Loop { .. } => loops.push(operators.original_position()),
                Operator::Call { .. }
                | Operator::CallIndirect { .. }
                | Operator::CallRef { .. }
                | Operator::ReturnCall { .. }
                | Operator::ReturnCallIndirect { .. }
                | Operator::ReturnCallRef { .. } => calls = true,
                _ => {}
            }
        }
        for place in calls.then_some(first).into_iter().chain(loops) {
            self.body.extend(bytes(module, copied..place)?);
            self.body.extend(check);
            copied = place;
        }
        self.body.extend(bytes(module, copied..range.end)?);
        self.body.encode(&mut self.bytes);
        self.left -= 1;
        Ok(())
    }
}

fn bytes(module: &[u8], range: Range<u64>) -> anyhow::Result<&[u8]> {
    let range = usize::try_from(range.start)?..usize::try_from(range.end)?;
    module.get(range).context("a section ends beyond the file")
}

fn section(out: &mut Module, id: SectionId, entries: &[u8], added: &[u8]) {
    out.section(&RawSection {
        id: id as u8,
        data: &[entries, added].concat(),
    });
}

/// A section of `count` entries as the beginning of one of so many more.
fn appended(section: &[u8], count: u32, more: u32) -> anyhow::Result<Vec<u8>> {
    let mut counted = Vec::new();
    (count + more).encode(&mut counted);
    // The count may be longer than it need be.
    let length = section.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let entries = section.get(length..).context("a section without a count")?;
    counted.extend(entries);
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> anyhow::Result<String> {
        let inserted = insert(&wat::parse_str(text).unwrap())?;
        // Valid, and written as it is written by hand.
        let mut config = wasmtime::Config::new();
        config.shared_memory(true);
        let engine = wasmtime::Engine::new(&config).unwrap();
        wasmtime::Module::validate(&engine, &inserted).map_err(anyhow::Error::from)?;
        Ok(inserted.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    #[test]
    fn loops_and_callers_are_checked() {
        let grows = "(memory (export \"edgeweir:deadline\") 1 2 shared)";
        let check = |memory: u32| {
            format!("(if (i32.ne (memory.size {memory}) (i32.const 1)) (then unreachable))")
        };
        for (before, after) in [
            // Without a memory of its own and with one, which stays the first.
            (
                "(module (func (export \"f\") (loop (loop (br 1)))))".to_owned(),
                format!(
                    "(module {grows} (func (export \"f\") (loop {0} (loop {0} (br 1)))))",
                    check(0)
                ),
            ),
            (
                "(module (memory 3) (func (export \"f\") call 0))".to_owned(),
                format!(
                    "(module (memory 3) (func (export \"f\") {} call 0) {grows})",
                    check(1)
                ),
            ),
            // An imported memory counts, and a function that ends by itself is left alone.
            (
                "(module (import \"a\" \"b\" (memory 1)) (global i32 (i32.const 1)) (table 1 funcref) \
                 (func (export \"f\") (param i64) (local f32) (table.get 0 (i32.const 0)) drop))"
                    .to_owned(),
                format!(
                    "(module (import \"a\" \"b\" (memory 1)) (global i32 (i32.const 1)) (table 1 funcref) \
                     (func (export \"f\") (param i64) (local f32) (table.get 0 (i32.const 0)) drop) {grows})"
                ),
            ),
            // What starts the module is left to the host.
            (
                "(module (func (export \"f\")) (start 0) (data \"x\"))".to_owned(),
                format!("(module {grows} (func (export \"f\")) (data \"x\") (export \"edgeweir:start\" (func 0)))"),
            ),
        ] {
            let expected = exports_last(&after);
            assert_eq!(shown(&before).unwrap(), expected, "{before}");
        }
    }

    /// The module with the exports in the order of their being written: by hand the memory's comes first.
    fn exports_last(text: &str) -> String {
        let module = wat::parse_str(text).unwrap();
        let mut out = Module::new();
        for payload in Parser::new(0).parse_all(&module) {
            match payload.unwrap() {
                Payload::ExportSection(section) => {
                    let mut exports = wasm_encoder::ExportSection::new();
                    let mut all: Vec<_> = section.into_iter().map(Result::unwrap).collect();
                    all.sort_by_key(|export| (export.name.contains(':'), export.name == START));
                    for export in all {
                        let kind = match export.kind {
                            wasmparser::ExternalKind::Memory => wasm_encoder::ExportKind::Memory,
                            _ => wasm_encoder::ExportKind::Func,
                        };
                        exports.export(export.name, kind, export.index);
                    }
                    out.section(&exports);
                }
                Payload::CustomSection(_) => {}
                other => {
                    if let Some((id, range)) = other.as_section() {
                        let data = bytes(&module, range).unwrap();
                        out.section(&RawSection { id, data });
                    }
                }
            }
        }
        let bytes = out.finish();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for text in [
            "(module (memory 1 1 shared) (func (export \"f\")))",
            "(module (import \"a\" \"b\" (memory 1 1 shared)) (func (export \"f\")))",
        ] {
            let error = shown(text).unwrap_err().to_string();
            assert!(error.contains("shares memory"), "{error}");
        }
        let whole = wat::parse_str("(module (func (export \"f\") (loop)))").unwrap();
        for length in 8..whole.len() {
            // Cut between sections it is a module of fewer; within one it is none.
            let _ = insert(&whole[..length]);
        }
        assert!(insert(&whole[..whole.len() - 1]).is_err());
    }
}
