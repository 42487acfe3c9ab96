//! What a `.wasm` file is: its ABI, what it asks of a host and offers, its memory, and what it carries about itself.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, anyhow};
use edgeweir_host_wasi_http::is_absent;
use serde_json::{Value, json};
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentType, ComponentTypeRef, ExternalKind,
    InstanceTypeDeclaration, KnownCustom, Parser, Payload, TypeRef,
};

/// Callbacks by which an ABI is told where its version export is missing.
const ABI_EXPORTS: [(&str, &str); 4] = [
    ("proxy_abi_version_0_1_0", "0.1.0"),
    ("proxy_abi_version_0_2_0", "0.2.0"),
    ("proxy_abi_version_0_2_1", "0.2.1"),
    ("proxy_abi_version_0_3_0", "0.3.0"),
];
/// The logarithm of a Wasm page's bytes where a memory names none: 64 KiB.
const PAGE_LOG2: u32 = 16;

/// What was found in a file.
#[derive(Clone, Default, Debug)]
pub struct Inspected {
    /// What it is, for people: `proxy-wasm module, ABI 0.2.1`.
    pub kind: String,
    /// The version of the proxy-wasm ABI, where it is one.
    pub abi_version: Option<&'static str>,
    /// Whether it is a component.
    pub component: bool,
    /// The file's size, bytes.
    pub size: u64,
    /// Imports by module or interface.
    pub imports: BTreeMap<String, Vec<String>>,
    /// Exports: functions of a module, interfaces of a component.
    pub exports: Vec<String>,
    /// Linear memories.
    pub memories: Vec<Memory>,
    /// Custom sections by name, with their bytes in all.
    pub custom: BTreeMap<String, u64>,
    /// The name the filter carries itself.
    pub name: Option<String>,
    /// The version the filter carries itself.
    pub version: Option<String>,
    /// The JSON Schema of the filter's configuration.
    pub schema: Option<Value>,
    /// Language and tools, with versions.
    pub producers: BTreeMap<String, Vec<String>>,
    /// Target features the compiler used.
    pub features: Vec<String>,
}

/// A linear memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Pages at first.
    pub initial: u64,
    /// Most pages; `None` for what its addresses reach.
    pub maximum: Option<u64>,
    /// The bytes of a page.
    pub page: u64,
}

impl Memory {
    fn of(ty: &wasmparser::MemoryType) -> Self {
        Self {
            initial: ty.initial,
            maximum: ty.maximum,
            page: 1_u64
                .checked_shl(ty.page_size_log2.unwrap_or(PAGE_LOG2))
                .unwrap_or(u64::MAX),
        }
    }

    fn to_text(self) -> String {
        // All addresses of 64 bits are one byte more than a u64 counts.
        let bytes = |pages: u64| crate::report::bytes(pages.saturating_mul(self.page));
        let most = self.maximum.map_or("no maximum".to_owned(), |pages| {
            format!("at most {}", bytes(pages))
        });
        let of = match self.page == 1 << PAGE_LOG2 {
            true => String::new(),
            false => format!(" of {}", crate::report::bytes(self.page)),
        };
        format!(
            "{} at first ({} pages{of}), {most}",
            bytes(self.initial),
            self.initial
        )
    }
}

/// The error of a file that ends before it says what it is.
pub(crate) fn too_short(file: &Path) -> anyhow::Error {
    anyhow!(
        "{} is not Wasm: it has fewer than the eight bytes that every module and component begins with",
        file.display()
    )
}

impl Inspected {
    /// Reads a file; an error says what it is not.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        Self::with_bytes(file).map(|(found, _)| found)
    }

    /// Reads a file, and gives its bytes besides.
    pub fn with_bytes(file: &Path) -> anyhow::Result<(Self, Vec<u8>)> {
        let bytes =
            std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        if !bytes.starts_with(b"\0asm") {
            return Err(anyhow!("{} is not Wasm", file.display()));
        }
        if bytes.len() < 8 {
            return Err(too_short(file));
        }
        let found =
            Self::parse(&bytes).with_context(|| format!("{} is damaged", file.display()))?;
        Ok((found, bytes))
    }

    /// Reads a module or component.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut found = Self {
            size: bytes.len() as u64,
            ..Self::default()
        };
        let mut depth = 0_usize;
        // The outermost component's types: the names an interface's instance type exports.
        let mut types: Vec<Vec<String>> = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    if depth == 0 {
                        found.component = encoding == wasmparser::Encoding::Component;
                    }
                    depth += 1;
                }
                Payload::End(_) => depth -= 1,
                Payload::MemorySection(memories) => {
                    for memory in memories {
                        found.memories.push(Memory::of(&memory?));
                    }
                }
                Payload::CustomSection(section) => found.custom_section(&section)?,
                // What is inside a component is its own affair: the outermost level is what a host sees.
                payload if depth == 1 && found.component => {
                    found.of_component(payload, &mut types)?;
                }
                payload if depth == 1 => found.of_module(payload)?,
                _ => {}
            }
        }
        found.kind = found.describe();
        Ok(found)
    }

    fn of_module(&mut self, payload: Payload<'_>) -> anyhow::Result<()> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    let name = match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => import.name.to_owned(),
                        other => format!("{} ({})", import.name, kind_of(&other)),
                    };
                    self.imports
                        .entry(import.module.to_owned())
                        .or_default()
                        .push(name);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        self.exports.push(export.name.to_owned());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn of_component(
        &mut self,
        payload: Payload<'_>,
        types: &mut Vec<Vec<String>>,
    ) -> anyhow::Result<()> {
        match payload {
            Payload::ComponentTypeSection(section) => {
                for ty in section {
                    types.push(match ty? {
                        ComponentType::Instance(declarations) => functions_of(&declarations),
                        _ => Vec::new(),
                    });
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    let makes_a_type = match alias? {
                        ComponentAlias::InstanceExport { kind, .. } => {
                            kind == ComponentExternalKind::Type
                        }
                        ComponentAlias::Outer { kind, .. } => {
                            kind == wasmparser::ComponentOuterAliasKind::Type
                        }
                        ComponentAlias::CoreInstanceExport { .. } => false,
                    };
                    if makes_a_type {
                        types.push(Vec::new());
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    let functions = match import.ty {
                        ComponentTypeRef::Instance(at) => {
                            types.get(at as usize).cloned().unwrap_or_default()
                        }
                        ComponentTypeRef::Type(_) => {
                            types.push(Vec::new());
                            Vec::new()
                        }
                        _ => Vec::new(),
                    };
                    self.imports.insert(import.name.name.to_owned(), functions);
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Type {
                        types.push(Vec::new());
                    }
                    self.exports.push(export.name.name.to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn custom_section(
        &mut self,
        section: &wasmparser::CustomSectionReader<'_>,
    ) -> anyhow::Result<()> {
        let data = section.data();
        *self.custom.entry(section.name().to_owned()).or_default() += data.len() as u64;
        let text = || String::from_utf8_lossy(data).trim().to_owned();
        match section.name() {
            "edgeweir:name" => self.name = Some(text()),
            "edgeweir:version" => self.version = Some(text()),
            "edgeweir:schema" => {
                self.schema =
                    Some(serde_json::from_slice(data).context("its edgeweir:schema is not JSON")?);
            }
            "target_features" => self.features.extend(target_features(data)),
            _ => {}
        }
        if let KnownCustom::Producers(fields) = section.as_known() {
            for field in fields {
                let field = field?;
                let known = self.producers.entry(field.name.to_owned()).or_default();
                for value in field.values {
                    let value = value?;
                    let text = format!("{} {}", value.name, value.version)
                        .trim()
                        .to_owned();
                    if !known.contains(&text) {
                        known.push(text);
                    }
                }
            }
        }
        self.features.sort();
        self.features.dedup();
        Ok(())
    }

    fn describe(&mut self) -> String {
        if self.component {
            let handles = |name: &str| name.starts_with("wasi:http/handler@");
            let version = self.exports.iter().find(|name| handles(name));
            let onward = self.imports.keys().any(|name| handles(name));
            return match version {
                Some(interface) => {
                    let version = interface.rsplit('@').next().unwrap_or_default();
                    let role = if onward {
                        "middleware"
                    } else {
                        "terminal handler"
                    };
                    format!("component, wasi:http {version} {role}")
                }
                None => match self
                    .exports
                    .iter()
                    .find(|name| name.starts_with("wasi:http/incoming-handler@"))
                {
                    Some(interface) => format!(
                        "component, wasi:http {} proxy",
                        interface.rsplit('@').next().unwrap_or_default()
                    ),
                    None => "component without an HTTP handler".to_owned(),
                },
            };
        }
        self.abi_version = ABI_EXPORTS
            .iter()
            .find(|(export, _)| self.exports.iter().any(|name| name == export))
            .map(|(_, version)| *version);
        match self.abi_version {
            Some(version) => format!("proxy-wasm module, ABI {version}"),
            None if self
                .custom
                .keys()
                .any(|it| it.starts_with("component-type")) =>
            {
                "core module that Spin and this host make a component of".to_owned()
            }
            None if self
                .exports
                .iter()
                .any(|name| name.starts_with("proxy_on_")) =>
            {
                "proxy-wasm module that does not say its ABI version".to_owned()
            }
            None => "core module, not proxy-wasm".to_owned(),
        }
    }

    /// Whether it is a module for proxy-wasm, of whatever version.
    pub fn is_proxy_wasm(&self) -> bool {
        let callback = |name: &String| name.starts_with("proxy_on_");
        !self.component && (self.abi_version.is_some() || self.exports.iter().any(callback))
    }

    /// What it imports and this host links but does not serve: a name that does not change, and what becomes of calls.
    pub fn unserved(&self) -> Vec<(&'static str, String)> {
        let imported = |name: &&str| {
            let of_host = self.imports.get("env").into_iter().flatten();
            of_host.into_iter().any(|import| import == name)
        };
        let mut found = Vec::new();
        let grpc = ["proxy_grpc_call", "proxy_grpc_stream"];
        let grpc: Vec<&str> = grpc.into_iter().filter(|name| imported(name)).collect();
        if !grpc.is_empty() {
            let message = format!(
                "it imports {}: this host makes no gRPC calls, each is answered with Unimplemented (12)",
                grpc.join(" and ")
            );
            found.push(("grpc", message));
        }
        if imported(&"proxy_call_foreign_function") {
            let message = "it imports proxy_call_foreign_function: this host has clear_route_cache, which does nothing here, and \
                           answers any other name with NotFound (1)";
            found.push(("foreign-function", message.to_owned()));
        }
        let imports = self.imports.keys();
        let absent: Vec<_> = imports.filter(|name| is_absent(name)).collect();
        if !absent.is_empty() {
            let names: Vec<String> = absent.iter().map(|name| format!("`{name}`")).collect();
            let message = format!(
                "it imports {}: this host does not offer that, a call of it is a trap",
                names.join(", ")
            );
            found.push(("not-offered", message));
        }
        found
    }

    /// Everything but the schema's text, for scripts.
    pub fn to_json(&self) -> Value {
        json!({
            "kind": self.kind,
            "component": self.component,
            "abi_version": self.abi_version,
            "name": self.name,
            "version": self.version,
            "size": self.size,
            "imports": self.imports,
            "exports": self.exports,
            "memories": self.memories.iter().map(|memory| json!({
                "initial_pages": memory.initial,
                "maximum_pages": memory.maximum,
                "page_bytes": memory.page,
            })).collect::<Vec<_>>(),
            "custom_sections": self.custom,
            "producers": self.producers,
            "target_features": self.features,
            "schema": self.schema,
            "warnings": self.unserved().into_iter().map(|(_, message)| message).collect::<Vec<_>>(),
        })
    }

    /// Everything but the schema's text, for people.
    pub fn to_text(&self, file: &Path) -> String {
        let mut text = format!("{}\n", printable(&file.display().to_string()));
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {:<12} {}", printable(name), printable(&value));
        };
        line("kind", self.kind.clone());
        if let Some(name) = &self.name {
            let version = self.version.as_deref().unwrap_or("(no version)");
            line("filter", format!("{name} {version}"));
        }
        line("size", crate::report::bytes(self.size));
        for memory in &self.memories {
            line("memory", memory.to_text());
        }
        line(
            "schema",
            match &self.schema {
                Some(_) => "of its configuration, shown by --schema".to_owned(),
                None => "none".to_owned(),
            },
        );
        for (kind, values) in &self.producers {
            line(kind, values.join(", "));
        }
        if !self.features.is_empty() {
            line("features", self.features.join(", "));
        }
        let custom: Vec<_> = self
            .custom
            .iter()
            .map(|(name, size)| format!("{name} ({})", crate::report::bytes(*size)))
            .collect();
        if !custom.is_empty() {
            line("sections", custom.join(", "));
        }
        for (_, message) in self.unserved() {
            line("warning", message);
        }
        let _ = writeln!(text, "imports");
        for (interface, names) in &self.imports {
            let _ = writeln!(text, "  {}", printable(interface));
            for name in names {
                let _ = writeln!(text, "    {}", printable(name));
            }
        }
        let _ = writeln!(text, "exports");
        for name in &self.exports {
            let _ = writeln!(text, "  {}", printable(name));
        }
        text
    }
}

/// Names are whatever the file's maker chose: what a terminal would obey is shown as a dot.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '·' } else { c };
    text.chars().map(shown).collect()
}

fn functions_of(declarations: &[InstanceTypeDeclaration<'_>]) -> Vec<String> {
    declarations
        .iter()
        .filter_map(|declaration| match declaration {
            InstanceTypeDeclaration::Export {
                name,
                ty: ComponentTypeRef::Func(_),
            } => Some(name.name.to_owned()),
            _ => None,
        })
        .collect()
}

fn kind_of(ty: &TypeRef) -> &'static str {
    match ty {
        TypeRef::Func(_) | TypeRef::FuncExact(_) => "function",
        TypeRef::Table(_) => "table",
        TypeRef::Memory(_) => "memory",
        TypeRef::Global(_) => "global",
        TypeRef::Tag(_) => "tag",
    }
}

/// The section of the tool conventions: a count, then for each a prefix byte and a name. Nothing for a damaged one.
fn target_features(data: &[u8]) -> Vec<String> {
    let read = || -> wasmparser::Result<Vec<String>> {
        let mut reader = wasmparser::BinaryReader::new(data, 0);
        let count = reader.read_var_u32()?;
        let mut features = Vec::new();
        for _ in 0..count.min(256) {
            let prefix = reader.read_u8()?;
            let name = reader.read_string()?;
            if prefix == b'+' || prefix == b'=' {
                features.push(name.to_owned());
            }
        }
        Ok(features)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(module (import "env" "proxy_log" (func)) (memory 2 16) (export "proxy_abi_version_0_2_1" (func 0)))` and two
    /// custom sections, by hand.
    fn module() -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        let mut section = |id: u8, content: &[u8]| {
            bytes.push(id);
            bytes.push(u8::try_from(content.len()).expect("a short section"));
            bytes.extend_from_slice(content);
        };
        section(1, &[1, 0x60, 0, 0]);
        section(2, b"\x01\x03env\x09proxy_log\x00\x00");
        section(5, &[1, 1, 2, 16]);
        section(7, b"\x01\x17proxy_abi_version_0_2_1\x00\x00");
        section(0, b"\x0fedgeweir:schema{\"type\":\"object\"}");
        section(0, b"\x0dedgeweir:namelimit");
        section(0, b"\x0ftarget_features\x02+\x07simd128-\x03abc");
        bytes
    }

    #[test]
    fn a_module_says_what_it_is() {
        let found = Inspected::parse(&module()).expect("a sound module");
        assert_eq!(found.kind, "proxy-wasm module, ABI 0.2.1");
        assert_eq!(found.imports["env"], ["proxy_log"]);
        let memory = Memory {
            initial: 2,
            maximum: Some(16),
            page: 65_536,
        };
        assert_eq!(found.memories, [memory]);
        assert_eq!(found.name.as_deref(), Some("limit"));
        assert_eq!(found.schema, Some(json!({"type": "object"})));
        assert_eq!(found.features, ["simd128"]);
    }

    #[test]
    fn what_is_imported_and_not_served_is_a_warning() {
        let mut found = Inspected::parse(&module()).expect("a sound module");
        assert!(found.unserved().is_empty());
        assert!(!found.to_text(Path::new("a.wasm")).contains("warning"));
        let more = ["proxy_grpc_stream", "proxy_call_foreign_function"];
        let of_host = found.imports.entry("env".to_owned()).or_default();
        of_host.extend(more.map(str::to_owned));
        let codes: Vec<&str> = found.unserved().into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, ["grpc", "foreign-function"]);
        let text = found.to_text(Path::new("a.wasm"));
        assert!(
            text.contains("  warning      it imports proxy_grpc_stream: "),
            "{text}"
        );
        assert_eq!(
            found.to_json()["warnings"][1].as_str().map(|it| &it[..34]),
            Some("it imports proxy_call_foreign_func")
        );
    }

    #[test]
    fn every_memory_that_is_valid_is_shown() {
        for (name, section, want) in [
            (
                "all that 64 bits reach",
                // memory64: at most 2^48 pages.
                &[1, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40][..],
                "17179869184.00 GiB at first (281474976710656 pages), no maximum",
            ),
            (
                "its most is all of it",
                &[1, 5, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
                "64.0 KiB at first (1 pages), at most 17179869184.00 GiB",
            ),
            (
                "pages of a byte",
                &[1, 8, 100, 0],
                "100 B at first (100 pages of 1 B), no maximum",
            ),
        ] {
            let mut bytes = b"\0asm\x01\0\0\0\x05".to_vec();
            bytes.push(u8::try_from(section.len()).expect("a short section"));
            bytes.extend_from_slice(section);
            let found = Inspected::parse(&bytes).expect("a sound module");
            let text = found.to_text(Path::new("a.wasm"));
            assert!(text.contains(want), "{name}: {text}");
        }
    }

    #[test]
    fn names_give_a_terminal_no_orders() {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        bytes.extend_from_slice(b"\x00\x0b\x0a\x1b[31mRED!\n");
        let found = Inspected::parse(&bytes).expect("a sound module");
        let text = found.to_text(Path::new("a\u{9b}.wasm"));
        assert!(text.contains("·[31mRED!· (0 B)"), "{text}");
        assert!(!text.contains(['\x1b', '\u{9b}']), "{text}");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let mut bytes = module();
        bytes.truncate(20);
        assert!(Inspected::parse(&bytes).is_err());
    }
}
