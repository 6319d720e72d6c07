#include "config/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <set>
#include <sstream>

#include "base/file.h"

namespace penstock::config {
namespace {

struct Refusal {
  int line;
  std::string reason;
};

[[noreturn]] void refuse(const YAML::Mark& mark, std::string reason) { throw Refusal{mark.line + 1, std::move(reason)}; }

// Turns the parser's events into the flat list. Working from events, not from a tree of nodes, keeps a hostile file cheap:
// nothing is expanded, and the first thing out of bounds ends the reading.
class Flattener : public YAML::EventHandler {
 public:
  std::vector<RawValue> take() { return std::move(values_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++num_documents_ > 1) refuse(mark, "expected one document, found another after '---'");
  }
  void OnDocumentEnd() override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "aliases (*name) are not supported; write the value out"); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    refuse(mark, "anchors (&name) are not supported; write the value out");
  }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (skipped_ > 0 || frames_.empty()) return;  // at the top: an empty document
    if (in_list()) return list().items.emplace_back(), void();
    if (!frames_.back().key_open) refuse(mark, "expected a key, found nothing");
    close_key(RawValue::Kind::kNothing);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& text) override {
    check_tag(mark, tag);
    if (skipped_ > 0) return;
    if (frames_.empty()) refuse(mark, "expected a map of keys, found text");
    if (in_list()) return list().items.push_back(text);
    if (!frames_.back().key_open) return open_key(mark, text);
    values_.back().items = {text};
    values_.back().quoted = tag == "!";
    close_key(RawValue::Kind::kScalar);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    check_depth(mark);
    if (skip_inside_list()) return;
    if (frames_.empty()) refuse(mark, "expected a map of keys, found a list");
    require_key(mark);
    close_key(RawValue::Kind::kList);
    frames_.push_back({.is_list = true, .value = values_.size() - 1, .prefix = "", .key_open = false});
  }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    check_depth(mark);
    if (skip_inside_list()) return;
    std::string prefix;
    if (!frames_.empty()) {
      require_key(mark);
      prefix = values_.back().key + ".";
      close_key(RawValue::Kind::kMap);
    }
    frames_.push_back({.is_list = false, .value = 0, .prefix = prefix, .key_open = false});
  }

  void OnSequenceEnd() override { end_collection(); }
  void OnMapEnd() override { end_collection(); }

 private:
  struct Frame {
    bool is_list;
    size_t value;  // of a list: where its items go
    std::string prefix;  // of a map: what stands before its keys
    bool key_open;  // of a map: the key has been read, its value not yet
  };

  static void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, fmt::format("tags ({}) are not supported", tag.substr(0, 64)));
  }
  void check_depth(const YAML::Mark& mark) const {
    if (frames_.size() + skipped_ >= kYamlDepthLimit)
      refuse(mark, fmt::format("maps and lists are nested deeper than {}", kYamlDepthLimit));
  }
  void require_key(const YAML::Mark& mark) const {
    if (!frames_.back().key_open) refuse(mark, "expected a key, found a map or a list");
  }

  [[nodiscard]] bool in_list() const { return frames_.back().is_list; }
  RawValue& list() { return values_[frames_.back().value]; }

  // Lists of maps or lists have no place in our files: noted as such, their content passed over.
  bool skip_inside_list() {
    if (skipped_ == 0 && (frames_.empty() || !in_list())) return false;
    if (skipped_ == 0) list().kind = RawValue::Kind::kNested;
    ++skipped_;
    return true;
  }
  void end_collection() {
    if (skipped_ > 0) {
      --skipped_;
    } else {
      frames_.pop_back();
    }
  }

  void open_key(const YAML::Mark& mark, const std::string& text) {
    // A dot would look like a map inside a map; in quotes such a key is just unknown.
    const bool plain = !text.empty() && text.find('.') == std::string::npos;
    RawValue value;
    value.key = frames_.back().prefix + (plain ? text : '"' + text + '"');
    value.line = mark.line + 1;
    if (!seen_.insert(value.key).second) refuse(mark, fmt::format("key '{}' is given twice", value.key.substr(0, 128)));
    values_.push_back(std::move(value));
    frames_.back().key_open = true;
  }
  void close_key(RawValue::Kind kind) {
    values_.back().kind = kind;
    frames_.back().key_open = false;
  }

  int num_documents_ = 0;
  size_t skipped_ = 0;  // collections open inside a list
  std::vector<Frame> frames_;
  std::set<std::string> seen_;
  std::vector<RawValue> values_;
};

}  // namespace

Result<std::vector<RawValue>> parse_yaml(std::string_view text, const std::string& file) {
  if (text.size() > kConfigFileLimit)
    return error(Code::kInvalidArgument, "{} is larger than the limit of {} bytes", file, kConfigFileLimit);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Flattener flattener;
    while (parser.HandleNextDocument(flattener)) {
    }
    return flattener.take();
  } catch (const Refusal& refusal) {
    return error(Code::kInvalidArgument, "{}:{}: {}", file, refusal.line, refusal.reason);
  } catch (const YAML::Exception& e) {
    return error(Code::kInvalidArgument, "{}:{}: not valid YAML: {}", file, e.mark.line + 1, e.msg);
  }
}

Result<std::vector<RawValue>> read_yaml(const std::filesystem::path& path) {
  Result<std::string> text = read_file(path, kConfigFileLimit);
  if (!text) return text.error();
  return parse_yaml(*text, path.string());
}

}  // namespace penstock::config
