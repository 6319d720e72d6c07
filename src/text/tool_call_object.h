#pragma once
// One call of a tool as a model writes it, a JSON object, read byte by byte. For the .cpp files of this folder.
#include <string>

namespace penstock::text {

// JSON's white space.
inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// {"name": TEXT, "arguments": OBJECT}: in any order, beside other members, with "parameters" for "arguments". Arguments may also be null, or a text that
// holds the object. They are handed out as they were written, while they are being written; whether they are JSON is left to who takes them.
//
// Limits: keys and names of 1 KiB. Who feeds it bounds what comes before begun().
class ToolCallObject {
 public:
  enum class Step { kGoesOn, kEnded, kBroken };

  // kBroken: the byte belongs to no such object, and was not taken. REQUIRES: kGoesOn until now.
  [[nodiscard]] Step feed(char c);

  // The name is known and arguments have come: it is a call.
  [[nodiscard]] bool begun() const { return !name_.empty() && has_arguments_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  // Those that were not taken yet.
  [[nodiscard]] std::string take_arguments();

 private:
  enum class Place { kStart, kFirstKey, kKey, kInKey, kColon, kValue, kInText, kInNested, kInScalar, kAfterValue };
  enum class Member { kOther, kName, kArguments };

  [[nodiscard]] Step feed_value(char c);
  [[nodiscard]] Step feed_text(char c);
  [[nodiscard]] Step feed_nested(char c);
  [[nodiscard]] Step feed_scalar(char c);
  [[nodiscard]] Step feed_after_value(char c);
  [[nodiscard]] bool ends_text(char c);
  [[nodiscard]] bool take_text();
  [[nodiscard]] Step go(Place place);

  Place place_ = Place::kStart;
  Member member_ = Member::kOther;  // whose value it is
  std::string token_;               // the key, or the value as far as it counts
  bool in_text_ = false;            // of a nested value
  bool escaped_ = false;
  bool collects_ = false;           // the nested value is the arguments
  int depth_ = 0;
  std::string name_;
  std::string arguments_;
  bool has_arguments_ = false;
};

}  // namespace penstock::text
