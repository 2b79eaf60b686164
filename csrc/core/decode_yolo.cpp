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

void check_coord_scale(float x, float y) {
  if (!(x > 0.0f && y > 0.0f) || !std::isfinite(x) || !std::isfinite(y))
    throw std::invalid_argument("coord_scale is (" + std::to_string(x) + ", " + std::to_string(y) +
                                "), expected positive finite numbers");
}

// Element (attribute, anchor) of the decoded tensor; attributes of the end-to-end form lie side by side instead.
class AttributeSource : public CandidateSource {
 public:
  AttributeSource(const Tensor& tensor, const Quantization& quantization, const DecodeOptions& options,
                  std::size_t attribute_stride, std::size_t anchor_stride, std::size_t first_keypoint, float scale_x,
                  float scale_y)
      : reader_(tensor, quantization),
        attribute_stride_(attribute_stride),
        anchor_stride_(anchor_stride),
        first_keypoint_(first_keypoint),
        num_keypoints_(static_cast<std::size_t>(options.num_keypoints)),
        kpt_dims_(static_cast<std::size_t>(options.kpt_dims)),
        scale_x_(scale_x),
        scale_y_(scale_y) {}

  void poses(const Candidate* candidates, std::size_t n, float* xy, float* visibility) override {
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t k = 0; k < num_keypoints_; ++k, xy += 2, ++visibility) {
        const std::size_t attribute = first_keypoint_ + k * kpt_dims_;
        xy[0] = at(attribute, candidates[i]) * scale_x_;
        xy[1] = at(attribute + 1, candidates[i]) * scale_y_;
        *visibility = kpt_dims_ == 3 ? at(attribute + 2, candidates[i]) : 1.0f;
      }
  }

 protected:
  float at(std::size_t attribute, const Candidate& candidate) const {
    return reader_[attribute * attribute_stride_ + candidate.anchor * anchor_stride_];
  }

  Reader reader_;
  std::size_t attribute_stride_, anchor_stride_, first_keypoint_, num_keypoints_, kpt_dims_;
  float scale_x_, scale_y_;
};

class CenterBoxSource final : public AttributeSource {
 public:
  using AttributeSource::AttributeSource;
  void boxes(const Candidate* candidates, std::size_t n, Box* out) override {
    for (std::size_t i = 0; i < n; ++i) {
      const float cx = at(0, candidates[i]) * scale_x_, cy = at(1, candidates[i]) * scale_y_;
      const float half_w = half_extent(at(2, candidates[i]) * scale_x_);
      const float half_h = half_extent(at(3, candidates[i]) * scale_y_);
      out[i] = {cx - half_w, cy - half_h, cx + half_w, cy + half_h};
    }
  }

 private:
  // Rounding may leave a quantized extent below zero. A NaN stays one.
  static float half_extent(float extent) { return extent < 0.0f ? 0.0f : extent * 0.5f; }
};

class CornerBoxSource final : public AttributeSource {
 public:
  using AttributeSource::AttributeSource;
  void boxes(const Candidate* candidates, std::size_t n, Box* out) override {
    for (std::size_t i = 0; i < n; ++i)
      out[i] = {at(0, candidates[i]) * scale_x_, at(1, candidates[i]) * scale_y_, at(2, candidates[i]) * scale_x_,
                at(3, candidates[i]) * scale_y_};
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

YoloDecoder::YoloDecoder(DecodeOptions options, Quantization quantization, float coord_scale_x, float coord_scale_y)
    : options_(validated(std::move(options))),
      quantization_(validated(quantization)),
      coord_scale_x_(coord_scale_x),
      coord_scale_y_(coord_scale_y),
      threshold_(static_cast<float>(options_.conf), quantization_),
      inverse_variance_(inverse_variances(options_.sigmas)) {
  check_coord_scale(coord_scale_x, coord_scale_y);
}

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
  CenterBoxSource source(tensor, quantization_, options_, anchors, 1, 4 + classes, coord_scale_x_, coord_scale_y_);
  select(source, options_, inverse_variance_, true, transform, size, workspace);
}

YoloEnd2EndDecoder::YoloEnd2EndDecoder(DecodeOptions options, Quantization quantization, float coord_scale_x,
                                       float coord_scale_y)
    : options_(validated(std::move(options))),
      quantization_(validated(quantization)),
      coord_scale_x_(coord_scale_x),
      coord_scale_y_(coord_scale_y) {
  check_coord_scale(coord_scale_x, coord_scale_y);
}

void YoloEnd2EndDecoder::check(const std::vector<Tensor>& outputs) const {
  check_single(outputs);
  check_shape(outputs[0], "the output (1, people, 6 + dims * keypoints)",
              {1, -1, 6 + options_.num_keypoints * options_.kpt_dims});
}

void YoloEnd2EndDecoder::decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
                                Workspace& workspace) const {
  const Tensor& tensor = outputs[0];
  const Reader reader(tensor, quantization_);
  const std::size_t row = static_cast<std::size_t>(tensor.shape[2]);
  const float conf = static_cast<float>(options_.conf);
  workspace.candidates.clear();
  for (std::size_t i = 0; i < static_cast<std::size_t>(tensor.shape[1]); ++i) {
    const float score = reader[i * row + 4], class_id = std::round(reader[i * row + 5]);
    const bool known_class = class_id >= 0.0f && class_id < static_cast<float>(options_.num_classes);
    if (score > conf && std::isfinite(score) && known_class)
      workspace.candidates.push_back({static_cast<std::uint32_t>(i), static_cast<std::int32_t>(class_id), score});
  }
  CornerBoxSource source(tensor, quantization_, options_, 1, row, 6, coord_scale_x_, coord_scale_y_);
  select(source, options_, {}, false, transform, size, workspace);
}

}  // namespace edgepose
