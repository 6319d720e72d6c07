#include "text/json_input.h"

#include <set>
#include <vector>

#include "base/utf8.h"

namespace penstock::text {
namespace {

constexpr size_t kShownBytes = 64;
constexpr size_t kReasonBytes = 200;  // the parser repeats what it read last, however long

struct Refusal {
  std::string reason;
};

// "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without the part in brackets.
std::string reason_of(const nlohmann::json::exception& e) {
  std::string_view text = e.what();
  if (const size_t end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
  return std::string(utf8_prefix(text, kReasonBytes));
}

constexpr size_t kKeyBytes = 16;  // are compared in about the time that a comparison takes anyway

// How many keys of the same objects are compared when members keep their order.
class KeyComparisons {
 public:
  explicit KeyComparisons(uint64_t most) : most_(most) {}
  void object_started(int depth) {
    keys_.resize(static_cast<size_t>(depth) + 2);
    keys_.back() = 0;
  }
  // `depth`: that of the object's members.
  void key(int depth, const nlohmann::json& name) {
    total_ += keys_.at(static_cast<size_t>(depth))++ * (1 + name.get_ref<const std::string&>().size() / kKeyBytes);
    if (total_ > most_) throw Refusal{"too many keys in one object; expected fewer"};
  }

 private:
  const uint64_t most_;
  std::vector<uint64_t> keys_;  // of the objects that are open, by depth
  uint64_t total_ = 0;
};

}  // namespace

Result<nlohmann::json> parse_json(std::string_view text, const std::string& what, Code code, JsonLimits limits) {
  if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    return error(code, "{}: expected UTF-8, found an invalid byte 0x{:02x} at offset {}", what, static_cast<unsigned char>(text[at]), at);
  }
  // The parser takes a zero byte for the end of the text, whatever follows it.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) return error(code, "{}: expected JSON, found a zero byte at offset {}", what, zero);
  using Event = nlohmann::json::parse_event_t;
  std::set<std::string> top_keys;
  KeyComparisons comparisons(limits.key_comparisons);
  const auto watch = [&](int depth, Event event, nlohmann::json& parsed) {
    if ((event == Event::object_start || event == Event::array_start) && depth >= limits.depth) {
      throw Refusal{fmt::format("nested deeper than {}", limits.depth)};
    }
    if (limits.key_comparisons > 0 && event == Event::object_start) comparisons.object_started(depth);
    if (limits.key_comparisons > 0 && event == Event::key) comparisons.key(depth, parsed);
    if (event == Event::key && depth == 1 && !top_keys.insert(parsed.get<std::string>()).second) {
      throw Refusal{fmt::format("key {} is given twice", shown(parsed))};
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, watch);
  } catch (const Refusal& refusal) {
    return error(code, "{}: {}", what, refusal.reason);
  } catch (const nlohmann::json::exception& e) {
    return error(code, "{}: expected JSON: {}", what, reason_of(e));
  }
}

Result<nlohmann::ordered_json> parse_ordered_json(std::string_view text, const std::string& what, Code code, int depth, uint64_t key_comparisons) {
  if (const auto checked = parse_json(text, what, code, {.depth = depth, .key_comparisons = key_comparisons}); !checked) return checked.error();
  return nlohmann::ordered_json::parse(text);
}

std::string shown(const nlohmann::json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);  // of a GGUF file it need not be UTF-8
  const std::string_view prefix = utf8_prefix(text, kShownBytes);
  return std::string(prefix) + (prefix.size() < text.size() ? "..." : "");
}

}  // namespace penstock::text
