//! A module with what the linker tells of it (`--emit-relocs`): where code has numbers of functions, types and places in memory.

use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use wasmparser::{
    BinaryReader, CodeSectionReader, DefinedDataSymbol, ElementItems, ElementSectionReader,
    ExportSectionReader, ExternalKind, FunctionSectionReader, ImportSectionReader, Linking,
    LinkingSectionReader, RelocSectionReader, RelocationEntry, RelocationType, SymbolInfo, TypeRef,
    TypeSectionReader, ValType,
};

use crate::logarithms::Logarithms;

/// Ids of sections of a module.
pub const CUSTOM: u8 = 0;
pub const TYPES: u8 = 1;
pub const IMPORTS: u8 = 2;
pub const FUNCTIONS: u8 = 3;
pub const EXPORTS: u8 = 7;
pub const START: u8 = 8;
pub const ELEMENTS: u8 = 9;
pub const CODE: u8 = 10;
pub const DATA: u8 = 11;

/// A module as the linker left it.
pub struct Module<'w> {
    pub sections: &'w [(u8, &'w [u8])],
    pub imported: usize,
    /// The types of functions; of those defined, which is theirs.
    pub types: Vec<(Vec<ValType>, Vec<ValType>)>,
    pub type_of: Vec<u32>,
    pub bodies: Vec<Body<'w>>,
    /// Functions that are called from outside, or through the table.
    pub roots: Vec<usize>,
    pub names: Vec<(usize, &'w str)>,
    pub logarithms: Option<Logarithms>,
}

/// The body of a function, and where in it are numbers that the linker wrote.
pub struct Body<'w> {
    pub bytes: &'w [u8],
    /// Where its groups of locals are, how many groups and how many locals.
    pub groups: Range<usize>,
    pub locals: (usize, usize),
    pub numbers: Vec<Number>,
}

pub struct Number {
    pub at: usize,
    pub value: Value,
}

#[derive(Clone, Copy)]
pub enum Value {
    Unsigned(u32),
    Signed(i32),
    /// The function that is called.
    Call(u32),
    /// The offset of a load from the table of logarithms.
    Logarithm,
}

/// What the linker writes a number in.
pub const PADDED: usize = 5;

impl<'w> Module<'w> {
    /// `None` where the linker's sections are missing.
    pub fn read(sections: &'w [(u8, &'w [u8])]) -> Result<Option<Self>> {
        let mut module = Self {
            sections,
            imported: 0,
            types: Vec::new(),
            type_of: Vec::new(),
            bodies: Vec::new(),
            roots: Vec::new(),
            names: Vec::new(),
            logarithms: None,
        };
        let mut linked = None;
        let mut in_code: Option<RelocSectionReader<'w>> = None;
        let mut in_data: Option<RelocSectionReader<'w>> = None;
        for (id, content) in sections {
            let reader = BinaryReader::new(content, 0);
            match *id {
                TYPES => {
                    for ty in TypeSectionReader::new(reader)?.into_iter_err_on_gc_types() {
                        let ty = ty?;
                        module
                            .types
                            .push((ty.params().to_vec(), ty.results().to_vec()));
                    }
                }
                IMPORTS => {
                    for import in ImportSectionReader::new(reader)?.into_imports() {
                        let is_function = matches!(import?.ty, TypeRef::Func(_));
                        module.imported += usize::from(is_function);
                    }
                }
                FUNCTIONS => {
                    let types = FunctionSectionReader::new(reader)?.into_iter();
                    module.type_of = types.collect::<Result<_, _>>()?;
                }
                EXPORTS => {
                    for export in ExportSectionReader::new(reader)? {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            module.roots.push(usize::try_from(export.index)?);
                        }
                    }
                }
                START => bail!("it has a start function"),
                ELEMENTS => {
                    for element in ElementSectionReader::new(reader)? {
                        let ElementItems::Functions(functions) = element?.items else {
                            bail!("its table is not of functions by number");
                        };
                        for function in functions {
                            module.roots.push(usize::try_from(function?)?);
                        }
                    }
                }
                CODE => module.bodies = bodies(reader)?,
                CUSTOM => match custom(content)? {
                    ("linking", content) => {
                        linked = Some(LinkingSectionReader::new(BinaryReader::new(content, 0))?);
                    }
                    ("reloc.CODE", content) => {
                        in_code = Some(RelocSectionReader::new(BinaryReader::new(content, 0))?);
                    }
                    ("reloc.DATA", content) => {
                        in_data = Some(RelocSectionReader::new(BinaryReader::new(content, 0))?);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        let (Some(linked), Some(in_code)) = (linked, in_code) else {
            return Ok(None);
        };
        let table = module.symbols(&linked)?;
        let in_code = in_code
            .entries()
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        module.numbers(&in_code, table)?;
        let in_data = in_data.map(|it| it.entries().into_iter().collect::<Result<Vec<_>, _>>());
        let in_data: Vec<RelocationEntry> = in_data.transpose()?.unwrap_or_default();
        if in_data.iter().any(|it| Some(it.index) == table) {
            bail!("the table of logarithms is pointed to");
        }
        Ok(Some(module))
    }

    /// Notes the names of functions and where the table of logarithms is; gives the number of its symbol.
    fn symbols(&mut self, linked: &LinkingSectionReader<'w>) -> Result<Option<u32>> {
        let mut table = None;
        for part in linked.subsections() {
            let Linking::SymbolTable(symbols) = part? else {
                continue;
            };
            for (number, symbol) in symbols.into_iter().enumerate() {
                match symbol? {
                    SymbolInfo::Func {
                        index,
                        name: Some(name),
                        ..
                    } => self.names.push((usize::try_from(index)?, name)),
                    SymbolInfo::Data {
                        name,
                        symbol: Some(place),
                        ..
                    } if name.contains(Logarithms::SYMBOL) => {
                        table = Some(u32::try_from(number)?);
                        self.logarithms = Some(self.table(&place)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(table)
    }

    fn table(&self, place: &DefinedDataSymbol) -> Result<Logarithms> {
        let (_, data) = self
            .sections
            .iter()
            .find(|(id, _)| *id == DATA)
            .context("no data")?;
        Logarithms::read(data, place)
    }

    /// Finds the numbers in the bodies.
    fn numbers(&mut self, entries: &[RelocationEntry], table: Option<u32>) -> Result<()> {
        let (_, code) = self
            .sections
            .iter()
            .find(|(id, _)| *id == CODE)
            .context("no code")?;
        let base = code.as_ptr() as usize;
        let starts: Vec<usize> = self
            .bodies
            .iter()
            .map(|body| body.bytes.as_ptr() as usize - base)
            .collect();
        for entry in entries {
            let offset = usize::try_from(entry.offset)?;
            let which = starts.partition_point(|start| *start <= offset);
            let which = which
                .checked_sub(1)
                .context("a number outside of functions")?;
            let body = self
                .bodies
                .get_mut(which)
                .context("a number outside of functions")?;
            let at = offset - starts[which];
            let bytes = body
                .bytes
                .get(at..at + PADDED)
                .context("a number outside of functions")?;
            let mut reader = BinaryReader::new(bytes, 0);
            let value = match entry.ty {
                RelocationType::FunctionIndexLeb => Value::Call(reader.read_var_u32()?),
                RelocationType::MemoryAddrLeb if Some(entry.index) == table => Value::Logarithm,
                _ if Some(entry.index) == table && is_address(entry.ty) => {
                    bail!("the table of logarithms is used in another way than by loads from it")
                }
                RelocationType::MemoryAddrLeb
                | RelocationType::TypeIndexLeb
                | RelocationType::GlobalIndexLeb
                | RelocationType::TableNumberLeb => Value::Unsigned(reader.read_var_u32()?),
                RelocationType::TableIndexSleb
                | RelocationType::TableIndexRelSleb
                | RelocationType::MemoryAddrSleb
                | RelocationType::MemoryAddrRelSleb => Value::Signed(reader.read_var_i32()?),
                other => bail!("the linker wrote a number of the kind {other:?}"),
            };
            if matches!(value, Value::Logarithm) {
                Logarithms::is_load(body.bytes, at, entry.addend)?;
            } else if reader.original_position() != PADDED as u64 {
                bail!("a number of other than {PADDED} bytes");
            }
            body.numbers.push(Number { at, value });
        }
        for body in &mut self.bodies {
            body.numbers.sort_by_key(|number| number.at);
        }
        Ok(())
    }
}

fn is_address(ty: RelocationType) -> bool {
    use RelocationType as Ty;
    !matches!(
        ty,
        Ty::FunctionIndexLeb
            | Ty::TypeIndexLeb
            | Ty::GlobalIndexLeb
            | Ty::TableNumberLeb
            | Ty::TableIndexSleb
    )
}

fn bodies(reader: BinaryReader<'_>) -> Result<Vec<Body<'_>>> {
    let mut all = Vec::new();
    for body in CodeSectionReader::new(reader)? {
        let body = body?;
        let start = body.range().start;
        let mut locals = body.get_locals_reader()?;
        let groups = locals.get_count();
        let from = locals.original_position();
        let mut count = 0;
        for _ in 0..groups {
            count += usize::try_from(locals.read()?.0)?;
        }
        all.push(Body {
            bytes: body.as_bytes(),
            groups: usize::try_from(from - start)?
                ..usize::try_from(locals.original_position() - start)?,
            locals: (usize::try_from(groups)?, count),
            numbers: Vec::new(),
        });
    }
    Ok(all)
}

/// The name of a custom section and what is in it.
fn custom(content: &[u8]) -> Result<(&str, &[u8])> {
    let mut reader = BinaryReader::new(content, 0);
    let name = reader.read_string()?;
    let at = usize::try_from(reader.original_position())?;
    Ok((name, &content[at..]))
}
