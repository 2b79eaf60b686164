"""`PoseResult` as other things: a dict for JSON, flat rows, CSV, COCO results, supervision.KeyPoints, a text table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepose.contract import PeopleSpec
from edgepose.result import FORMAT_VERSION, PoseResult, Speed

if TYPE_CHECKING:
    import supervision


def to_dict(result: PoseResult) -> dict[str, Any]:
    """See `PoseResult.to_dict`."""
    points = np.concatenate([result.keypoints, result.keypoint_scores[..., None]], axis=2)
    spec = result.people
    return {
        "version": FORMAT_VERSION,
        "source": result.source,
        "frame": result.frame,
        "time": result.time,
        "width": int(result.width),
        "height": int(result.height),
        "speed_ms": {name: float(ms) for name, ms in result.speed._asdict().items()},
        "class_names": list(spec.class_names),
        "keypoint_names": list(spec.keypoint_names),
        "num_keypoints": result.num_keypoints,
        "skeleton": [list(pair) for pair in spec.skeleton],
        "flip": list(spec.flip),
        "sigmas": list(spec.sigmas),
        "detections": [
            {"class_id": class_id, "class": result.class_name(class_id), "score": score, "box": box, "keypoints": kpts}
            for class_id, score, box, kpts in zip(
                result.class_ids.tolist(),
                _floats(result.scores),
                _floats(result.boxes),
                _floats(points),
                strict=True,
            )
        ],
    }


def _floats(array: NDArray[np.float32]) -> Any:
    """Nested lists of the shortest decimals that are the same float32: 0.1, not 0.10000000149011612."""
    shortest = np.array([float(str(v)) for v in array.ravel()], np.float64)
    return shortest.reshape(array.shape).tolist()


def from_dict(document: Mapping[str, Any]) -> PoseResult:
    """See `PoseResult.from_dict`."""
    if not isinstance(document, Mapping):
        raise ValueError(f"a result is a JSON object, got {type(document).__name__}")
    version = document.get("version")
    if version != FORMAT_VERSION:
        raise ValueError(f"a result of version {version!r} cannot be read, only {FORMAT_VERSION}; is this a result?")
    spec = PeopleSpec(
        class_names=_strings(document, "class_names"),
        keypoint_names=_strings(document, "keypoint_names"),
        skeleton=_tuple(document, "skeleton", lambda pair: (_integer(pair[0]), _integer(pair[1]))),
        flip=_tuple(document, "flip", _integer),
        sigmas=_tuple(document, "sigmas", _number),
    )
    found = _tuple(document, "detections", dict)
    k = _field(document, "num_keypoints", _integer)
    points = _array(found, "keypoints", (k, 3))
    return PoseResult(
        _array(found, "box", (4,)),
        _array(found, "score", ()),
        np.array([_field(p, "class_id", _class_id) for p in found], np.int32),
        points[..., :2].copy(),
        points[..., 2].copy(),
        (_field(document, "width", _integer), _field(document, "height", _integer)),
        spec,
        _field(document, "speed_ms", lambda ms: Speed(**{str(n): _number(v) for n, v in ms.items()})),
        _field(document, "source", _optional(_text)),
        _field(document, "frame", _optional(_integer)),
        _field(document, "time", _optional(_number)),
    )


def _field(document: Mapping[str, Any], name: str, read: Any) -> Any:
    try:
        return read(document[name])
    except KeyError:
        raise ValueError(f"the result has no field {name!r}") from None
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"the result's field {name!r} is wrong: {error}") from None


def _tuple(document: Mapping[str, Any], name: str, read: Any) -> tuple[Any, ...]:
    return tuple(_field(document, name, lambda values: [read(v) for v in values]))


def _strings(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return _tuple(document, name, _text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.80}")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected an integer, got {value!r:.80}")
    return value


def _class_id(value: Any) -> int:
    return int(np.int32(_integer(value)))  # OverflowError where it does not fit


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"expected a number, got {value!r:.80}")
    return float(value)


def _optional(read: Any) -> Any:
    return lambda value: None if value is None else read(value)


def _array(detections: Sequence[Mapping[str, Any]], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The detections' `name`s, each of that shape, as one array."""
    if any(d < 0 or d > 100_000 for d in shape):
        raise ValueError(f"the result's num_keypoints is out of range: {shape[0]}")
    rows = np.zeros((len(detections), *shape), np.float32)
    for i, detection in enumerate(detections):
        value = _field(detection, name, lambda v: np.array(v, np.float32))
        if value.shape != shape and not (value.size == 0 and 0 in shape):
            raise ValueError(f"the result's field {name!r} should be of shape {shape}, got {value.shape}")
        rows[i] = value.reshape(shape)
    return rows


def column_names(result: PoseResult) -> list[str]:
    """The columns of `to_rows` and `to_csv`, in order."""
    fixed = ["source", "frame", "time", "person", "class_id", "class", "score", "x1", "y1", "x2", "y2"]
    return fixed + [f"{name}_{what}" for name in _point_names(result) for what in ("x", "y", "score")]


def _point_names(result: PoseResult) -> list[str]:
    names = result.keypoint_names
    if len(set(names)) == result.num_keypoints:
        return list(names)
    return [f"keypoint{i}" for i in range(result.num_keypoints)]


def to_rows(result: PoseResult) -> list[dict[str, Any]]:
    """See `PoseResult.to_rows`."""
    columns = column_names(result)
    points = np.concatenate([result.keypoints, result.keypoint_scores[..., None]], axis=2)
    points = points.reshape(len(result), 3 * result.num_keypoints)
    numbers = _floats(np.concatenate([result.scores[:, None], result.boxes, points], axis=1))
    place = (result.source, result.frame, result.time)
    return [
        dict(zip(columns, (*place, i, class_id, result.class_name(class_id), *row), strict=True))
        for i, (class_id, row) in enumerate(zip(result.class_ids.tolist(), numbers, strict=True))
    ]


def to_csv(result: PoseResult, header: bool = True) -> str:
    """See `PoseResult.to_csv`."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, column_names(result))
    if header:
        writer.writeheader()
    writer.writerows(to_rows(result))
    return text.getvalue()


def to_coco(result: PoseResult, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """See `PoseResult.to_coco`."""
    points = np.concatenate([result.keypoints, result.keypoint_scores[..., None]], axis=2)
    corners = result.boxes.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    classes = result.class_ids.tolist()
    missing = [] if category_ids is None else [c for c in classes if not 0 <= c < len(category_ids)]
    if missing:
        raise ValueError(f"category_ids has {len(category_ids or ())} entries, but class id {missing[0]} was found")
    return [
        {
            "image_id": image_id,
            "category_id": class_id + 1 if category_ids is None else category_ids[class_id],
            "bbox": box,
            "keypoints": keypoints,
            "score": score,
        }
        for class_id, box, keypoints, score in zip(
            classes,
            boxes.round(4).tolist(),
            _floats(points.reshape(len(result), 3 * result.num_keypoints)),
            _floats(result.scores),
            strict=True,
        )
    ]


def to_supervision(result: PoseResult) -> supervision.KeyPoints:
    """See `PoseResult.to_supervision`."""
    try:
        import supervision as sv
    except ImportError as error:
        raise ImportError("to_supervision needs supervision: pip install supervision") from error
    points = sv.KeyPoints(
        result.keypoints.copy(),
        result.class_ids.astype(np.int64),
        result.keypoint_scores.copy(),
        data={"class_name": np.array([result.class_name(c) for c in result.class_ids.tolist()])},
    )
    if hasattr(points, "detection_confidence"):  # supervision >= 0.27
        points.detection_confidence = result.scores.copy()
    return points


def summary(result: PoseResult, kpt_conf: float = 0.5) -> str:
    """See `PoseResult.summary`."""
    rows = [("#", "class", "score", "box (x1 y1 x2 y2)", "keypoints")]
    for i, person in enumerate(result):
        seen = int((person.keypoint_scores >= kpt_conf).sum())
        box = " ".join(f"{v:.0f}" for v in person.box.tolist())
        rows.append((str(i), person.class_name, f"{person.score:.2f}", box, f"{seen}/{result.num_keypoints}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_heading(result)]
    if len(rows) > 1:
        lines += ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _heading(result: PoseResult) -> str:
    counts = np.bincount(result.class_ids).tolist() if len(result) else []
    found = ", ".join(f"{n} x {result.class_name(c)}" for c, n in enumerate(counts) if n) or "nothing found"
    where = f"{result.source} " if result.source is not None else ""
    where += f"frame {result.frame} at {result.time:.2f} s " if result.time is not None else ""
    times = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in result.speed._asdict().items())
    return f"{where}{result.width}x{result.height}: {found}" + (f" ({times})" if result.speed.total else "")
