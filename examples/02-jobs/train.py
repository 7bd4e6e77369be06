"""A training program: a forest on data/digits/train.parquet, written as ONNX to OUTPUT_DIR/model/forest.onnx.

It tells how far it is, and how good, in PROGRESS_FILE.
"""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score


def tell(percentage: int, **metrics: float) -> None:
    """The last line counts."""
    with Path(os.environ["PROGRESS_FILE"]).open("a") as file:
        file.write(json.dumps({"progressPercentage": percentage, "metrics": metrics}) + "\n")


def main(data: Path, folder: Path) -> None:
    """Train, measure, write."""
    table = pq.read_table(data)
    pixels = np.stack(table["pixels"].to_numpy())
    labels = table["label"].to_numpy()
    tell(10)
    forest = RandomForestClassifier(n_estimators=100, random_state=0)
    accuracy = float(cross_val_score(forest, pixels, labels, cv=3).mean())
    tell(70, accuracy=accuracy)
    forest.fit(pixels, labels)
    onnx = to_onnx(
        forest, initial_types=[("pixels", DoubleTensorType([None, pixels.shape[1]]))], options={"zipmap": False}
    )
    (folder / "model").mkdir()
    (folder / "model" / "forest.onnx").write_bytes(onnx.SerializeToString())
    tell(100, accuracy=accuracy, images=len(labels))
    print(f"accuracy {accuracy:.1%} in cross-validation on {len(labels)} images")


if __name__ == "__main__":
    main(Path("data/digits/train.parquet"), Path(os.environ["OUTPUT_DIR"]))
