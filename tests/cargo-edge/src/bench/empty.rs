//! The empty filter: a proxy-wasm module with the callbacks that filters have, which calls nothing of the host.

use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, MemorySection,
    MemoryType, Module, TypeSection, ValType,
};

/// The callbacks: how many numbers each takes, and what it answers.
const CALLBACKS: [(&str, usize, Option<i32>); 15] = [
    ("_initialize", 0, None),
    ("proxy_abi_version_0_2_1", 0, None),
    // The host's blocks of memory, all at one place: none is asked for but the configuration, which nobody reads.
    ("proxy_on_memory_allocate", 1, Some(1_024)),
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 2, Some(1)),
    ("proxy_on_configure", 2, Some(1)),
    ("proxy_on_request_headers", 3, Some(0)),
    ("proxy_on_request_body", 3, Some(0)),
    ("proxy_on_request_trailers", 2, Some(0)),
    ("proxy_on_response_headers", 3, Some(0)),
    ("proxy_on_response_body", 3, Some(0)),
    ("proxy_on_response_trailers", 2, Some(0)),
    ("proxy_on_done", 1, Some(1)),
    ("proxy_on_log", 1, None),
    ("proxy_on_delete", 1, None),
];

/// The module's bytes.
pub fn module() -> Vec<u8> {
    let mut types = TypeSection::new();
    let mut functions = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    for ((name, takes, answers), index) in CALLBACKS.into_iter().zip(0..) {
        let results = answers.map(|_| ValType::I32);
        types.ty().function(vec![ValType::I32; takes], results);
        functions.function(index);
        exports.export(name, ExportKind::Func, index);
        let mut body = Function::new([]);
        if let Some(answer) = answers {
            body.instruction(&Instruction::I32Const(answer));
        }
        body.instruction(&Instruction::End);
        code.function(&body);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    exports.export("memory", ExportKind::Memory, 0);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&code);
    module.finish()
}
