#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "core/cpu.hpp"
#include "core/decode.hpp"

using namespace edgepose;

namespace {

using Random = std::mt19937;

int draw(Random& random, int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

template <class T>
T pick(Random& random, std::initializer_list<T> values) {
  return *(values.begin() + draw(random, 0, static_cast<int>(values.size()) - 1));
}

// A tensor that ends where its memory ends, so that a sanitizer sees every step too far.
struct OwnedTensor {
  std::vector<std::uint8_t> bytes;
  Tensor tensor;
};

std::size_t item_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : dtype == DType::kFloat16 ? 2 : 1; }

// Any bytes at all are numbers of an integer tensor; of a float one, now and then they are bytes too: NaN, infinities
// and numbers of every size. Most are small.
void fill(Random& random, OwnedTensor& owned) {
  for (std::uint8_t& byte : owned.bytes) byte = static_cast<std::uint8_t>(random());
  if (owned.tensor.dtype != DType::kFloat32 || draw(random, 0, 3) == 0) return;
  for (std::size_t i = 0; i + 4 <= owned.bytes.size(); i += 4) {
    if (draw(random, 0, 200) == 0) continue;
    const float value = static_cast<float>(draw(random, -300, 900)) / pick(random, {1.0f, 10.0f, 1000.0f});
    std::memcpy(&owned.bytes[i], &value, sizeof value);
  }
}

OwnedTensor random_tensor(Random& random, DType dtype, std::vector<std::int64_t> shape) {
  OwnedTensor owned;
  owned.tensor.dtype = dtype;
  owned.tensor.ndim = static_cast<int>(shape.size());
  std::size_t count = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    owned.tensor.shape[i] = shape[i];
    count *= static_cast<std::size_t>(shape[i]);
  }
  owned.bytes.resize(count * item_size(dtype));
  fill(random, owned);
  owned.tensor.data = owned.bytes.data();
  return owned;
}

DType random_dtype(Random& random) {
  return pick(random, {DType::kFloat32, DType::kFloat32, DType::kFloat16, DType::kInt8, DType::kUInt8});
}

Quantization random_quantization(Random& random) {
  return {pick(random, {1.0f, 0.004f, 0.1f, 1e-20f, 1e20f}), draw(random, -128, 255)};
}

DecodeOptions random_options(Random& random) {
  DecodeOptions options;
  options.num_classes = pick(random, {1, 1, 2, 9});
  options.num_keypoints = draw(random, 1, 20);
  options.kpt_dims = draw(random, 2, 3);
  options.conf = pick(random, {0.0, 0.001, 0.25, 0.9, 1.0});
  options.iou = pick(random, {0.0, 0.5, 0.7, 1.0});
  options.max_det = pick<std::int64_t>(random, {1, 5, 300, std::numeric_limits<std::int64_t>::max()});
  options.max_candidates = pick<std::int64_t>(random, {1, 33, 30000, std::numeric_limits<std::int64_t>::max()});
  options.nms = pick(random, {NmsKind::kIou, NmsKind::kOks});
  options.sigmas.assign(static_cast<std::size_t>(options.num_keypoints), pick(random, {1e-6f, 0.1f, 1e6f}));
  options.agnostic = draw(random, 0, 1);
  options.clip = draw(random, 0, 1);
  return options;
}

bool within(const std::vector<float>& values, std::size_t n, float low, float high) {
  return std::all_of(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n),
                     [&](float value) { return value >= low && value <= high; });
}

void check_detections(const Detections& found, const DecodeOptions& options, const SourceSize& size) {
  const std::size_t k = static_cast<std::size_t>(options.num_keypoints), n = found.count;
  const float most = options.clip ? static_cast<float>(std::max(size.width, size.height)) : 1e30f;
  const float least = options.clip ? 0.0f : -most;
  CHECK(n <= static_cast<std::uint64_t>(options.max_det));
  CHECK(within(found.boxes, 4 * n, least, most));
  CHECK(within(found.scores, n, 0.0f, 1.0f));
  CHECK(within(found.keypoints, 2 * k * n, least, most));
  CHECK(within(found.keypoint_scores, k * n, 0.0f, 1.0f));
  for (std::size_t i = 0; i < n; ++i) {
    CHECK(found.class_ids[i] >= 0 && found.class_ids[i] < options.num_classes);
    CHECK(i == 0 || found.scores[i] <= found.scores[i - 1]);
  }
}

bool same(const std::vector<float>& a, const std::vector<float>& b, std::size_t n) {
  return std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin());
}

bool same(const Detections& a, const Detections& b, std::size_t k) {
  const std::size_t n = a.count;
  return n == b.count && same(a.boxes, b.boxes, 4 * n) && same(a.scores, b.scores, n) && a.class_ids == b.class_ids &&
         same(a.keypoints, b.keypoints, 2 * k * n) && same(a.keypoint_scores, b.keypoint_scores, k * n);
}

// Decodes on every level: what comes out is sane, and the same.
void decode_everywhere(const Decoder& decoder, const std::vector<Tensor>& outputs, const DecodeOptions& options) {
  const SimdLevel before = simd_level();
  const Transform transform{0.37, 0.91, 12.0, -3.0};
  const SourceSize size{640, 333};
  decoder.check(outputs);
  Workspace reused;
  Detections first;
  for (const SimdLevel level : available_simd_levels()) {
    set_simd_level(level);
    decoder.decode(outputs, transform, size, reused);
    check_detections(reused.detections, options, size);
    if (level == SimdLevel::kPlain) first = reused.detections;
    CHECK(same(reused.detections, first, static_cast<std::size_t>(options.num_keypoints)));
  }
  set_simd_level(before);
}

struct HeadsModel {
  std::vector<Head> heads;
  std::vector<OwnedTensor> tensors;
  std::vector<Tensor> outputs() const {
    std::vector<Tensor> all;
    for (const OwnedTensor& owned : tensors) all.push_back(owned.tensor);
    return all;
  }
};

std::vector<std::int64_t> head_shape(HeadLayout layout, std::int64_t channels, std::int64_t h, std::int64_t w) {
  switch (layout) {
    case HeadLayout::kNchw:
      return {1, channels, h, w};
    case HeadLayout::kNhwc:
      return {1, h, w, channels};
    case HeadLayout::kNca:
      return {1, channels, h * w};
    default:
      return {1, h * w, channels};
  }
}

HeadsModel random_heads(Random& random, const DecodeOptions& options, int reg_max, int height, int width) {
  HeadsModel model;
  const bool separate = options.kpt_dims == 3 && draw(random, 0, 1);
  for (const int stride : {8, 16, 32}) {
    const std::pair<HeadRole, int> roles[] = {
        {HeadRole::kBox, 4 * reg_max},
        {HeadRole::kScore, options.num_classes},
        {HeadRole::kKeypoints, options.num_keypoints * (separate ? 2 : options.kpt_dims)},
        {HeadRole::kVisibility, options.num_keypoints}};
    for (const auto& [role, channels] : roles) {
      if (role == HeadRole::kVisibility && !separate) continue;
      Head head{role,
                model.heads.size(),
                stride,
                pick(random, {HeadLayout::kNchw, HeadLayout::kNhwc, HeadLayout::kNca, HeadLayout::kNac}),
                random_dtype(random),
                random_quantization(random)};
      model.tensors.push_back(
          random_tensor(random, head.dtype, head_shape(head.layout, channels, height / stride, width / stride)));
      model.heads.push_back(head);
    }
  }
  if (draw(random, 0, 1)) {
    const Head head{HeadRole::kHeatmap, model.heads.size(),   8,
                    HeadLayout::kNhwc,  random_dtype(random), random_quantization(random)};
    model.tensors.push_back(random_tensor(random, head.dtype, {1, height / 8, width / 8, 4 * options.num_keypoints}));
    model.heads.push_back(head);
  }
  return model;
}

template <class Body>
bool refuses(Body body) {
  try {
    body();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

}  // namespace

TEST(any_decoded_tensor_decodes_sanely_and_alike_on_every_level) {
  Random random(11);
  for (int round = 0; round < 400; ++round) {
    const DecodeOptions options = random_options(random);
    const YoloDecoder decoder(options, random_quantization(random), {});
    const std::int64_t rows = 4 + options.num_classes + options.num_keypoints * options.kpt_dims;
    const OwnedTensor owned = random_tensor(random, random_dtype(random), {1, rows, draw(random, 0, 300)});
    decode_everywhere(decoder, {owned.tensor}, options);
  }
}

TEST(any_end_to_end_tensor_decodes_sanely_and_alike_on_every_level) {
  Random random(12);
  for (int round = 0; round < 200; ++round) {
    const DecodeOptions options = random_options(random);
    const YoloEnd2EndDecoder decoder(options, random_quantization(random), {});
    const std::int64_t columns = 6 + options.num_keypoints * options.kpt_dims;
    const OwnedTensor owned = random_tensor(random, random_dtype(random), {1, draw(random, 0, 100), columns});
    decode_everywhere(decoder, {owned.tensor}, options);
  }
}

TEST(any_single_pose_decodes_sanely_and_alike_on_every_level) {
  Random random(13);
  for (int round = 0; round < 200; ++round) {
    DecodeOptions options = random_options(random);
    options.num_classes = 1;
    const MoveNetDecoder decoder(options, random_quantization(random), 192, 256);
    const OwnedTensor owned = random_tensor(random, random_dtype(random), {1, 1, options.num_keypoints, 3});
    decode_everywhere(decoder, {owned.tensor}, options);
  }
}

TEST(any_raw_heads_decode_sanely_and_alike_on_every_level) {
  Random random(14);
  for (int round = 0; round < 200; ++round) {
    const DecodeOptions options = random_options(random);
    const int reg_max = pick(random, {1, 2, 16, 17}), height = 32 * draw(random, 1, 3), width = 32 * draw(random, 1, 3);
    const HeadsModel model = random_heads(random, options, reg_max, height, width);
    const YoloHeadsDecoder decoder(options, model.heads, reg_max, height, width);
    decode_everywhere(decoder, model.outputs(), options);
  }
}

TEST(heads_of_any_other_shape_are_refused) {
  Random random(15);
  for (int round = 0; round < 300; ++round) {
    const DecodeOptions options = random_options(random);
    HeadsModel model = random_heads(random, options, 4, 64, 64);
    const YoloHeadsDecoder decoder(options, model.heads, 4, 64, 64);
    std::vector<Tensor> outputs = model.outputs();
    Tensor& victim = outputs[static_cast<std::size_t>(draw(random, 0, static_cast<int>(outputs.size()) - 1))];
    const std::size_t axis = static_cast<std::size_t>(draw(random, 0, victim.ndim - 1));
    victim.shape[axis] = pick<std::int64_t>(random, {0, victim.shape[axis] + 1, 1'000'000'007, -1});
    CHECK(refuses([&] { decoder.check(outputs); }));
  }
}

TEST(a_dynamic_heads_decoder_takes_any_size_that_its_tensors_agree_on) {
  Random random(16);
  for (int round = 0; round < 100; ++round) {
    const DecodeOptions options = random_options(random);
    const int height = 32 * draw(random, 1, 3), width = 32 * draw(random, 1, 3);
    const HeadsModel model = random_heads(random, options, 2, height, width);
    std::unique_ptr<YoloHeadsDecoder> decoder;
    const bool flat = std::all_of(model.heads.begin(), model.heads.end(), [](const Head& head) {
      return head.layout == HeadLayout::kNca || head.layout == HeadLayout::kNac;
    });
    CHECK(refuses([&] { decoder = std::make_unique<YoloHeadsDecoder>(options, model.heads, 2, 0, 0); }) == flat);
    if (decoder) decode_everywhere(*decoder, model.outputs(), options);
  }
}

TEST(a_workspace_serves_pictures_of_changing_sizes) {
  Random random(17);
  Workspace reused;
  for (int round = 0; round < 100; ++round) {
    const DecodeOptions options = random_options(random);
    const YoloDecoder decoder(options, {}, {});
    const std::int64_t rows = 4 + options.num_classes + options.num_keypoints * options.kpt_dims;
    const OwnedTensor owned = random_tensor(random, DType::kFloat32, {1, rows, draw(random, 0, 500)});
    Workspace fresh;
    for (Workspace* workspace : {&reused, &fresh})
      decoder.decode({owned.tensor}, {0.5, 0.5, 0, 0}, {100, 100}, *workspace);
    CHECK(same(reused.detections, fresh.detections, static_cast<std::size_t>(options.num_keypoints)));
  }
}

TEST(bad_transforms_are_refused) {
  for (const double bad : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)})
    CHECK(refuses([&] { Transform{bad, 1, 0, 0}.validate(); }));
  CHECK(refuses([] { Transform{1, 1, NAN, 0}.validate(); }));
  CHECK(refuses([] { SourceSize{0, 1}.validate(); }));
}
