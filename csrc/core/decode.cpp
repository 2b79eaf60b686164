#include "core/decode.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace edgepose {
namespace {

[[noreturn]] void refuse(const std::string& name, const std::string& got, const std::string& expected) {
  throw std::invalid_argument(name + " is " + got + ", expected " + expected);
}

void check_fraction(const char* name, double value) {
  if (!(value >= 0.0 && value <= 1.0)) refuse(name, std::to_string(value), "a number from 0 to 1");
}

void check_at_least_one(const char* name, std::int64_t value) {
  if (value < 1) refuse(name, std::to_string(value), "at least 1");
}

// Takes input pixels back to the source picture.
class SourceMap {
 public:
  SourceMap(const Transform& t, const SourceSize& size, bool clip)
      : scale_x_(static_cast<float>(t.scale_x)),
        scale_y_(static_cast<float>(t.scale_y)),
        pad_x_(static_cast<float>(t.pad_x)),
        pad_y_(static_cast<float>(t.pad_y)),
        width_(static_cast<float>(size.width)),
        height_(static_cast<float>(size.height)),
        clip_(clip) {}

  float x(float value) const { return clipped((value - pad_x_) / scale_x_, width_); }
  float y(float value) const { return clipped((value - pad_y_) / scale_y_, height_); }

 private:
  float clipped(float value, float limit) const { return clip_ ? std::min(std::max(value, 0.0f), limit) : value; }
  float scale_x_, scale_y_, pad_x_, pad_y_, width_, height_;
  bool clip_;
};

class Selection {
 public:
  Selection(CandidateSource& source, const DecodeOptions& options, const std::vector<float>& inverse_variance,
            bool suppress, Workspace& workspace)
      : source_(source), options_(options), suppress_(suppress), work_(workspace) {
    const std::size_t candidates = work_.candidates.size();
    entering_ = std::min(candidates, static_cast<std::size_t>(options.max_candidates));
    limit_ = std::min(entering_, static_cast<std::size_t>(options.max_det));
    const DecodeKernels& kernels = decode_kernels();
    const float threshold = static_cast<float>(options.iou);
    if (suppress && options.nms == NmsKind::kOks)
      work_.poses.reset(limit_, threshold, inverse_variance, kernels);
    else if (suppress)
      work_.boxes.reset(limit_, threshold, kernels);
    work_.kept.clear();
    work_.kept_boxes.clear();
    const std::size_t k = static_cast<std::size_t>(options.num_keypoints);
    work_.pose.resize(2 * k + pad_lanes(k));
  }

  void run() {
    order();
    Candidate block[CandidateSource::kBlock];
    Box boxes[CandidateSource::kBlock];
    for (std::size_t start = 0; start < entering_ && work_.kept.size() < limit_; start += CandidateSource::kBlock) {
      const std::size_t n = std::min(CandidateSource::kBlock, entering_ - start);
      for (std::size_t i = 0; i < n; ++i) block[i] = work_.candidates[slot_of(work_.keys[start + i])];
      source_.boxes(block, n, boxes);
      for (std::size_t i = 0; i < n && work_.kept.size() < limit_; ++i) offer(block[i], boxes[i]);
    }
  }

 private:
  void order() {
    const std::size_t n = work_.candidates.size();
    work_.scores.resize(std::max(work_.scores.size(), n));
    for (std::size_t i = 0; i < n; ++i) work_.scores[i] = work_.candidates[i].score;
    order_by_score(work_.scores.data(), n, work_.keys, work_.spare_keys);
  }

  void offer(const Candidate& candidate, const Box& box) {
    if (!is_place(box)) return;
    if (suppress_ && !survives(candidate, box)) return;
    work_.kept.push_back(candidate);
    work_.kept_boxes.push_back(box);
  }

  bool survives(const Candidate& candidate, const Box& box) {
    const std::int32_t class_id = options_.agnostic ? 0 : candidate.class_id;
    if (options_.nms == NmsKind::kIou) return work_.boxes.try_keep(box, class_id);
    float* xy = work_.pose.data();
    const std::size_t k = static_cast<std::size_t>(options_.num_keypoints);
    source_.keypoints(candidate, xy, xy + 2 * k);
    for (std::size_t i = 0; i < k; ++i)
      if (!is_place(xy[2 * i]) || !is_place(xy[2 * i + 1])) xy[2 * i] = xy[2 * i + 1] = 0.0f;
    return work_.poses.try_keep(xy, box.area(), class_id);
  }

  CandidateSource& source_;
  const DecodeOptions& options_;
  bool suppress_;
  Workspace& work_;
  std::size_t entering_ = 0, limit_ = 0;
};

void write_pose(const float* xy, const float* visibility, std::size_t k, const SourceMap& map, float* out_xy,
                float* out_scores) {
  for (std::size_t i = 0; i < k; ++i) {
    const float x = map.x(xy[2 * i]), y = map.y(xy[2 * i + 1]), score = visibility[i];
    const bool known = is_place(xy[2 * i]) && is_place(xy[2 * i + 1]) && !std::isnan(score);
    out_xy[2 * i] = known ? x : 0.0f;
    out_xy[2 * i + 1] = known ? y : 0.0f;
    out_scores[i] = known ? std::min(std::max(score, 0.0f), 1.0f) : 0.0f;
  }
}

void write_detections(CandidateSource& source, const DecodeOptions& options, const SourceMap& map, Workspace& work) {
  const std::size_t n = work.kept.size(), k = static_cast<std::size_t>(options.num_keypoints);
  Detections& out = work.detections;
  out.count = n;
  out.boxes.resize(4 * n);
  out.scores.resize(n);
  out.class_ids.resize(n);
  out.keypoints.resize(2 * k * n);
  out.keypoint_scores.resize(k * n);
  float* xy = work.pose.data();
  float* visibility = xy + 2 * k;
  for (std::size_t i = 0; i < n; ++i) {
    const Candidate& candidate = work.kept[i];
    const Box& box = work.kept_boxes[i];
    const float corners[4] = {map.x(box.x1), map.y(box.y1), map.x(box.x2), map.y(box.y2)};
    std::copy_n(corners, 4, &out.boxes[4 * i]);
    out.scores[i] = candidate.score;
    out.class_ids[i] = candidate.class_id;
    source.keypoints(candidate, xy, visibility);
    write_pose(xy, visibility, k, map, &out.keypoints[2 * k * i], &out.keypoint_scores[k * i]);
  }
}

}  // namespace

void Transform::validate() const {
  for (const double scale : {scale_x, scale_y})
    if (!(scale >= 1e-9 && scale <= 1e9)) refuse("transform scale", std::to_string(scale), "a positive finite number");
  for (const double pad : {pad_x, pad_y})
    if (!(std::abs(pad) <= 1e9)) refuse("transform pad", std::to_string(pad), "a finite number of pixels");
}

void SourceSize::validate() const {
  check_at_least_one("source width", width);
  check_at_least_one("source height", height);
}

NmsKind nms_from_string(const std::string& name) {
  if (name == "iou") return NmsKind::kIou;
  if (name == "oks") return NmsKind::kOks;
  throw std::invalid_argument("nms is '" + name + "', expected 'iou' or 'oks'");
}

void DecodeOptions::validate() const {
  check_at_least_one("num_classes", num_classes);
  if (num_classes > 65536) refuse("num_classes", std::to_string(num_classes), "at most 65536");
  check_at_least_one("kpt_shape[0]", num_keypoints);
  if (num_keypoints > 65536) refuse("kpt_shape[0]", std::to_string(num_keypoints), "at most 65536");
  if (kpt_dims != 2 && kpt_dims != 3) refuse("kpt_shape[1]", std::to_string(kpt_dims), "2 (x, y) or 3 (x, y, score)");
  check_fraction("conf", conf);
  check_fraction("iou", iou);
  check_at_least_one("max_det", max_det);
  check_at_least_one("max_candidates", max_candidates);
  const bool needs_sigmas = nms == NmsKind::kOks;
  if ((needs_sigmas || !sigmas.empty()) && sigmas.size() != static_cast<std::size_t>(num_keypoints))
    refuse("the number of sigmas", std::to_string(sigmas.size()),
           std::to_string(num_keypoints) + ", one a keypoint" + (needs_sigmas ? " (nms='oks' needs them)" : ""));
}

void select(CandidateSource& source, const DecodeOptions& options, const std::vector<float>& inverse_variance,
            bool suppress, const Transform& transform, const SourceSize& size, Workspace& workspace) {
  Selection(source, options, inverse_variance, suppress, workspace).run();
  write_detections(source, options, SourceMap(transform, size, options.clip), workspace);
}

}  // namespace edgepose
