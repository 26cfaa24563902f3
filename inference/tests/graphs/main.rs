//! ONNX graphs as packages, opened and asked as the analyzer does, held against what ONNX Runtime answered for the same
//! inputs (`tests/fixtures`, made by `make.py` there).
//!
//! The library for the backend `onnxruntime` is named by `INSIGHTFORGE_TEST_ONNXRUNTIME`; without it its tests fail.

#[cfg(any(feature = "onnx", feature = "ort"))]
mod broken;
#[cfg(feature = "onnx")]
mod example;
#[cfg(any(feature = "onnx", feature = "ort"))]
mod hostile;
#[cfg(feature = "ort")]
mod library;
#[cfg(any(feature = "onnx", feature = "ort"))]
mod numbers;
mod package;
#[cfg(any(feature = "onnx", feature = "ort"))]
mod texts;
mod trees;
