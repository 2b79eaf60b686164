#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "core/nms.hpp"
#include "core/oks.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace edgepose {
namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using ClassIds = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

std::string shape_of(const py::array& array) {
  return py::str(py::tuple(py::cast(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()))));
}

void check_shape_of(const py::array& array, const char* name, const std::vector<py::ssize_t>& expected,
                    const char* words) {
  if (static_cast<std::size_t>(array.ndim()) == expected.size() &&
      std::equal(expected.begin(), expected.end(), array.shape()))
    return;
  throw py::value_error(std::string(name) + " has shape " + shape_of(array) + ", expected " + words);
}

void check_threshold(const char* name, double value) {
  if (!(value >= 0.0 && value <= 1.0))
    throw py::value_error(std::string(name) + " is " + std::to_string(value) + ", expected a number from 0 to 1");
}

// How many may be kept, none asked: all of them.
std::size_t limit_of(const std::optional<std::int64_t>& max_det, py::ssize_t n) {
  if (max_det && *max_det < 1)
    throw py::value_error("max_det is " + std::to_string(*max_det) + ", expected at least 1");
  return static_cast<std::size_t>(max_det ? std::min<std::int64_t>(*max_det, n) : n);
}

const std::int32_t* class_ids_of(const std::optional<ClassIds>& class_ids, py::ssize_t n) {
  if (!class_ids) return nullptr;
  check_shape_of(*class_ids, "class_ids", {n}, "(N,)");
  // Class ids go through float lanes, exact up to 2^24; -1 marks lanes not in use.
  const std::int32_t* ids = class_ids->data();
  if (std::any_of(ids, ids + n, [](std::int32_t id) { return id < 0 || id > 1 << 24; }))
    throw py::value_error("class_ids are expected within 0 and 2**24");
  return ids;
}

py::array_t<std::int64_t> indices_of(const std::vector<std::uint32_t>& kept) {
  py::array_t<std::int64_t> indices(static_cast<py::ssize_t>(kept.size()));
  std::copy(kept.begin(), kept.end(), indices.mutable_data());
  return indices;
}

py::array_t<std::int64_t> nms(const Floats& boxes, const Floats& scores, double iou,
                              const std::optional<ClassIds>& class_ids, const std::optional<std::int64_t>& max_det) {
  const py::ssize_t n = boxes.ndim() ? boxes.shape(0) : 0;
  check_shape_of(boxes, "boxes", {n, 4}, "(N, 4)");
  check_shape_of(scores, "scores", {n}, "(N,)");
  check_threshold("iou", iou);
  const std::size_t limit = limit_of(max_det, n);
  const std::int32_t* ids = class_ids_of(class_ids, n);
  std::vector<Box> rows(static_cast<std::size_t>(n));
  for (py::ssize_t i = 0; i < n; ++i)
    rows[static_cast<std::size_t>(i)] = {*boxes.data(i, 0), *boxes.data(i, 1), *boxes.data(i, 2), *boxes.data(i, 3)};
  std::vector<std::uint32_t> kept;
  {
    const py::gil_scoped_release release;
    kept = suppress_boxes(rows.data(), scores.data(), ids, rows.size(), static_cast<float>(iou), limit);
  }
  return indices_of(kept);
}

PoseSet pose_set(const Floats& keypoints, const Floats& areas, std::size_t num_sigmas) {
  const py::ssize_t n = keypoints.ndim() ? keypoints.shape(0) : 0;
  check_shape_of(keypoints, "keypoints", {n, static_cast<py::ssize_t>(num_sigmas), 2}, "(N, K, 2), K sigmas");
  check_shape_of(areas, "areas", {n}, "(N,)");
  return {keypoints.data(), areas.data(), static_cast<std::size_t>(n)};
}

py::array_t<std::int64_t> oks_nms(const Floats& keypoints, const Floats& areas, const Floats& scores,
                                  const std::vector<float>& sigmas, double threshold,
                                  const std::optional<ClassIds>& class_ids,
                                  const std::optional<std::int64_t>& max_det) {
  const PoseSet poses = pose_set(keypoints, areas, sigmas.size());
  const py::ssize_t n = keypoints.shape(0);
  check_shape_of(scores, "scores", {n}, "(N,)");
  check_threshold("threshold", threshold);
  const std::size_t limit = limit_of(max_det, n);
  const std::int32_t* ids = class_ids_of(class_ids, n);
  std::vector<std::uint32_t> kept;
  {
    const py::gil_scoped_release release;
    kept = suppress_poses(poses, scores.data(), ids, sigmas, static_cast<float>(threshold), limit);
  }
  return indices_of(kept);
}

py::array_t<float> oks(const Floats& keypoints_a, const Floats& areas_a, const Floats& keypoints_b,
                       const Floats& areas_b, const std::vector<float>& sigmas) {
  const PoseSet a = pose_set(keypoints_a, areas_a, sigmas.size()), b = pose_set(keypoints_b, areas_b, sigmas.size());
  py::array_t<float> matrix({static_cast<py::ssize_t>(a.n), static_cast<py::ssize_t>(b.n)});
  float* out = matrix.mutable_data();
  const py::gil_scoped_release release;
  oks_matrix(a, b, sigmas, out);
  return matrix;
}

}  // namespace

void register_nms(py::module_& module) {
  module.def("nms", nms, py::arg("boxes"), py::arg("scores"), py::kw_only(), py::arg("iou"),
             py::arg("class_ids") = py::none(), py::arg("max_det") = py::none());
  module.def("oks_nms", oks_nms, py::arg("keypoints"), py::arg("areas"), py::arg("scores"), py::kw_only(),
             py::arg("sigmas"), py::arg("threshold"), py::arg("class_ids") = py::none(),
             py::arg("max_det") = py::none());
  module.def("oks", oks, py::arg("keypoints_a"), py::arg("areas_a"), py::arg("keypoints_b"), py::arg("areas_b"),
             py::kw_only(), py::arg("sigmas"));
}

}  // namespace edgepose
