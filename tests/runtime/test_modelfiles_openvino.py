from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepose.modelfiles.openvino import read_rt_info, write_rt_info

openvino = pytest.importorskip("openvino")

DOCUMENT = '{"a": "<é & \\"q\\">", "b": [1, 2]}\n\t\'x\''


@pytest.fixture
def path(make_openvino: Callable[..., Path]) -> Path:
    return make_openvino({"output0": (1, 56, 126)})


def test_a_model_without_it_has_none(path: Path) -> None:
    assert read_rt_info(str(path)) is None


def test_what_openvino_wrote_is_read(path: Path) -> None:
    model = openvino.Core().read_model(path)
    model.set_rt_info(DOCUMENT, "edgepose")
    other = path.with_name("other.xml")
    openvino.save_model(model, other)
    assert read_rt_info(str(other)) == DOCUMENT


def test_what_is_written_is_read_by_openvino(path: Path) -> None:
    write_rt_info(str(path), DOCUMENT)
    assert openvino.Core().read_model(path).get_rt_info("edgepose").astype(str) == DOCUMENT
    assert read_rt_info(str(path)) == DOCUMENT


def test_writing_again_replaces_it_and_keeps_everything_else(path: Path) -> None:
    write_rt_info(str(path), "first")
    once = path.read_bytes()
    write_rt_info(str(path), "second")
    assert path.read_bytes() == once.replace(b'"first"', b'"second"')


def test_a_model_without_any_rt_info_gets_one(path: Path) -> None:
    text = path.read_text()
    path.write_text(text[: text.index("\t<rt_info>")] + text[text.index("</rt_info>") + len("</rt_info>\n") :])
    write_rt_info(str(path), DOCUMENT)
    assert openvino.Core().read_model(path).get_rt_info("edgepose").astype(str) == DOCUMENT


def test_the_rt_info_of_a_layer_is_left_alone(path: Path) -> None:
    text = path.read_text()
    first_layer = text.index("</layer>")
    entry = '<rt_info><attribute name="edgepose" value="layer" /><edgepose value="layer"/></rt_info>'
    path.write_text(text[:first_layer] + entry + text[first_layer:])
    assert read_rt_info(str(path)) is None


def test_a_truncated_topology_is_refused_when_written(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="not a whole OpenVINO model"):
        write_rt_info(str(path), "x")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60))
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.xml"
    path.write_text('<net name="m"><layers></layers><edges></edges></net>')
    write_rt_info(str(path), text)
    assert read_rt_info(str(path)) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80))
def test_any_bytes_give_text_or_none(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.xml"
    path.write_bytes(b'</edges><rt_info><edgepose value="&#' + junk + b"</rt_info>")
    assert isinstance(read_rt_info(str(path)), (str, type(None)))


def test_blanks_without_end_cost_no_time(path: Path) -> None:
    """Quadratic time would be hours."""
    text = path.read_bytes().replace(b"</net>", b"<rt_info>" + b" " * 4_000_000 + b"</rt_info></net>")
    path.write_bytes(text)
    assert read_rt_info(str(path)) is None
