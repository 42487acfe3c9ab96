//! Runs of zeros taken out of what a module writes into its memory when it starts, for memory is zero before that.
//!
//! The linker puts tables that are mostly zero into the file as they are: one in fifteen of its bytes.

use anyhow::Result;
use wasm_encoder::{ConstExpr, DataSection, Section as _};
use wasmparser::{
    BinaryReader, DataKind, DataSectionReader, ImportSectionReader, Operator, TypeRef,
};

use crate::section::{sections, unsigned};

/// The shortest run that goes: a further segment takes up to twelve bytes.
const RUN: usize = 24;

/// Ids of sections of a module.
const IMPORTS: u8 = 2;
const DATA: u8 = 11;
const DATA_COUNT: u8 = 12;
/// Ids of sections of a component: a module, a component.
const NESTED: [u8; 2] = [1, 4];

/// A module without the zeros, or a component whose modules are without; what can't be said to be the same stays.
pub fn strip(wasm: &[u8]) -> Result<Vec<u8>> {
    let (head, sections) = sections(wasm)?;
    let sections = sections.collect::<Result<Vec<_>>>()?;
    let mut out = head.to_vec();
    let is_component = head.get(6) == Some(&1);
    let lean = if is_component { None } else { lean(&sections)? };
    for (id, content) in sections {
        let nested = is_component && NESTED.contains(&id);
        match &lean {
            Some(lean) if id == DATA => lean.append_to(&mut out),
            _ => {
                let inner = nested.then(|| strip(content)).transpose()?;
                let content = inner.as_deref().unwrap_or(content);
                out.push(id);
                unsigned(&mut out, content.len());
                out.extend_from_slice(content);
            }
        }
    }
    Ok(out)
}

/// The data of a module without runs of zeros. `None` where its memory is not its own (it may hold something already), where
/// segments are used by number or overlap.
fn lean(sections: &[(u8, &[u8])]) -> Result<Option<DataSection>> {
    let mut pieces: Vec<(i32, &[u8])> = Vec::new();
    for (id, content) in sections {
        let reader = BinaryReader::new(content, 0);
        match *id {
            DATA_COUNT => return Ok(None),
            IMPORTS => {
                for import in ImportSectionReader::new(reader)?.into_imports() {
                    if matches!(import?.ty, TypeRef::Memory(_)) {
                        return Ok(None);
                    }
                }
            }
            DATA => {
                for segment in DataSectionReader::new(reader)? {
                    let segment = segment?;
                    let DataKind::Active {
                        memory_index: 0,
                        offset_expr,
                    } = segment.kind
                    else {
                        return Ok(None);
                    };
                    let mut offset = offset_expr.get_operators_reader();
                    let Operator::I32Const { value } = offset.read()? else {
                        return Ok(None);
                    };
                    let after = |(at, bytes): &(i32, &[u8])| i64::from(*at) + bytes.len() as i64;
                    if pieces.last().map_or(0, after) > i64::from(value) {
                        return Ok(None);
                    }
                    pieces.push((value, segment.data));
                }
            }
            _ => {}
        }
    }
    let mut data = DataSection::new();
    for (at, bytes) in pieces {
        for piece in nonzero(bytes) {
            let place = at + i32::try_from(piece.start)?;
            data.active(
                0,
                &ConstExpr::i32_const(place),
                bytes[piece].iter().copied(),
            );
        }
    }
    Ok(Some(data))
}

/// Where the bytes between runs of zeros are. The last byte stays, whatever it is: a segment that ends beyond the memory is an
/// error, which is not ours to hide.
fn nonzero(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut pieces = Vec::new();
    let (mut start, mut zeros) = (0, 0);
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == 0 && at + 1 < bytes.len() {
            zeros += 1;
            continue;
        }
        if zeros >= RUN {
            if start < at - zeros {
                pieces.push(start..at - zeros);
            }
            start = at;
        }
        zeros = 0;
    }
    if start < bytes.len() {
        pieces.push(start..bytes.len());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{MemorySection, MemoryType, Module};

    use super::*;

    /// A module with one page of memory and these segments.
    fn module(segments: &[(i32, &[u8])]) -> Vec<u8> {
        let mut memory = MemorySection::new();
        memory.memory(MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut data = DataSection::new();
        for (at, bytes) in segments {
            data.active(0, &ConstExpr::i32_const(*at), bytes.iter().copied());
        }
        let mut module = Module::new();
        module.section(&memory).section(&data);
        module.finish()
    }

    /// What the segments make of the memory.
    fn memory(wasm: &[u8]) -> Vec<u8> {
        let mut memory = vec![0; 1 << 16];
        for section in sections(wasm).unwrap().1 {
            let (id, content) = section.unwrap();
            if id != DATA {
                continue;
            }
            for segment in DataSectionReader::new(BinaryReader::new(content, 0)).unwrap() {
                let segment = segment.unwrap();
                let DataKind::Active { offset_expr, .. } = segment.kind else {
                    panic!("passive")
                };
                let Ok(Operator::I32Const { value }) = offset_expr.get_operators_reader().read()
                else {
                    panic!("no constant")
                };
                let at = value as usize;
                memory[at..at + segment.data.len()].copy_from_slice(segment.data);
            }
        }
        memory
    }

    #[test]
    fn the_memory_is_the_same_and_the_file_is_smaller() {
        let mut bytes = vec![0; 3000];
        for (at, byte) in [(0, 1), (100, 2), (120, 3), (1500, 4), (2800, 5)] {
            bytes[at] = byte;
        }
        let full = module(&[(16, &bytes), (4000, &[0; 500]), (5000, b"end")]);
        let lean = strip(&full).unwrap();
        assert!(lean.len() < 120, "{} bytes", lean.len());
        assert!(memory(&lean) == memory(&full));
        assert_eq!(strip(&lean).unwrap(), lean);
        // As a component has it: a module in a section of its own.
        let mut component = b"\0asm\x0d\0\x01\0\x01".to_vec();
        unsigned(&mut component, full.len());
        component.extend_from_slice(&full);
        let lean_component = strip(&component).unwrap();
        assert!(lean_component.ends_with(&lean) && lean_component.len() < 130);
    }

    #[test]
    fn what_overlaps_or_is_another_ones_memory_stays() {
        let overlapping = module(&[(0, &[1; 100]), (50, &[0; 100])]);
        assert_eq!(strip(&overlapping).unwrap(), overlapping);
        let imported = importing(&[0; 100]);
        assert_eq!(strip(&imported).unwrap(), imported);
        assert!(strip(b"<html>").is_err());
        assert!(strip(&overlapping[..overlapping.len() - 1]).is_err());
    }

    /// A module that imports its memory and writes bytes into it.
    fn importing(bytes: &[u8]) -> Vec<u8> {
        let mut imports = wasm_encoder::ImportSection::new();
        let memory = MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        };
        imports.import("env", "memory", memory);
        let mut data = DataSection::new();
        data.active(0, &ConstExpr::i32_const(0), bytes.iter().copied());
        let mut module = Module::new();
        module.section(&imports).section(&data);
        module.finish()
    }
}
