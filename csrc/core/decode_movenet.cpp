#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/decode.hpp"

namespace edgepose {
namespace {

// The one pose, read and made harmless once.
class SinglePose final : public CandidateSource {
 public:
  SinglePose(const Tensor& tensor, const Quantization& quantization, std::size_t k, float width, float height,
             std::vector<float>& values)
      : k_(k), values_(values) {
    values_.resize(3 * k);
    visit_real(tensor, quantization, [&](auto read) {
      for (std::size_t i = 0; i < k; ++i) set(i, read(3 * i + 1) * width, read(3 * i) * height, read(3 * i + 2));
    });
  }

  float score() const {
    double sum = 0;
    for (std::size_t i = 0; i < k_; ++i) sum += values_[3 * i + 2];
    return static_cast<float>(sum / static_cast<double>(k_));
  }

  void boxes(const Candidate*, std::size_t n, Box* out) override { std::fill_n(out, n, bounds_); }

  void poses(const Candidate*, std::size_t n, float* xy, float* visibility) override {
    for (std::size_t i = 0; i < n * k_; ++i) {  // n is 0 or 1
      xy[2 * i] = values_[3 * i];
      xy[2 * i + 1] = values_[3 * i + 1];
      visibility[i] = values_[3 * i + 2];
    }
  }

 private:
  void set(std::size_t i, float x, float y, float score) {
    const bool known = is_place(x) && is_place(y) && !std::isnan(score);
    values_[3 * i] = known ? x : NAN;
    values_[3 * i + 1] = known ? y : NAN;
    values_[3 * i + 2] = known ? std::min(std::max(score, 0.0f), 1.0f) : 0.0f;
    if (known) widen(x, y);
  }
  void widen(float x, float y) {
    bounds_ = {std::min(bounds_.x1, x), std::min(bounds_.y1, y), std::max(bounds_.x2, x), std::max(bounds_.y2, y)};
  }

  std::size_t k_;
  std::vector<float>& values_;
  Box bounds_{INFINITY, INFINITY, -INFINITY, -INFINITY};  // no place: with no known keypoint there is no person
};

}  // namespace

MoveNetDecoder::MoveNetDecoder(DecodeOptions options, Quantization quantization, int input_width, int input_height)
    : options_(std::move(options)),
      quantization_(quantization),
      input_width_(static_cast<float>(input_width)),
      input_height_(static_cast<float>(input_height)) {
  options_.validate();
  quantization_.validate();
  if (input_width < 1 || input_height < 1)
    throw std::invalid_argument("input_size is (" + std::to_string(input_height) + ", " + std::to_string(input_width) +
                                "), expected (height, width) of at least 1");
}

void MoveNetDecoder::check(const std::vector<Tensor>& outputs) const {
  if (outputs.size() != 1)
    throw std::invalid_argument("got " + std::to_string(outputs.size()) + " output tensors, expected 1");
  check_shape(outputs[0], "the output (1, 1, keypoints, 3)", {1, 1, options_.num_keypoints, 3});
}

void MoveNetDecoder::decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
                            Workspace& workspace) const {
  SinglePose pose(outputs[0], quantization_, static_cast<std::size_t>(options_.num_keypoints), input_width_,
                  input_height_, workspace.logits);
  workspace.candidates.clear();
  if (pose.score() > static_cast<float>(options_.conf)) workspace.candidates.push_back({0, 0, pose.score()});
  select(pose, options_, {}, false, transform, size, workspace);
}

}  // namespace edgepose
