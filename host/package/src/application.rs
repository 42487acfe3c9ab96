//! A Spin application, locked: what `spin.toml` says, with each component's content by its digest.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::blob::Digest;

/// A Spin application whose components are complete: middlewares are composed in.
#[derive(Clone, Default, Debug)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its version; nothing for none.
    pub version: String,
    /// What it does; nothing for none.
    pub description: String,
    /// Its variables by name.
    pub variables: BTreeMap<String, Variable>,
    /// Its HTTP triggers, in the order of the manifest.
    pub triggers: Vec<Trigger>,
    /// The components that triggers name.
    pub components: Vec<Component>,
}

/// A variable of an application.
#[derive(Clone, Default, Debug)]
pub struct Variable {
    /// Its value where nothing sets one; without it the variable must be set at start.
    pub default: Option<String>,
    /// Its value is not to be shown.
    pub secret: bool,
}

/// An HTTP trigger.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The route, as the manifest has it.
    pub route: String,
    /// The component that serves it.
    pub component: String,
}

/// A component of an application.
#[derive(Clone, Default, Debug)]
pub struct Component {
    /// Its name.
    pub id: String,
    /// The component itself.
    pub wasm: Vec<u8>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its variables: templates over those of the application.
    pub variables: BTreeMap<String, String>,
    /// Where it may connect to.
    pub allowed_outbound_hosts: Vec<String>,
    /// The key-value stores it may open.
    pub key_value_stores: Vec<String>,
    /// The SQLite databases it may open.
    pub sqlite_databases: Vec<String>,
}

impl Application {
    /// The locked application, and the components' content in the order in which it names them.
    pub(crate) fn lock(self) -> (Value, Vec<Vec<u8>>) {
        let mut metadata = json!({ "name": self.name });
        for (name, value) in [("version", self.version), ("description", self.description)] {
            if !value.is_empty() {
                metadata[name] = Value::from(value);
            }
        }
        let variables: BTreeMap<String, Value> = self
            .variables
            .into_iter()
            .map(|(name, variable)| (name, variable.lock()))
            .collect();
        let triggers: Vec<Value> = self
            .triggers
            .into_iter()
            .enumerate()
            .map(|(number, trigger)| trigger.lock(number))
            .collect();
        let mut contents = Vec::new();
        let mut components = Vec::new();
        for component in self.components {
            components.push(component.lock());
            contents.push(component.wasm);
        }
        let mut locked = json!({
            // 0 where nothing must be understood: what all versions of Spin read.
            "spin_lock_version": 0,
            "metadata": metadata,
            "triggers": triggers,
            "components": components,
        });
        if !variables.is_empty() {
            locked["variables"] = json!(variables);
        }
        (locked, contents)
    }
}

impl Variable {
    fn lock(self) -> Value {
        let mut locked = json!({});
        if let Some(default) = self.default {
            locked["default"] = Value::from(default);
        }
        if self.secret {
            locked["secret"] = Value::from(true);
        }
        locked
    }
}

impl Trigger {
    fn lock(self, number: usize) -> Value {
        json!({
            "id": format!("trigger-{number}-{}", self.component),
            "trigger_type": "http",
            "trigger_config": { "route": self.route, "component": self.component },
        })
    }
}

impl Component {
    fn lock(&self) -> Value {
        let mut metadata = json!({});
        for (name, list) in [
            ("allowed_outbound_hosts", &self.allowed_outbound_hosts),
            ("key_value_stores", &self.key_value_stores),
            ("databases", &self.sqlite_databases),
        ] {
            if !list.is_empty() {
                metadata[name] = json!(list);
            }
        }
        let mut locked = json!({
            "id": self.id,
            "metadata": metadata,
            "source": {
                "content_type": "application/wasm",
                "digest": Digest::of(&self.wasm).to_string(),
            },
        });
        if !self.environment.is_empty() {
            locked["env"] = json!(self.environment);
        }
        if !self.variables.is_empty() {
            locked["config"] = json!(self.variables);
        }
        locked
    }
}
