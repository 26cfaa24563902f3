//! ONNX graphs, whatever runs them.
//!
//! In reading order: [`section`] what the manifest says of the graph; [`text`] and [`tensors`] a document becomes
//! windows of tokens or named tensors; [`gather`] prepared inputs become runs; [`engine`] what runs a graph, and
//! [`embedded`] and [`runtime`] two that do (the third is `native::trees`); [`output`] outputs become result documents;
//! [`graph`] the whole as a model.
//!
//! Parity: an answer here equals what the reference runtime computes from the same tensors to 1e-4. Padding changes no
//! answer of a graph in floating point. In a graph quantised dynamically it can, in the third digit: such graphs scale
//! their activations over the whole batch. `batch.max_items = 1` rules that out.

pub(crate) mod engine;
pub(crate) mod gather;
pub(crate) mod graph;
pub(crate) mod output;
pub(crate) mod proto;
pub(crate) mod section;
pub(crate) mod tensors;

#[cfg(feature = "onnx")]
mod embedded;
#[cfg(not(any(feature = "onnx", feature = "ort")))]
mod no_text;
#[cfg(feature = "ort")]
mod runtime;
#[cfg(any(feature = "onnx", feature = "ort"))]
mod text;

#[cfg(not(any(feature = "onnx", feature = "ort")))]
pub(crate) use no_text::TextReader;
#[cfg(any(feature = "onnx", feature = "ort"))]
pub(crate) use text::TextReader;

#[cfg(feature = "onnx")]
pub(crate) use embedded::open as open_embedded;
#[cfg(feature = "ort")]
pub(crate) use runtime::open as open_runtime;
