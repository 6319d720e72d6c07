#pragma once
// Bytes in, text out: what tokens spell, as valid UTF-8 that never changes afterwards.
#include <string>
#include <string_view>

#include "base/utf8.h"

namespace penstock::text {

// A streaming decoder by the rules of the WHATWG Encoding Standard (a byte order mark is kept): each maximal part that cannot
// become a character turns into one U+FFFD as soon as that is certain. How the bytes are cut into feeds does not change the whole text.
//
// Threads: one stream belongs to one thread at a time.
class Utf8Stream {
 public:
  // The text that became certain; always whole characters, may be empty.
  [[nodiscard]] std::string feed(std::string_view bytes);
  // Ends the text: U+FFFD for an unfinished character, else nothing. The stream is as new afterwards.
  [[nodiscard]] std::string flush();

 private:
  void accept(unsigned char byte, std::string& text);

  std::string pending_;   // bytes of the unfinished character, at most 3
  Utf8Expectation next_;  // what must follow them
};

}  // namespace penstock::text
