"""Train a classifier of tumours on the data that scikit-learn ships (569 patients), and keep some for the replay.

    python train.py [FOLDER]

Writes FOLDER/model.onnx and the patients nobody trained on as FOLDER/patients.jsonl: an object with `patient`,
`benign` (what is known of them), and the 30 measurements by their names.
"""

import json
import sys
from pathlib import Path

from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(folder: Path) -> None:
    """Deterministic: the same folder content every time, for the same versions of the libraries."""
    data = load_breast_cancer()
    train, heldout, labels, known = train_test_split(
        data.data, data.target, test_size=0.4, random_state=0, stratify=data.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, labels)
    # zipmap off: probabilities as one tensor, and not as a list of dictionaries that no protocol carries.
    onnx = to_onnx(model, initial_types=[("X", DoubleTensorType([None, train.shape[1]]))], options={"zipmap": False})
    (folder / "model.onnx").write_bytes(onnx.SerializeToString())
    names = [str(name) for name in data.feature_names]
    with (folder / "patients.jsonl").open("w") as file:
        for number, (row, benign) in enumerate(zip(heldout.tolist(), known.tolist(), strict=True)):
            file.write(json.dumps({"patient": number, "benign": benign, **dict(zip(names, row, strict=True))}) + "\n")
    print(f"trained on {len(train)} patients; {len(heldout)} for the replay lie in {folder}/patients.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
