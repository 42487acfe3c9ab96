//! Modules made smaller by what the linker tells of them.
//!
//! - Numbers of functions, types and places, which the linker writes in five bytes each, take as many as they need.
//! - Functions that files do without ([`crate::spared`]), and those that only they call, trap instead.
//! - Large logarithms of [`crate::logarithms`] are computed.
//!
//! What is left does what it did: nothing is moved or given another number.

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail};
use wasmparser::{BinaryReader, ValType};

use crate::linked::{Body, CODE, CUSTOM, DATA, FUNCTIONS, Module, PADDED, TYPES, Value};
use crate::logarithms::Logarithms;
use crate::section::{find, sections, signed, unsigned};
use crate::spared::Spared;

/// The section of a component that is a module.
const NESTED: u8 = 1;

/// A body of no locals: `unreachable`, `end`.
const TRAP: &[u8] = &[0, 0x00, 0x0b];

/// A module, or a component with the one that was linked, made smaller, and without custom sections.
///
/// An error says which function of `spared` is not there any more, or what of the linker's is not understood.
pub fn shrink(wasm: &[u8], spared: &[Spared]) -> Result<Vec<u8>> {
    let (head, sections) = sections(wasm)?;
    let sections = sections.collect::<Result<Vec<_>>>()?;
    let mut out = head.to_vec();
    if head.get(6) != Some(&1) {
        let module = Module::read(&sections)?.context("no sections of the linker are in it")?;
        module.write(&mut out, spared)?;
        return Ok(out);
    }
    let mut linked = 0;
    for (id, content) in sections {
        let mut module = Vec::new();
        if id == NESTED && is_linked(content)? {
            module = shrink(content, spared)?;
            linked += 1;
        }
        let content = if module.is_empty() { content } else { &module };
        push(&mut out, id, content);
    }
    if linked != 1 {
        bail!("{linked} modules in it have sections of the linker");
    }
    Ok(out)
}

fn is_linked(module: &[u8]) -> Result<bool> {
    Ok(find(module, "linking")?.is_some())
}

fn push(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    unsigned(out, content.len());
    out.extend_from_slice(content);
}

impl<'w> Module<'w> {
    /// Which of the functions defined here can be reached.
    fn reached(&self, spared: &[Spared]) -> Result<Vec<bool>> {
        let mut barred = HashSet::new();
        for function in spared {
            let before = barred.len();
            let named = self.names.iter().filter(|(_, name)| function.is(name));
            barred.extend(named.map(|(index, _)| *index));
            if barred.len() == before {
                let name = function.name;
                bail!("no function is `{name}`, which is in the list of those that are spared");
            }
        }
        let mut reached = vec![false; self.bodies.len()];
        let mut next = self.roots.clone();
        while let Some(index) = next.pop() {
            if barred.contains(&index) {
                continue;
            }
            let Some(index) = index.checked_sub(self.imported) else {
                continue;
            };
            let body = self
                .bodies
                .get(index)
                .context("a function that is not there")?;
            if std::mem::replace(&mut reached[index], true) {
                continue;
            }
            for number in &body.numbers {
                if let Value::Call(callee) = number.value {
                    next.push(usize::try_from(callee)?);
                }
            }
        }
        Ok(reached)
    }

    fn write(&self, out: &mut Vec<u8>, spared: &[Spared]) -> Result<()> {
        let reached = self.reached(spared)?;
        let helper = self.imported + self.bodies.len();
        let helper_type = (vec![ValType::I32], vec![ValType::F32]);
        let known = self.types.iter().position(|ty| *ty == helper_type);
        for (id, content) in self.sections {
            let changed = match (*id, &self.logarithms) {
                (CUSTOM, _) => continue,
                (TYPES, Some(_)) if known.is_none() => {
                    Some(with_one_more(content, &[0x60, 1, 0x7f, 1, 0x7d])?)
                }
                (FUNCTIONS, Some(_)) => {
                    let mut ty = Vec::new();
                    unsigned(&mut ty, known.unwrap_or(self.types.len()));
                    Some(with_one_more(content, &ty)?)
                }
                (DATA, Some(table)) => Some(table.lean(content)),
                (CODE, _) => Some(self.code(&reached, helper)?),
                _ => None,
            };
            push(out, *id, changed.as_deref().unwrap_or(content));
        }
        Ok(())
    }

    fn code(&self, reached: &[bool], helper: usize) -> Result<Vec<u8>> {
        let mut code = Vec::new();
        unsigned(
            &mut code,
            self.bodies.len() + usize::from(self.logarithms.is_some()),
        );
        for (index, (body, reached)) in self.bodies.iter().zip(reached).enumerate() {
            let bytes = if *reached {
                self.body(index, body, helper)?
            } else {
                TRAP.to_vec()
            };
            unsigned(&mut code, bytes.len());
            code.extend_from_slice(&bytes);
        }
        if let Some(table) = &self.logarithms {
            let bytes = table.function();
            unsigned(&mut code, bytes.len());
            code.extend_from_slice(&bytes);
        }
        Ok(code)
    }

    /// A body with numbers no longer than needed.
    fn body(&self, index: usize, body: &Body<'w>, helper: usize) -> Result<Vec<u8>> {
        let (groups, locals) = body.locals;
        let looks_up = body
            .numbers
            .iter()
            .any(|it| matches!(it.value, Value::Logarithm));
        let ty = self
            .type_of
            .get(index)
            .context("a function without a type")?;
        let (params, _) = self
            .types
            .get(usize::try_from(*ty)?)
            .context("no such type")?;
        // One more local, for what is looked up.
        let local = params.len() + locals;
        let mut out = Vec::with_capacity(body.bytes.len());
        unsigned(&mut out, groups + usize::from(looks_up));
        out.extend_from_slice(&body.bytes[body.groups.clone()]);
        if looks_up {
            out.extend_from_slice(&[1, 0x7f]);
        }
        let mut from = body.groups.end;
        for number in &body.numbers {
            let until = number.at;
            match number.value {
                Value::Unsigned(value) | Value::Call(value) => {
                    out.extend_from_slice(&body.bytes[from..until]);
                    unsigned(&mut out, usize::try_from(value)?);
                }
                Value::Signed(value) => {
                    out.extend_from_slice(&body.bytes[from..until]);
                    signed(&mut out, value);
                }
                Value::Logarithm => {
                    let table = self.logarithms.as_ref().context("no table")?;
                    let until = until - Logarithms::LOAD.len();
                    out.extend_from_slice(&body.bytes[from..until]);
                    table.look_up(&mut out, local, helper);
                }
            }
            from = number.at + PADDED;
        }
        out.extend_from_slice(&body.bytes[from..]);
        Ok(out)
    }
}

/// A section that is a list, and one more.
fn with_one_more(content: &[u8], entry: &[u8]) -> Result<Vec<u8>> {
    let mut reader = BinaryReader::new(content, 0);
    let count = reader.read_var_u32()?;
    let at = usize::try_from(reader.original_position())?;
    let mut out = Vec::with_capacity(content.len() + entry.len() + 1);
    unsigned(&mut out, usize::try_from(count)? + 1);
    out.extend_from_slice(&content[at..]);
    out.extend_from_slice(entry);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::append;

    /// `run` calls `middle`, which calls `last`, which gives 7; nothing calls `other`, which gives 8 and is in the table.
    fn module() -> Vec<u8> {
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        push(&mut wasm, 1, &[1, 0x60, 0, 1, 0x7f]);
        push(&mut wasm, 3, &[4, 0, 0, 0, 0]);
        push(&mut wasm, 4, &[1, 0x70, 0, 1]);
        push(&mut wasm, 7, b"\x01\x03run\x00\x00");
        push(&mut wasm, 9, &[1, 0, 0x41, 0, 0x0b, 1, 3]);
        let calls = |callee: u8| [8, 0, 0x10, 0x80 | callee, 0x80, 0x80, 0x80, 0, 0x0b];
        let gives = |what: u8| [4, 0, 0x41, what, 0x0b];
        let code = [&[4][..], &calls(1), &calls(2), &gives(7), &gives(8)].concat();
        push(&mut wasm, CODE, &code);
        let mut symbols = vec![4];
        for (index, name) in [(0, "run"), (1, "middle"), (2, "last"), (3, "other")] {
            symbols.extend_from_slice(&[0, 0, index, name.len() as u8]);
            symbols.extend_from_slice(name.as_bytes());
        }
        let linking = [&[2, 8, symbols.len() as u8][..], &symbols].concat();
        append(&mut wasm, "linking", &linking);
        // In the code, two: calls (0) of the second and of the third symbol.
        append(&mut wasm, "reloc.CODE", &[5, 2, 0, 4, 1, 0, 13, 2]);
        wasm
    }

    fn code(wasm: &[u8]) -> Vec<u8> {
        let all = sections(wasm).unwrap().1;
        let mut all = all.map(Result::unwrap);
        all.find(|(id, _)| *id == CODE).unwrap().1.to_vec()
    }

    #[test]
    fn numbers_are_short_and_the_notes_are_gone() {
        let full = module();
        let lean = shrink(&full, &[]).unwrap();
        let calls = |callee: u8| [4, 0, 0x10, callee, 0x0b];
        let gives = |what: u8| [4, 0, 0x41, what, 0x0b];
        let want = [&[4][..], &calls(1), &calls(2), &gives(7), &gives(8)].concat();
        assert_eq!(code(&lean), want);
        assert_eq!(find(&lean, "linking").unwrap(), None);
        assert_eq!(find(&lean, "reloc.CODE").unwrap(), None);
        // As a component has it: a module in a section of its own; others stay as they are.
        let other = b"\0asm\x01\0\0\0";
        let component = |module: &[u8]| {
            let mut component = b"\0asm\x0d\0\x01\0".to_vec();
            push(&mut component, NESTED, other);
            push(&mut component, NESTED, module);
            component
        };
        assert_eq!(shrink(&component(&full), &[]).unwrap(), component(&lean));
        assert!(shrink(&component(other), &[]).is_err());
    }

    #[test]
    fn what_is_spared_traps_and_so_does_what_only_it_calls() {
        let trap = [&[3][..], TRAP].concat();
        let lean = shrink(&module(), &[Spared::never("middle")]).unwrap();
        let want = [
            &[4, 4, 0, 0x10, 1, 0x0b][..],
            &trap,
            &trap,
            &[4, 0, 0x41, 8, 0x0b],
        ]
        .concat();
        assert_eq!(code(&lean), want);
        let missing = shrink(&module(), &[Spared::never("inlined")]).unwrap_err();
        assert!(missing.to_string().contains("inlined"), "{missing}");
    }
}
