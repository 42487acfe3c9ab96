//! What a component's file says before anything runs it: that it is one, and where it looks for its configuration.

use anyhow::anyhow;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// The custom section in which a filter carries its name.
const NAME: &str = "edgeweir:name";
/// What the names of custom sections begin with in which the parts of a component's world are.
const TYPE: &str = "component-type";

/// Whether a `.wasm` file is a component: by the layer field after the magic number.
pub fn is_component(wasm: &[u8]) -> bool {
    wasm.get(6).is_some_and(|layer| *layer != 0)
}

/// Whether a core module says, as those of toolchains before WASI 0.2 was a target do, what component to make of it: Spin does when
/// it loads one.
pub fn is_component_to_be(wasm: &[u8]) -> bool {
    if is_component(wasm) {
        return false;
    }
    let mut said = false;
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match payload {
            Payload::ExportSection(exports) => {
                let mut names = exports.into_iter().map_while(Result::ok);
                if names.any(|it| it.name.starts_with("proxy_abi_version_")) {
                    return false;
                }
            }
            Payload::CustomSection(section) => said |= section.name().starts_with(TYPE),
            _ => {}
        }
    }
    said
}

/// A component as it is, and of a core module that says so the component that it is to be, its calls of WASI 0.1 turned into
/// those of 0.2. Any other module stays one.
///
/// # Errors
/// Why no component can be made of it.
pub fn made_component(wasm: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if !is_component_to_be(&wasm) {
        return Ok(wasm);
    }
    let adapter = WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
    let made = ComponentEncoder::default()
        .module(&wasm)
        .and_then(|it| it.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .and_then(|it| it.encode());
    made.map_err(|error| anyhow!("a core module of which no component can be made: {error:#}"))
}

/// The environment variable a component reads its JSON from: `EDGEWEIR_` and its name in capitals.
///
/// The name is the one it carries itself (custom section `edgeweir:name`); else its file's, up to the first dot.
pub fn configuration_variable(wasm: &[u8], file_name: &str) -> String {
    let name = own_name(wasm)
        .unwrap_or_else(|| file_name.split('.').next().unwrap_or_default().to_owned());
    let capitals = name.chars().map(|c| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    });
    format!("EDGEWEIR_{}", capitals.collect::<String>())
}

/// The name that a filter of this project carries itself (custom section `edgeweir:name`).
pub fn own_name(wasm: &[u8]) -> Option<String> {
    let payloads = Parser::new(0).parse_all(wasm).map_while(Result::ok);
    payloads
        .filter_map(|payload| match payload {
            Payload::CustomSection(section) if section.name() == NAME => {
                Some(String::from_utf8_lossy(section.data()).trim().to_owned())
            }
            _ => None,
        })
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn the_layer_tells_components_from_modules() {
        assert!(is_component(COMPONENT));
        assert!(!is_component(b"\0asm\x01\0\0\0"));
        assert!(!is_component(b"\0asm"));
    }

    #[test]
    fn a_module_may_say_what_component_it_becomes() {
        let module = b"\0asm\x01\0\0\0";
        let typed = [&module[..], b"\0\x10\x0fcomponent-type:"].concat();
        let exports = b"\x07\x1b\x01\x17proxy_abi_version_0_2_1\0\0";
        let filter = [&module[..], &exports[..], b"\0\x10\x0fcomponent-type:"].concat();
        for (what, wasm, want) in [
            ("a bare module", &module[..], false),
            ("one with a type", &typed, true),
            ("one that says it is of proxy-wasm", &filter, false),
            ("a component", COMPONENT, false),
        ] {
            assert_eq!(is_component_to_be(wasm), want, "{what}");
            let made = made_component(wasm.to_vec());
            match want {
                // It says that it has a type, and has none.
                true => assert!(made.is_err(), "{what}"),
                false => assert_eq!(made.ok().as_deref(), Some(wasm), "{what}"),
            }
        }
    }

    #[test]
    fn the_name_a_filter_carries_is_before_its_files() {
        assert_eq!(
            configuration_variable(COMPONENT, "my-limit.wasi-http.wasm"),
            "EDGEWEIR_MY_LIMIT"
        );
        let mut named = COMPONENT.to_vec();
        named.extend([0, 19, 13]);
        named.extend_from_slice(b"edgeweir:namelimit");
        assert_eq!(
            configuration_variable(&named, "other.wasm"),
            "EDGEWEIR_LIMIT"
        );
    }

    #[test]
    fn a_damaged_file_goes_by_its_own_name() {
        let mut cut = COMPONENT.to_vec();
        cut.extend([0, 200, 13]);
        assert_eq!(configuration_variable(&cut, "cut.wasm"), "EDGEWEIR_CUT");
    }
}
