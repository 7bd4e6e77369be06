import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.wire import report
from modelyard.wire.work import TensorSpec


def test_a_report_reads_back() -> None:
    found = report.Report(prepare=report.PrepareReport(digest="sha256:x", format="onnx", size_bytes=3))
    assert report.decode(report.encode(found)) == found


@given(st.text(max_size=6000))
def test_a_failure_always_fits_whatever_the_message(message: str) -> None:
    data = report.encode(report.failure("LoadFailed", message, retry=True))
    assert len(data) <= report.MAX_BYTES
    read = report.decode(data)
    assert read.failure is not None
    assert read.failure.retry


def test_a_signature_that_is_too_large_is_refused() -> None:
    inputs = tuple(TensorSpec(name=f"column-{i}", datatype="FP64", shape=(-1,)) for i in range(200))
    with pytest.raises(UserError, match="too many inputs"):
        report.encode(report.Report(prepare=report.PrepareReport(digest="d", format="f", inputs=inputs)))


@given(st.binary(max_size=5000))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    with pytest.raises(UserError):
        report.decode(data)


@given(st.lists(st.sampled_from(["\0", "\\", "u0000", "a", "\n"]), max_size=12).map("".join))
def test_nul_in_a_text_is_replaced_and_nothing_else(text: str) -> None:
    read = report.decode(report.encode(report.failure("RowFailed", text)))
    assert read.failure is not None
    assert read.failure.message == text.replace("\0", "\ufffd")


def test_what_a_server_compared_fits_beside_its_models() -> None:
    most = {
        name: 1.7976931348623157e308 if name.startswith("largest_") else 2**63 - 1
        for name in report.ShadowReport.__struct_fields__
    }
    shadow = report.ShadowReport(**most)  # type: ignore[arg-type]
    found = report.Report(serve=report.ServeReport(ready=True, models=("m" * 256,) * 8, shadow=shadow))
    assert report.decode(report.encode(found)) == found


def test_several_comparisons_are_one() -> None:
    one = report.ShadowReport(compared=1, different=1, largest_noise=0.5)
    other = report.ShadowReport(compared=2, skipped=3, largest_noise=0.25, largest_difference=1.0)
    assert report.together(()) == report.ShadowReport()
    assert report.together((one, other)) == report.ShadowReport(
        compared=3, different=1, skipped=3, largest_noise=0.5, largest_difference=1.0
    )
