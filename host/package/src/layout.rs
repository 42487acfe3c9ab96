//! An OCI image layout: a folder of blobs by digest, and an index that names the images in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::{fs, str::FromStr as _};

use oci_spec::OciSpecError;
use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageIndex, ImageIndexBuilder, ImageManifestBuilder, MediaType,
    OciLayoutBuilder, Sha256Digest,
};

use crate::blob::{Blob, Digest};
use crate::image::{Form, Image};

/// The annotation by which an index names an image.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// A folder that holds images.
pub struct Layout {
    folder: PathBuf,
    images: BTreeMap<String, Descriptor>,
}

/// An image that is in a layout.
#[derive(Clone, Debug)]
pub struct Written {
    /// The name it has there: `cache:0.1.0`.
    pub reference: String,
    /// Who reads it.
    pub form: Form,
    /// The digest of its manifest: what a deployment pins.
    pub digest: Digest,
    /// All of its blobs, bytes.
    pub size: u64,
}

impl Layout {
    /// Opens a layout, or begins one in a folder that is empty or not there.
    ///
    /// Images of other names stay; one of the same name is replaced.
    ///
    /// # Errors
    /// What the file system says; a folder that holds something else; an index that cannot be read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let marker = folder.join("oci-layout");
        let mut images = BTreeMap::new();
        if marker.exists() {
            let index = ImageIndex::from_file(folder.join("index.json")).map_err(damaged)?;
            for descriptor in index.manifests() {
                let name = descriptor
                    .annotations()
                    .as_ref()
                    .and_then(|annotations| annotations.get(REFERENCE))
                    .cloned()
                    .unwrap_or_else(|| descriptor.digest().to_string());
                images.insert(name, descriptor.clone());
            }
        } else {
            if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "the folder is not empty, and not an image layout (it has no file oci-layout)",
                ));
            }
            fs::create_dir_all(folder)?;
        }
        fs::create_dir_all(folder.join("blobs").join("sha256"))?;
        Ok(Self {
            folder: folder.to_owned(),
            images,
        })
    }

    /// Writes an image's blobs and puts it in the index.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add(&mut self, reference: &str, image: &Image) -> io::Result<Written> {
        let config = self.write(&image.config)?;
        let layers = image
            .layers
            .iter()
            .map(|layer| self.write(layer))
            .collect::<io::Result<Vec<_>>>()?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers)
            .annotations(
                image
                    .annotations
                    .clone()
                    .into_iter()
                    .collect::<std::collections::HashMap<_, _>>(),
            )
            .build()
            .map_err(damaged)?;
        // By way of a tree, whose keys have an order: the same manifest is always the same bytes.
        let manifest = Blob {
            media_type: "application/vnd.oci.image.manifest.v1+json",
            bytes: serde_json::to_vec(&serde_json::to_value(&manifest)?)?,
        };
        let mut descriptor = self.write(&manifest)?;
        descriptor.set_annotations(Some(
            [(REFERENCE.to_owned(), reference.to_owned())]
                .into_iter()
                .collect(),
        ));
        self.images.insert(reference.to_owned(), descriptor);
        self.index()?;
        let blobs = image.layers.iter().chain([&image.config, &manifest]);
        Ok(Written {
            reference: reference.to_owned(),
            form: image.form,
            digest: manifest.digest(),
            size: blobs.map(|blob| blob.bytes.len() as u64).sum(),
        })
    }

    fn write(&self, blob: &Blob) -> io::Result<Descriptor> {
        let digest = blob.digest();
        replace(
            &self.folder.join("blobs").join("sha256").join(digest.hex()),
            &blob.bytes,
        )?;
        DescriptorBuilder::default()
            .media_type(MediaType::from(blob.media_type))
            .digest(Sha256Digest::from_str(digest.hex()).map_err(damaged)?)
            .size(blob.bytes.len() as u64)
            .build()
            .map_err(damaged)
    }

    /// The index last: what it names is there.
    fn index(&self) -> io::Result<()> {
        let index = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageIndex)
            .manifests(self.images.values().cloned().collect::<Vec<_>>())
            .build()
            .map_err(damaged)?;
        let index = serde_json::to_vec_pretty(&serde_json::to_value(&index)?)?;
        replace(&self.folder.join("index.json"), &index)?;
        let marker = OciLayoutBuilder::default()
            .image_layout_version("1.0.0")
            .build()
            .map_err(damaged)?;
        replace(
            &self.folder.join("oci-layout"),
            &serde_json::to_vec(&marker)?,
        )
    }
}

/// Writes a file whole or not at all.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = file.with_extension("part");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, file)
}

fn damaged(error: OciSpecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
