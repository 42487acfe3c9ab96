//! `wasi:config/store`: the variables of a component, by their names.

use wasmtime::component::Linker;

use super::Spin;
use crate::context::Guest;

mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "config",
        imports: { default: trappable },
    });
}

use generated::wasi::config::store::{self as api, Error};

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    api::add_to_linker::<Guest, Spin>(linker, |guest| guest)
}

impl api::Host for Guest {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        // A name that no variable can have is one that is not there.
        Ok(Ok(self.variable(&key).ok()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        self.count("variables.get");
        let all = self.loaded.plugin.variables.clone();
        Ok(Ok(all.into_iter().collect()))
    }
}
