// From a model's output tensors to people in the source picture's pixels.
//
// Every decoder goes the same way: threshold the scores, order the survivors (score descending, then anchor index
// ascending), decode them block by block while NMS still takes some, then read the keypoints of those that it kept.
//
// Numbers that are not finite: a NaN score never passes and an infinite one is left out; a candidate whose box has a
// corner that is not a number within +-1e9 input pixels is dropped before NMS; a keypoint like that, or one whose score
// is NaN, becomes (0, 0) with score 0. Scores come out within [0, 1].
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/heatmap.hpp"
#include "core/nms.hpp"
#include "core/oks.hpp"
#include "core/score_scan.hpp"
#include "core/tensor.hpp"
#include "core/transform.hpp"

namespace edgepose {

struct SourceSize {
  std::int64_t width = 0, height = 0;
  void validate() const;  // throws std::invalid_argument below 1
};

enum class NmsKind { kIou, kOks };
NmsKind nms_from_string(const std::string& name);  // throws std::invalid_argument

struct DecodeOptions {
  int num_classes = 1, num_keypoints = 17, kpt_dims = 3;
  double conf = 0.25, iou = 0.7;
  std::int64_t max_det = 300, max_candidates = 30000;
  NmsKind nms = NmsKind::kIou;
  std::vector<float> sigmas;  // K of them for OKS
  bool agnostic = false, clip = true;

  void validate() const;  // throws std::invalid_argument, naming the value
};

// N people: boxes 4N (x1, y1, x2, y2), scores N, class_ids N, keypoints 2KN, keypoint_scores KN; the last two are
// longer, to whole vectors.
struct Detections {
  std::size_t count = 0;
  std::vector<float> boxes, scores;
  std::vector<std::int32_t> class_ids;
  std::vector<float> keypoints, keypoint_scores;
};

// The buffers of one decoding at a time, reused from frame to frame.
struct Workspace {
  ScanBuffers scan;
  std::vector<Candidate> candidates;
  std::vector<float> scores, logits, distances, pose;
  std::vector<float> xy, visibility;  // of a block, for NMS by OKS
  std::vector<std::uint64_t> keys, spare_keys;
  BoxSuppressor boxes;
  PoseSuppressor poses;
  std::vector<Candidate> kept;
  std::vector<Box> kept_boxes;
  Detections detections;
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Throws std::invalid_argument where the tensors are not what this decoder reads.
  virtual void check(const std::vector<Tensor>& outputs) const = 0;
  // Leaves the people in workspace.detections. The tensors have passed check().
  virtual void decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
                      Workspace& workspace) const = 0;
};

// The candidates of one picture, decoded on demand, in input pixels.
class CandidateSource {
 public:
  static constexpr std::size_t kBlock = 32;
  virtual ~CandidateSource() = default;
  virtual void boxes(const Candidate* candidates, std::size_t n, Box* out) = 0;  // n <= kBlock
  // xy: K pairs for each candidate; visibility: K scores for each, with room for pad_lanes(K * n).
  virtual void poses(const Candidate* candidates, std::size_t n, float* xy, float* visibility) = 0;
  // Scores the people that NMS kept anew, by their poses; false: the scores stay as they are.
  virtual bool rescore(Candidate*, std::size_t) { return false; }
};

// Orders workspace.candidates, cuts them at max_candidates, suppresses and fills workspace.detections. Without
// `suppress` the best max_det are kept as they are.
void select(CandidateSource& source, const DecodeOptions& options, const std::vector<float>& inverse_variance,
            bool suppress, const Transform& transform, const SourceSize& size, Workspace& workspace);

// What turns a model's coordinates into input pixels: 1, or its width and height where they are fractions.
struct CoordScale {
  float x = 1.0f, y = 1.0f;
};

// The single decoded tensor (1, 4 + C + D*K, N) of Ultralytics YOLOv8-pose and YOLO11-pose: cx, cy, w, h, C class
// scores, K keypoints (x, y[, score]).
class YoloDecoder : public Decoder {
 public:
  YoloDecoder(DecodeOptions options, Quantization quantization, CoordScale coord_scale);
  void check(const std::vector<Tensor>& outputs) const override;
  void decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
              Workspace& workspace) const override;

 private:
  DecodeOptions options_;
  Quantization quantization_;
  CoordScale coord_scale_;
  ScoreThreshold threshold_;
  std::vector<float> inverse_variance_;
};

// The end-to-end tensor (1, M, 6 + D*K): x1, y1, x2, y2, score, class, keypoints; the model has done the NMS. Rows
// whose class is not one of num_classes are left out.
class YoloEnd2EndDecoder : public Decoder {
 public:
  YoloEnd2EndDecoder(DecodeOptions options, Quantization quantization, CoordScale coord_scale);
  void check(const std::vector<Tensor>& outputs) const override;
  void decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
              Workspace& workspace) const override;

 private:
  void add_candidate(std::size_t row, float score, float class_id, std::vector<Candidate>& candidates) const;

  DecodeOptions options_;
  Quantization quantization_;
  CoordScale coord_scale_;
};

// MoveNet single pose, (1, 1, K, 3): y, x, score, places as fractions of the input. One person, whose score is the
// mean of the keypoint scores and whose box is the bounds of the keypoints; none where the score is not above conf.
class MoveNetDecoder : public Decoder {
 public:
  MoveNetDecoder(DecodeOptions options, Quantization quantization, int input_width, int input_height);
  void check(const std::vector<Tensor>& outputs) const override;
  void decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
              Workspace& workspace) const override;

 private:
  DecodeOptions options_;
  Quantization quantization_;
  float input_width_, input_height_;
};

enum class HeadRole { kBox, kScore, kKeypoints, kVisibility, kHeatmap };
HeadRole head_role_from_string(const std::string& name);  // throws std::invalid_argument
const char* to_string(HeadRole role);

// kNchw (1, C, H, W), kNhwc (1, H, W, C), kNca (1, C, H*W), kNac (1, H*W, C).
enum class HeadLayout { kNchw, kNhwc, kNca, kNac };
HeadLayout head_layout_from_string(const std::string& name);  // throws std::invalid_argument

struct Head {
  HeadRole role = HeadRole::kBox;
  std::size_t index = 0;  // among the model's outputs
  int stride = 8;         // input pixels a cell
  HeadLayout layout = HeadLayout::kNchw;
  DType dtype = DType::kFloat32;
  Quantization quantization;
};

// The raw heads of YOLOv8-pose, a tensor for each role and stride.
//   box: 4 * reg_max logits; left, top, right, bottom distances from the cell's centre in strides, each the expectation
//     of its distribution (Li et al., "Generalized Focal Loss", 2020); with reg_max 1 the distances themselves.
//   score: C logits. keypoints: K * D values interleaved, or K * 2 where visibility has its own tensor;
//     x = (2 raw + cell) * stride. visibility: K logits.
//   heatmap: one at most, of one of the strides, 4 K logits, which move the keypoints of those that were kept to its
//     peaks (heatmap.hpp).
// Scores are thresholded as logits, quantized ones in their own integers. Anchors are numbered stride by stride,
// ascending, then row by row.
class YoloHeadsDecoder : public Decoder {
 public:
  // input_height, input_width: 0 where the model takes any size; then a head of 2-D layout tells it.
  YoloHeadsDecoder(DecodeOptions options, const std::vector<Head>& heads, int reg_max, int input_height,
                   int input_width);
  void check(const std::vector<Tensor>& outputs) const override;
  void decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
              Workspace& workspace) const override;

  struct Level {
    int stride = 0;
    Head box, score, keypoints, visibility;
    bool has_visibility = false;
    ScoreThreshold threshold;
  };

 private:
  struct InputSize {
    std::int64_t height, width;
  };
  InputSize input_size(const std::vector<Tensor>& outputs) const;
  void check_head(const Head& head, std::int64_t channels, const InputSize& input,
                  const std::vector<Tensor>& outputs) const;
  std::int64_t keypoint_channels(const Level& level) const;
  std::optional<Heatmap> heatmap_of(const std::vector<Tensor>& outputs, const InputSize& input) const;

  DecodeOptions options_;
  std::vector<Level> levels_;  // strides ascending
  std::optional<Head> heatmap_;
  int reg_max_, input_height_, input_width_;
  std::vector<float> inverse_variance_;
};

}  // namespace edgepose
