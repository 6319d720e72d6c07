#include <cstdlib>

#include "fuzz.h"
#include "text/tool_call_reader.h"

namespace {

using namespace penstock;

// Content, and names and arguments of calls, when the text comes in pieces of so many bytes.
std::string read(text::ToolFormat format, std::string_view input, size_t piece) {
  text::ToolCallReader reader({.format = format, .function = "f"});
  std::string content;
  std::string calls;
  int last = -1;
  const auto add = [&](const text::ToolText& said) {
    content += said.content;
    for (const text::ToolCallPiece& call : said.calls) {
      if (call.index != last) calls += '\n' + call.name + ' ';
      last = call.index;
      calls += call.arguments;
    }
  };
  for (size_t at = 0; at < input.size(); at += piece) add(reader.feed(input.substr(at, piece)));
  add(reader.end());
  if (reader.called() != (last >= 0)) std::abort();
  return content + '\n' + calls;
}

}  // namespace

// The first byte chooses the format. However the text is cut, the same must come of it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  return fuzz::accept_errors([&] {
    const auto format = static_cast<text::ToolFormat>(data[0] % 6);
    const std::string_view input = fuzz::text_of(data + 1, size - 1);
    const std::string whole = read(format, input, size);
    if (read(format, input, 1) != whole || read(format, input, 7) != whole) std::abort();
  });
}
