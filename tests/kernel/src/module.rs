//! The module: compiled with SIMD128, loaded, called.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use cargo_edge::workspace::{cargo, target_dir};
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, OptLevel, Store, TypedFunc};

/// The module, instantiated.
pub struct Kernel {
    store: Store<()>,
    instance: Instance,
    memory: Memory,
    minify: TypedFunc<(u32, u32, u32), u32>,
}

impl Kernel {
    /// Compiles the module, by cargo and then by wasmtime.
    pub fn new() -> Result<Self> {
        let path = compile()?;
        let mut config = Config::new();
        config.cranelift_opt_level(OptLevel::Speed);
        let engine = Engine::new(&config)?;
        let module = Module::new(
            &engine,
            fs::read(&path).with_context(|| format!("reading {}", path.display()))?,
        )?;
        let mut store = Store::new(&engine, ());
        let mut linker = Linker::new(&engine);
        // It has no need of the outside; the standard library only names it.
        linker.define_unknown_imports_as_traps(&module)?;
        let instance = linker.instantiate(&mut store, &module)?;
        if let Ok(start) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
            start.call(&mut store, ())?;
        }
        let memory = instance
            .get_memory(&mut store, "memory")
            .context("the module has no memory")?;
        let minify = instance.get_typed_func(&mut store, "minify")?;
        Ok(Self {
            store,
            instance,
            memory,
            minify,
        })
    }

    /// Puts `text` into the module.
    pub fn input(&mut self, text: &[u8]) -> Result<()> {
        let input: TypedFunc<u32, u32> = self.instance.get_typed_func(&mut self.store, "input")?;
        let at = input.call(&mut self.store, u32::try_from(text.len())?)?;
        self.memory.write(&mut self.store, at as usize, text)?;
        Ok(())
    }

    /// Minifies the input in chunks of `chunk` bytes; says how many bytes came of it.
    pub fn minify(&mut self, chunk: usize, framing: u32, max_depth: u32) -> Result<usize> {
        let chunk = u32::try_from(chunk)?;
        let length = self
            .minify
            .call(&mut self.store, (chunk, framing, max_depth))?;
        Ok(length as usize)
    }

    /// Leaves out whitespace in chunks of `chunk` bytes and checks nothing; `null`s go too where `nulls` is 1 (members) or 2 (all).
    /// Says how many bytes came of it.
    pub fn bare(&mut self, chunk: usize, nulls: u32) -> Result<usize> {
        let function: TypedFunc<(u32, u32), u32> =
            self.instance.get_typed_func(&mut self.store, "bare")?;
        Ok(function.call(&mut self.store, (u32::try_from(chunk)?, nulls))? as usize)
    }

    /// Takes a configuration whose rules are for `rewrite`.
    pub fn rules(&mut self, config: &str) -> Result<()> {
        self.input(config.as_bytes())?;
        let length = self.call("rules")?;
        let wrong = self.output(length)?;
        if !wrong.is_empty() {
            bail!("{config}: {}", String::from_utf8_lossy(&wrong));
        }
        Ok(())
    }

    /// Rewrites the input in chunks of `chunk` bytes; says how many bytes came of it.
    pub fn rewrite(&mut self, chunk: usize, max_depth: u32) -> Result<usize> {
        let chunk = u32::try_from(chunk)?;
        let function: TypedFunc<(u32, u32), u32> =
            self.instance.get_typed_func(&mut self.store, "rewrite")?;
        Ok(function.call(&mut self.store, (chunk, max_depth))? as usize)
    }

    /// Calls `transcode`, `copy` or `reason`.
    pub fn call(&mut self, name: &str) -> Result<usize> {
        let function: TypedFunc<(), u32> = self.instance.get_typed_func(&mut self.store, name)?;
        Ok(function.call(&mut self.store, ())? as usize)
    }

    /// What came of the last call.
    pub fn output(&mut self, length: usize) -> Result<Vec<u8>> {
        let output: TypedFunc<(), u32> = self.instance.get_typed_func(&mut self.store, "output")?;
        let at = output.call(&mut self.store, ())? as usize;
        let mut bytes = vec![0; length];
        self.memory.read(&self.store, at, &mut bytes)?;
        Ok(bytes)
    }
}

/// Where the compiled module is.
pub fn compile() -> Result<PathBuf> {
    cargo_edge::build::ensure_targets()?;
    let folder = target_dir().join("guests-kernel");
    let target = "wasm32-wasip1";
    let output = cargo()
        .args(["build", "--profile", "plugin", "--target", target])
        .args(["--package", "edgeweir-kernel-guest", "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+simd128")
        .output()
        .context("running cargo")?;
    if !output.status.success() {
        bail!(
            "the module does not compile\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(folder
        .join(target)
        .join("plugin/edgeweir_kernel_guest.wasm"))
}
