#include "text/json_node.h"

#include "base/file.h"
#include "text/json_input.h"

namespace penstock::text {
namespace {

constexpr size_t kFileLimit = 256 << 20;  // bytes

}  // namespace

JsonNode JsonNode::operator[](const char* key) const {
  const nlohmann::json* child = nullptr;
  if (is_object()) {
    const auto found = value_->find(key);
    if (found != value_->end() && !found->is_null()) child = &*found;
  }
  return {child, file_, key_.empty() ? key : key_ + "." + key};
}

JsonNode JsonNode::operator[](size_t index) const { return {&value_->at(index), file_, fmt::format("{}[{}]", key_, index)}; }

const std::string& JsonNode::text() const {
  if (!is_string()) throw wrong("a text");
  return value_->get_ref<const std::string&>();
}

int64_t JsonNode::number() const {
  if (!present() || !value_->is_number_integer() || (value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX)) throw wrong("an integer");
  return value_->get<int64_t>();
}

double JsonNode::real() const {
  if (!present() || !value_->is_number()) throw wrong("a number");
  return value_->get<double>();
}

const nlohmann::json& JsonNode::object() const {
  if (!is_object()) throw wrong("an object");
  return *value_;
}

size_t JsonNode::list_size() const {
  if (!present() || !value_->is_array()) throw wrong("a list");
  return value_->size();
}

bool JsonNode::flag(bool otherwise) const {
  if (!present()) return otherwise;
  if (!value_->is_boolean()) throw wrong("true or false");
  return value_->get<bool>();
}

Error JsonNode::wrong(const std::string& expected) const {
  return error(Code::kDataLoss, "{}: expected {}, found {}", where(), expected, present() ? shown(*value_) : "nothing");
}

Error JsonNode::unsupported(const std::string& what) const { return error(Code::kUnimplemented, "{}: {} is not supported", where(), what); }

Result<nlohmann::json> read_json_file(const std::filesystem::path& path) {
  Result<std::string> text = read_file(path, kFileLimit);
  if (!text) return text.error();
  return parse_json(*text, path.string(), Code::kDataLoss);
}

}  // namespace penstock::text
