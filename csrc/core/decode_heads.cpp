#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/decode.hpp"

namespace edgepose {
namespace {

bool is_planar(HeadLayout layout) { return layout == HeadLayout::kNchw || layout == HeadLayout::kNca; }
bool has_grid(HeadLayout layout) { return layout == HeadLayout::kNchw || layout == HeadLayout::kNhwc; }

std::string describe(const Head& head) {
  return "output " + std::to_string(head.index) + " (" + to_string(head.role) + ", stride " +
         std::to_string(head.stride) + ")";
}

// sigmoid(logit) > conf, asked of the logit: nothing passes 1, everything finite passes 0.
float logit(double conf) { return static_cast<float>(std::log(conf / (1.0 - conf))); }

// A head's memory: element (channel, cell) lies at channel * channel_stride + cell * cell_stride.
struct HeadView {
  const Tensor* tensor;
  const Quantization* quantization;
  std::size_t channel_stride, cell_stride;

  // Calls write(channel, real number) for the channels of one cell.
  template <class Write>
  void read_cell(std::size_t cell, std::size_t channels, Write write) const {
    visit_real(*tensor, *quantization, [&](auto read) {
      std::size_t at = cell * cell_stride;
      for (std::size_t channel = 0; channel < channels; ++channel, at += channel_stride) write(channel, read(at));
    });
  }
};

HeadView view_of(const Head& head, const Tensor& tensor, std::size_t channels, std::size_t cells) {
  if (is_planar(head.layout)) return {&tensor, &head.quantization, cells, 1};
  return {&tensor, &head.quantization, 1, channels};
}

struct Grid {
  std::size_t first_anchor, columns;
  float stride;
  HeadView box, keypoints, visibility;
  bool has_visibility;
};

struct Place {
  const Grid* grid;
  std::size_t cell;
  float column() const { return static_cast<float>(cell % grid->columns); }
  float row() const { return static_cast<float>(cell / grid->columns); }
};

class HeadsSource final : public CandidateSource {
 public:
  // heatmap: null where there is none.
  HeadsSource(const std::vector<Grid>& grids, const Heatmap* heatmap, const DecodeOptions& options, int reg_max,
              const DecodeKernels& kernels, Workspace& workspace)
      : grids_(grids),
        heatmap_(heatmap),
        num_keypoints_(static_cast<std::size_t>(options.num_keypoints)),
        kpt_dims_(static_cast<std::size_t>(options.kpt_dims)),
        reg_max_(static_cast<std::size_t>(reg_max)),
        kernels_(kernels),
        logits_(workspace.logits),
        distances_(workspace.distances),
        pose_(workspace.pose) {
    logits_.resize(reg_max_ * 4 * kBlock);
    distances_.resize(4 * kBlock);
  }

  void boxes(const Candidate* candidates, std::size_t n, Box* out) override {
    const std::size_t lanes = pad_lanes(4 * n);
    for (std::size_t i = 0; i < n; ++i) gather(place_of(candidates[i]), 4 * i, lanes);
    if (reg_max_ > 1)
      kernels_.expectation(logits_.data(), reg_max_, lanes, distances_.data());
    else
      std::copy_n(logits_.data(), 4 * n, distances_.data());
    for (std::size_t i = 0; i < n; ++i) out[i] = box_at(place_of(candidates[i]), &distances_[4 * i]);
  }

  void poses(const Candidate* candidates, std::size_t n, float* xy, float* visibility) override {
    const std::size_t total = n * num_keypoints_;
    for (std::size_t i = 0; i < n; ++i)
      read_pose(place_of(candidates[i]), xy + 2 * num_keypoints_ * i, visibility + num_keypoints_ * i);
    for (std::size_t i = 0; heatmap_ && i < n; ++i) refine(candidates[i], xy + 2 * num_keypoints_ * i);
    if (kpt_dims_ == 2) {
      std::fill_n(visibility, total, 1.0f);
    } else {
      std::fill(visibility + total, visibility + pad_lanes(total), 0.0f);
      kernels_.sigmoid(visibility, total);
    }
  }

  // The geometric mean of the class's score and of what the heatmaps say of the pose.
  bool rescore(Candidate* candidates, std::size_t n) override {
    if (!heatmap_) return false;
    pose_.resize(3 * num_keypoints_);
    for (std::size_t i = 0; i < n; ++i) {
      read_pose(place_of(candidates[i]), pose_.data(), pose_.data() + 2 * num_keypoints_);
      candidates[i].score = std::sqrt(candidates[i].score * refine(candidates[i], pose_.data()));
    }
    return true;
  }

 private:
  float refine(const Candidate& candidate, float* xy) {
    Box box;
    boxes(&candidate, 1, &box);
    return refine_pose(*heatmap_, box, num_keypoints_, xy);
  }

  Place place_of(const Candidate& candidate) const {
    const Grid* grid = &grids_.back();
    while (candidate.anchor < grid->first_anchor) --grid;
    return {grid, candidate.anchor - grid->first_anchor};
  }

  // Writes the 4 * reg_max logits of one cell as four lanes from `lane` on.
  void gather(const Place& place, std::size_t lane, std::size_t lanes) {
    float* out = logits_.data() + lane;
    std::size_t bin = 0;
    place.grid->box.read_cell(place.cell, 4 * reg_max_, [&](std::size_t, float value) {
      out[bin * lanes] = value;
      if (++bin == reg_max_) bin = 0, ++out;
    });
  }

  static Box box_at(const Place& place, const float* distances) {
    const float stride = place.grid->stride, x = place.column() + 0.5f, y = place.row() + 0.5f;
    const Box box{(x - distances[0]) * stride, (y - distances[1]) * stride, (x + distances[2]) * stride,
                  (y + distances[3]) * stride};
    // Distances without a distribution may cross over. A NaN stays one.
    return {box.x1, box.y1, box.x2 < box.x1 ? box.x1 : box.x2, box.y2 < box.y1 ? box.y1 : box.y2};
  }

  // The keypoints tensor holds x and y, and without a tensor of its own the visibility logit.
  void read_pose(const Place& place, float* xy, float* visibility) const {
    const Grid& grid = *place.grid;
    const float corner[2] = {place.column(), place.row()};
    const std::size_t step = grid.has_visibility ? 2 : kpt_dims_;
    std::size_t part = 0;
    grid.keypoints.read_cell(place.cell, num_keypoints_ * step, [&](std::size_t, float value) {
      if (part < 2)
        *xy++ = (value * 2.0f + corner[part]) * grid.stride;
      else
        *visibility++ = value;
      if (++part == step) part = 0;
    });
    if (grid.has_visibility)
      grid.visibility.read_cell(place.cell, num_keypoints_, [&](std::size_t k, float value) { visibility[k] = value; });
  }

  const std::vector<Grid>& grids_;
  const Heatmap* heatmap_;
  std::size_t num_keypoints_, kpt_dims_, reg_max_;
  const DecodeKernels& kernels_;
  std::vector<float>&logits_, &distances_, &pose_;
};

Head* head_of(YoloHeadsDecoder::Level& level, HeadRole role) {
  switch (role) {
    case HeadRole::kBox:
      return &level.box;
    case HeadRole::kScore:
      return &level.score;
    case HeadRole::kKeypoints:
      return &level.keypoints;
    default:
      return &level.visibility;
  }
}

// The one head of this role, of this stride if it is not 0, or null.
const Head* find_head(const std::vector<Head>& heads, int stride, HeadRole role) {
  const Head* found = nullptr;
  for (const Head& head : heads) {
    if ((stride && head.stride != stride) || head.role != role) continue;
    if (found) throw std::invalid_argument(describe(*found) + " and " + describe(head) + " have the same role");
    found = &head;
  }
  return found;
}

YoloHeadsDecoder::Level make_level(const std::vector<Head>& heads, int stride, double conf) {
  YoloHeadsDecoder::Level level{stride, {}, {}, {}, {}, false, ScoreThreshold(0.0f, {})};
  for (const HeadRole role : {HeadRole::kBox, HeadRole::kScore, HeadRole::kKeypoints, HeadRole::kVisibility}) {
    const Head* head = find_head(heads, stride, role);
    if (head)
      *head_of(level, role) = *head;
    else if (role != HeadRole::kVisibility)
      throw std::invalid_argument(std::string("there is no ") + to_string(role) + " head of stride " +
                                  std::to_string(stride) + ", expected box, score and keypoints for each stride");
    level.has_visibility = role == HeadRole::kVisibility && head;
  }
  level.threshold = ScoreThreshold(logit(conf), level.score.quantization);
  return level;
}

void check_heads(const std::vector<Head>& heads, int kpt_dims) {
  if (heads.empty()) throw std::invalid_argument("heads is empty, expected box, score and keypoints for each stride");
  std::vector<std::size_t> indices;
  for (const Head& head : heads) {
    if (head.stride < 1 || head.stride > 65536)
      throw std::invalid_argument("the stride of " + describe(head) + " is not within 1 to 65536");
    head.quantization.validate();
    if (head.role == HeadRole::kVisibility && kpt_dims != 3)
      throw std::invalid_argument(describe(head) + " needs kpt_shape[1] = 3, got 2");
    if (std::find(indices.begin(), indices.end(), head.index) != indices.end())
      throw std::invalid_argument("output " + std::to_string(head.index) + " is named by two heads");
    indices.push_back(head.index);
  }
}

}  // namespace

const char* to_string(HeadRole role) {
  switch (role) {
    case HeadRole::kBox:
      return "box";
    case HeadRole::kScore:
      return "score";
    case HeadRole::kKeypoints:
      return "keypoints";
    case HeadRole::kVisibility:
      return "visibility";
    case HeadRole::kHeatmap:
      return "heatmap";
  }
  return "unknown";
}

HeadRole head_role_from_string(const std::string& name) {
  for (HeadRole role :
       {HeadRole::kBox, HeadRole::kScore, HeadRole::kKeypoints, HeadRole::kVisibility, HeadRole::kHeatmap})
    if (name == to_string(role)) return role;
  throw std::invalid_argument("head role is '" + name + "', expected box, score, keypoints, visibility or heatmap");
}

HeadLayout head_layout_from_string(const std::string& name) {
  if (name == "NCHW") return HeadLayout::kNchw;
  if (name == "NHWC") return HeadLayout::kNhwc;
  if (name == "NCA") return HeadLayout::kNca;
  if (name == "NAC") return HeadLayout::kNac;
  throw std::invalid_argument("head layout is '" + name + "', expected NCHW, NHWC, NCA or NAC");
}

YoloHeadsDecoder::YoloHeadsDecoder(DecodeOptions options, const std::vector<Head>& heads, int reg_max, int input_height,
                                   int input_width)
    : options_(std::move(options)), reg_max_(reg_max), input_height_(input_height), input_width_(input_width) {
  options_.validate();
  inverse_variance_ = inverse_variances(options_.sigmas);
  if (reg_max < 1 || reg_max > 4096)
    throw std::invalid_argument("reg_max is " + std::to_string(reg_max) + ", expected 1 to 4096");
  check_heads(heads, options_.kpt_dims);
  std::vector<int> strides;
  for (const Head& head : heads)
    if (head.role != HeadRole::kHeatmap) strides.push_back(head.stride);
  std::sort(strides.begin(), strides.end());
  strides.erase(std::unique(strides.begin(), strides.end()), strides.end());
  for (const int stride : strides) {
    levels_.push_back(make_level(heads, stride, options_.conf));
    if (input_height < 0 || input_width < 0 || input_height % stride || input_width % stride)
      throw std::invalid_argument("input_size is (" + std::to_string(input_height) + ", " +
                                  std::to_string(input_width) + "), expected (height, width), multiples of stride " +
                                  std::to_string(stride));
  }
  if (const Head* heatmap = find_head(heads, 0, HeadRole::kHeatmap)) {
    if (std::find(strides.begin(), strides.end(), heatmap->stride) == strides.end())
      throw std::invalid_argument("the stride of " + describe(*heatmap) + " is that of no box, score and keypoints");
    heatmap_ = *heatmap;
  }
  const bool tells_size = std::any_of(heads.begin(), heads.end(), [](const Head& h) { return has_grid(h.layout); });
  if ((input_height == 0 || input_width == 0) && !tells_size)
    throw std::invalid_argument(
        "input_size is not given and every head has layout NCA or NAC, which do not tell it: "
        "pass input_size=(height, width)");
}

YoloHeadsDecoder::InputSize YoloHeadsDecoder::input_size(const std::vector<Tensor>& outputs) const {
  if (input_height_ && input_width_) return {input_height_, input_width_};
  std::vector<const Head*> heads;
  for (const Level& level : levels_) {
    heads.insert(heads.end(), {&level.box, &level.score, &level.keypoints});
    if (level.has_visibility) heads.push_back(&level.visibility);
  }
  if (heatmap_) heads.push_back(&*heatmap_);
  for (const Head* head : heads) {
    const Tensor& tensor = outputs[head->index];
    if (!has_grid(head->layout) || tensor.ndim != 4) continue;
    const std::size_t row = head->layout == HeadLayout::kNchw ? 2 : 1, stride = static_cast<std::size_t>(head->stride);
    return {tensor.shape[row] * stride, tensor.shape[row + 1] * stride};
  }
  throw std::invalid_argument("no output has a grid (1, C, H, W) or (1, H, W, C): the input size is not known");
}

void YoloHeadsDecoder::check_head(const Head& head, std::int64_t channels, const InputSize& input,
                                  const std::vector<Tensor>& outputs) const {
  const Tensor& tensor = outputs[head.index];
  if (tensor.dtype != head.dtype)
    throw std::invalid_argument(describe(head) + " is " + to_string(tensor.dtype) + ", expected " +
                                to_string(head.dtype));
  const std::int64_t h = input.height / head.stride, w = input.width / head.stride;
  switch (head.layout) {
    case HeadLayout::kNchw:
      return check_shape(tensor, describe(head), {1, channels, h, w});
    case HeadLayout::kNhwc:
      return check_shape(tensor, describe(head), {1, h, w, channels});
    case HeadLayout::kNca:
      return check_shape(tensor, describe(head), {1, channels, h * w});
    case HeadLayout::kNac:
      return check_shape(tensor, describe(head), {1, h * w, channels});
  }
}

std::int64_t YoloHeadsDecoder::keypoint_channels(const Level& level) const {
  return static_cast<std::int64_t>(options_.num_keypoints) * (level.has_visibility ? 2 : options_.kpt_dims);
}

void YoloHeadsDecoder::check(const std::vector<Tensor>& outputs) const {
  std::size_t needed = 0;
  for (const Level& level : levels_)
    needed = std::max({needed, level.box.index + 1, level.score.index + 1, level.keypoints.index + 1,
                       level.has_visibility ? level.visibility.index + 1 : 0, heatmap_ ? heatmap_->index + 1 : 0});
  if (outputs.size() < needed)
    throw std::invalid_argument("got " + std::to_string(outputs.size()) + " output tensors, expected at least " +
                                std::to_string(needed));
  const InputSize input = input_size(outputs);
  for (const Level& level : levels_) {
    check_head(level.box, 4 * reg_max_, input, outputs);
    check_head(level.score, options_.num_classes, input, outputs);
    check_head(level.keypoints, keypoint_channels(level), input, outputs);
    if (level.has_visibility) check_head(level.visibility, options_.num_keypoints, input, outputs);
  }
  if (heatmap_) check_head(*heatmap_, 4 * options_.num_keypoints, input, outputs);
}

std::optional<Heatmap> YoloHeadsDecoder::heatmap_of(const std::vector<Tensor>& outputs, const InputSize& input) const {
  if (!heatmap_) return std::nullopt;
  const std::size_t rows = static_cast<std::size_t>(input.height / heatmap_->stride);
  const std::size_t columns = static_cast<std::size_t>(input.width / heatmap_->stride);
  const HeadView view = view_of(*heatmap_, outputs[heatmap_->index],
                                static_cast<std::size_t>(4 * options_.num_keypoints), rows * columns);
  return Heatmap{view.tensor,
                 heatmap_->quantization,
                 rows,
                 columns,
                 view.channel_stride,
                 view.cell_stride,
                 static_cast<float>(heatmap_->stride)};
}

void YoloHeadsDecoder::decode(const std::vector<Tensor>& outputs, const Transform& transform, const SourceSize& size,
                              Workspace& workspace) const {
  const DecodeKernels& kernels = decode_kernels();
  const InputSize input = input_size(outputs);
  const std::size_t classes = static_cast<std::size_t>(options_.num_classes);
  std::vector<Grid> grids;
  grids.reserve(levels_.size());
  workspace.candidates.clear();
  std::size_t first_anchor = 0;
  for (const Level& level : levels_) {
    const std::size_t columns = static_cast<std::size_t>(input.width / level.stride);
    const std::size_t cells = static_cast<std::size_t>(input.height / level.stride) * columns;
    const auto view = [&](const Head& head, std::size_t channels) {
      return view_of(head, outputs[head.index], channels, cells);
    };
    const std::size_t k = static_cast<std::size_t>(options_.num_keypoints);
    grids.push_back({first_anchor, columns, static_cast<float>(level.stride),
                     view(level.box, static_cast<std::size_t>(4 * reg_max_)),
                     view(level.keypoints, static_cast<std::size_t>(keypoint_channels(level))),
                     view(level.has_visibility ? level.visibility : level.keypoints, k), level.has_visibility});
    scan_scores({&outputs[level.score.index], 0, cells, classes, !is_planar(level.score.layout),
                 static_cast<std::uint32_t>(first_anchor)},
                level.score.quantization, level.threshold, kernels, workspace.scan, workspace.candidates);
    first_anchor += cells;
  }
  const std::size_t found = workspace.candidates.size();
  workspace.scores.assign(pad_lanes(found), 0.0f);
  for (std::size_t i = 0; i < found; ++i) workspace.scores[i] = workspace.candidates[i].score;
  kernels.sigmoid(workspace.scores.data(), found);
  for (std::size_t i = 0; i < found; ++i) workspace.candidates[i].score = workspace.scores[i];
  const std::optional<Heatmap> heatmap = heatmap_of(outputs, input);
  HeadsSource source(grids, heatmap ? &*heatmap : nullptr, options_, reg_max_, kernels, workspace);
  select(source, options_, inverse_variance_, true, transform, size, workspace);
}

}  // namespace edgepose
