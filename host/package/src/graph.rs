//! Components as instances that are given to one another, made into one component.

use anyhow::Error;
use wac_graph::types::{Package, World};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};

use crate::compose::{ComposeError, Part};

/// A component, instantiated.
pub(crate) type Instance = NodeId;

/// Instances, and what is connected of them.
#[derive(Default)]
pub(crate) struct Graph {
    graph: CompositionGraph,
    /// Components added; each package in the graph has a name of its own, and a component may be there twice.
    added: usize,
}

/// A part at fault.
pub(crate) fn wrong(part: &str, why: impl Into<String>) -> ComposeError {
    ComposeError {
        part: Some(part.to_owned()),
        why: why.into(),
    }
}

impl Graph {
    pub(crate) fn add(&mut self, part: &Part) -> Result<Instance, ComposeError> {
        let name = format!("layer:n{}", self.added);
        self.added += 1;
        let package = Package::from_bytes(&name, None, part.wasm.clone(), self.graph.types_mut())
            .map_err(|error| wrong(&part.name, format!("{error:#}")))?;
        let package = self
            .graph
            .register_package(package)
            .map_err(|error| wrong(&part.name, error.to_string()))?;
        Ok(self.graph.instantiate(package))
    }

    /// The names of what it imports.
    pub(crate) fn imports(&self, of: Instance) -> Vec<String> {
        let world = self.world(of);
        world.map_or_else(Vec::new, |it| it.imports.keys().cloned().collect())
    }

    /// The names of what it exports.
    pub(crate) fn exports(&self, of: Instance) -> Vec<String> {
        let world = self.world(of);
        world.map_or_else(Vec::new, |it| it.exports.keys().cloned().collect())
    }

    fn world(&self, of: Instance) -> Option<&World> {
        let package = self.graph[of].package()?;
        Some(&self.graph.types()[self.graph[package].ty()])
    }

    /// Gives an export of one instance to another in the place of an import; `part` is at fault where it does not fit.
    pub(crate) fn connect(
        &mut self,
        (from, export): (Instance, &str),
        (to, import): (Instance, &str),
        part: &str,
    ) -> Result<(), ComposeError> {
        let given = self
            .graph
            .alias_instance_export(from, export)
            .map_err(|error| wrong(part, error.to_string()))?;
        self.graph
            .set_instantiation_argument(to, import, given)
            .map_err(|error| wrong(part, format!("{:#}", Error::from(error))))
    }

    /// The whole, which exports these of an instance.
    pub(crate) fn encode(
        mut self,
        of: Instance,
        exports: &[String],
    ) -> Result<Vec<u8>, ComposeError> {
        let whole = |why: String| ComposeError { part: None, why };
        for export in exports {
            let node = self
                .graph
                .alias_instance_export(of, export)
                .map_err(|error| whole(error.to_string()))?;
            self.graph
                .export(node, export)
                .map_err(|error| whole(error.to_string()))?;
        }
        self.graph
            .encode(EncodeOptions::default())
            .map_err(|error| whole(format!("{:#}", Error::from(error))))
    }
}
