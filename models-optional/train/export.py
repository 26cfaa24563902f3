"""From a fine-tuned torch model to an int8 ONNX file, and ONNX Runtime sessions to judge it with."""

import pathlib

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Encoding
from torch import nn

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def to_onnx(model: nn.Module, path: pathlib.Path) -> None:
    """f32, batch and tokens of any size."""
    model.eval()
    example = torch.ones(2, 9, dtype=torch.int64)
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    tokens = {1: "tokens"} if model(example, example, example * 0).dim() == 3 else {}
    torch.onnx.export(
        model,
        (example, example, example * 0),
        str(path),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes={**axes, "logits": {0: "batch", **tokens}},
        opset_version=17,
        dynamo=False,
    )


def to_int8(source: pathlib.Path, target: pathlib.Path) -> None:
    """Weights to int8, one scale a column; activations are quantised while it runs, one scale a tensor."""
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def logits(session: onnxruntime.InferenceSession, encodings: list[Encoding]) -> list[np.ndarray]:
    """One call a text: an int8 model takes its scales from the whole batch, and a text alone is the plainest case."""
    found = []
    for encoding in encodings:
        ids = np.array([encoding.ids], np.int64)
        [[answer]] = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
        found.append(answer)
    return found
