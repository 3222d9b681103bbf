// How errors leave the library: a number for the program, words for the reader.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <new>
#include <system_error>

#include "magister.h"

namespace mg {

// Words for mg_error(), printf style. Answers `code`.
__attribute__((format(printf, 2, 3))) int fail(int code, const char* words, ...);

class Failure : public std::exception {
 public:
  explicit Failure(int code) : code(code) {}
  const int code;
};

// Throws a Failure with words for mg_error().
#define MG_REQUIRE(condition, code, ...)                           \
  do {                                                             \
    if (!(condition)) throw mg::Failure(mg::fail(code, __VA_ARGS__)); \
  } while (0)

// Runs `body` and turns what it throws into a number: no exception may cross a C interface.
template <typename Body>
int guarded(Body&& body) {
  try {
    body();
    return MG_OK;
  } catch (const Failure& failure) {
    return failure.code;
  } catch (const std::bad_alloc&) {
    return fail(MG_MEMORY, "the system gave no memory");
  } catch (const std::system_error& error) {
    return fail(MG_MEMORY, "the system gave no thread: %s", error.what());
  }
}

// The same for functions that answer a handle: NULL on errors.
template <typename Body>
auto guarded_new(Body&& body) -> decltype(body()) {
  decltype(body()) made = nullptr;
  guarded([&] { made = body(); });
  return made;
}

}  // namespace mg
