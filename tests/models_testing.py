"""Small models for tests: written once per test process, trained on a few rows."""

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import skops.io
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

X = np.random.default_rng(7).random((60, 4))
CLASSES = (X[:, 0] > 0.5).astype(int)


def logistic_regression(labels: Any = CLASSES) -> Any:
    """A pipeline that skops writes without types that need trust."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, labels)


def forest() -> Any:
    """A model of trees."""
    return RandomForestClassifier(3, random_state=7).fit(X, CLASSES)


def regression() -> Any:
    """y = 2 a + b, almost."""
    return LinearRegression().fit(X, 2 * X[:, 0] + X[:, 1])


def unfitted() -> Any:
    """Saved too early."""
    return LinearRegression()


def calling(function: Any, argument: str) -> Any:
    """A fitted model that calls a function when it scores."""
    model = make_pipeline(FunctionTransformer(), LinearRegression()).fit(X, X[:, 0])
    model.steps[0][1].set_params(func=function, kw_args={"command": argument})
    return model


def write_skops(model: Any, path: Path) -> Path:
    """Returns the path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skops.io.dump(model, path)
    return path


def write_joblib(model: Any, path: Path, compress: int = 0) -> Path:
    """Returns the path."""
    joblib.dump(model, path, compress=compress)
    return path


def write_onnx(path: Path, factor: float = 2.0) -> Path:
    """y = factor x, for rows of four FP32."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
