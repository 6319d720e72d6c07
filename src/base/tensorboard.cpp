#include "base/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

namespace penstock {
namespace {

// Protocol Buffers by hand: two messages of three fields need no generated code in base.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_key(std::string& out, uint32_t field, WireType type) { put_varint(out, field << 3 | type); }

template <typename T>
void put_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i));
}

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event_at_now() {
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string event;
  put_key(event, 1, kFixed64);  // wall_time
  put_little_endian(event, std::bit_cast<uint64_t>(now));
  return event;
}

uint32_t masked(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0);
      table[i] = value;
    }
    return table;
  }();
  uint32_t crc = ~uint32_t{0};
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ crc >> 8;
  return ~crc;
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  path_ = folder / fmt::format("events.out.tfevents.{:010d}.{}.{}", now, host.data(), ::getpid());
  file_.open(path_, std::ios::binary | std::ios::app);
  std::string event = event_at_now();
  put_bytes(event, 3, "brain.Event:2");  // file_version
  write_record(event);
}

void TensorboardWriter::add(int64_t step, std::span<const std::pair<std::string_view, double>> scalars) {
  std::string summary;
  for (const auto& [tag, scalar] : scalars) {
    std::string value;
    put_bytes(value, 1, tag);
    put_key(value, 2, kFixed32);  // simple_value
    put_little_endian(value, std::bit_cast<uint32_t>(static_cast<float>(scalar)));
    put_bytes(summary, 1, value);
  }
  std::string event = event_at_now();
  put_key(event, 2, kVarint);  // step
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary);
  write_record(event);
}

void TensorboardWriter::write_record(std::string_view event) {
  std::string record;
  put_little_endian(record, uint64_t{event.size()});
  put_little_endian(record, masked(crc32c(record)));
  record += event;
  put_little_endian(record, masked(crc32c(event)));
  file_ << record << std::flush;
  if (!file_) throw error(Code::kDataLoss, "cannot write {}; is the disk full?", path_.string());
}

}  // namespace penstock
