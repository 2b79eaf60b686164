#include "core/decode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

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

PointMap point_map(const Transform& transform, const SourceSize& size, bool clip) {
  constexpr float kMost = std::numeric_limits<float>::max();
  const float width = static_cast<float>(size.width), height = static_cast<float>(size.height);
  return {{static_cast<float>(transform.pad_x), static_cast<float>(transform.pad_y)},
          {static_cast<float>(1.0 / transform.scale_x), static_cast<float>(1.0 / transform.scale_y)},
          {clip ? 0.0f : -kMost, clip ? 0.0f : -kMost},
          {clip ? width : kMost, clip ? height : kMost}};
}

float mapped(const PointMap& map, int axis, float value) {
  return std::min(std::max((value - map.pad[axis]) * map.inverse_scale[axis], map.low[axis]), map.high[axis]);
}

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
  }

  void run() {
    order();
    Candidate block[CandidateSource::kBlock];
    Box boxes[CandidateSource::kBlock];
    for (std::size_t start = 0; start < entering_ && work_.kept.size() < limit_; start += CandidateSource::kBlock) {
      const std::size_t n = std::min(CandidateSource::kBlock, entering_ - start);
      for (std::size_t i = 0; i < n; ++i) block[i] = work_.candidates[slot_of(work_.keys[start + i])];
      source_.boxes(block, n, boxes);
      if (by_oks()) decode_poses(block, n);
      for (std::size_t i = 0; i < n && work_.kept.size() < limit_; ++i)
        if (is_place(boxes[i]) && survives(i, block[i], boxes[i])) keep(block[i], boxes[i]);
    }
  }

 private:
  void order() {
    const std::size_t n = work_.candidates.size();
    work_.scores.resize(std::max(work_.scores.size(), n));
    for (std::size_t i = 0; i < n; ++i) work_.scores[i] = work_.candidates[i].score;
    order_by_score(work_.scores.data(), n, work_.keys, work_.spare_keys);
  }

  bool by_oks() const { return suppress_ && options_.nms == NmsKind::kOks; }

  void decode_poses(const Candidate* block, std::size_t n) {
    const std::size_t k = static_cast<std::size_t>(options_.num_keypoints);
    work_.xy.resize(2 * k * CandidateSource::kBlock);
    work_.visibility.resize(pad_lanes(k * CandidateSource::kBlock));
    source_.poses(block, n, work_.xy.data(), work_.visibility.data());
    for (std::size_t i = 0; i < 2 * k * n; i += 2)
      if (!is_place(work_.xy[i]) || !is_place(work_.xy[i + 1])) work_.xy[i] = work_.xy[i + 1] = 0.0f;
  }

  bool survives(std::size_t i, const Candidate& candidate, const Box& box) {
    if (!suppress_) return true;
    const std::int32_t class_id = options_.agnostic ? 0 : candidate.class_id;
    if (!by_oks()) return work_.boxes.try_keep(box, class_id);
    return work_.poses.try_keep(&work_.xy[2 * static_cast<std::size_t>(options_.num_keypoints) * i], box.area(),
                                class_id);
  }

  void keep(const Candidate& candidate, const Box& box) {
    work_.kept.push_back(candidate);
    work_.kept_boxes.push_back(box);
  }

  CandidateSource& source_;
  const DecodeOptions& options_;
  bool suppress_;
  Workspace& work_;
  std::size_t entering_ = 0, limit_ = 0;
};

// The best first again, and only those above conf.
void order_rescored(float conf, std::vector<Candidate>& kept, std::vector<Box>& boxes) {
  for (std::size_t i = 1; i < kept.size(); ++i)
    for (std::size_t j = i; j > 0 && kept[j - 1].score < kept[j].score; --j) {
      std::swap(kept[j - 1], kept[j]);
      std::swap(boxes[j - 1], boxes[j]);
    }
  while (!kept.empty() && !(kept.back().score > conf)) kept.pop_back();
  boxes.resize(kept.size());
}

// Points that are not known become (0, 0) with score 0 in the source picture.
void map_doubtful_points(const PointMap& map, std::size_t n, float* xy, float* scores) {
  for (std::size_t i = 0; i < n; ++i) {
    float* point = xy + 2 * i;
    const bool known = is_place(point[0]) && is_place(point[1]) && !std::isnan(scores[i]);
    point[0] = known ? mapped(map, 0, point[0]) : 0.0f;
    point[1] = known ? mapped(map, 1, point[1]) : 0.0f;
    scores[i] = known ? std::min(std::max(scores[i], 0.0f), 1.0f) : 0.0f;
  }
}

void write_poses(CandidateSource& source, std::size_t num_keypoints, const PointMap& map, Detections& out,
                 const std::vector<Candidate>& kept) {
  const DecodeKernels& kernels = decode_kernels();
  const std::size_t n = num_keypoints * out.count;
  out.keypoints.resize(pad_lanes(2 * n));
  out.keypoint_scores.resize(pad_lanes(n));
  float *xy = out.keypoints.data(), *scores = out.keypoint_scores.data();
  source.poses(kept.data(), out.count, xy, scores);
  std::fill(out.keypoints.begin() + static_cast<std::ptrdiff_t>(2 * n), out.keypoints.end(), 0.0f);
  std::fill(out.keypoint_scores.begin() + static_cast<std::ptrdiff_t>(n), out.keypoint_scores.end(), 0.0f);
  if (!kernels.map_points(map, n, xy, scores)) map_doubtful_points(map, n, xy, scores);
}

void write_boxes(const PointMap& map, Workspace& work) {
  Detections& out = work.detections;
  out.boxes.resize(4 * out.count);
  out.scores.resize(out.count);
  out.class_ids.resize(out.count);
  for (std::size_t i = 0; i < out.count; ++i) {
    const Box& box = work.kept_boxes[i];
    const float corners[4] = {mapped(map, 0, box.x1), mapped(map, 1, box.y1), mapped(map, 0, box.x2),
                              mapped(map, 1, box.y2)};
    std::copy_n(corners, 4, &out.boxes[4 * i]);
    out.scores[i] = std::min(work.kept[i].score, 1.0f);
    out.class_ids[i] = work.kept[i].class_id;
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
  if (source.rescore(workspace.kept.data(), workspace.kept.size()))
    order_rescored(static_cast<float>(options.conf), workspace.kept, workspace.kept_boxes);
  const PointMap map = point_map(transform, size, options.clip);
  workspace.detections.count = workspace.kept.size();
  write_boxes(map, workspace);
  write_poses(source, static_cast<std::size_t>(options.num_keypoints), map, workspace.detections, workspace.kept);
}

}  // namespace edgepose
