"""The parity gate: does an artifact still find what the float checkpoint found?"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgepose
from edgepose.contract import ModelSpec
from edgepose.result import PoseResult
from edgepose.runner import PoseRunner
from edgepose_trainer.data import DataConfig, PoseDataset, build_dataset
from edgepose_trainer.data.files import cache_dir, write_whole
from edgepose_trainer.export.calibration import CALIBRATED
from edgepose_trainer.metrics import Evaluator, Found
from edgepose_trainer.validate import truth_of

MAX_PICTURES = 500
SEEN = 0.25
"""A person counts from this score on, PoseRunner's own default."""
ALMOST = 0.10
"""The other model must know the same person at least with this score: 0.24 beside 0.26 is no miss."""
MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a precision may cost. matched: least share of people that both find; pixels: most of the 99th percentile of
    keypoint distances, in pixels of the input at a long side of 320, in proportion elsewhere; score: most of the median
    difference of scores; ap: most that AP falls.
    """

    matched: float
    pixels: float
    score: float
    ap: float


TOLERANCES = {
    "float32": Tolerance(0.999, 0.1, 0.001, 0.001),
    "float16": Tolerance(0.99, 1.5, 0.005, 0.002),
    "dynamic": Tolerance(0.95, 12.0, 0.03, 0.010),
    "int8": Tolerance(0.90, 25.0, 0.04, 0.010),
    "mixed": Tolerance(0.90, 25.0, 0.04, 0.010),
}
"""By the artifact's precision. docs/export.md says where the numbers come from."""


class ParityError(RuntimeError):
    """The artifact is there, marked as failed, and does not do what the checkpoint does. path: where it is; parity: the
    comparison, None where its runtime could not run it."""

    def __init__(self, message: str, path: Path, parity: Parity | None) -> None:
        super().__init__(message)
        self.path, self.parity = path, parity


@dataclass(frozen=True)
class Parity:
    """What the comparison found.

    matched: share of people that both find. keypoint_p50, keypoint_p99: distance in pixels of the input. score_p50,
    score_max: difference of the matched people's scores. ap, reference_ap: OKS AP of both; None without labels.
    """

    pictures: int
    people: int
    matched: float
    keypoint_p50: float
    keypoint_p99: float
    score_p50: float
    score_max: float
    ap: float | None
    reference_ap: float | None
    data: str
    precision: str
    tolerance: Tolerance
    failures: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """For the artifact's metadata."""
        return {
            name: round(value, 5) if isinstance(value, float) else value
            for name, value in (
                ("passed", self.passed),
                *((name, getattr(self, name)) for name in _NUMBERS),
                ("data", self.data),
                ("tolerance", asdict(self.tolerance)),
                ("failures", list(self.failures)),
            )
        }

    def table(self) -> str:
        """The numbers for a person to read."""
        t = self.tolerance
        rows = [
            ("people matched", f"{self.matched:.1%}", f"at least {t.matched:.1%}"),
            ("keypoints, half within", f"{self.keypoint_p50:.2f} px", ""),
            ("keypoints, 99 % within", f"{self.keypoint_p99:.2f} px", f"at most {t.pixels:.2f} px"),
            ("scores, half within", f"{self.score_p50:.4f}", f"at most {t.score:.4f}"),
        ]
        if self.ap is not None and self.reference_ap is not None:
            least = max(self.reference_ap - t.ap, 0)
            rows.append(("AP", f"{self.ap:.4f}", f"at least {least:.4f} (checkpoint {self.reference_ap:.4f})"))
        head = f"parity with the checkpoint, {self.pictures} pictures of {self.data}, {self.people} people:"
        lines = [f"  {name:<24}{value:>10}   {allowed}".rstrip() for name, value, allowed in rows]
        return "\n".join([head, *lines, f"  {'passed' if self.passed else 'FAILED: ' + '; '.join(self.failures)}"])


_NUMBERS = (
    *("pictures", "people", "matched", "keypoint_p50", "keypoint_p99", "score_p50", "score_max"),
    *("ap", "reference_ap"),
)


def compare(
    artifact: PoseRunner,
    reference: PoseRunner,
    dataset: PoseDataset,
    data: DataConfig,
    precision: str,
    size: tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
    reference_key: str = "",
) -> Parity:
    """Runs both over the pictures (at most MAX_PICTURES, evenly picked). Both runners: conf 0.001, clip False; they
    are closed afterwards.

    size: (height, width) of the input that both are fed. reference_key: a name for the reference's weights; with it
    its results are kept for the next comparison on these pictures.
    Raises ValueError where neither finds anybody: two that agree on nothing prove nothing.
    """
    _check_same_kind(artifact.spec, reference.spec)
    count = min(len(dataset), MAX_PICTURES)
    picked = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    labelled = bool(dataset.offsets[-1]) and data.kpt_shape == artifact.spec.decoder.kpt_shape
    evaluators = [Evaluator(data.num_keypoints, data.sigmas, data.names, data.keypoint_names) for _ in range(2)]
    paths = [dataset.paths[i] for i in picked]
    # The same weights find other people by another NMS.
    key = f"{reference_key} {reference.spec.decoder} {reference.spec.people.sigmas}"
    kept = _Kept(key, [dataset.digests[i] for i in picked], size) if reference_key else None
    # One model after the other: two runtimes whose idle threads spin would slow each other down many times over.
    ours = results_of(artifact, paths, lambda done: progress and progress(done, 2 * count))
    theirs = kept.load(count, reference) if kept is not None else None
    if theirs is None:
        theirs = results_of(reference, paths, lambda done: progress and progress(count + done, 2 * count))
        if kept is not None:
            kept.save(theirs)
    seen = _Seen(size)
    for index, mine, other in zip(picked, ours, theirs, strict=True):
        seen.add(mine, other)
        if labelled:
            truth = truth_of(dataset, index)
            for evaluator, result in zip(evaluators, (mine, other), strict=True):
                evaluator.add(_found(result), truth)
    aps = [evaluator.result({}).pose.map for evaluator in evaluators] if labelled else [None, None]
    if not seen.all_people and not (aps[1] and aps[1] > 0):
        raise ValueError(
            f"neither of the two finds anybody with a score of {SEEN} or more in {count} pictures of {data.source}: "
            "train further, or give data= with people that it finds"
        )
    return _judge(seen, count, aps, Path(data.source).name, precision, size)


def _check_same_kind(first: ModelSpec, second: ModelSpec) -> None:
    kinds = [(spec.decoder.num_classes, spec.decoder.kpt_shape[0]) for spec in (first, second)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "there is nothing to compare: one finds {} classes with {} keypoints, the other {} with {}".format(
                *kinds[0], *kinds[1]
            )
        )


def results_of(
    runner: PoseRunner, pictures: Sequence[Any], progress: Callable[[int], object] = lambda done: None
) -> list[PoseResult]:
    """Everybody in these pictures. Closes the runner."""
    results: list[PoseResult] = []
    batch = runner.spec.input.batch or 1
    with runner:
        for start in range(0, len(pictures), batch):
            results += runner.predict(list(pictures[start : start + batch]))
            progress(len(results))
    return results


class _Kept:
    """The reference's results on these very pictures, in the cache: the same for every export of a checkpoint."""

    def __init__(self, model: str, digests: Sequence[bytes], size: tuple[int, int]) -> None:
        key = hashlib.blake2b(f"{model} {size} {edgepose.__version__}".encode(), digest_size=16)
        key.update(b"".join(digests))
        self.path = cache_dir() / "verification" / f"{key.hexdigest()}.npz"

    def load(self, count: int, runner: PoseRunner) -> list[PoseResult] | None:
        """One result a picture; None where there are none, or they are damaged. Closes the runner where there are."""
        if not self.path.is_file():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                parts = [np.split(kept[name], np.cumsum(kept["counts"])[:-1]) for name in _FIELDS]
                sizes = kept["sizes"].tolist()
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        if len(sizes) != count:
            return None
        with runner:
            people = runner.spec.people
        return [
            PoseResult(boxes, scores, classes, points, point_scores, people=people, size=(width, height))
            for boxes, scores, classes, points, point_scores, (width, height) in zip(*parts, sizes, strict=True)
        ]

    def save(self, results: Sequence[PoseResult]) -> None:
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(result, name) for result in results]) for name in _FIELDS
        }
        arrays["counts"] = np.array([len(result) for result in results])
        arrays["sizes"] = np.array([result.size for result in results])
        write_whole(self.path, lambda file: np.savez(file, **arrays))


_FIELDS = ("boxes", "scores", "class_ids", "keypoints", "keypoint_scores")


def _found(result: PoseResult) -> Found:
    return Found(result.boxes, result.scores, result.class_ids, result.keypoints, result.keypoint_scores)


class _Seen:
    """Matched people of all pictures so far."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.people = self.known = self.all_people = 0
        self.distances: list[NDArray[np.float64]] = []
        self.scores: list[float] = []

    def add(self, ours: PoseResult, theirs: PoseResult) -> None:
        """Counts both ways: who of the reference's people the artifact knows, and the other way round."""
        width, height = theirs.size
        scale = min(self.size[0] / height, self.size[1] / width)
        pairs = match(theirs, ours)
        for a, b in pairs:
            points = theirs.keypoint_scores[a] >= 0.5
            self.distances.append(scale * np.linalg.norm(theirs.keypoints[a] - ours.keypoints[b], axis=1)[points])
            self.scores.append(abs(float(theirs.scores[a]) - float(ours.scores[b])))
        seen, ours_seen = int((theirs.scores >= SEEN).sum()), int((ours.scores >= SEEN).sum())
        self.people += seen
        self.all_people += seen + ours_seen
        self.known += len(pairs) + len(match(ours, theirs))


def match(first: PoseResult, second: PoseResult) -> list[tuple[int, int]]:
    """Pairs of the people of `first` with score >= SEEN and those of `second` >= ALMOST, best score first, each with
    the one that it overlaps most, at IoU >= MATCH_IOU and of the same class."""
    free = [int(i) for i in np.flatnonzero(second.scores >= ALMOST)]
    pairs = []
    for a in np.flatnonzero(first.scores >= SEEN).tolist():
        overlaps = box_iou(first.boxes[a], second.boxes[free]) * (second.class_ids[free] == first.class_ids[a])
        if len(free) and overlaps.max() >= MATCH_IOU:
            pairs.append((a, free.pop(int(overlaps.argmax()))))
    return pairs


def box_iou(box: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """IoU (N,) of a box (4,) xyxy with others (N, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = np.clip(others[:, 2:] - others[:, :2], 0, None).prod(1)
    return np.asarray(shared / (np.clip(box[2:] - box[:2], 0, None).prod() + areas - shared + 1e-9))


def _judge(
    seen: _Seen, pictures: int, aps: Sequence[float | None], source: str, precision: str, size: tuple[int, int]
) -> Parity:
    allowed = TOLERANCES[precision]
    tolerance = Tolerance(allowed.matched, allowed.pixels * max(size) / 320, allowed.score, allowed.ap)
    distances = np.concatenate([*seen.distances, np.zeros(0)])
    scores = np.array(seen.scores)
    matched = seen.known / seen.all_people if seen.all_people else 1.0
    p50, p99 = np.percentile(distances, [50, 99]) if len(distances) else (0.0, 0.0)
    ap, reference = (None if value is None or math.isnan(value) else float(value) for value in aps)
    failures = []
    if matched < tolerance.matched:
        failures.append(f"{matched:.1%} of the people matched, at least {tolerance.matched:.1%} expected")
    if p99 > tolerance.pixels:
        failures.append(f"keypoints up to {p99:.1f} px apart, at most {tolerance.pixels:.1f} expected")
    score = float(np.median(scores)) if len(scores) else 0.0
    if score > tolerance.score:
        failures.append(f"scores {score:.4f} apart, at most {tolerance.score:.4f} expected")
    if ap is not None and reference is not None and ap < reference - tolerance.ap:
        failures.append(f"AP {ap:.4f}, {reference - ap:.4f} below the checkpoint, at most {tolerance.ap:.4f} expected")
    return Parity(
        pictures=pictures,
        people=seen.people,
        matched=matched,
        keypoint_p50=float(p50),
        keypoint_p99=float(p99),
        score_p50=score,
        score_max=float(scores.max()) if len(scores) else 0.0,
        ap=ap,
        reference_ap=reference,
        data=source,
        precision=precision,
        tolerance=tolerance,
        failures=tuple(failures),
    )


def advice(precision: str, failures: Sequence[str]) -> str:
    """What to try after a failed gate."""
    if precision in CALIBRATED:
        return (
            "try: more or more varied calibration pictures (fraction=…, data=… like what the camera sees), another "
            "calibration=…, format=openvino or onnx (which keep sensitive layers finer), or half=true"
        )
    if precision == "dynamic":
        return "try: int8=true with data=…, or half=true"
    return (
        "try: another format, or other versions of the converters; a fault in a converter is likely: please report it"
    )


def verification_data(data: DataConfig, size: tuple[int, int]) -> PoseDataset:
    """The validation pictures; the test or training pictures where there are none."""
    split = next(s for s in ("val", "test", "train") if data.has_split(s))
    return build_dataset(data, split, max(size))
