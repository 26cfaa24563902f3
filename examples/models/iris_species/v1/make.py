"""Trains the model beside this file and prints what model.toml says of it.

    python -m venv venv && venv/bin/pip install numpy onnx scikit-learn && venv/bin/python make.py

A small perceptron over scikit-learn's copy of the iris table, written as three plain ONNX operators. Seeded.
"""

import hashlib
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

FILE = pathlib.Path(__file__).resolve().parent / "model.onnx"


def main() -> None:
    table = load_iris()
    rows, kinds = table.data.astype(np.float32), table.target
    learn, test, learn_kinds, test_kinds = train_test_split(rows, kinds, test_size=0.4, random_state=7, stratify=kinds)
    model = MLPClassifier((8,), activation="relu", max_iter=4000, random_state=7).fit(learn, learn_kinds)
    FILE.write_bytes(graph(model).SerializeToString())
    print(f'"model.onnx" = "{hashlib.sha256(FILE.read_bytes()).hexdigest()}"')
    print(f"accuracy on the {len(test)} rows it was not trained on: {model.score(test, test_kinds):.4f}")


def graph(model: MLPClassifier) -> onnx.ModelProto:
    weights = {}
    for layer, (matrix, bias) in enumerate(zip(model.coefs_, model.intercepts_)):
        weights[f"w{layer}"], weights[f"b{layer}"] = matrix.astype(np.float32), bias.astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["features", "w0", "b0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w1", "b1"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "iris", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


if __name__ == "__main__":
    main()
