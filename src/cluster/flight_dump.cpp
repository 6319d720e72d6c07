#include "cluster/flight_dump.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/file.h"

namespace penstock::cluster {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Kind = FlightEntry::Kind;

constexpr size_t kMaxDumpBytes = 16 << 20;
constexpr size_t kMaxEntries = 100'000, kMaxGroups = 100'000;
constexpr int kMaxRanks = 1 << 24;
constexpr std::array<std::string_view, 5> kKinds = {"action", "message", "collective", "phase", "background"};  // by Kind

struct NumberField {
  const char* key;
  int32_t FlightEntry::* small;
  int64_t FlightEntry::* large;
  int64_t absent;  // not written
};
constexpr NumberField kNumbers[] = {
    {"group", &FlightEntry::group, nullptr, -1},     {"peer", &FlightEntry::peer, nullptr, -1},
    {"tag", &FlightEntry::tag, nullptr, -1},         {"stage", &FlightEntry::stage, nullptr, -1},
    {"microbatch", &FlightEntry::microbatch, nullptr, -1}, {"bucket", &FlightEntry::bucket, nullptr, -1},
    {"sequence", nullptr, &FlightEntry::sequence, 0}, {"bytes", nullptr, &FlightEntry::bytes, 0},
    {"step", nullptr, &FlightEntry::step, 0},         {"posted_us", nullptr, &FlightEntry::posted_us, 0},
    {"waited_us", nullptr, &FlightEntry::waited_us, 0}, {"finished_us", nullptr, &FlightEntry::finished_us, 0},
};

json to_json(const FlightEntry& entry) {
  json out = {{"kind", kKinds[static_cast<size_t>(entry.kind)]}, {"name", entry.name.view()}};
  for (const NumberField& f : kNumbers) {
    const int64_t value = f.small != nullptr ? entry.*f.small : entry.*f.large;
    if (value != f.absent) out[f.key] = value;
  }
  return out;
}

FlightEntry parse_entry(const json& in, size_t num_groups) {
  FlightEntry entry;
  const auto kind = std::ranges::find(kKinds, in.at("kind").get<std::string>());
  if (kind == kKinds.end()) throw error(Code::kDataLoss, "an entry of unknown kind {}", in.at("kind").dump().substr(0, 40));
  entry.kind = static_cast<Kind>(kind - kKinds.begin());
  entry.name = FlightName(in.at("name").get<std::string>());
  for (const NumberField& f : kNumbers) {
    const auto found = in.find(f.key);
    if (found == in.end()) continue;
    const auto value = found->get<int64_t>();
    if (f.large != nullptr) {
      entry.*f.large = value;
    } else if (value >= -1 && value <= INT32_MAX) {
      entry.*f.small = static_cast<int32_t>(value);
    } else {
      throw error(Code::kDataLoss, "an entry's {} is {}", f.key, value);
    }
  }
  if (entry.group >= static_cast<int32_t>(num_groups)) throw error(Code::kDataLoss, "an entry of group {}, of {}", entry.group, num_groups);
  return entry;
}

FlightRecorder::Group parse_group(const json& in, int world_size) {
  FlightRecorder::Group group{in.at("name").get<std::string>(), in.at("ranks").get<std::vector<int>>()};
  const bool inside = std::ranges::all_of(group.ranks, [&](int rank) { return 0 <= rank && rank < world_size; });
  if (group.ranks.empty() || group.ranks.size() > static_cast<size_t>(world_size) || !inside) {
    throw error(Code::kDataLoss, "group '{}' does not fit a world of {}", group.name.substr(0, 40), world_size);
  }
  return group;
}

FlightDump parse(const json& in) {
  FlightDump dump;
  dump.rank = in.at("rank").get<int>();
  dump.world_size = in.at("world_size").get<int>();
  if (dump.world_size < 1 || dump.world_size > kMaxRanks || dump.rank < 0 || dump.rank >= dump.world_size) {
    throw error(Code::kDataLoss, "rank {} of {}", dump.rank, dump.world_size);
  }
  dump.process = in.at("process").get<std::string>();
  dump.reason = in.at("reason").get<std::string>();
  dump.unix_us = in.at("unix_us").get<int64_t>();
  dump.recorded.taken_us = dump.unix_us;
  dump.recorded.step = in.at("step").get<int64_t>();
  dump.recorded.step_start_us = in.at("step_start_us").get<int64_t>();
  const json& groups = in.at("groups");
  const json& entries = in.at("entries");
  if (groups.size() > kMaxGroups || entries.size() > kMaxEntries) throw error(Code::kDataLoss, "{} groups and {} entries", groups.size(), entries.size());
  for (const json& group : groups) dump.recorded.groups.push_back(parse_group(group, dump.world_size));
  for (const json& entry : entries) dump.recorded.entries.push_back(parse_entry(entry, dump.recorded.groups.size()));
  return dump;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown host";
}

}  // namespace

FlightDump take_dump(const FlightRecorder& recorder, int rank, int world_size, std::string reason) {
  FlightDump dump{rank, world_size, fmt::format("pid {} on {}", ::getpid(), host_name()), std::move(reason), 0, recorder.snapshot()};
  FlightRecorder::Snapshot& s = dump.recorded;
  dump.unix_us = std::chrono::duration_cast<microseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  const int64_t shift = dump.unix_us - s.taken_us;
  const auto move = [shift](int64_t& time_us) { time_us += time_us != 0 ? shift : 0; };
  move(s.taken_us);
  move(s.step_start_us);
  for (FlightEntry& e : s.entries) {
    for (int64_t* time_us : {&e.posted_us, &e.waited_us, &e.finished_us}) move(*time_us);
  }
  return dump;
}

std::string to_json(const FlightDump& dump) {
  json groups = json::array(), entries = json::array();
  for (const auto& group : dump.recorded.groups) groups.push_back({{"name", group.name}, {"ranks", group.ranks}});
  for (const FlightEntry& entry : dump.recorded.entries) entries.push_back(to_json(entry));
  const json out = {{"rank", dump.rank},       {"world_size", dump.world_size}, {"process", dump.process},
                    {"reason", dump.reason},   {"unix_us", dump.unix_us},       {"step", dump.recorded.step},
                    {"step_start_us", dump.recorded.step_start_us}, {"groups", groups},    {"entries", entries}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<FlightDump> parse_flight_dump(std::string_view text, const std::string& name) {
  try {
    return parse(json::parse(text));
  } catch (const Error& e) {
    return error(Code::kDataLoss, "{}: {}", name, e.message());
  } catch (const json::exception& e) {
    return error(Code::kDataLoss, "{}: not a flight recorder's dump: {}", name, e.what());
  }
}

fs::path flight_folder(const fs::path& run) { return run / "flight"; }
fs::path dump_file(const fs::path& folder, int rank) { return folder / fmt::format("rank-{}.json", rank); }

std::vector<FlightDump> read_dumps(const fs::path& folder, std::vector<std::string>* problems) {
  std::vector<FlightDump> dumps;
  std::error_code none;
  for (const auto& file : fs::directory_iterator(folder, none)) {
    const std::string name = file.path().filename().string();
    if (!name.starts_with("rank-") || !name.ends_with(".json")) continue;
    auto text = read_file(file.path(), kMaxDumpBytes);
    auto dump = text ? parse_flight_dump(*text, file.path().string()) : Result<FlightDump>(text.error());
    if (dump && dump_file(folder, dump->rank).filename() != name) dump = error(Code::kDataLoss, "{}: is of rank {}", file.path().string(), dump->rank);
    if (dump) {
      dumps.push_back(std::move(*dump));
    } else if (problems != nullptr) {
      problems->push_back(dump.error().message());
    }
  }
  std::ranges::sort(dumps, {}, &FlightDump::rank);
  return dumps;
}

ChromeTrace to_trace(const std::vector<FlightDump>& dumps) {
  constexpr const char* kRows[] = {"compute", "send and receive", "collectives", "phases", "background"};  // by Kind
  ChromeTrace trace;
  for (const FlightDump& dump : dumps) {
    trace.name_process(dump.rank, fmt::format("rank {} ({})", dump.rank, dump.process));
    for (int row = 0; row < static_cast<int>(std::size(kRows)); ++row) trace.name_thread(dump.rank, row, kRows[row]);
    for (const FlightEntry& e : dump.recorded.entries) {
      const int64_t end = e.finished_us != 0 ? e.finished_us : dump.unix_us;
      TraceEvent event{std::string(e.name.view()), e.finished_us != 0 ? "done" : "not finished", dump.rank, static_cast<int>(e.kind), e.posted_us,
                       std::max<int64_t>(end - e.posted_us, 0), {{"step", e.step}}};
      if (e.group >= 0) event.arguments.emplace_back("group", dump.recorded.groups[static_cast<size_t>(e.group)].name);
      for (const NumberField& f : kNumbers) {
        if (f.small != nullptr && f.small != &FlightEntry::group && e.*f.small >= 0) event.arguments.emplace_back(f.key, int64_t{e.*f.small});
      }
      if (e.bytes > 0) event.arguments.emplace_back("bytes", e.bytes);
      trace.add(std::move(event));
    }
  }
  trace.start_at_zero();
  return trace;
}

}  // namespace penstock::cluster
