#pragma once
// Calls of tools in the text of a model, found while the text is made.
#include <string>
#include <string_view>
#include <vector>

#include "text/tool_call_object.h"
#include "text/tool_format.h"

namespace penstock::text {

inline constexpr int kMaxToolCalls = 128;  // of one message

struct ToolReading {
  ToolFormat format = ToolFormat::kNone;
  std::string function = {};         // of kArguments: what is called
  int max_calls = kMaxToolCalls;     // further ones are left out
  bool short_ids = false;            // of nine characters, which Mistral's templates ask for
};

// Of a call, what came of it at once. Its first piece has its id and name.
struct ToolCallPiece {
  int index = 0;
  std::string id = {};
  std::string name = {};
  std::string arguments = {};        // text of a JSON object, as far as the model writes JSON
};

struct ToolText {
  std::string content;               // what is no call
  std::vector<ToolCallPiece> calls;
};

// The pieces of a text go in, content and calls come out as soon as they are certain: what may still become a call is held back, at most 64 KiB of it.
// What looks like a call and is none is content. White space beside calls is dropped.
//
// Threads: one at a time.
class ToolCallReader {
 public:
  explicit ToolCallReader(ToolReading reading);

  // `text`: whole characters.
  [[nodiscard]] ToolText feed(std::string_view text);
  // What was held back when the text has ended.
  [[nodiscard]] ToolText end();
  [[nodiscard]] bool called() const { return num_calls_ > 0; }

 private:
  enum class Place {
    kText,        // content, or the mark before calls
    kStart,       // of a text that is a call or none
    kListStart,   // before the '['
    kNextObject,  // before a '{'
    kObject,
    kBetween,     // behind an object
    kRest,        // content
  };
  void take(char c);
  void take_text(char c);
  void take_start(char c);
  void take_list_start(char c);
  void take_before_object(char c);
  void begin_object(char c);
  void take_object(char c);
  void take_between(char c);
  void reject(char c);
  void say(std::string_view text);
  void tell_call();
  void tell_arguments(std::string arguments);

  const ToolReading reading_;
  const std::string_view mark_;      // before calls; empty: none
  Place place_;
  size_t matched_ = 0;               // bytes of the mark, or of the one behind a call
  std::string spaces_;               // of the content, not said yet
  std::string held_;                 // of what may be a call
  ToolCallObject object_;
  bool told_ = false;                // the object's name is in a piece
  int num_calls_ = 0;
  ToolText out_;
};

}  // namespace penstock::text
