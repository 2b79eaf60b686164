#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "core/cpu.hpp"
#include "core/decode_kernels.hpp"
#include "core/tensor.hpp"

using namespace edgepose;

namespace {

using Random = std::mt19937;

int draw(Random& random, int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

// Numbers of every size, now and then one that is not finite.
std::vector<float> random_floats(Random& random, std::size_t n, float spread = 10.0f) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  for (std::size_t i = 0; i < n / 50; ++i) {
    const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 1e-40f, 0.0f, -0.0f};
    values[static_cast<std::size_t>(draw(random, 0, static_cast<int>(n) - 1))] = odd[draw(random, 0, 7)];
  }
  return values;
}

std::vector<std::uint8_t> random_bytes(Random& random, std::size_t n) {
  std::vector<std::uint8_t> bytes(n);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return a.size() == b.size();
}

// Calls body(kernels of a level, plain kernels) for every level but plain.
template <class Body>
void for_each_level(Body body) {
  for (const SimdLevel level : available_simd_levels())
    if (level != SimdLevel::kPlain) body(decode_kernels(level), decode_kernels(SimdLevel::kPlain));
}

struct Lanes {
  std::vector<float> values[6];
  std::size_t n;
  Lanes(Random& random, std::size_t used) : n(pad_lanes(used)) {
    for (std::vector<float>& lane : values) {
      lane.resize(n);
      for (float& value : lane) value = static_cast<float>(draw(random, 0, 30));
    }
    for (std::size_t i = 0; i < n; ++i) {
      values[2][i] += values[0][i];
      values[3][i] += values[1][i];
      values[4][i] = (values[2][i] - values[0][i]) * (values[3][i] - values[1][i]);
      values[5][i] = i < used ? static_cast<float>(draw(random, 0, 2)) : -1.0f;
    }
  }
  KeptBoxes boxes() const {
    return {
        values[0].data(), values[1].data(), values[2].data(), values[3].data(), values[4].data(), values[5].data(), n};
  }
};

}  // namespace

TEST(every_level_collects_the_same_scores) {
  Random random(1);
  for_each_level([&](const DecodeKernels& wide, const DecodeKernels& plain) {
    for (int round = 0; round < 300; ++round) {
      const std::size_t n = static_cast<std::size_t>(draw(random, 0, 700));
      const std::vector<float> values = random_floats(random, n);
      const float thresholds[] = {0.0f, 5.0f, -INFINITY, INFINITY, -3.0f};
      const float threshold = thresholds[draw(random, 0, 4)];
      std::vector<std::uint32_t> a(n), b(n);
      const std::size_t count = plain.collect_above(values.data(), n, threshold, a.data());
      CHECK(wide.collect_above(values.data(), n, threshold, b.data()) == count);
      CHECK(a == b);
      std::size_t expected = 0;
      for (const float value : values) expected += value > threshold;
      CHECK(count == expected);
    }
  });
}

TEST(every_level_collects_the_same_integers) {
  Random random(2);
  for_each_level([&](const DecodeKernels& wide, const DecodeKernels& plain) {
    for (int round = 0; round < 300; ++round) {
      const std::size_t n = static_cast<std::size_t>(draw(random, 0, 700));
      const std::vector<std::uint8_t> values = random_bytes(random, n);
      const std::uint8_t flip = draw(random, 0, 1) ? 0x80 : 0;
      const std::int8_t threshold = static_cast<std::int8_t>(draw(random, -128, 127));
      std::vector<std::uint32_t> a(n), b(n);
      const std::size_t count = plain.collect_at_least(values.data(), n, flip, threshold, a.data());
      CHECK(wide.collect_at_least(values.data(), n, flip, threshold, b.data()) == count);
      CHECK(a == b);
      std::size_t expected = 0;
      for (const std::uint8_t value : values)
        expected += (flip ? static_cast<int>(value) - 128 : static_cast<std::int8_t>(value)) >= threshold;
      CHECK(count == expected);
    }
  });
}

TEST(every_level_finds_the_same_maxima) {
  Random random(3);
  for_each_level([&](const DecodeKernels& wide, const DecodeKernels& plain) {
    for (int round = 0; round < 100; ++round) {
      const std::size_t n = static_cast<std::size_t>(draw(random, 0, 300));
      std::vector<float> a(n, -INFINITY), b(n, -INFINITY);
      std::vector<std::int8_t> c(n, -128), d(n, -128);
      for (int row = 0; row < 3; ++row) {
        const std::vector<float> values = random_floats(random, n);
        plain.max_float(values.data(), n, a.data());
        wide.max_float(values.data(), n, b.data());
        const std::vector<std::uint8_t> bytes = random_bytes(random, n);
        plain.max_int8(bytes.data(), n, 0x80, c.data());
        wide.max_int8(bytes.data(), n, 0x80, d.data());
      }
      CHECK(same_bits(a, b));
      CHECK(c == d);
      for (const float value : a) CHECK(!std::isnan(value));
    }
  });
}

TEST(every_half_widens_alike) {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  std::vector<float> expected(halves.size());
  for (std::size_t i = 0; i < halves.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31), mantissa = static_cast<int>(i & 1023);
    float value = exponent == 31 ? (mantissa ? NAN : INFINITY)
                                 : std::ldexp(static_cast<float>(exponent ? mantissa + 1024 : mantissa),
                                              (exponent ? exponent : 1) - 25);
    expected[i] = i & 0x8000 ? -value : value;
  }
  for (const SimdLevel level : available_simd_levels()) {
    std::vector<float> wide(halves.size() - 3);
    decode_kernels(level).half_to_float(halves.data(), wide.size(), wide.data());
    CHECK(same_bits(wide, std::vector<float>(expected.begin(), expected.end() - 3)));
  }
}

TEST(sigmoid_is_within_3e_7_and_keeps_nan) {
  Random random(4);
  for (const SimdLevel level : available_simd_levels()) {
    std::vector<float> values = random_floats(random, pad_lanes(5000));
    const std::vector<float> before = values;
    decode_kernels(level).sigmoid(values.data(), values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double expected = 1.0 / (1.0 + std::exp(-static_cast<double>(before[i])));
      CHECK(std::isnan(before[i]) ? std::isnan(values[i]) : std::abs(values[i] - expected) < 3e-7);
    }
  }
}

TEST(every_level_has_the_same_sigmoid_and_expectation) {
  Random random(5);
  for_each_level([&](const DecodeKernels& wide, const DecodeKernels& plain) {
    for (int round = 0; round < 100; ++round) {
      const std::size_t lanes = pad_lanes(static_cast<std::size_t>(draw(random, 1, 100)));
      const std::size_t bins = static_cast<std::size_t>(draw(random, 1, 33));
      std::vector<float> a = random_floats(random, lanes * bins), b = a, c(lanes), d(lanes);
      plain.expectation(a.data(), bins, lanes, c.data());
      wide.expectation(a.data(), bins, lanes, d.data());
      CHECK(same_bits(c, d));
      plain.sigmoid(a.data(), a.size());
      wide.sigmoid(b.data(), b.size());
      CHECK(same_bits(a, b));
    }
  });
}

TEST(every_level_finds_the_same_overlaps) {
  Random random(6);
  for_each_level([&](const DecodeKernels& wide, const DecodeKernels& plain) {
    for (int round = 0; round < 500; ++round) {
      const Lanes lanes(random, static_cast<std::size_t>(draw(random, 0, 200)));
      const float x = static_cast<float>(draw(random, 0, 40)), y = static_cast<float>(draw(random, 0, 40));
      const BoxQuery query{x, y, x + 10, y + 8, 80, static_cast<float>(draw(random, 0, 2))};
      const float threshold = static_cast<float>(draw(random, 0, 10)) / 10;
      CHECK(wide.any_iou_above(lanes.boxes(), query, threshold) ==
            plain.any_iou_above(lanes.boxes(), query, threshold));
    }
  });
}

TEST(every_level_has_the_same_oks) {
  Random random(7);
  for_each_level([&](const DecodeKernels& wide, const DecodeKernels& plain) {
    for (int round = 0; round < 100; ++round) {
      const Lanes lanes(random, static_cast<std::size_t>(draw(random, 0, 60)));
      const std::size_t k = static_cast<std::size_t>(draw(random, 1, 20)), capacity = lanes.n + kLanePad;
      std::vector<float> xs, ys, weights, pose;
      for (std::size_t i = 0; i < k * capacity; ++i) {
        xs.push_back(static_cast<float>(draw(random, 0, 1000)) / 10);
        ys.push_back(static_cast<float>(draw(random, 0, 1000)) / 10);
      }
      for (std::size_t i = 0; i < k; ++i) weights.push_back(static_cast<float>(draw(random, 1, 1000)));
      for (std::size_t i = 0; i < 2 * k; ++i) pose.push_back(static_cast<float>(draw(random, 0, 1000)) / 10);
      const KeptPoses kept{xs.data(), ys.data(), lanes.values[4].data(), lanes.values[5].data(), lanes.n,
                           capacity,  k,         weights.data()};
      const PoseQuery query{pose.data(), 800, static_cast<float>(draw(random, 0, 2))};
      std::vector<float> a(lanes.n), b(lanes.n);
      plain.oks_row(kept, query, a.data());
      wide.oks_row(kept, query, b.data());
      CHECK(same_bits(a, b));
      CHECK(wide.any_oks_above(kept, query, 0.1f) == plain.any_oks_above(kept, query, 0.1f));
    }
  });
}

TEST(every_level_maps_points_alike) {
  Random random(8);
  const PointMap map{{3.5f, -20.0f}, {1.7f, 0.3f}, {0.0f, 0.0f}, {20.0f, 4.0f}};
  for_each_level([&](const DecodeKernels& wide, const DecodeKernels& plain) {
    for (int round = 0; round < 200; ++round) {
      const std::size_t n = static_cast<std::size_t>(draw(random, 0, 120));
      std::vector<float> a(pad_lanes(2 * n)), s(pad_lanes(n));
      for (std::size_t i = 0; i < 2 * n; ++i) a[i] = static_cast<float>(draw(random, -500, 500)) / 7;
      for (std::size_t i = 0; i < n; ++i) s[i] = static_cast<float>(draw(random, -5, 15)) / 10;
      if (n && draw(random, 0, 3) == 0) a[static_cast<std::size_t>(draw(random, 0, static_cast<int>(n) - 1))] = NAN;
      if (n && draw(random, 0, 3) == 0) s[static_cast<std::size_t>(draw(random, 0, static_cast<int>(n) - 1))] = NAN;
      std::vector<float> b = a, t = s;
      const bool done = plain.map_points(map, n, a.data(), s.data());
      CHECK(wide.map_points(map, n, b.data(), t.data()) == done);
      a.resize(2 * n), b.resize(2 * n), s.resize(n), t.resize(n);
      CHECK(same_bits(a, b));
      CHECK(same_bits(s, t));
    }
  });
}
