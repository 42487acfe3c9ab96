//! Middlewares and the component behind them, made into one component.

use std::fmt;

use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};

/// What a middleware imports and every layer exports.
const HANDLER: &str = "wasi:http/handler";

/// A component and the name it goes by in errors.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name in the manifest.
    pub name: String,
    /// The component.
    pub wasm: Vec<u8>,
}

/// Why parts make no whole.
#[derive(Debug)]
pub struct ComposeError {
    /// The part at fault; none for the whole.
    pub part: Option<String>,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Some(part) => write!(f, "{part}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl std::error::Error for ComposeError {}

/// One component that is `middlewares` in front of `application`, outermost first.
///
/// Each layer keeps a memory of its own. What they import is imported once by the whole, so every layer has the
/// stores, variables and hosts that the whole is given.
///
/// # Errors
/// A part that is no component, or lacks the handler that its place needs, by its name.
pub fn compose(middlewares: &[Part], application: &Part) -> Result<Vec<u8>, ComposeError> {
    if middlewares.is_empty() {
        return Ok(application.wasm.clone());
    }
    let mut graph = CompositionGraph::new();
    let mut inner: Option<(NodeId, String)> = None;
    for (depth, part) in [application]
        .into_iter()
        .chain(middlewares.iter().rev())
        .enumerate()
    {
        inner = Some(wrap(&mut graph, depth, part, inner)?);
    }
    let whole = |error: String| ComposeError {
        part: None,
        why: error,
    };
    if let Some((outermost, name)) = inner {
        graph
            .export(outermost, name)
            .map_err(|error| whole(error.to_string()))?;
    }
    graph
        .encode(EncodeOptions::default())
        .map_err(|error| whole(format!("{:#}", anyhow::Error::from(error))))
}

/// Puts a part around what is there: the handler it exports, with its name.
fn wrap(
    graph: &mut CompositionGraph,
    depth: usize,
    part: &Part,
    inner: Option<(NodeId, String)>,
) -> Result<(NodeId, String), ComposeError> {
    let wrong = |why: String| ComposeError {
        part: Some(part.name.clone()),
        why,
    };
    // A graph's packages have names of their own; a component may be there twice.
    let name = format!("layer:n{depth}");
    let package = Package::from_bytes(&name, None, part.wasm.clone(), graph.types_mut())
        .map_err(|error| wrong(format!("{error:#}")))?;
    let world = &graph.types()[package.ty()];
    let handler = |names: Vec<&String>| {
        names
            .into_iter()
            .find(|name| name.split('@').next() == Some(HANDLER))
            .cloned()
    };
    let exported = handler(world.exports.keys().collect())
        .ok_or_else(|| wrong(format!("it does not export {HANDLER}")))?;
    let imported = handler(world.imports.keys().collect());
    let package = graph
        .register_package(package)
        .map_err(|error| wrong(error.to_string()))?;
    let instance = graph.instantiate(package);
    if let Some((inner, _)) = inner {
        let imported = imported.ok_or_else(|| {
            wrong(format!(
                "it does not import {HANDLER}: a middleware calls the next handler by it"
            ))
        })?;
        graph
            .set_instantiation_argument(instance, &imported, inner)
            .map_err(|error| wrong(format!("{:#}", anyhow::Error::from(error))))?;
    }
    let node = graph
        .alias_instance_export(instance, &exported)
        .map_err(|error| wrong(error.to_string()))?;
    Ok((node, exported))
}
