//! What runs a graph: tensors in, tensors out. The embedded engine, the operator's ONNX Runtime and the native trees are
//! each one of these.

use crate::model::{RunsOn, Tensor};

/// An opened graph. A call may come on several threads at once.
pub(crate) trait Engine: Send + Sync + 'static {
    fn runs_on(&self) -> RunsOn;

    /// Memory it keeps, in bytes.
    fn resident_bytes(&self) -> u64;

    fn inputs(&self) -> &[Port];

    fn outputs(&self) -> &[Port];

    /// Names of the classes, where the graph itself knows them.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// Runs the graph once: every input, batch dimension included, for the outputs at these places in
    /// [`Engine::outputs`].
    ///
    /// # Errors
    /// Why it could not be run, for people.
    fn run(&self, inputs: Vec<Tensor>, outputs: &[usize]) -> Result<Vec<Tensor>, String>;
}

/// An input or an output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Its dimensions, `None` for those that are free; `None` when the graph does not say.
    pub(crate) shape: Option<Vec<Option<usize>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Numbers with a fraction, of any width.
    Float,
    /// Whole numbers and truth values, of any width.
    Int,
    Text,
    /// The graph does not say.
    Unknown,
    /// Nothing we can give or take, such as a sequence of maps.
    Other(String),
}
