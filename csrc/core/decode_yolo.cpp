#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/decode.hpp"

namespace edgepose {
namespace {

void check_single(const std::vector<Tensor>& outputs) {
  if (outputs.size() != 1)
    throw std::invalid_argument("got " + std::to_string(outputs.size()) + " output tensors, expected 1");
}

CoordScale validated(const CoordScale& scale) {
  if (!(scale.x > 0.0f && scale.y > 0.0f) || !std::isfinite(scale.x) || !std::isfinite(scale.y))
    throw std::invalid_argument("coord_scale is (" + std::to_string(scale.x) + ", " + std::to_string(scale.y) +
                                "), expected positive finite numbers");
  return scale;
}

// Attributes of anchors: element (a, i) lies at a * attribute_stride + i * anchor_stride.
class AttributeSource : public CandidateSource {
 public:
  AttributeSource(const Tensor& tensor, const Quantization& quantization, const DecodeOptions& options,
                  std::size_t attribute_stride, std::size_t anchor_stride, std::size_t first_keypoint,
                  const CoordScale& scale)
      : tensor_(tensor),
        quantization_(quantization),
        attribute_stride_(attribute_stride),
        anchor_stride_(anchor_stride),
        first_keypoint_(first_keypoint),
        num_keypoints_(static_cast<std::size_t>(options.num_keypoints)),
        kpt_dims_(static_cast<std::size_t>(options.kpt_dims)),
        scale_(scale) {}

  void poses(const Candidate* candidates, std::size_t n, float* xy, float* visibility) override {
    visit_real(tensor_, quantization_, [&](auto read) {
      for (std::size_t i = 0; i < n; ++i) {
        std::size_t at = first_keypoint_ * attribute_stride_ + candidates[i].anchor * anchor_stride_;
        for (std::size_t k = 0; k < num_keypoints_; ++k, at += kpt_dims_ * attribute_stride_, xy += 2, ++visibility) {
          xy[0] = read(at) * scale_.x;
          xy[1] = read(at + attribute_stride_) * scale_.y;
          *visibility = kpt_dims_ == 3 ? read(at + 2 * attribute_stride_) : 1.0f;
        }
      }
    });
  }

 protected:
  // The first four attributes of each candidate as make_box takes them, in input pixels.
  template <class MakeBox>
  void read_boxes(const Candidate* candidates, std::size_t n, Box* out, MakeBox make_box) const {
    visit_real(tensor_, quantization_, [&](auto read) {
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t at = candidates[i].anchor * anchor_stride_, step = attribute_stride_;
        out[i] = make_box(read(at) * scale_.x, read(at + step) * scale_.y, read(at + 2 * step) * scale_.x,
                          read(at + 3 * step) * scale_.y);
      }
    });
  }

 private:
  const Tensor& tensor_;
  const Quantization& quantization_;
  std::size_t attribute_stride_, anchor_stride_, first_keypoint_, num_keypoints_, kpt_dims_;
  CoordScale scale_;
};

// Half a width or height. Rounding may leave a quantized one below zero. A NaN stays one.
float half_extent(float extent) { return extent < 0.0f ? 0.0f : extent * 0.5f; }

class CenterBoxSource final : public AttributeSource {
 public:
  using AttributeSource::AttributeSource;
  void boxes(const Candidate* candidates, std::size_t n, Box* out) override {
    read_boxes(candidates, n, out, [](float cx, float cy, float width, float height) {
      const float w = half_extent(width), h = half_extent(height);
      return Box{cx - w, cy - h, cx + w, cy + h};
    });
  }
};

class CornerBoxSource final : public AttributeSource {
 public:
  using AttributeSource::AttributeSource;
  void boxes(const Candidate* candidates, std::size_t n, Box* out) override {
    read_boxes(candidates, n, out, [](float x1, float y1, float x2, float y2) { return Box{x1, y1, x2, y2}; });
  }
};

DecodeOptions validated(DecodeOptions options) {
  options.validate();
  return options;
}

Quantization validated(const Quantization& quantization) {
  quantization.validate();
  return quantization;
}

}  // namespace

YoloDecoder::YoloDecoder(DecodeOptions options, Quantization quantization, CoordScale coord_scale)
    : options_(validated(std::move(options))),
      quantization_(validated(quantization)),
      coord_scale_(validated(coord_scale)),
      threshold_(static_cast<float>(options_.conf), quantization_),
      inverse_variance_(inverse_variances(options_.sigmas)) {}

void YoloDecoder::check(const std::vector<Tensor>& outputs) const {
  check_single(outputs);
  check_shape(outputs[0], "the output (1, 4 + classes + dims * keypoints, anchors)",
              {1, 4 + options_.num_classes + options_.num_keypoints * options_.kpt_dims, -1});
}

void YoloDecoder::decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
                         Workspace& workspace) const {
  const Tensor& tensor = outputs[0];
  const std::size_t anchors = static_cast<std::size_t>(tensor.shape[2]);
  const std::size_t classes = static_cast<std::size_t>(options_.num_classes);
  workspace.candidates.clear();
  scan_scores({&tensor, 4 * anchors, anchors, classes, false, 0}, quantization_, threshold_, decode_kernels(),
              workspace.scan, workspace.candidates);
  CenterBoxSource source(tensor, quantization_, options_, anchors, 1, 4 + classes, coord_scale_);
  select(source, options_, inverse_variance_, true, transform, size, workspace);
}

YoloEnd2EndDecoder::YoloEnd2EndDecoder(DecodeOptions options, Quantization quantization, CoordScale coord_scale)
    : options_(validated(std::move(options))),
      quantization_(validated(quantization)),
      coord_scale_(validated(coord_scale)) {}

void YoloEnd2EndDecoder::check(const std::vector<Tensor>& outputs) const {
  check_single(outputs);
  check_shape(outputs[0], "the output (1, people, 6 + dims * keypoints)",
              {1, -1, 6 + options_.num_keypoints * options_.kpt_dims});
}

void YoloEnd2EndDecoder::add_candidate(std::size_t row, float score, float class_id,
                                       std::vector<Candidate>& candidates) const {
  const bool known_class = class_id >= 0.0f && class_id < static_cast<float>(options_.num_classes);
  if (score > static_cast<float>(options_.conf) && std::isfinite(score) && known_class)
    candidates.push_back({static_cast<std::uint32_t>(row), static_cast<std::int32_t>(class_id), score});
}

void YoloEnd2EndDecoder::decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
                                Workspace& workspace) const {
  const Tensor& tensor = outputs[0];
  const std::size_t row = static_cast<std::size_t>(tensor.shape[2]);
  workspace.candidates.clear();
  visit_real(tensor, quantization_, [&](auto read) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(tensor.shape[1]); ++i)
      add_candidate(i, read(i * row + 4), std::round(read(i * row + 5)), workspace.candidates);
  });
  CornerBoxSource source(tensor, quantization_, options_, 1, row, 6, coord_scale_);
  select(source, options_, {}, false, transform, size, workspace);
}

}  // namespace edgepose
