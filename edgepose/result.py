"""What was found in one picture: `PoseResult`, frozen numpy arrays in the picture's own pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np

from edgepose.contract import PeopleSpec
from edgepose.options import unknown_option

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray
    from PIL import Image

    from edgepose.contract import Color

    Picture = TypeVar("Picture", NDArray[np.uint8], Image.Image)

FORMAT_VERSION = 1
_FLOAT32 = np.dtype(np.float32)
_INT32 = np.dtype(np.int32)


class Speed(NamedTuple):
    """How long each stage of one prediction took, in milliseconds."""

    preprocess: float = 0.0
    inference: float = 0.0
    decode: float = 0.0

    @property
    def total(self) -> float:
        """The three stages together, in milliseconds."""
        return self.preprocess + self.inference + self.decode


_NOT_TIMED = Speed()


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One detection: a row of a `PoseResult`.

    box: (4,) float32 x1, y1, x2, y2 in pixels. score: 0..1. class_id, class_name: what it is.
    keypoints: (K, 2) float32 x, y in pixels. keypoint_scores: (K,) float32, 0..1.
    """

    box: NDArray[np.float32]
    score: float
    class_id: int
    class_name: str
    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    keypoint_names: tuple[str, ...] = ()

    def keypoint(self, name: str) -> tuple[float, float, float]:
        """(x, y, score) of the keypoint of that name. Raises KeyError, naming the nearest one, if there is none."""
        if name not in self.keypoint_names:
            raise KeyError(unknown_option(name, self.keypoint_names, "keypoint"))
        i = self.keypoint_names.index(name)
        return float(self.keypoints[i, 0]), float(self.keypoints[i, 1]), float(self.keypoint_scores[i])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PoseResult:
    """The people (or whatever the model finds) in one picture, the highest score first as a model gives them.

    boxes: (N, 4) float32 x1, y1, x2, y2; scores: (N,) float32; class_ids: (N,) int32; keypoints: (N, K, 2) float32
    x, y; keypoint_scores: (N, K) float32. Coordinates are pixels of the source picture, (0, 0) its top left corner.
    size: (width, height) of the picture. people: names, skeleton, flip order and OKS sigmas, shared by all results
    of a runner. speed: the stages' times. source: path, URL or camera it came from; frame: its number there, from 0;
    time: its place in the video, or since a live source was opened, in seconds; None where there is no such thing.

    Frozen: the arrays are read-only views. Two results are equal when all but their `speed` is.
    Raises ValueError when the arrays' shapes do not fit each other.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    size: tuple[int, int] = (0, 0)
    people: PeopleSpec = field(default_factory=PeopleSpec)
    speed: Speed = _NOT_TIMED
    source: str | None = None
    frame: int | None = None
    time: float | None = None

    def __post_init__(self) -> None:
        boxes = _frozen(self.boxes, _FLOAT32)
        scores = _frozen(self.scores, _FLOAT32)
        class_ids = _frozen(self.class_ids, _INT32)
        keypoints = _frozen(self.keypoints, _FLOAT32)
        keypoint_scores = _frozen(self.keypoint_scores, _FLOAT32)
        n, k = len(boxes) if boxes.ndim else -1, keypoints.shape[1] if keypoints.ndim == 3 else -1
        if (
            boxes.shape != (n, 4)
            or scores.shape != (n,)
            or class_ids.shape != (n,)
            or keypoints.shape != (n, k, 2)
            or keypoint_scores.shape != (n, k)
        ):
            raise ValueError(
                "PoseResult takes boxes (N, 4), scores (N,), class_ids (N,), keypoints (N, K, 2) and keypoint_scores "
                f"(N, K), got {boxes.shape}, {scores.shape}, {class_ids.shape}, {keypoints.shape} and "
                f"{keypoint_scores.shape}"
            )
        names = self.people.keypoint_names
        if names and len(names) != k:
            raise ValueError(f"`people` names {len(names)} keypoints, but the keypoints are {keypoints.shape}")
        set_field = object.__setattr__
        set_field(self, "boxes", boxes)
        set_field(self, "scores", scores)
        set_field(self, "class_ids", class_ids)
        set_field(self, "keypoints", keypoints)
        set_field(self, "keypoint_scores", keypoint_scores)

    @classmethod
    def empty(
        cls,
        size: tuple[int, int] = (0, 0),
        people: PeopleSpec | None = None,
        *,
        num_keypoints: int | None = None,
    ) -> PoseResult:
        """A result with nobody in it. K is `num_keypoints`, or what the spec names, or COCO's 17."""
        spec = PeopleSpec() if people is None else people
        k = num_keypoints if num_keypoints is not None else len(spec.keypoint_names) or 17
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int32),
            np.zeros((0, k, 2), np.float32),
            np.zeros((0, k), np.float32),
            size,
            spec,
        )

    @property
    def width(self) -> int:
        """Width of the picture in pixels."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Height of the picture in pixels."""
        return self.size[1]

    @property
    def num_keypoints(self) -> int:
        """K, the number of keypoints of each person."""
        return int(self.keypoints.shape[1])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class id."""
        return self.people.class_names

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """Name of each keypoint; empty where the model does not say."""
        return self.people.keypoint_names

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of keypoint indices that a line joins."""
        return self.people.skeleton

    @property
    def flip(self) -> tuple[int, ...]:
        """For each keypoint the index of its mirror image's."""
        return self.people.flip

    @property
    def sigmas(self) -> tuple[float, ...]:
        """OKS sigma of each keypoint."""
        return self.people.sigmas

    def class_name(self, class_id: int) -> str:
        """The class's name, or its number as text where the model names no such class."""
        names = self.people.class_names
        return names[class_id] if 0 <= class_id < len(names) else str(class_id)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Person]:
        return (self._person(i) for i in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Person: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> PoseResult: ...

    def __getitem__(self, index: Any) -> Person | PoseResult:
        """A `Person` for an integer; a `PoseResult` for a slice, a boolean mask (N,) or a list of indices."""
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            return self._person(range(len(self))[index])
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0:
                index = index.astype(np.intp)
            if index.ndim != 1 or index.dtype.kind not in "biu":
                raise TypeError(
                    "a PoseResult is indexed by an integer, a slice, a boolean mask (N,) or a list of integers; got "
                    f"an array of shape {index.shape} and dtype {index.dtype}"
                )
        return PoseResult(
            self.boxes[index],
            self.scores[index],
            self.class_ids[index],
            self.keypoints[index],
            self.keypoint_scores[index],
            *(getattr(self, name) for name in _PLAIN_FIELDS),
        )

    def _person(self, i: int) -> Person:
        class_id = int(self.class_ids[i])
        return Person(
            self.boxes[i],
            float(self.scores[i]),
            class_id,
            self.class_name(class_id),
            self.keypoints[i],
            self.keypoint_scores[i],
            self.people.keypoint_names,
        )

    def filter(
        self,
        *,
        min_score: float | None = None,
        classes: int | str | Sequence[int | str] | None = None,
        min_keypoint_score: float | None = None,
        min_keypoints: int = 1,
    ) -> PoseResult:
        """Those people who pass every test given, in their order.

        min_score: the person's score at least. classes: class ids or names (one or several).
        min_keypoint_score: at least `min_keypoints` of the person's keypoints have that score or more.
        Raises ValueError, naming the nearest one, for a class that the model does not have.
        """
        keep = np.ones(len(self), np.bool_)
        if min_score is not None:
            keep &= self.scores >= min_score
        if classes is not None:
            wanted = [classes] if isinstance(classes, (int, str, np.integer)) else list(classes)
            keep &= np.isin(self.class_ids, [self._class_id(c) for c in wanted])
        if min_keypoint_score is not None:
            keep &= (self.keypoint_scores >= min_keypoint_score).sum(axis=1) >= min_keypoints
        return self[keep]

    def _class_id(self, wanted: int | str) -> int:
        names = self.people.class_names
        if isinstance(wanted, str):
            if wanted not in names:
                raise ValueError(unknown_option(wanted, names, "class"))
            return names.index(wanted)
        if not 0 <= wanted < len(names):
            raise ValueError(f"class id {wanted} is not one of 0 to {len(names) - 1} ({', '.join(names)})")
        return int(wanted)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PoseResult):
            return NotImplemented
        return all(getattr(self, n) == getattr(other, n) for n in _PLAIN_FIELDS if n != "speed") and all(
            np.array_equal(getattr(self, n), getattr(other, n)) for n in _ARRAY_FIELDS
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[PoseResult], tuple[Any, ...]]:
        # through the constructor: arrays lose their read-only flag when pickled
        return PoseResult, tuple(getattr(self, f.name) for f in fields(self))

    def __repr__(self) -> str:
        found = ", ".join(f"{person.class_name} {person.score:.2f}" for person in self[:4])
        more = f", … {len(self) - 4} more" if len(self) > 4 else ""
        where = "" if self.source is None else f", source={self.source!r}"
        where += "" if self.frame is None else f", frame={self.frame}"
        took = f", {self.speed.total:.1f} ms" if self.speed.total else ""
        return (
            f"PoseResult([{found}{more}], keypoints={self.num_keypoints}, size={self.width}x{self.height}{where}{took})"
        )

    def with_source(self, source: str | None, frame: int | None = None, time: float | None = None) -> PoseResult:
        """The same result, said to be of that source, frame number and time."""
        return dataclasses.replace(self, source=source, frame=frame, time=time)

    def summary(self, kpt_conf: float = 0.5) -> str:
        """A text table for people, one line a person; `kpt_conf`: the score from which a keypoint counts as seen."""
        from edgepose import result_formats

        return result_formats.summary(self, kpt_conf)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict of everything (docs/results.md); `from_dict` makes an equal result of it."""
        from edgepose import result_formats

        return result_formats.to_dict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> PoseResult:
        """The result that `to_dict` wrote. Raises ValueError saying which field is wrong."""
        from edgepose import result_formats

        return result_formats.from_dict(document)

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as JSON text, on one line unless `indent` is given."""
        import json

        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> PoseResult:
        """The result that `to_json` wrote. Raises ValueError for anything else."""
        import json

        return cls.from_dict(json.loads(text))

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a person, as pandas.DataFrame and polars.DataFrame take them; columns: docs/results.md."""
        from edgepose import result_formats

        return result_formats.to_rows(self)

    def to_csv(self, header: bool = True) -> str:
        """The rows of `to_rows` as CSV text (RFC 4180), with or without the line of column names."""
        from edgepose import result_formats

        return result_formats.to_csv(self, header)

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO keypoint results, one dict a person: image_id, category_id, bbox (x, y, width, height), keypoints
        (x, y, keypoint score, …) and score. category_ids: COCO's id of each class; class id + 1 (person: 1) if None.
        """
        from edgepose import result_formats

        return result_formats.to_coco(self, image_id, category_ids)

    def to_supervision(self) -> Any:
        """As `supervision.KeyPoints`. Raises ImportError where supervision is not installed."""
        from edgepose import result_formats

        return result_formats.to_supervision(self)

    @overload
    def plot(self, image: None = None, **options: Any) -> NDArray[np.uint8]: ...
    @overload
    def plot(self, image: str | PathLike[str], **options: Any) -> NDArray[np.uint8]: ...
    @overload
    def plot(self, image: Picture, **options: Any) -> Picture: ...

    def plot(self, image: Any = None, *, color: Color = "BGR", **options: Any) -> Any:
        """A copy of the picture with the people drawn on it; `edgepose.drawing.draw` has the options.

        image: numpy (H, W, 3) in the order `color`, (H, W, 4) with alpha, (H, W) gray, or a PIL picture; the answer is
        of the same kind. A path, or None for the file that the result came from, is loaded and answered as numpy.
        """
        from edgepose import drawing

        return drawing.draw(drawing.picture_of(self, image, color), self, color=color, **options)


_ARRAY_FIELDS = ("boxes", "scores", "class_ids", "keypoints", "keypoint_scores")
_PLAIN_FIELDS = tuple(f.name for f in fields(PoseResult) if f.name not in _ARRAY_FIELDS)


def _frozen(array: ArrayLike, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A read-only view of the array; converted only where it is not an array of that type already."""
    view = array.view() if type(array) is np.ndarray and array.dtype is dtype else np.array(array, dtype)
    view.setflags(write=False)
    return view
