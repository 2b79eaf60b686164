#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/decode.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace edgepose {
namespace {

DType dtype_of(const py::array& array, std::size_t index) {
  const py::dtype dtype = array.dtype();
  if (dtype.byteorder() != '>') switch (dtype.num()) {
      case py::detail::npy_api::NPY_FLOAT_:
        return DType::kFloat32;
      case 23:  // NPY_HALF
        return DType::kFloat16;
      case py::detail::npy_api::NPY_BYTE_:
        return DType::kInt8;
      case py::detail::npy_api::NPY_UBYTE_:
        return DType::kUInt8;
    }
  throw py::value_error("output " + std::to_string(index) + " has dtype " + std::string(py::str(dtype)) +
                        ", expected float32, float16, int8 or uint8");
}

// The model's outputs, kept alive while their memory is read. A strided or misaligned array is copied.
struct Outputs {
  py::object sequence;
  std::vector<py::object> copies;
  std::vector<Tensor> tensors;

  explicit Outputs(const py::handle& outputs)
      : sequence(py::reinterpret_steal<py::object>(PySequence_Fast(outputs.ptr(), "outputs is not a sequence"))) {
    if (!sequence) throw py::error_already_set();
    const std::size_t count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(sequence.ptr()));
    tensors.reserve(count);
    for (std::size_t i = 0; i < count; ++i) add(PySequence_Fast_GET_ITEM(sequence.ptr(), i), i);
  }

 private:
  void add(py::handle object, std::size_t index) {
    if (!py::isinstance<py::array>(object))
      throw py::type_error("output " + std::to_string(index) + " is a " +
                           std::string(py::str(py::type::of(object).attr("__name__"))) + ", expected a numpy array");
    py::array array = py::reinterpret_borrow<py::array>(object);
    Tensor tensor;
    tensor.dtype = dtype_of(array, index);
    constexpr int kWanted = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & kWanted) != kWanted) {
      array = py::array::ensure(array, kWanted);
      if (!array) throw py::error_already_set();
      copies.push_back(array);
    }
    if (array.ndim() > static_cast<py::ssize_t>(tensor.shape.size()))
      throw py::value_error("output " + std::to_string(index) + " has " + std::to_string(array.ndim()) +
                            " dimensions, expected at most 4");
    tensor.ndim = static_cast<int>(array.ndim());
    for (int i = 0; i < tensor.ndim; ++i) tensor.shape[i] = array.shape(i);
    tensor.data = array.data();
    tensors.push_back(tensor);
  }
};

// A new array that holds a copy; made by numpy's own call, since py::array works out strides that numpy knows.
template <class T>
py::object to_numpy(const std::vector<T>& values, std::initializer_list<Py_intptr_t> shape) {
  const auto& api = py::detail::npy_api::get();
  py::object array = py::reinterpret_steal<py::object>(
      api.PyArray_NewFromDescr_(api.PyArray_Type_, py::dtype::of<T>().release().ptr(), static_cast<int>(shape.size()),
                                shape.begin(), nullptr, nullptr, 0, nullptr));
  if (!array) throw py::error_already_set();
  const std::size_t bytes = static_cast<std::size_t>(py::reinterpret_borrow<py::array>(array).nbytes());
  if (bytes) std::memcpy(py::detail::array_proxy(array.ptr())->data, values.data(), bytes);
  return array;
}

// py::gil_scoped_release without its bookkeeping.
class ReleaseGil {
 public:
  ReleaseGil() : state_(PyEval_SaveThread()) {}
  ~ReleaseGil() { PyEval_RestoreThread(state_); }
  ReleaseGil(const ReleaseGil&) = delete;
  ReleaseGil& operator=(const ReleaseGil&) = delete;

 private:
  PyThreadState* state_;
};

// A decoder with the buffers that its calls reuse. A call that comes while another one runs gets buffers of its own.
template <class D>
class Reusable {
 public:
  template <class... Args>
  explicit Reusable(int num_keypoints, Args&&... args)
      : decoder_(std::forward<Args>(args)...), num_keypoints_(num_keypoints) {}

  py::tuple call(const py::object& outputs, const std::array<double, 4>& transform,
                 const std::array<std::int64_t, 2>& size) {
    if (busy_.test_and_set(std::memory_order_acquire)) {
      Workspace own;
      return run(outputs, transform, size, own);
    }
    const Release release{busy_};
    return run(outputs, transform, size, workspace_);
  }

 private:
  struct Release {
    std::atomic_flag& flag;
    ~Release() { flag.clear(std::memory_order_release); }
  };

  py::tuple run(const py::object& sequence, const std::array<double, 4>& t, const std::array<std::int64_t, 2>& size,
                Workspace& workspace) const {
    const Outputs outputs(sequence);
    const Transform transform{t[0], t[1], t[2], t[3]};
    const SourceSize source_size{size[0], size[1]};
    transform.validate();
    source_size.validate();
    decoder_.check(outputs.tensors);
    {
      const ReleaseGil released;
      decoder_.decode(outputs.tensors, transform, source_size, workspace);
    }
    return to_tuple(workspace.detections);
  }

  py::tuple to_tuple(const Detections& found) const {
    const Py_intptr_t n = static_cast<Py_intptr_t>(found.count), k = num_keypoints_;
    return py::make_tuple(to_numpy(found.boxes, {n, 4}), to_numpy(found.scores, {n}), to_numpy(found.class_ids, {n}),
                          to_numpy(found.keypoints, {n, k, 2}), to_numpy(found.keypoint_scores, {n, k}));
  }

  D decoder_;
  py::ssize_t num_keypoints_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  Workspace workspace_;
};

using KptShape = std::array<int, 2>;
using FloatPair = std::array<float, 2>;

DecodeOptions base_options(int num_classes, const KptShape& kpt_shape, double conf, std::int64_t max_det, bool clip) {
  DecodeOptions options;
  options.num_classes = num_classes;
  options.num_keypoints = kpt_shape[0];
  options.kpt_dims = kpt_shape[1];
  options.conf = conf;
  options.max_det = max_det;
  options.clip = clip;
  return options;
}

DecodeOptions nms_options(int num_classes, const KptShape& kpt_shape, double conf, double iou, std::int64_t max_det,
                          std::int64_t max_candidates, const std::string& nms, std::vector<float> sigmas, bool agnostic,
                          bool clip) {
  DecodeOptions options = base_options(num_classes, kpt_shape, conf, max_det, clip);
  options.iou = iou;
  options.max_candidates = max_candidates;
  options.nms = nms_from_string(nms);
  options.sigmas = std::move(sigmas);
  options.agnostic = agnostic;
  return options;
}

Quantization quantization_of(double scale, int zero_point) { return {static_cast<float>(scale), zero_point}; }

template <class T>
T entry(const py::dict& head, const char* key) {
  if (!head.contains(key)) throw py::value_error(std::string("a head has no '") + key + "'");
  try {
    return head[key].cast<T>();
  } catch (const py::cast_error&) {
    throw py::type_error(std::string("'") + key + "' of a head is " + std::string(py::repr(head[key])) +
                         ", which has the wrong type");
  }
}

void check_keys(const py::dict& head) {
  static const std::vector<std::string> known = {"role", "index", "stride", "layout", "dtype", "scale", "zero_point"};
  for (const auto& item : head) {
    const std::string key = py::str(item.first);
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw py::value_error("a head has an unknown key '" + key +
                            "', expected role, index, stride, layout, dtype, scale and zero_point");
  }
}

Head head_of(const py::dict& dict) {
  check_keys(dict);
  Head head;
  head.role = head_role_from_string(entry<std::string>(dict, "role"));
  const std::int64_t index = entry<std::int64_t>(dict, "index");
  if (index < 0) throw py::value_error("index of a head is " + std::to_string(index) + ", expected at least 0");
  head.index = static_cast<std::size_t>(index);
  head.stride = entry<int>(dict, "stride");
  head.layout = head_layout_from_string(entry<std::string>(dict, "layout"));
  head.dtype = dtype_from_string(dict.contains("dtype") ? entry<std::string>(dict, "dtype") : "float32");
  if (dict.contains("scale")) head.quantization.scale = static_cast<float>(entry<double>(dict, "scale"));
  if (dict.contains("zero_point")) head.quantization.zero_point = entry<int>(dict, "zero_point");
  return head;
}

std::vector<Head> heads_of(const std::vector<py::dict>& dicts) {
  std::vector<Head> heads;
  for (const py::dict& dict : dicts) heads.push_back(head_of(dict));
  return heads;
}

template <class D>
void def_call(py::class_<Reusable<D>>& type) {
  type.def("__call__", &Reusable<D>::call, py::arg("outputs"), py::arg("transform"), py::arg("source_size"));
}

void register_yolo(py::module_& module) {
  using Type = Reusable<YoloDecoder>;
  py::class_<Type> type(module, "YoloDecoder");
  type.def(py::init([](int num_classes, const KptShape& kpt_shape, double conf, double iou, std::int64_t max_det,
                       std::int64_t max_candidates, const std::string& nms, std::vector<float> sigmas, bool agnostic,
                       bool clip, double scale, int zero_point, const FloatPair& coord_scale) {
             return std::make_unique<Type>(kpt_shape[0],
                                           nms_options(num_classes, kpt_shape, conf, iou, max_det, max_candidates, nms,
                                                       std::move(sigmas), agnostic, clip),
                                           quantization_of(scale, zero_point),
                                           CoordScale{coord_scale[0], coord_scale[1]});
           }),
           py::kw_only(), py::arg("num_classes"), py::arg("kpt_shape"), py::arg("conf"), py::arg("iou"),
           py::arg("max_det"), py::arg("max_candidates") = 30000, py::arg("nms") = "iou",
           py::arg("sigmas") = std::vector<float>{}, py::arg("agnostic") = false, py::arg("clip") = true,
           py::arg("scale") = 1.0, py::arg("zero_point") = 0, py::arg("coord_scale") = FloatPair{1.0f, 1.0f});
  def_call(type);
}

void register_end2end(py::module_& module) {
  using Type = Reusable<YoloEnd2EndDecoder>;
  py::class_<Type> type(module, "YoloEnd2EndDecoder");
  type.def(py::init([](int num_classes, const KptShape& kpt_shape, double conf, std::int64_t max_det, bool clip,
                       double scale, int zero_point, const FloatPair& coord_scale) {
             return std::make_unique<Type>(kpt_shape[0], base_options(num_classes, kpt_shape, conf, max_det, clip),
                                           quantization_of(scale, zero_point),
                                           CoordScale{coord_scale[0], coord_scale[1]});
           }),
           py::kw_only(), py::arg("num_classes"), py::arg("kpt_shape"), py::arg("conf"), py::arg("max_det"),
           py::arg("clip") = true, py::arg("scale") = 1.0, py::arg("zero_point") = 0,
           py::arg("coord_scale") = FloatPair{1.0f, 1.0f});
  def_call(type);
}

void register_movenet(py::module_& module) {
  using Type = Reusable<MoveNetDecoder>;
  py::class_<Type> type(module, "MoveNetDecoder");
  type.def(py::init([](double conf, const std::array<int, 2>& input_size, int num_keypoints, std::int64_t max_det,
                       bool clip, double scale, int zero_point) {
             return std::make_unique<Type>(num_keypoints, base_options(1, {num_keypoints, 3}, conf, max_det, clip),
                                           quantization_of(scale, zero_point), input_size[1], input_size[0]);
           }),
           py::kw_only(), py::arg("conf"), py::arg("input_size"), py::arg("num_keypoints") = 17, py::arg("max_det") = 1,
           py::arg("clip") = true, py::arg("scale") = 1.0, py::arg("zero_point") = 0);
  def_call(type);
}

void register_heads(py::module_& module) {
  using Type = Reusable<YoloHeadsDecoder>;
  py::class_<Type> type(module, "YoloHeadsDecoder");
  type.def(py::init([](const std::vector<py::dict>& heads, int num_classes, const KptShape& kpt_shape, int reg_max,
                       const std::optional<std::array<int, 2>>& input_size, double conf, double iou,
                       std::int64_t max_det, std::int64_t max_candidates, const std::string& nms,
                       std::vector<float> sigmas, bool agnostic, bool clip) {
             if (input_size && ((*input_size)[0] < 1 || (*input_size)[1] < 1))
               throw py::value_error("input_size is " + std::string(py::repr(py::cast(*input_size))) +
                                     ", expected (height, width) of at least 1, or None");
             const std::array<int, 2> size = input_size.value_or(std::array<int, 2>{0, 0});
             return std::make_unique<Type>(kpt_shape[0],
                                           nms_options(num_classes, kpt_shape, conf, iou, max_det, max_candidates, nms,
                                                       std::move(sigmas), agnostic, clip),
                                           heads_of(heads), reg_max, size[0], size[1]);
           }),
           py::kw_only(), py::arg("heads"), py::arg("num_classes"), py::arg("kpt_shape"), py::arg("reg_max") = 16,
           py::arg("input_size") = std::nullopt, py::arg("conf"), py::arg("iou"), py::arg("max_det"),
           py::arg("max_candidates") = 30000, py::arg("nms") = "iou", py::arg("sigmas") = std::vector<float>{},
           py::arg("agnostic") = false, py::arg("clip") = true);
  def_call(type);
}

}  // namespace

void register_decode(py::module_& module) {
  register_yolo(module);
  register_end2end(module);
  register_movenet(module);
  register_heads(module);
}

}  // namespace edgepose
