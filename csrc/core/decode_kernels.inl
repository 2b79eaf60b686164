// The kernels of decode_kernels.hpp, written once against a vector type V that each including file defines in its own
// anonymous namespace. Included inside that namespace. No standard library here: an inline function compiled for AVX
// must never become the one that the linker keeps for everybody.
//
// V has: kWidth; F (floats), M (lane mask); load, store, set1, add, sub, mul, div, less (a < b), equal, both, either,
// any; max(a, b) and min(a, b), which give b where either is NaN; power_of_two(t), 2^n of t = n + kRoundingMagic;
// above_bits(x, threshold): bit i of x[i] > threshold over 4 * kWidth floats;
// at_least_bits(x, flip, threshold): bit i of int8(x[i] ^ flip) >= threshold over 64 bytes;
// max_bytes(x, flip, best): best = max(x ^ flip, best) over 64 bytes; widen(x): kWidth halves.

constexpr float kRoundingMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
constexpr std::size_t kIouLanes = 64;          // boxes compared between two branches
constexpr float kExpLimit = 87.0f;             // exp stays a normal number on both sides

// exp by Cephes' expf: x = n ln 2 + r, a polynomial in r, times 2^n; within 2 ulp on [-87, 87], clamped outside,
// NaN of NaN.
template <class V>
inline typename V::F exp_of(typename V::F x) {
  x = V::min(V::set1(kExpLimit), V::max(V::set1(-kExpLimit), x));
  const auto shifted = V::add(V::mul(x, V::set1(1.44269504088896341f)), V::set1(kRoundingMagic));
  const auto n = V::sub(shifted, V::set1(kRoundingMagic));
  auto r = V::sub(x, V::mul(n, V::set1(0.693359375f)));
  r = V::sub(r, V::mul(n, V::set1(-2.12194440e-4f)));
  auto p = V::set1(1.9875691500e-4f);
  p = V::add(V::mul(p, r), V::set1(1.3981999507e-3f));
  p = V::add(V::mul(p, r), V::set1(8.3334519073e-3f));
  p = V::add(V::mul(p, r), V::set1(4.1665795894e-2f));
  p = V::add(V::mul(p, r), V::set1(1.6666665459e-1f));
  p = V::add(V::mul(p, r), V::set1(5.0000001201e-1f));
  const auto y = V::add(V::add(V::mul(V::mul(p, r), r), r), V::set1(1.0f));
  return V::mul(y, V::power_of_two(shifted));
}

inline std::size_t append_bits(std::uint64_t bits, std::uint32_t base, std::uint32_t* out, std::size_t count) {
  for (; bits; bits &= bits - 1) out[count++] = base + lowest_bit(bits);
  return count;
}

template <class V>
std::size_t collect_above(const float* x, std::size_t n, float threshold, std::uint32_t* out) {
  constexpr std::size_t step = 4 * V::kWidth;
  std::size_t count = 0, i = 0;
  const auto t = V::set1(threshold);
  for (; i + step <= n; i += step)
    if (const std::uint64_t bits = V::above_bits(x + i, t))
      count = append_bits(bits, static_cast<std::uint32_t>(i), out, count);
  for (; i < n; ++i)
    if (x[i] > threshold) out[count++] = static_cast<std::uint32_t>(i);
  return count;
}

template <class V>
std::size_t collect_at_least(const std::uint8_t* x, std::size_t n, std::uint8_t flip, std::int8_t threshold,
                             std::uint32_t* out) {
  std::size_t count = 0, i = 0;
  for (; i + 64 <= n; i += 64)
    if (const std::uint64_t bits = V::at_least_bits(x + i, flip, threshold))
      count = append_bits(bits, static_cast<std::uint32_t>(i), out, count);
  for (; i < n; ++i)
    if (static_cast<std::int8_t>(x[i] ^ flip) >= threshold) out[count++] = static_cast<std::uint32_t>(i);
  return count;
}

template <class V>
void max_float(const float* x, std::size_t n, float* best) {
  std::size_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) V::store(best + i, V::max(V::load(x + i), V::load(best + i)));
  for (; i < n; ++i) best[i] = x[i] > best[i] ? x[i] : best[i];
}

template <class V>
void max_int8(const std::uint8_t* x, std::size_t n, std::uint8_t flip, std::int8_t* best) {
  std::size_t i = 0;
  for (; i + 64 <= n; i += 64) V::max_bytes(x + i, flip, best + i);
  for (; i < n; ++i) {
    const std::int8_t value = static_cast<std::int8_t>(x[i] ^ flip);
    best[i] = value > best[i] ? value : best[i];
  }
}

template <class V>
void half_to_float_row(const std::uint16_t* x, std::size_t n, float* out) {
  std::size_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) V::store(out + i, V::widen(x + i));
  if (i == n) return;
  std::uint16_t tail[V::kWidth] = {};
  float wide[V::kWidth];
  for (std::size_t j = 0; j < n - i; ++j) tail[j] = x[i + j];
  V::store(wide, V::widen(tail));
  for (std::size_t j = 0; j < n - i; ++j) out[i + j] = wide[j];
}

template <class V>
void sigmoid(float* x, std::size_t n) {
  const auto one = V::set1(1.0f);
  for (std::size_t i = 0; i < n; i += V::kWidth) {
    const auto e = exp_of<V>(V::sub(V::set1(0.0f), V::load(x + i)));
    V::store(x + i, V::div(one, V::add(one, e)));
  }
}

template <class V>
void expectation(const float* logits, std::size_t reg_max, std::size_t lanes, float* out) {
  for (std::size_t lane = 0; lane < lanes; lane += V::kWidth) {
    auto peak = V::load(logits + lane);
    for (std::size_t b = 1; b < reg_max; ++b) peak = V::max(V::load(logits + b * lanes + lane), peak);
    auto total = V::set1(0.0f), weighted = V::set1(0.0f);
    for (std::size_t b = 0; b < reg_max; ++b) {
      const auto e = exp_of<V>(V::sub(V::load(logits + b * lanes + lane), peak));
      total = V::add(total, e);
      weighted = V::add(weighted, V::mul(e, V::set1(static_cast<float>(b))));
    }
    V::store(out + lane, V::div(weighted, total));
  }
}

template <class V>
bool any_iou_above(const KeptBoxes& kept, const BoxQuery& query, float threshold) {
  const auto x1 = V::set1(query.x1), y1 = V::set1(query.y1), x2 = V::set1(query.x2), y2 = V::set1(query.y2);
  const auto area = V::set1(query.area), class_id = V::set1(query.class_id), zero = V::set1(0.0f);
  const auto t = V::set1(threshold);
  // Several vectors a branch: where the overlapping box stands cannot be foretold.
  for (std::size_t i = 0; i < kept.n;) {
    const std::size_t end = i + kIouLanes < kept.n ? i + kIouLanes : kept.n;
    auto hits = V::less(zero, zero);
    for (; i < end; i += V::kWidth) {
      const auto w = V::sub(V::min(x2, V::load(kept.x2 + i)), V::max(x1, V::load(kept.x1 + i)));
      const auto h = V::sub(V::min(y2, V::load(kept.y2 + i)), V::max(y1, V::load(kept.y1 + i)));
      const auto inter = V::mul(V::max(w, zero), V::max(h, zero));
      const auto joint = V::sub(V::add(area, V::load(kept.area + i)), inter);
      const auto hit = V::both(V::less(V::mul(t, joint), inter), V::equal(class_id, V::load(kept.class_id + i)));
      hits = V::either(hits, hit);
    }
    if (V::any(hits)) return true;
  }
  return false;
}

// OKS of the query with the kept poses of lanes i to i + kWidth, times K.
template <class V>
inline typename V::F oks_sum(const KeptPoses& kept, const PoseQuery& query, std::size_t i) {
  const auto mean = V::mul(V::set1(0.5f), V::add(V::set1(query.area), V::load(kept.area + i)));
  const auto area = V::max(mean, V::set1(1e-6f));
  auto sum = V::set1(0.0f);
  for (std::size_t k = 0; k < kept.num_keypoints; ++k) {
    const auto dx = V::sub(V::set1(query.xy[2 * k]), V::load(kept.x + k * kept.capacity + i));
    const auto dy = V::sub(V::set1(query.xy[2 * k + 1]), V::load(kept.y + k * kept.capacity + i));
    const auto d2 = V::add(V::mul(dx, dx), V::mul(dy, dy));
    const auto e = V::div(V::mul(d2, V::set1(kept.inverse_variance[k])), area);
    sum = V::add(sum, exp_of<V>(V::sub(V::set1(0.0f), e)));
  }
  return sum;
}

template <class V>
bool any_oks_above(const KeptPoses& kept, const PoseQuery& query, float threshold) {
  const auto class_id = V::set1(query.class_id);
  const auto limit = V::mul(V::set1(threshold), V::set1(static_cast<float>(kept.num_keypoints)));
  for (std::size_t i = 0; i < kept.n; i += V::kWidth) {
    const auto same_class = V::equal(class_id, V::load(kept.class_id + i));
    if (V::any(same_class) && V::any(V::both(V::less(limit, oks_sum<V>(kept, query, i)), same_class))) return true;
  }
  return false;
}

template <class V>
void oks_row(const KeptPoses& kept, const PoseQuery& query, float* out) {
  const auto count = V::set1(static_cast<float>(kept.num_keypoints));
  for (std::size_t i = 0; i < kept.n; i += V::kWidth) V::store(out + i, V::div(oks_sum<V>(kept, query, i), count));
}

template <class V>
bool all_places(const float* x, std::size_t n) {
  const auto low = V::set1(-kFarthestPlace), high = V::set1(kFarthestPlace);
  auto good = V::equal(low, low);
  for (std::size_t i = 0; i < n; i += V::kWidth) {
    const auto value = V::load(x + i);
    good = V::both(good, V::both(V::at_most(low, value), V::at_most(value, high)));
  }
  return V::all(good);
}

template <class V>
bool any_nan(const float* x, std::size_t n) {
  auto good = V::equal(V::set1(0.0f), V::set1(0.0f));
  for (std::size_t i = 0; i < n; i += V::kWidth) good = V::both(good, V::equal(V::load(x + i), V::load(x + i)));
  return !V::all(good);
}

template <class V>
bool map_points(const PointMap& map, std::size_t n, float* xy, float* scores) {
  if (!all_places<V>(xy, 2 * n) || any_nan<V>(scores, n)) return false;
  float pads[kLanePad], scales[kLanePad], lows[kLanePad], highs[kLanePad];
  for (std::size_t i = 0; i < kLanePad; ++i) {
    pads[i] = map.pad[i % 2];
    scales[i] = map.inverse_scale[i % 2];
    lows[i] = map.low[i % 2];
    highs[i] = map.high[i % 2];
  }
  for (std::size_t i = 0; i < 2 * n; i += V::kWidth) {
    const std::size_t axis = V::kWidth == 1 ? i % 2 : 0;
    const auto value = V::mul(V::sub(V::load(xy + i), V::load(pads + axis)), V::load(scales + axis));
    V::store(xy + i, V::min(V::max(value, V::load(lows + axis)), V::load(highs + axis)));
  }
  const auto zero = V::set1(0.0f), one = V::set1(1.0f);
  for (std::size_t i = 0; i < n; i += V::kWidth) V::store(scores + i, V::min(V::max(V::load(scores + i), zero), one));
  return true;
}

template <class V>
constexpr DecodeKernels kernels_of() {
  return {collect_above<V>, collect_at_least<V>, max_float<V>,     max_int8<V>, half_to_float_row<V>, sigmoid<V>,
          expectation<V>,   any_iou_above<V>,    any_oks_above<V>, oks_row<V>,  map_points<V>};
}
