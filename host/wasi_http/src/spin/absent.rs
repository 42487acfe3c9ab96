//! What Spin has and this host never does. A component that names it, as all do that some SDKs make, runs until it calls it.

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Linker, ResourceType};
use wasmtime::{Engine, bail};

use crate::context::Guest;

const ABSENT: [&str; 7] = [
    "fermyon:spin/llm@",
    "fermyon:spin/mqtt@",
    "fermyon:spin/mysql@",
    "fermyon:spin/postgres@",
    "spin:mqtt/",
    "spin:mysql/",
    "spin:postgres/",
];

/// A resource of which there is none.
struct Never;

/// Whether an import is one that components of Spin may have and this host does not offer: a call of it is a trap.
pub fn is_absent(name: &str) -> bool {
    ABSENT.iter().any(|absent| name.starts_with(absent))
}

/// Adds an interface of which each call is a trap. What else may be missing beside it stays as it is.
pub(crate) fn add_to_linker(
    linker: &mut Linker<Guest>,
    engine: &Engine,
    interface: &str,
    instance: &ComponentInstance,
) -> wasmtime::Result<()> {
    let mut linker = linker.instance(interface)?;
    for (name, export) in instance.exports(engine) {
        match export.ty {
            ComponentItem::ComponentFunc(function) => {
                let call = format!("{interface}: `{name}` is not offered by this host");
                if function.async_() {
                    linker.func_new_concurrent(name, move |_, _, _, _| {
                        let call = call.clone();
                        Box::pin(async move { bail!("{call}") })
                    })?;
                } else {
                    linker.func_new(name, move |_, _, _, _| bail!("{call}"))?;
                }
            }
            ComponentItem::Resource(_) => {
                linker.resource(name, ResourceType::host::<Never>(), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_absent;

    #[test]
    fn what_is_absent_is_of_spin() {
        for (name, want) in [
            ("fermyon:spin/llm@2.0.0", true),
            ("spin:postgres/postgres@4.2.0", true),
            ("fermyon:spin/key-value@2.0.0", false),
            ("example:host/llm@1.0.0", false),
        ] {
            assert_eq!(is_absent(name), want, "{name}");
        }
    }
}
