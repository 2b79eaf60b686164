"""Writing pictures and videos: they read back, and are there whole or not at all, also on a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepose.pictures import load_picture
from edgepose.sources import open_source
from edgepose.writers import VideoWriter, save_picture


def smooth_picture(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y * 2], axis=2).astype(np.uint8)


def write_frames(path: Path, frames: Iterable[np.ndarray]) -> None:
    with VideoWriter(path, 25) as video:
        for frame in frames:
            video.write(frame)


def failing_frames() -> Iterator[np.ndarray]:
    yield smooth_picture()
    raise RuntimeError


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
def test_lossless_pictures_read_back_in_the_order_given(suffix: str, tmp_path: Path) -> None:
    image = smooth_picture()
    for color, expected in (("RGB", image), ("BGR", image[..., ::-1])):
        save_picture(tmp_path / f"a{suffix}", image, color=color)  # type: ignore[arg-type]
        np.testing.assert_array_equal(load_picture(tmp_path / f"a{suffix}")[0], expected)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_pictures_read_back_nearly(suffix: str, tmp_path: Path) -> None:
    save_picture(tmp_path / f"a{suffix}", smooth_picture(), color="RGB")
    read = load_picture(tmp_path / f"a{suffix}")[0].astype(int)
    assert np.abs(read - smooth_picture()).mean() < 3


def test_gray_alpha_and_pillow_pictures_are_saved(tmp_path: Path) -> None:
    image = smooth_picture()
    alpha = np.dstack([image, np.full(image.shape[:2], 9, np.uint8)])
    save_picture(tmp_path / "gray.png", image[:, :, :1])
    save_picture(tmp_path / "alpha.png", alpha)
    save_picture(tmp_path / "alpha.jpg", alpha)
    save_picture(tmp_path / "pillow.png", Image.fromarray(image))
    np.testing.assert_array_equal(load_picture(tmp_path / "gray.png")[0], image[:, :, 0])
    np.testing.assert_array_equal(load_picture(tmp_path / "alpha.png")[0], image[..., ::-1])
    np.testing.assert_array_equal(load_picture(tmp_path / "pillow.png")[0], image)
    assert load_picture(tmp_path / "alpha.jpg")[1] == "RGB"


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.jpgg", smooth_picture(), "did you mean '.jpg'"),
        ("a", smooth_picture(), "ending"),
        ("a.png", smooth_picture().astype(float), "float64"),
        ("a.png", np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        ("a.png", "picture", "got str"),
    ],
)
def test_what_cannot_be_saved_is_refused(name: str, image: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save_picture(tmp_path / name, image)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(FileNotFoundError):
        save_picture(tmp_path / "no/a.png", smooth_picture())
    with pytest.raises(FileNotFoundError):
        write_frames(tmp_path / "no/a.mp4", [smooth_picture()])


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_a_video_reads_back_with_every_frame(suffix: str, size: tuple[int, int], tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    path = tmp_path / f"v{suffix}"
    with VideoWriter(path, 12.5) as video:
        for i in range(30):
            video.write(np.full((*size, 3), (8 * i, 0, 255 - 8 * i), np.uint8), color="RGB")
        assert os.listdir(tmp_path) != [path.name]  # not under its name before it is complete
    assert os.listdir(tmp_path) == [path.name]
    with open_source(path) as source:
        assert source.fps == 12.5
        frames = list(source)
    assert len(frames) == 30
    for i, frame in enumerate(frames):
        assert frame.image.shape == (size[0] // 2 * 2, size[1] // 2 * 2, 3)
        np.testing.assert_allclose(frame.image.mean(axis=(0, 1)), (255 - 8 * i, 0, 8 * i), atol=12)


def test_an_error_inside_leaves_no_video_and_the_old_one_stays(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        write_frames(path, failing_frames())
    assert os.listdir(tmp_path) == ["v.mp4"]
    assert path.read_bytes() == b"old"


def test_a_video_without_frames_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    with VideoWriter(tmp_path / "v.mp4", 25) as video:
        pass
    video.close()
    video.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "fps", "frame", "message"),
    [
        ("v.mpg4", 25, smooth_picture(), "did you mean '.mp4'"),
        ("v.mp4", 0, smooth_picture(), "fps"),
        ("v.mp4", float("nan"), smooth_picture(), "fps"),
        ("v.mp4", 25, smooth_picture()[:, :, 0], "uint8 \\(H, W, 3\\)"),
        ("v.mp4", 25, smooth_picture(1, 40), "at least 2x2"),
    ],
)
def test_wrong_videos_are_refused(name: str, fps: float, frame: np.ndarray, message: str, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match=message), VideoWriter(tmp_path / name, fps) as video:
        video.write(frame)
    assert os.listdir(tmp_path) == []


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match="60x40 frames, got one of 62x40"):
        write_frames(tmp_path / "v.mp4", [smooth_picture(40, 60), smooth_picture(40, 62)])


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"edgepose\[video\]"):
        VideoWriter(tmp_path / "v.mp4", 25)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    free = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - leave))


def test_a_picture_on_a_full_disk_is_an_os_error_and_leaves_nothing(small_disk: Path) -> None:
    fill(small_disk, 8192)
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    with pytest.raises(OSError, match="No space left") as caught:
        save_picture(small_disk / "a.png", noise)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(small_disk) == ["filler"]


def test_a_video_that_fills_the_disk_is_an_os_error_and_leaves_nothing(small_disk: Path) -> None:
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (480, 640, 3), np.uint8)
    with pytest.raises(OSError, match="no room left") as caught:
        write_frames(small_disk / "v.avi", [frame] * 200)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(small_disk) == []


def test_a_disk_that_fills_between_two_checks_is_noticed_at_the_end(small_disk: Path) -> None:
    pytest.importorskip("cv2")
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with pytest.raises(OSError, match="is the disk full"):
        write_frames(small_disk / "v.avi", [noise] * 40)  # 12 MB, in less than the number of frames between checks
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_file_size_limit_is_an_os_error_and_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    """The same where mounting is not permitted: RLIMIT_FSIZE makes writes fail too."""
    pytest.importorskip("cv2")
    code = f"""
        import resource, numpy as np
        from edgepose.writers import VideoWriter, save_picture
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
        for write in (
            lambda: save_picture("a.png", noise),
            lambda: [v.write(noise) for v in [video] for _ in range(20)] and video.close(),
        ):
            video = VideoWriter("v{suffix}", 25)
            try:
                write()
            except OSError as error:
                print("OSError", error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("OSError") == 2
    assert os.listdir(tmp_path) == []
