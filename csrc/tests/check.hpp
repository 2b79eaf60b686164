// A test is TEST(name) { CHECK(...); }: enough for a core that pytest covers too, and nothing to download.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace edgepose::testing {

struct Registry {
  std::vector<std::pair<std::string, std::function<void()>>> tests;
  int failures = 0;
  static Registry& instance() {
    static Registry registry;
    return registry;
  }
};

struct Registration {
  Registration(const char* name, std::function<void()> body) {
    Registry::instance().tests.emplace_back(name, std::move(body));
  }
};

}  // namespace edgepose::testing

#define TEST(name)                                                               \
  static void name();                                                            \
  static const edgepose::testing::Registration registration_##name(#name, name); \
  static void name()

#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      std::fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #condition); \
      ++edgepose::testing::Registry::instance().failures;                         \
    }                                                                             \
  } while (false)
