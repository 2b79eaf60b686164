"""SavedModels, frozen graphs and TensorFlow.js models give, run by TensorFlow (the last in Chromium too), the people
that the checkpoint gives."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepose_trainer.export import verify
from edgepose_trainer.export.formats.tfjs import open_tfjs
from edgepose_trainer.model import PoseModel
from exporting import OPTIONS, assert_same_people, people_of_checkpoint

from edgepose.cli import main

FORMATS = ("saved_model", "pb", "tfjs")


@pytest.fixture(autouse=True, scope="module")
def _converter(needs: Callable[[str], None]) -> None:
    needs("saved_model")


@pytest.fixture(scope="module")
def exported(person: Path, people_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tensorflow")
    return {
        name: PoseModel(person).export(name, imgsz=(64, 96), data=people_data, out=folder / name) for name in FORMATS
    }


@pytest.mark.parametrize("name", FORMATS)
def test_it_finds_the_same_people_and_is_verified(
    name: str, exported: dict[str, Path], person: Path, pictures: list[Any]
) -> None:
    runner = PoseModel(exported[name]).runner(**OPTIONS)
    assert_same_people(runner.predict(pictures), people_of_checkpoint(person, pictures, (64, 96)), 0.05, 1e-3)
    assert runner.spec.origin["parity"]["passed"]
    left = {"saved_model": {"best_saved_model"}, "pb": {"best.pb", "best.pb.edgepose.json"}, "tfjs": {"best_web_model"}}
    assert {file.name for file in exported[name].parent.iterdir()} == left[name]


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_takes_it(name: str, exported: dict[str, Path], people_data: Path, tmp_path: Path) -> None:
    assert main(["info", f"model={exported[name]}"]) == 0
    picture = next((people_data.parent / "images" / "val").iterdir())
    assert main(["predict", f"model={exported[name]}", f"source={picture}", f"project={tmp_path}"]) == 0
    assert main(["val", f"model={exported[name]}", f"data={people_data}", "plots=false"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_batch_of_three_classes_of_four_points(
    name: str, make_checkpoint: Callable[..., Path], pictures: list[Any]
) -> None:
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    path = PoseModel(checkpoint).export(name, imgsz=(64, 96), batch=3)
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    assert_same_people(PoseModel(path).runner(**OPTIONS).predict(pictures), expected, 0.05, 1e-3)


def test_a_damaged_graph_is_told(exported: dict[str, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copy(exported["pb"], tmp_path))
    with pytest.raises(ValueError, match=r"best\.pb\.edgepose\.json"):
        PoseModel(broken).runner()
    shutil.copy(f"{exported['pb']}.edgepose.json", tmp_path)
    broken.write_bytes(broken.read_bytes()[:5000])
    with pytest.raises(ValueError, match="TensorFlow does not take it"):
        PoseModel(broken).runner()


def test_a_damaged_saved_model_is_told(exported: dict[str, Path], tmp_path: Path) -> None:
    broken = shutil.copytree(exported["saved_model"], tmp_path / "best_saved_model")
    (broken / "saved_model.pb").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(ValueError, match="TensorFlow does not take it"):
        PoseModel(broken).runner()


def test_uint8_weights_take_a_quarter_and_find_nearly_the_same(
    exported: dict[str, Path], person: Path, people_data: Path
) -> None:
    folder = exported["tfjs"].parent
    path = PoseModel(person).export("tfjs", int8=True, imgsz=(64, 96), out=folder, verify=False)
    assert path.name == "best_uint8_web_model"
    weights = [(place / "group1-shard1of1.bin").stat().st_size for place in (path, exported["tfjs"])]
    assert weights[0] < 0.3 * weights[1]
    parity = verify(path, person, people_data)
    assert parity.precision == "dynamic"
    assert parity.matched > 0.9


@pytest.mark.parametrize("name", ["model.json", "group1-shard1of1.bin"])
def test_a_damaged_web_model_is_told(name: str, exported: dict[str, Path], tmp_path: Path) -> None:
    broken = shutil.copytree(exported["tfjs"], tmp_path / "best_web_model")
    file = broken / name
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        PoseModel(broken).runner()
    file.unlink()
    with pytest.raises(ValueError, match="damaged"):
        PoseModel(broken).runner()


SCRIPT = """
const [values, shape, done] = arguments;
tf.setBackend("cpu").then(async () => {
  const model = await tf.loadGraphModel("model/model.json");
  const names = model.outputs.map(output => output.name);
  const found = await model.executeAsync(tf.tensor(values, shape), names);
  done(names.map((name, i) => [name, found[i].shape, Array.from(found[i].dataSync())]));
}).catch(error => done(String(error)));
"""


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_chromium_computes_what_tensorflow_does(int8: bool, person: Path, tmp_path: Path) -> None:
    """The folder as exported, served to TensorFlow.js in a real browser."""
    webdriver = pytest.importorskip("selenium.webdriver")
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver", "npm")}
    if None in found.values():
        pytest.skip(f"needs {', '.join(name for name, path in found.items() if path is None)}")
    path = PoseModel(person).export("tfjs", int8=int8, imgsz=64, out=tmp_path / "out", verify=False)
    site = tmp_path / "site"
    shutil.copytree(path, site / "model")
    subprocess.run(
        [str(found["npm"]), "install", "--silent", "--no-audit", "--no-fund", "@tensorflow/tfjs@4.22.0"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    shutil.copy(tmp_path / "node_modules/@tensorflow/tfjs/dist/tf.min.js", site)
    (site / "index.html").write_text('<!doctype html><script src="tf.min.js"></script>')
    picture = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    with serving(site) as url, browser(webdriver, found) as driver:
        driver.get(url)
        driver.set_script_timeout(120)
        answer = driver.execute_async_script(SCRIPT, picture.ravel().tolist(), list(picture.shape))
    assert isinstance(answer, list), answer
    seen = {name.partition(":")[0]: np.array(values, np.float32).reshape(shape) for name, shape, values in answer}
    artifact = open_tfjs(path, "cpu")
    backend: Any = artifact.backend
    backend.input_buffer(picture.shape)[:] = picture
    expected = {output.name: values for output, values in zip(artifact.spec.outputs, backend.infer(), strict=True)}
    for name, values in expected.items():  # both in float32, summed in another order
        np.testing.assert_allclose(seen[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def browser(webdriver: Any, programs: dict[str, str | None]) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    try:
        yield driver
    finally:
        driver.quit()
