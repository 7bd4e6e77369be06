"""Rows that the model refuses, or that end it, are found one by one; all others are scored."""

from collections.abc import Mapping as Map
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_testing import virtual
from modelyard.base.errors import UserError
from modelyard.runtime.backends.port import WorkerDied
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.runtime.scoring.records import Batch, RowError, numbered
from modelyard.runtime.scoring.scorer import Scored, Scorer
from modelyard.wire.work import TensorSpec

X, Y = (TensorSpec(name=name, datatype="INT64", shape=(-1,)) for name in ("x", "y"))


class Model:
    """y = 2 x. refuses, kills: values of x that it does so for; flaky: how often it dies for nothing."""

    inputs, outputs = (X,), (Y,)

    def __init__(self, refuses: Any = (), kills: Any = (), flaky: int = 0) -> None:
        self.calls: list[int] = []
        self._refuses, self._kills, self._flaky = set(refuses), set(kills), flaky

    async def infer(self, inputs: Map[str, Any]) -> Map[str, Any]:
        values = set(inputs["x"].tolist())
        self.calls.append(len(inputs["x"]))
        if self._flaky or values & self._kills:
            self._flaky = max(0, self._flaky - 1)
            raise WorkerDied("the worker was killed by SIGSEGV", retry_after_seconds=0.5)
        if values & self._refuses:
            raise UserError("the model refused the values: too large")
        return {"y": inputs["x"] * 2}

    async def close(self) -> None:
        pass


async def score(model: Model, rows: int, batch_rows: int = 64) -> Scored:
    mapping = Mapping.resolve(pa.schema([("x", pa.int64())]), (X,), (), ("x",))
    batch = numbered(pa.table({"x": list(range(rows))}), 1000)
    return await Scorer(model, mapping, (Y,), batch_rows).score(batch)


@given(
    rows=st.integers(0, 120),
    refuses=st.sets(st.integers(0, 119), max_size=6),
    kills=st.sets(st.integers(0, 119), max_size=4),
    batch_rows=st.integers(1, 64),
)
def test_exactly_the_poisonous_rows_are_errors(rows: int, refuses: set[int], kills: set[int], batch_rows: int) -> None:
    @virtual
    async def scenario() -> None:
        model = Model(refuses, kills)
        found = await score(model, rows, batch_rows)
        bad = {each for each in refuses | kills if each < rows}
        good = [each for each in range(rows) if each not in bad]
        assert found.table["x"].to_pylist() == good
        assert found.table["y"].to_pylist() == [2 * each for each in good]
        assert [each.row for each in found.errors] == [1000 + each for each in sorted(bad)]
        for each in found.errors:
            killer = each.row - 1000 in kills
            assert each.code == ("Crashed" if killer else "Refused")
            assert each.message == ("the worker was killed by SIGSEGV" if killer else "too large")
            assert each.key == {"x": each.row - 1000}
        assert all(size <= batch_rows for size in model.calls)
        assert len(model.calls) <= -(-rows // batch_rows) + 4 * len(bad) * 8

    scenario()


@virtual
async def test_a_model_that_ends_for_nothing_is_asked_again_after_its_pause() -> None:
    model = Model(flaky=1)
    found = await score(model, 50)
    assert (found.table.num_rows, found.errors, model.calls) == (50, (), [50, 50])


@virtual
async def test_a_model_that_refuses_everything_is_not_asked_for_every_row() -> None:
    model = Model(refuses=range(4096))
    found = await score(model, 4096, 4096)
    assert len(found.errors) == 4096
    assert found.table.num_rows == 0
    assert len(model.calls) < 200


@virtual
async def test_one_good_row_among_bad_ones_is_found() -> None:
    found = await score(Model(refuses=set(range(300)) - {7}), 300, 300)
    assert found.table["x"].to_pylist() == [7]


@virtual
async def test_answers_of_another_length_are_the_models_fault() -> None:
    class Odd(Model):
        async def infer(self, inputs: Map[str, Any]) -> Map[str, Any]:
            return {"y": np.zeros(1, np.int64)}

    with pytest.raises(UserError, match="does not give what its signature says"):
        await score(Odd(), 5)


@virtual
async def test_a_batch_without_rows_asks_nobody() -> None:
    model = Model()
    mapping = Mapping.resolve(pa.schema([("x", pa.int64())]), (X,), (), ())
    found = await Scorer(model, mapping, (Y,), 5).score(
        Batch(table=pa.table({"x": pa.array([], pa.int64())}), rows=np.array([], int))
    )
    assert (found.table.num_rows, model.calls) == (0, [])


class Widths:
    """y: how wide the rows are. Batches are of one width, as for any model."""

    inputs, outputs = (TensorSpec(name="x", datatype="FP64", shape=(-1, -1)),), (Y,)

    async def infer(self, inputs: Map[str, Any]) -> Map[str, Any]:
        rows, width = inputs["x"].shape
        return {"y": np.full(rows, width)}

    async def close(self) -> None:
        pass


@given(st.lists(st.none() | st.integers(0, 3), max_size=20))
def test_rows_of_several_sizes_are_all_scored_and_stay_in_order(widths: list[int | None]) -> None:
    @virtual
    async def scenario() -> None:
        lists = pa.array([None if each is None else [0.0] * each for each in widths], pa.list_(pa.float64()))
        table = pa.table({"x": lists, "id": pa.array(range(len(widths)), pa.int64())})
        mapping = Mapping.resolve(table.schema, Widths.inputs, (), ("id",))
        batch = Batch(
            table=table,
            rows=np.arange(100, 100 + len(widths)),
            errors=(RowError(row=99, code="Unreadable", message="before"),),
        )
        found = await Scorer(Widths(), mapping, Widths.outputs, 7).score(batch)
        good = [number for number, each in enumerate(widths) if each is not None]
        assert found.table["id"].to_pylist() == good
        assert found.table["y"].to_pylist() == [widths[number] for number in good]
        assert [each.row for each in found.errors] == [
            99,
            *(100 + number for number, each in enumerate(widths) if each is None),
        ]

    scenario()


@virtual
async def test_answers_of_other_types_are_the_models_fault() -> None:
    class Odd(Model):
        async def infer(self, inputs: Map[str, Any]) -> Map[str, Any]:
            return {"y": np.array(["a"] * len(inputs["x"]), object)}

    with pytest.raises(UserError, match="does not give what its signature says"):
        await score(Odd(), 5)
