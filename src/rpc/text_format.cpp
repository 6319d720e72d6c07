#include "rpc/text_format.h"

#include <nlohmann/json.hpp>

namespace penstock::rpc {
namespace {

class PlainFormat final : public TextFormat {
 public:
  const char* whole_type() const override { return "text/plain; charset=utf-8"; }
  const char* stream_type() const override { return whole_type(); }
  std::string whole(const std::string& text) const override { return text; }
  std::string piece(const std::string& text) const override { return text; }
};

class JsonFormat final : public TextFormat {
 public:
  const char* whole_type() const override { return "application/json"; }
  const char* stream_type() const override { return whole_type(); }
  std::string whole(const std::string& text) const override { return piece(text); }
  std::string piece(const std::string& text) const override { return nlohmann::json{{"text", text}}.dump(); }
};

}  // namespace

std::shared_ptr<const TextFormat> make_plain_format() { return std::make_shared<PlainFormat>(); }
std::shared_ptr<const TextFormat> make_json_format() { return std::make_shared<JsonFormat>(); }

}  // namespace penstock::rpc
