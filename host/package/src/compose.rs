//! Middlewares and the component behind them, made into one component.

use std::fmt;

use crate::graph::{Graph, Instance, wrong};

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
    let mut graph = Graph::default();
    let mut inner = graph.add(application)?;
    let mut name = exported(&graph, inner, application)?;
    for layer in middlewares.iter().rev() {
        let instance = graph.add(layer)?;
        let outer = exported(&graph, instance, layer)?;
        let imported = handler(graph.imports(instance)).ok_or_else(|| {
            let why =
                format!("it does not import {HANDLER}: a middleware calls the next handler by it");
            wrong(&layer.name, why)
        })?;
        graph.connect((inner, &name), (instance, &imported), &layer.name)?;
        (inner, name) = (instance, outer);
    }
    graph.encode(inner, &[name])
}

fn exported(graph: &Graph, of: Instance, part: &Part) -> Result<String, ComposeError> {
    handler(graph.exports(of))
        .ok_or_else(|| wrong(&part.name, format!("it does not export {HANDLER}")))
}

fn handler(names: Vec<String>) -> Option<String> {
    let mut names = names.into_iter();
    names.find(|name| name.split('@').next() == Some(HANDLER))
}
