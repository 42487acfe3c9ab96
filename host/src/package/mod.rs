//! `edgeweir package`: images that registries hold and Envoy's and Spin's control planes pull.

mod contents;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use edgeweir_host_package::{Form, Layout, Written};
use serde_json::json;

use contents::Contents;

/// Arguments of `package`.
#[derive(clap::Args, Debug)]
pub struct Package {
    /// Modules, components, and `spin.toml` manifests.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The image layout to write to; made where it is not there. Images of other names in it stay.
    #[arg(long, value_name = "DIR", default_value = "target/images")]
    pub to: PathBuf,
    /// Only this form: `envoy` (Istio and Envoy Gateway), `wasm` (CNCF's Wasm artifact) or `spin`. Default: each that the file can have.
    #[arg(long = "form", value_name = "FORM", value_parser = form)]
    pub forms: Vec<Form>,
    /// The image's name; default: the filter's own, else the file's. For one file only.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The image's tag; default: the filter's own version, else `latest`.
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// What was written as JSON.
    #[arg(long)]
    pub json: bool,
}

fn form(text: &str) -> Result<Form, String> {
    [Form::Envoy, Form::Wasm, Form::Spin]
        .into_iter()
        .find(|form| form.name() == text)
        .ok_or_else(|| "the forms are envoy, wasm and spin".to_owned())
}

/// Writes the images, and gives what is to be said of them.
///
/// # Errors
/// A file that is not Wasm, a form that it cannot have, two images of one name; what the file system says.
pub fn execute(arguments: &Package) -> anyhow::Result<String> {
    if arguments.name.is_some() && arguments.files.len() > 1 {
        bail!(
            "--name is for one file; {} are given",
            arguments.files.len()
        );
    }
    // All that can be wrong with the files is found before anything is written.
    let mut images = BTreeMap::new();
    let mut notes = Vec::new();
    for file in &arguments.files {
        let contents = Contents::read(file)?;
        notes.extend_from_slice(contents.notes());
        for form in contents.forms(&arguments.forms) {
            let form = form.with_context(|| file.display().to_string())?;
            let reference =
                contents.reference(form, arguments.name.as_deref(), arguments.tag.as_deref())?;
            let image = contents
                .image(form)
                .with_context(|| file.display().to_string())?;
            if let Some((other, _)) = images.insert(reference.clone(), (file, image)) {
                return Err(anyhow!(
                    "{} and {} would both be {reference}; --name or --tag tells them apart",
                    other.display(),
                    file.display()
                ));
            }
        }
    }
    let folder = || format!("the image layout {}", arguments.to.display());
    let mut layout = Layout::open(&arguments.to).with_context(folder)?;
    let mut written = Vec::new();
    for (reference, (_, image)) in &images {
        written.push(layout.add(reference, image).with_context(folder)?);
    }
    Ok(if arguments.json {
        format!("{:#}\n", as_json(arguments, &written, &notes))
    } else {
        as_text(arguments, &written, &notes)
    })
}

fn as_json(arguments: &Package, written: &[Written], notes: &[String]) -> serde_json::Value {
    let images: Vec<_> = written
        .iter()
        .map(|image| {
            json!({
                "reference": image.reference,
                "form": image.form.name(),
                "digest": image.digest.to_string(),
                "size": image.size,
            })
        })
        .collect();
    json!({ "layout": arguments.to, "images": images, "notes": notes })
}

fn as_text(arguments: &Package, written: &[Written], notes: &[String]) -> String {
    let wide = |of: fn(&Written) -> usize| written.iter().map(of).max().unwrap_or_default();
    let (reference, size) = (
        wide(|image| image.reference.len()),
        wide(|image| crate::report::bytes(image.size).len()),
    );
    let mut text = String::new();
    for image in written {
        let _ = writeln!(
            text,
            "{:<reference$}  {:<5}  {:>size$}  {}",
            image.reference,
            image.form.name(),
            crate::report::bytes(image.size),
            image.digest
        );
    }
    for note in notes {
        let _ = writeln!(text, "note: {note}");
    }
    let folder = arguments.to.display();
    if let Some(first) = written.first() {
        let _ = writeln!(
            text,
            "\nwritten to {folder}; any tool for OCI layouts brings them to a registry:\n  \
             skopeo copy oci:{folder}:{0} docker://REGISTRY/{0}\n  \
             oras cp --from-oci-layout {folder}:{0} REGISTRY/{0}",
            first.reference
        );
    }
    text
}
