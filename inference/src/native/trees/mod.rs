//! Trees and linear models of `ai.onnx.ml`, as skl2onnx writes scikit-learn's: evaluated here, without an engine.
//!
//! In reading order: [`graph`] a file becomes operators in order; [`operator`] what each of them is; [`ensemble`] trees;
//! [`linear`] sums of weighted columns, and scalers; [`classes`] labels and scores; [`encode`] categories;
//! [`arithmetic`] the plain operators between them; [`attributes`] how nodes say what they are.
//!
//! A graph is served when the outputs it is asked for need no other operators. Each operator computes what ONNX Runtime
//! computes, to 1e-4.

mod arithmetic;
mod attributes;
mod classes;
mod encode;
mod ensemble;
mod graph;
mod linear;
mod operator;

use crate::model::Model;
use crate::onnx::engine::Engine;
use crate::onnx::graph::GraphModel;
use crate::onnx::section::Section;
use crate::open::OpenError;
use crate::package::Package;

/// Opens a package whose backend is `trees`.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn open(package: &Package) -> Result<Box<dyn Model>, OpenError> {
    let section: Section = package.manifest.section()?;
    if !section.data.is_empty() {
        return Err(OpenError::Broken(
            "model.toml: [trees]: data: these graphs keep nothing in other files".to_owned(),
        ));
    }
    let engine = || {
        let trees = graph::Trees::read(package.file(&section.file)?.into_owned())
            .map_err(|reason| OpenError::Broken(format!("{}: {reason}", section.file)))?;
        Ok(Box::new(trees) as Box<dyn Engine>)
    };
    Ok(Box::new(GraphModel::open(package, &section, "trees", engine)?))
}
