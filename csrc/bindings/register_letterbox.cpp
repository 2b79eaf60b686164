#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/letterbox.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace edgepose {
namespace {

constexpr py::ssize_t kMaxSide = 1 << 24;

std::string text(const py::handle& object) { return py::str(object).cast<std::string>(); }

std::string shape_of(const py::array& array) { return text(array.attr("shape")); }

template <typename Value>
struct Named {
  const char* name;
  Value value;
};

template <typename Value, std::size_t kCount>
Value named(const char* option, const std::string& got, const Named<Value> (&known)[kCount]) {
  std::string names;
  for (const Named<Value>& candidate : known) {
    if (got == candidate.name) return candidate.value;
    names += (names.empty() ? "'" : ", '") + std::string(candidate.name) + "'";
  }
  throw py::value_error(std::string(option) + " is '" + got + "', expected one of " + names);
}

constexpr Named<ResizeMode> kModes[] = {{"letterbox", ResizeMode::kLetterbox}, {"stretch", ResizeMode::kStretch}};
constexpr Named<Layout> kLayouts[] = {{"NCHW", Layout::kNchw}, {"NHWC", Layout::kNhwc}};
constexpr Named<ModelColor> kColors[] = {
    {"RGB", ModelColor::kRgb}, {"BGR", ModelColor::kBgr}, {"GRAY", ModelColor::kGray}};

// A gray model takes one value, also when it is written once for each of the channels that it does not have.
std::vector<float> for_model(std::vector<float> values, ModelColor color) {
  const bool same = values.size() == 3 && values[0] == values[1] && values[0] == values[2];
  if (color == ModelColor::kGray && same) values.resize(1);
  if (color != ModelColor::kGray && values.size() == 1) values.resize(3, values[0]);
  return values;
}

// The letterbox behind Python: says so when two threads use one object, and lets other threads run meanwhile.
struct SharedLetterbox {
  Letterbox letterbox;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  explicit SharedLetterbox(LetterboxOptions options) : letterbox(std::move(options)) {}
};

class Claim {
 public:
  explicit Claim(std::atomic_flag& busy) : busy_(busy) {
    if (busy_.test_and_set(std::memory_order_acquire))
      throw std::runtime_error("this Letterbox is in use by another thread: make one for each thread");
  }
  ~Claim() { busy_.clear(std::memory_order_release); }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

 private:
  std::atomic_flag& busy_;
};

[[noreturn]] void refuse_shape(const py::array& image, PixelFormat format, const char* expected) {
  throw py::value_error("a " + std::string(to_string(format)) + " picture is " + expected + ", got shape " +
                        shape_of(image));
}

void check_sides(const py::array& image) {
  for (py::ssize_t axis = 0; axis < image.ndim(); ++axis)
    if (image.shape(axis) == 0) throw py::value_error("the picture is empty: shape " + shape_of(image));
  if (image.shape(0) > kMaxSide || image.shape(1) > kMaxSide)
    throw py::value_error("the picture is too large: shape " + shape_of(image) + ", at most " +
                          std::to_string(kMaxSide) + " pixels a side");
}

void read_packed_shape(const py::array& image, ImageView& view) {
  const int bytes = bytes_per_pixel(view.format);
  const bool plain_gray = view.format == PixelFormat::kGray && image.ndim() == 2;
  if (!plain_gray && (image.ndim() != 3 || image.shape(2) != bytes)) {
    const std::string channels = std::to_string(bytes);
    const std::string expected = view.format == PixelFormat::kGray ? "(height, width) or (height, width, 1)"
                                                                   : "(height, width, " + channels + ")";
    refuse_shape(image, view.format, expected.c_str());
  }
  view.height = static_cast<int>(image.shape(0));
  view.channel_stride = image.ndim() == 3 ? image.strides(2) : 1;
  if (view.format == PixelFormat::kYuyv && view.width % 2 != 0)
    refuse_shape(image, view.format, "(height, width, 2) with an even width");
}

void read_planar_shape(const py::array& image, ImageView& view) {
  const char* const expected = "(height * 3 / 2, width), height and width even";
  if (image.ndim() != 2 || image.shape(0) % 3 != 0 || image.shape(1) % 2 != 0)
    refuse_shape(image, view.format, expected);
  view.height = static_cast<int>(image.shape(0) / 3 * 2);
}

ImageView to_view(const py::array& image, PixelFormat format) {
  if (!image.dtype().equal(py::dtype::of<std::uint8_t>()))
    throw py::type_error("the picture's dtype is " + text(image.dtype()) + ", expected uint8: convert it with " +
                         "image.astype(numpy.uint8) once its values are levels from 0 to 255");
  if (image.ndim() < 2 || image.ndim() > 3) refuse_shape(image, format, "an array of two or three dimensions");
  ImageView view;
  view.format = format;
  view.data = static_cast<const std::uint8_t*>(image.data());
  check_sides(image);
  view.width = static_cast<int>(image.shape(1));
  view.row_stride = image.strides(0);
  view.pixel_stride = image.strides(1);
  format == PixelFormat::kNv12 || format == PixelFormat::kI420 ? read_planar_shape(image, view)
                                                               : read_packed_shape(image, view);
  return view;
}

using RoiArgument = std::optional<std::array<py::ssize_t, 4>>;

Roi to_roi(const RoiArgument& argument, const ImageView& image) {
  if (!argument) return {0, 0, image.width, image.height};
  const auto [x0, y0, x1, y1] = *argument;
  if (x0 < 0 || y0 < 0 || x1 <= x0 || y1 <= y0 || x1 > image.width || y1 > image.height)
    throw py::value_error("roi is (" + std::to_string(x0) + ", " + std::to_string(y0) + ", " + std::to_string(x1) +
                          ", " + std::to_string(y1) + "), expected (x0, y0, x1, y1) with 0 <= x0 < x1 <= " +
                          std::to_string(image.width) + " and 0 <= y0 < y1 <= " + std::to_string(image.height));
  return {static_cast<int>(x0), static_cast<int>(y0), static_cast<int>(x1), static_cast<int>(y1)};
}

ElementType element_type(const py::array& out) {
  const py::dtype dtype = out.dtype();
  if (dtype.equal(py::dtype::of<float>())) return ElementType::kFloat32;
  if (dtype.equal(py::dtype("float16"))) return ElementType::kFloat16;
  if (dtype.equal(py::dtype::of<std::uint8_t>())) return ElementType::kUint8;
  if (dtype.equal(py::dtype::of<std::int8_t>())) return ElementType::kInt8;
  throw py::type_error("out's dtype is " + text(dtype) + ", expected float32, float16, uint8 or int8");
}

OutputView to_output(py::array& out, const Letterbox& letterbox) {
  OutputView view;
  view.type = element_type(out);
  const bool packed = letterbox.options().layout == Layout::kNhwc;
  const int channels = letterbox.channels();
  if (out.ndim() != 4 || out.shape(0) != 1 || out.shape(packed ? 3 : 1) != channels) {
    const std::string count = std::to_string(channels);
    throw py::value_error("out's shape is " + shape_of(out) + ", expected (1, " +
                          (packed ? "height, width, " + count : count + ", height, width") +
                          "): pass out[i:i + 1] of a batch");
  }
  const py::ssize_t height = out.shape(packed ? 1 : 2);
  const py::ssize_t width = out.shape(packed ? 2 : 3);
  if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide)
    throw py::value_error("out's shape is " + shape_of(out) + ", expected from 1 to " + std::to_string(kMaxSide) +
                          " pixels a side");
  if (!out.writeable()) throw py::value_error("out is read-only, expected a writable array");
  if ((out.flags() & py::array::c_style) == 0)
    throw py::value_error("out is not C-contiguous: strides " + text(out.attr("strides")) + " for shape " +
                          shape_of(out));
  view.data = out.mutable_data();
  view.height = static_cast<int>(height);
  view.width = static_cast<int>(width);
  return view;
}

py::tuple run(SharedLetterbox& self, const py::array& image, py::array out, const std::string& format,
              const RoiArgument& roi_argument) {
  const ImageView source = to_view(image, pixel_format_from_string(format));
  const Roi roi = to_roi(roi_argument, source);
  const OutputView target = to_output(out, self.letterbox);
  const Claim claim(self.busy);
  Transform transform;
  {
    const py::gil_scoped_release release;
    transform = self.letterbox(source, roi, target);
  }
  return py::make_tuple(transform.scale_x, transform.scale_y, transform.pad_x, transform.pad_y);
}

}  // namespace

void register_letterbox(py::module_& module) {
  const std::vector<float> no_mean(3, 0.0F);
  const std::vector<float> unit_std(3, 255.0F);
  py::class_<SharedLetterbox>(module, "Letterbox",
                              "From a picture to a model's input in one pass: resize, pad, colour, layout, type.")
      .def(py::init([](const std::string& mode, bool center, int pad_value, bool antialias, const std::string& layout,
                       const std::string& color, std::vector<float> mean, std::vector<float> std, double scale,
                       int zero_point) {
             LetterboxOptions options;
             options.mode = named("mode", mode, kModes);
             options.center = center;
             options.pad_value = pad_value;
             options.antialias = antialias;
             options.layout = named("layout", layout, kLayouts);
             options.color = named("color", color, kColors);
             options.mapping = {for_model(std::move(mean), options.color), for_model(std::move(std), options.color),
                                scale, zero_point};
             return std::make_unique<SharedLetterbox>(std::move(options));
           }),
           py::kw_only(), py::arg("mode") = "letterbox", py::arg("center") = true, py::arg("pad_value") = 114,
           py::arg("antialias") = false, py::arg("layout") = "NCHW", py::arg("color") = "RGB",
           py::arg("mean") = no_mean, py::arg("std") = unit_std, py::arg("scale") = 1.0, py::arg("zero_point") = 0)
      .def("__call__", run, py::arg("image").noconvert(), py::arg("out").noconvert(), py::kw_only(),
           py::arg("format") = "BGR", py::arg("roi") = py::none());
}

}  // namespace edgepose
